"""What a Langevin step launches and moves, ours and the loop as papers write it in eager torch: counted by torch's dispatcher."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..bench import bench_alps
from ..energies import DenoiserEnergy, RidgeEnergy
from ..energies.base import Energy
from ..operators import CartesianMRI, Inpainting
from ..samplers.graphs import silent
from ..samplers.sampler import Run, Sampler

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
    plan, rows = Run(sampler, y)._planned(0)
    plan.run(rows, silent)  # moves constants to the device
    with Kernels() as counted:
        plan.run(rows, silent)
    return counted.a_step(len(plan.scalars))


def plain(sampler: Sampler, y: Tensor) -> dict[str, Any] | None:
    """A step of the published loop in eager torch, written out in `alps_fast.bench`; None for what it does not cover."""
    op, energy = sampler.operator, sampler.energy
    if not isinstance(energy, (DenoiserEnergy, RidgeEnergy)) or not isinstance(op, (CartesianMRI, Inpainting)):
        return None
    if isinstance(op, CartesianMRI) and op.maps is None:
        return None
    a = (bench_alps.PlainMRI if isinstance(op, CartesianMRI) else bench_alps.PlainPixels)(op, y.device)
    b = op.adjoint(op.check_measurement(y)) / op.noise_std**2
    b = bench_alps.as_pair(b[:, 0]) if op.is_complex else b
    level = sampler.levels[0].t
    _, two, three = (_loop(a, energy, b, sampler.chains, level, steps) for steps in (1, 2, 3))  # constants are made in the first
    return {"torch_kernels": three.torch.total() - two.torch.total(), "bytes": three.bytes - two.bytes}


def _loop(a: Any, energy: Energy, b: Tensor, chains: int, t: float, steps: int) -> Kernels:
    gradient = bench_alps.plain_gradient(energy, getattr(energy, "precision", "high"))
    with Kernels() as counted:
        bench_alps.plain_loop(a, gradient, energy.curvature, b, chains, [t], steps)
    return counted
