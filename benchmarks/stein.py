"""Kernel Stein discrepancy: whether draws are of a distribution whose score is known, without draws from it.

    D² = E k(x, x'),   k(x, x') = mean over i of  s s' φ − 2 φ' (s − s') u − 2 φ' − 4 u² φ'',   φ(u²) = (1 + u²)^(−1/2)

with s and s' the i-th entries of the scores ∇ log p at independent draws x and x', u = x_i − x'_i: an inverse multiquadric in
each entry alone, as one of all entries together sees next to nothing of a variance in many dimensions. D² is 0 of draws from p,
whatever their number, and E k(x, x), which it is given in units of, of draws that are all the same one.

Source: Liu, Lee & Jordan, "A Kernelized Stein Discrepancy for Goodness-of-fit Tests", arXiv 1602.03253; the kernel: Gorham &
Mackey, "Measuring Sample Quality with Kernels", arXiv 1703.01717.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Discrepancy(NamedTuple):
    """D² over E k(x, x), and its standard error over measurements."""

    value: float
    error: float


def kernel(x: np.ndarray, other: np.ndarray, s: np.ndarray, of_other: np.ndarray) -> np.ndarray:
    """k of two draws (…, d) with these scores, the mean over the last axis, whose entries spread by about 1."""
    u = x - other
    inside = 1.0 / (1.0 + u * u)
    bracket = s * of_other + inside * ((s - of_other) * u + 1.0 - 3.0 * u * u * inside)
    found: np.ndarray = (np.sqrt(inside) * bracket).mean(-1)
    return found


def discrepancy(draws: np.ndarray, scores: np.ndarray, root: np.ndarray) -> Discrepancy:
    """Of n independent draws (n, M, d) of each of M posteriors, two or more, by the scores (n, M, d) there.

    root: (d, d), L of a covariance LLᵀ as large as the posteriors'; entries are those of L⁻¹x and Lᵀs, so that all count alike.
    """
    n, count, _ = draws.shape
    x, s = draws @ np.linalg.inv(root).T, scores @ root
    of_measurement = np.zeros(count)
    for i in range(n):
        for j in range(i):
            of_measurement += kernel(x[i], x[j], s[i], s[j]) / (n * (n - 1) / 2)
    alone = float((s * s).mean()) + 1.0
    return Discrepancy(float(of_measurement.mean()) / alone, float(of_measurement.std(ddof=1)) / alone / math.sqrt(count))
