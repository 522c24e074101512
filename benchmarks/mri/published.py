"""The published loop, [ALPS], as written for MRI: P by ten conjugate gradient iterations a step, noise by perturb and solve."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alps_fast.energies.base import Energy
from alps_fast.layout import from_state, to_state
from alps_fast.schedule import PUBLISHED, Schedule

from .figures import Estimate
from .peers import conjugate
from .problems import Problem

ITERATIONS = 10


def published(of: Problem, energy: Energy, schedule: Schedule = PUBLISHED, seed: int = 0) -> Estimate:
    """One chain's last conditional mean.

        x <- P (Aᴴ(y + η ε₁)/η² + (x − ∇E)/t² + ε₂/t),   P = (AᴴA/η² + 1/t²)⁻¹

    Every step draws anew, the last of a level at the next level's t, and the last of all draws nothing.
    """
    operator, eta = of.operator, of.operator.noise_std
    generator, data = torch.Generator().manual_seed(seed), operator.adjoint(of.y) / eta**2
    x, ts = torch.zeros_like(data), schedule.t().tolist()

    def solved(rhs: Tensor, t: float) -> Tensor:
        *_, found = conjugate(lambda v: operator.normal(v) / eta**2 + v / t**2, rhs, ITERATIONS)
        return found

    def noise(t: float) -> Tensor:
        samples = torch.view_as_complex(torch.randn(*of.y.shape, 2, generator=generator))
        pixels = torch.view_as_complex(torch.randn(*x.shape, 2, generator=generator))
        return operator.adjoint(samples) / eta + pixels / t

    mean = x
    for i, t in enumerate(ts):
        for k in range(schedule.steps):
            grad = from_state(energy.grad(to_state(x[None]).movedim(-1, 1), t).movedim(1, -1).contiguous(), True)[0]
            after = t if k + 1 < schedule.steps else ts[i + 1] if i + 1 < len(ts) else math.inf
            mean = solved(data + (x - grad) / t**2, t)
            x = mean if math.isinf(after) else mean + solved(noise(after), after)
    return Estimate(mean)
