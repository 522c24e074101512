"""Exact moments of a whole run under a Gaussian prior, a direction at a time: what a schedule leaves of the truth's variance."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ..ops._scalars import StepScalars
from ..ops.philox_normal import AVERAGED
from ..schedule import FOLDED, Schedule
from .alps import folded, predictor


class Moments(NamedTuple):
    """Of a state along directions of prior N(0, s²) and measurement y = √a x + N(0, 1), at σ_min, beside the exact ones there.

    variance: over the exact variance (a + 1/(s² + σ_min²))⁻¹. bias: mean over the exact mean, both for y = 1/√a; 1 where a = 0.
    """

    variance: np.ndarray
    bias: np.ndarray


def published(t: float) -> float:
    """L = 1."""
    return 1.0


def moments(schedule: Schedule, stds: np.ndarray | float, data: np.ndarray | float = 0.0,
            curvature: Callable[[float], float] = published, floor: float = 0.0, eta: float = 1.0) -> Moments:
    """What averaged noise leaves at the end of `schedule`, by recursion and without sampling:

        x⁺ = (1 − P (a + q)) x + P a y + P^{1/2} (R_k + R_{k+1})/√2,   q = 1/(s² + t²),   P = (a + L/(τ t²))⁻¹,   a → a (η/η_t)²

    with τ the schedule's stride.

    Args:
        stds: s. data: a, the eigenvalue of AᴴA/η²; both broadcast together. curvature: L(t). floor: an energy's. eta: the true η,
            in image units, where the schedule anneals it too; elsewhere it is of no consequence.
    """
    s, true = np.broadcast_arrays(np.asarray(stds, float), np.asarray(data, float))
    ts, shares = schedule.t().tolist(), ((eta / schedule.beside(eta)) ** 2).tolist()
    lins = [curvature(t) / (schedule.stride * t**2) for t in ts]
    a = true * shares[0]
    mean = a / (a + lins[0])
    variance, shared = 1.0 / (a + lins[0]), np.zeros(s.shape)  # shared: covariance with the noise that the next step has too
    for i, (t, lin, share) in enumerate(zip(ts, lins, shares, strict=True)):
        a = true * share
        q, p = 1.0 / (s * s + max(t, floor) ** 2), 1.0 / (a + lin)
        step = last = StepScalars(lin, lin, t**-2, 1.0, lin, AVERAGED, 0, 0)
        if schedule.predictor == FOLDED and i + 1 < len(ts):
            last = folded(step, t, ts[i + 1], lins[i + 1], floor)
        for each in (step,) * (schedule.steps - 1) + (last,):
            kept, root = p * (lin - each.w * t * t * q), np.sqrt(0.5 / (a + each.noise_lam))
            variance = kept * kept * variance + 2.0 * kept * root * shared + 2.0 * root * root
            mean, shared = kept * mean + p * a, root
        if schedule.predictor is True and i + 1 < len(ts):
            keep, moved = predictor(step, t, ts[i + 1], lins[i + 1], floor)
            factor = 1.0 - keep + p * (moved.lin - moved.w * t * t * q)
            variance, shared, mean = factor * factor * variance, factor * shared, factor * mean + keep * p * a
    precision = a + 1.0 / (s * s + max(ts[-1], floor) ** 2)
    exact = np.where(a > 0, a, 1.0) / precision
    return Moments(variance * precision, np.where(a > 0, mean / exact, 1.0))
