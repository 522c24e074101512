"""What a step of the loop as papers write it in eager torch launches and moves, beside `alps_fast.profile.launches`."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from alps_fast.bench import bench_alps
from alps_fast.energies import DenoiserEnergy, RidgeEnergy
from alps_fast.energies.base import Energy
from alps_fast.operators import CartesianMRI, Inpainting
from alps_fast.profile.launches import Kernels
from alps_fast.samplers import Sampler


def plain_step(sampler: Sampler, y: Tensor) -> dict[str, Any] | None:
    """A step of the published loop in eager torch, written out in `bench_alps`; None for what it does not cover."""
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
