"""The one way to declare and to launch a Triton kernel, so that a launch can be recorded, or run without a GPU."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import triton

# No multiply is contracted with an add: results are defined to the bit. Set always, as Triton's default changes in 3.10.
OPTIONS = {"enable_fp_fusion": False}

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton runs the kernels as Python on NumPy
# How matrices of float32 are multiplied: three products on tf32 tensor cores lose no more than one in float32 does.
EXACT_PRODUCTS = "ieee" if torch.version.hip else "tf32x3"


class Launch(NamedTuple):
    """One launch: kernel, grid, arguments by name, warps a block."""

    kernel: Any
    grid: tuple[int, ...]
    arguments: dict[str, Any]
    num_warps: int


_observer: ContextVar[Callable[[Launch], None] | None] = ContextVar("observer", default=None)


def kernel(function: Callable[..., None]) -> Any:
    """`triton.jit` where scalars have the annotated type and their values never change the code."""
    scalars = [name for name, kind in function.__annotations__.items() if "constexpr" not in kind and name != "return"]
    return triton.jit(function, do_not_specialize=scalars)


def launch(kernel: Any, grid: tuple[int, ...], num_warps: int, **arguments: Any) -> None:
    """Run `kernel` on the device of its tensors, or hand the launch to the observer."""
    if (observer := _observer.get()) is not None:
        observer(Launch(kernel, grid, arguments, num_warps))
        return
    tensor = next(a for a in arguments.values() if isinstance(a, torch.Tensor))
    with torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext():
        kernel[grid](**arguments, num_warps=num_warps, **OPTIONS)


@contextmanager
def observed(observer: Callable[[Launch], None]) -> Iterator[None]:
    """Give every launch of this thread to `observer` instead of running it."""
    token = _observer.set(observer)
    try:
        yield
    finally:
        _observer.reset(token)


def word(value: int) -> int:
    """The low 32 bits of `value` as the int32 of the same bits, which is how a counter or key word is passed."""
    return ((value & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
