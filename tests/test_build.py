"""The build's switches, what is importable, and life without the compiled parts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


def run(*arguments, cwd=ROOT, **environment):
    return subprocess.run([sys.executable, *map(str, arguments)], cwd=cwd, env=os.environ | environment, text=True,
                          capture_output=True, timeout=600)


def build(choice, directory, **environment):
    return run("setup.py", "-q", "build_ext", "-b", directory, "-t", directory, ALPS_FAST_BUILD=choice, **environment)


def test_unknown_choice_is_an_error(tmp_path):
    result = build("gpu", tmp_path)
    assert result.returncode != 0
    assert "ALPS_FAST_BUILD: got 'gpu'; wanted one of auto, none, cpu, cuda, sanitize" in result.stderr


@pytest.mark.parametrize("choice, why", [("cpu", "the C++ compiler does not work"), ("cuda", "no nvcc on the PATH")])
def test_explicit_choice_that_cannot_be_built_is_an_error(tmp_path, choice, why):
    result = build(choice, tmp_path, PATH="/nowhere", CXX="no-such-compiler")
    assert result.returncode != 0
    assert f"ALPS_FAST_BUILD={choice}: cannot build alps_fast._{choice}: {why}" in result.stderr


def test_auto_without_a_compiler_leaves_out_and_says_so(tmp_path):
    result = build("auto", tmp_path, PATH="/nowhere", CXX="no-such-compiler")
    assert result.returncode == 0, result.stderr
    assert "built without alps_fast._cpu: the C++ compiler does not work" in result.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_none_builds_nothing(tmp_path):
    result = build("none", tmp_path)
    assert result.returncode == 0, result.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_kernels_is_not_a_top_level_import(tmp_path):
    assert run("-c", "import alps_fast.kernels", cwd=tmp_path).returncode == 0
    assert "No module named 'kernels'" in run("-c", "import kernels", cwd=tmp_path).stderr


def test_works_without_the_compiled_parts():
    """Blocked as if never built: import works, auto runs on torch, and cpu by name says why not."""
    result = run("-c", """
import sys
sys.modules["alps_fast._cpu"] = sys.modules["alps_fast._cuda"] = None
import torch
import alps_fast, alps_fast.kernels
from alps_fast.ops.philox_normal import philox_normal
chains = torch.arange(2)
assert torch.equal(philox_normal(chains, 9, 0, 0), philox_normal(chains, 9, 0, 0, backend="torch"))
try:
    philox_normal(chains, 9, 0, 0, backend="cpu")
except RuntimeError as error:
    print(error)
""", ALPS_FAST_BACKEND="auto")
    assert result.returncode == 0, result.stderr
    assert "backend 'cpu' cannot run here: alps_fast._cpu cannot be imported" in result.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_one_openmp_runtime():
    """_cpu runs on the threads of torch's libgomp: a second one would spin against it."""
    pytest.importorskip("alps_fast._cpu")
    result = run("-c", """
import os, torch
from alps_fast.ops.philox_normal import philox_normal
torch.set_num_threads(2)
torch.zeros(1 << 20).add_(1)
before = len(os.listdir("/proc/self/task"))
philox_normal(torch.arange(4), 1 << 14, 0, 0, backend="cpu")
print(len(os.listdir("/proc/self/task")) - before)
print(len({line.split()[-1] for line in open("/proc/self/maps") if "gomp" in line}))
""", OMP_NUM_THREADS="2")
    assert result.stdout.split() == ["0", "1"], result.stdout + result.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without a GPU")
def test_cuda_module_loads_without_a_driver_and_says_what_is_missing():
    _cuda = pytest.importorskip("alps_fast._cuda")
    with pytest.raises(RuntimeError, match="philox_normal: .*CUDA"):
        _cuda.philox_normal(0, 1, 4, 0, 0, 0, 0, 0)


def test_cuda_module_holds_its_kernels_for_every_gpu_and_as_ptx():
    _cuda = pytest.importorskip("alps_fast._cuda")
    tool = pytest.importorskip("alps_fast.profile.static")._tool("cuobjdump")
    listed = subprocess.run([tool, "--list-elf", "--list-ptx", _cuda.__file__], check=True, text=True, capture_output=True).stdout
    sm_80, sm_90, sm_100, ptx = (listed.count(kind) for kind in ("sm_80.cubin", "sm_90.cubin", "sm_100.cubin", "sm_100.ptx"))
    assert sm_80 == sm_90 == sm_100 and 0 < ptx <= sm_80 <= ptx + 1  # one more is the linker's, of no source
