"""Student's quantile, which intervals are made of."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch
from torch import Tensor

EXACT = 30  # degrees of freedom up to which Student's quantile is solved for; beyond, its expansion is right to 1e-6
HALVINGS = 60


def student(level: float, freedom: Tensor) -> Tensor:
    """q with P(|T| < q) = level, T Student's with `freedom` degrees of freedom, whole numbers >= 1, float64.

    Sources: Abramowitz & Stegun 26.7.3, 26.7.4 (solved by bisection) and 26.7.5 (Cornish–Fisher).
    """
    z, nu = NormalDist().inv_cdf(0.5 + level / 2), freedom.double()
    q = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2) \
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * nu**3) \
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * nu**4)
    table = torch.tensor([_solved(level, n) for n in range(1, EXACT + 1)], dtype=q.dtype, device=q.device)
    return torch.where(nu <= EXACT, table[(freedom.long() - 1).clamp(0, EXACT - 1)], q)


def _solved(level: float, freedom: int) -> float:
    """q for one number of degrees of freedom."""
    low, high = 0.0, math.pi / 2
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability(middle, freedom) < level else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def _probability(angle: float, freedom: int) -> float:
    """P(|T| < √freedom · tan(angle))."""
    term, total, cosine = 1.0, 0.0, math.cos(angle)
    if freedom % 2:
        term = cosine
    for k in range(freedom % 2, freedom - 1, 2):
        total += term
        term *= cosine**2 * (k + 1) / (k + 2)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if freedom % 2 else total
