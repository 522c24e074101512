"""What Python packs for the compiled modules is what they read, by name; anything else is an error and not a number elsewhere."""

from __future__ import annotations

import importlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alps_fast.ops import _compiled
from alps_fast.ops._compiled import Kernel, packer, see

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
