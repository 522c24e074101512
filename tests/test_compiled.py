"""What Python packs for the compiled modules is what they read, by name; anything else is an error and not a number elsewhere."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alps_fast.ops import _compiled
from alps_fast.ops._compiled import Kernel, packer, see

ROOT = Path(__file__).resolve().parent.parent
LAYOUT = [("x", "Q"), ("after", "Q"), ("rows", "q"), ("lam", "d"), ("is_double", "q")]


def kernel(*names: str) -> Kernel:
    return Kernel("made_up", "cpu", set(names))


def test_pointers_come_first_and_then_numbers_by_name() -> None:
    x = torch.zeros(3)
    packed = packer(kernel("rows", "lam", "x", "after", "is_double", "more"), LAYOUT)(
        {"more": "ignored", "lam": 0.5, "is_double": True, "after": None, "rows": -2, "x": x})
    words = torch.frombuffer(bytearray(packed), dtype=torch.int64)
    assert words.tolist()[:3] + words.tolist()[4:] == [x.data_ptr(), 0, -2, 1] and words[3:4].view(torch.float64).item() == 0.5


def test_a_field_that_python_has_no_name_for_is_an_error_when_the_module_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_compiled, "_kernels", [kernel("rows", "lam", "x", "after")])
    module = SimpleNamespace(layouts={"made_up": LAYOUT})
    with pytest.raises(TypeError, match="made_up: its kernel on 'cpu' reads is_double, no name of Python's"):
        see(module, "cpu")  # type: ignore[arg-type]


def test_a_field_that_two_structs_name_alike_is_an_error() -> None:
    with pytest.raises(TypeError, match="made_up: its kernel on 'cpu' has two fields w"):
        packer(kernel("x", "w", "n"), [("x", "Q"), ("w", "Q"), ("w", "d"), ("n", "q")])


def test_the_module_reads_what_every_op_has_and_no_other_number_of_bytes() -> None:
    _cpu = pytest.importorskip("alps_fast._cpu")
    for op in _cpu.layouts:
        importlib.import_module(f"alps_fast.ops.{op}")
    see(_cpu, "cpu")
    assert {kernel.op for kernel in _compiled._kernels if kernel.module is _cpu} == set(_cpu.layouts)
    for size in (0, 1, 1000):
        with pytest.raises(ValueError, match=f"arguments: too {'many' if size > 500 else 'few'} bytes"):
            _cpu.langevin_pixel(bytes(size), 1)


def test_a_number_that_has_no_room_in_its_field_is_refused() -> None:
    """Of 32 bits, or one; a seed has 64."""
    _cpu = pytest.importorskip("alps_fast._cpu")
    none: dict[str, Any] = {"ids": None, "out": None, "rows": 0, "n": 4, "seed": -5, "step": 2**32 - 1, "tag": 0}
    philox = next(kernel for kernel in _compiled._kernels if (kernel.op, kernel.backend) == ("philox_normal", "cpu"))
    _cpu.philox_normal(philox.packed(none), 1)
    for name, value in (("step", 2**32), ("step", -1), ("tag", 2**32)):
        with pytest.raises(ValueError, match=f"^{name}: no room for {value}$"):
            _cpu.philox_normal(philox.packed(none | {name: value}), 1)


def test_every_cuda_kernel_says_what_workspace_it_wants() -> None:
    _cuda = pytest.importorskip("alps_fast._cuda")
    kernels = {name for name in dir(_cuda) if name in _cuda.layouts or name.startswith("conv_grad_w")} - {"langevin_sense_cg"}
    runs = {name for name in kernels if not name.endswith("_workspace")}
    assert runs and {f"{name}_workspace" for name in runs} <= set(dir(_cuda))


MEMBERS = {"x": "const float*", "noise": "int", "step": "uint32_t", "rows": "int64_t", "first": "bool", "n": "int64_t"}


def without(name: str) -> str:
    """A struct in C++, one member of which is not among its fields."""
    members = "".join(f"{kind} {member}; " for member, kind in MEMBERS.items())
    fields = ", ".join(f'v("{member}", {member})' for member in MEMBERS if member != name)
    return f"struct Without{name} {{ {members} template <class V> void fields(V&& v) {{ {fields}; }} }};\n"


def test_a_member_that_is_not_among_the_fields_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for one as small as what alignment leaves free: a bool before a number of eight bytes."""
    pybind11 = pytest.importorskip("pybind11")
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    source, module, names = tmp_path / "made.cpp", tmp_path / "made_layouts.so", ("", "x", "noise", "n")
    asked = "".join(f'm.def("without{name}", [] {{ return alps::layout<Without{name}>(); }});\n' for name in names)
    structs = "".join(map(without, names))
    source.write_text(f'#include "common/binding.h"\n{structs}PYBIND11_MODULE(made_layouts, m) {{\n{asked}}}\n')
    includes = [f"-I{path}" for path in (ROOT / "csrc", pybind11.get_include(), sysconfig.get_paths()["include"])]
    flags = ["-std=c++17", "-O0", "-fPIC", "-shared", "-fvisibility=hidden"]
    subprocess.run(["c++", *flags, *includes, source, "-o", module], check=True)
    monkeypatch.syspath_prepend(tmp_path)
    made = importlib.import_module("made_layouts")
    assert [name for name, _ in made.without()] == ["x", "noise", "step", "rows", "first", "n"]
    assert [letter for _, letter in made.without()] == ["Q", "q", "q", "q", "q", "q"]
    for name in names[1:]:
        with pytest.raises(RuntimeError, match="member"):
            getattr(made, f"without{name}")()


