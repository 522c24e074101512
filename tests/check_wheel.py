"""python check_wheel.py DIRECTORY: the package unpacked there imports, with its kernels, data and models, and runs an op."""

import importlib
import sys
from pathlib import Path

directory = Path(sys.argv[1]).resolve()
sys.path[:1] = [str(directory)]
sys.meta_path[:] = [finder for finder in sys.meta_path if "Editable" not in repr(finder)]  # which would lend us this checkout

import torch  # noqa: E402
from click.testing import CliRunner  # noqa: E402

import alps_fast.bench.common  # noqa: E402
import alps_fast.kernels  # noqa: E402
from alps_fast.cli import main  # noqa: E402
from alps_fast.ops import _dispatch  # noqa: E402
from alps_fast.ops.philox_normal import philox_normal  # noqa: E402

root = Path(alps_fast.__file__).parent
assert root == directory / "alps_fast", f"imported from {root}"
assert Path(alps_fast.kernels.__file__).parent == root / "kernels"
assert not (directory / "kernels").exists(), "kernels is a top-level package"
assert list(alps_fast.bench.common.cases()), "the wheel has no benchmarks"
for kind in ("data/*.png", "energies/models/*.safetensors", "energies/models/*.md", "*.pyi", "py.typed", "bench/*/__main__.py",
             "bench/quality/tuned.json"):
    assert list(root.glob(kind)), f"the wheel has no {kind}"
assert philox_normal(torch.arange(2), 5, 0, 0).shape == (2, 5)
assert not (directory / "lab").exists()
said = CliRunner().invoke(main, ["profile", "--static"])
assert said.exit_code == 1 and "--static needs the repository, with lab/ and csrc/" in said.stderr, said.output
for module in root.glob("*.so"):
    importlib.import_module(f"alps_fast.{module.name.split('.')[0]}")
assert (_dispatch.why_not("cpu") is None) == bool(list(root.glob("_cpu.*.so"))), _dispatch.why_not("cpu")
print("wheel:", sorted(p.name for p in root.glob("*.so")) or "pure", "| cpu backend:", _dispatch.why_not("cpu") or "usable")
