"""A CUDA graph's stand-in for torch operators: those of a run with the very tensors they took and gave, run again in place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

LOOKS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default, torch.ops.aten.is_nonzero.default)


class Tape(TorchDispatchMode):
    """Notes operators, and refuses those that wait for a device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], None]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in LOOKS:
            raise RuntimeError(f"{func} while capturing")
        out = func(*args, **(kwargs or {}))
        self.note(partial(again, func, args, kwargs or {}, out))
        return out

    def note(self, call: Callable[[], None]) -> None:
        self.calls.append(call)

    def replay(self) -> None:
        for call in self.calls:
            call()


@torch.no_grad()
def again(func: Any, args: Any, kwargs: Any, out: Any) -> None:
    """func(*args, **kwargs), into what it gave before."""
    for old, new in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
        if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
            old.copy_(new)
