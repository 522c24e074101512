"""What a Langevin step launches and moves, counted by torch's dispatcher."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..samplers import Sampler
from ..samplers.graphs import silent
from ..samplers.run import Run

ALLOCATE = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


class Kernels(TorchDispatchMode):
    """Counts torch operators that compute, each at least a kernel, and our ops; and the bytes of what they read and write.

    Views and allocations launch nothing. An operator's tensors count once each, however often a kernel reads them, and what is
    expanded counts as it lies in memory: the least that must move if every operator is a launch of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.torch: Counter[str] = Counter()
        self.ours: Counter[str] = Counter()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name, taken, given = func.overloadpacket.__name__, _tensors((args, kwargs)), _tensors(out)
        view = not func._schema.is_mutable and given and all(_storage(v) in {_storage(t) for t in taken} for v in given)
        if view or name in ALLOCATE:
            return out
        (self.ours if func.namespace == "alps_fast" else self.torch)[name] += 1
        self.bytes += sum({(_storage(v), v.storage_offset(), v.shape): _bytes(v) for v in (*taken, *given)}.values())
        return out

    def a_step(self, steps: int) -> dict[str, Any]:
        """The counts over so many steps, for one."""
        return {"ops": {name: n / steps for name, n in self.ours.items()}, "torch_kernels": self.torch.total() / steps,
                "bytes": self.bytes / steps}


def _tensors(values: Any) -> list[Tensor]:
    return [v for v in tree_leaves(values) if isinstance(v, Tensor)]


def _storage(v: Tensor) -> int:
    return v.untyped_storage().data_ptr()


def _bytes(v: Tensor) -> int:
    return v.element_size() * torch.Size(n for n, stride in zip(v.shape, v.stride(), strict=True) if stride or n == 0).numel()


def ours(sampler: Sampler, y: Tensor) -> dict[str, Any]:
    """A step of the first level, its share of what comes once a level counted in."""
    plan, rows = Run(sampler, y).planned(0)
    plan.run(rows, silent)  # moves constants to the device
    with Kernels() as counted:
        plan.run(rows, silent)
    return counted.a_step(len(plan.scalars))