SHORT = """
import resource
import sys
from pathlib import Path

import torch
from inputs import fourier_arguments, ridge_constants
from sense_inputs import solver
from step_checks import states

from alps_fast.ops.langevin_fourier import langevin_fourier
from alps_fast.ops.langevin_sense import langevin_sense
from alps_fast.ops.langevin_sense_cg import langevin_sense_cg
from alps_fast.ops.ridge_grad import ridge_grad

torch.set_num_threads(2)


def sense(n):
    return states(1, 1, (n, 1, 2), torch.float32) | {
        "u": torch.eye(n, dtype=torch.complex64)[None], "eigenvalues": torch.ones(1, n), "axis": 0, "backend": "cpu"}


def ridge(n):
    names = ("filters", "weights", "r", "q", "mu")
    energy = dict(zip(names, ridge_constants(dtype=torch.float32), strict=True))
    return energy | {"x": torch.ones(2, 1, n, n), "backend": "cpu"}


op, of, size = {
    "langevin_fourier": (langevin_fourier, lambda n: fourier_arguments((n, n), 1, False, 2, 1), 512),
    "langevin_sense": (langevin_sense, sense, 1024),
    "langevin_sense_cg": (langevin_sense_cg, lambda n: solver((n, n), 1, 2, 1, 0.1), 256),
    "ridge_grad": (ridge_grad, ridge, 512),
}[sys.argv[1]]
large, small = of(size), of(9)
op(**small)  # the threads are there
hard, refusals = resource.getrlimit(resource.RLIMIT_AS)[1], set()
for more in range(0, 1 << 30, 1 << 19):
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        op(**large)
        break
    except (MemoryError, RuntimeError) as error:
        refusals.add(type(error).__name__)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
print(*sorted(refusals))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux how much memory is in use, and to limit it")
@pytest.mark.parametrize("op", ["langevin_fourier", "langevin_sense", "langevin_sense_cg", "ridge_grad"])
def test_too_little_memory_is_an_error_wherever_it_ends(op):
    """With a little more each time; what is thrown among threads would end the process."""
    tests = Path(__file__).parent
    run = subprocess.run([sys.executable, "-c", SHORT, op], capture_output=True, text=True, cwd=tests,
                         env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"})  # what is let go is given back
    assert run.returncode == 0 and "MemoryError" in run.stdout.split(), run.stderr
