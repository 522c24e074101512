"""Annealing the measurement ([XGP], docs/design.md §6): first the prior alone, then ever less noise on y."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..operators.base import Operator
from ..ops.philox_normal import MEASUREMENT, philox_normal
from ..schedule import Level, Schedule

WARM_T = 4.0  # a warm start of std σ begins at t <= 4σ: above, the prior says nothing beside it
WARM_ETA = 10.0  # and at η <= 10σ: above, the measurement says nothing beside it


def measurement_levels(schedule: Schedule, eta: float, warm_std: float | None) -> list[Level]:
    """The prior annealed without data to σ_min, then η_i from eta_max to η at t = σ_min.

    A warm start shortens both: it begins at t <= 4σ and η <= 10σ.
    """
    ts = schedule.t().tolist()
    eta_max = schedule.eta_max
    if warm_std is not None:
        ts = [t for t in ts if t <= WARM_T * warm_std] or ts[-1:]
        eta_max = min(eta_max, WARM_ETA * warm_std)
    prior = [Level(t, math.inf, schedule.steps) for t in ts]
    return prior + [Level(ts[-1], e, schedule.eta_steps) for e in schedule.etas(eta, eta_max).tolist()]


def bridge(noise: Tensor, before: float, after: float, operator: Operator, y: Tensor, ids: Tensor, seed: int, step: int,
           backend: str) -> Tensor:
    """Aᴴ of the noise w_i = y_i − y on every chain's copy of the measurement, from the level before.

        v_i = η_i² − η²,   w_{i+1} = (v_{i+1}/v_i) w_i + √(v_{i+1} (1 − v_{i+1}/v_i)) n,   w = 0 where v = 0

    This Brownian bridge has the law of y_i = y_{i+1} + N(0, (η_i² − η_{i+1}²) I) drawn once, backwards from y, and needs
    nothing but the level before. All that a step reads of y_i is Aᴴy_i, so only Aᴴw_i, a state, is kept.

    Args:
        noise: (N, H, W, C') Aᴴw_i. before, after: v_i (∞ at first) and v_{i+1}. y: (B, ...) gives shape and dtype.
    """
    if after == 0.0:
        return torch.zeros_like(noise)
    shape = y.shape[1:]
    count = shape.numel() * (2 if y.is_complex() else 1)
    fresh = philox_normal(ids, count, seed, step, MEASUREMENT, backend)
    fresh = torch.view_as_complex(fresh.view(-1, *shape, 2)) if y.is_complex() else fresh.view(-1, *shape)
    fresh = operator.adjoint_state(fresh)
    ratio = after / before
    return noise * ratio + fresh * math.sqrt(after * (1.0 - ratio))
