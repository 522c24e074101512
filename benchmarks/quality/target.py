"""What a method says that it samples, and the kernel Stein discrepancy of its draws from that."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..stein import kernel
from .problems import Problem

NODES = 8  # of the quadrature: an error of 1e-6 where the largest curvature is 10⁴ times the least
WIDE = 2.0  # levels that a posterior's standard deviation is taken for where nothing is measured


class Target(NamedTuple):
    """The posterior p_t(x) N(y; A x, η²) of a level t of its own, p_t the images smoothed by t as a prior has them.

    gradient: x − D(x, t) of images (N, C, H, W), −t² times the score of p_t.
    """

    t: float
    gradient: Callable[[Tensor, float], Tensor]

    def score(self, x: Tensor, problem: Problem) -> Tensor:
        """∇ log of it at x (m, C, H, W)."""
        misfit = problem.At(problem.y) - problem.normal(x)
        return misfit / problem.eta**2 - self.gradient(x, self.t) / self.t**2


def discrepancy(x: Tensor, target: Target, problem: Problem, pairs: bool) -> float:
    """D² of `benchmarks/stein.py` of draws x (m, C, H, W), in units of E k(x, x): 0, up to noise, if they are of the target.

    Entries are those of P^{-1/2} x and P^{1/2} s, P⁻¹ = AᵀA/η² + 1/(2 t)². The two of a pair, draws 2k and 2k + 1, are not held
    against each other.
    """
    s, lam = target.score(x, problem), (WIDE * target.t) ** -2
    least = inverse_root(problem, x, lam)
    wide = (problem.normal(least) / problem.eta**2 + lam * least).flatten(1).double().cpu().numpy()
    score = inverse_root(problem, s, lam).flatten(1).double().cpu().numpy()
    apart = [(i, j) for i, j in combinations(range(len(x)), 2) if not (pairs and i // 2 == j // 2)]
    found = np.mean([kernel(wide[i], wide[j], score[i], score[j]) for i, j in apart])
    return float(found / (np.square(score).mean() + 1.0))


def inverse_root(problem: Problem, b: Tensor, lam: float) -> Tensor:
    """(AᵀA/η² + lam)^{-1/2} b of images, as a sum of solutions with more of the identity added.

    Source: Hale, Higham & Trefethen, "Computing A^α, log(A), and Related Matrix Functions by Contour Integrals", method 3,
    doi 10.1137/070700607.
    """
    from scipy.special import ellipj, ellipk

    top = lam + largest(problem, b) / problem.eta**2
    period = ellipk(1.0 - lam / top)
    sn, cn, dn, _ = ellipj((np.arange(NODES) + 0.5) * period / NODES, 1.0 - lam / top)
    shifts = lam * (sn / cn) ** 2
    weights = 2.0 * period * math.sqrt(lam) / (math.pi * NODES) * dn / cn**2
    found = torch.zeros_like(b)
    for weight, shift in zip(weights, shifts, strict=True):
        found += float(weight) * problem.solve(b, lam + float(shift))
    return found


def largest(problem: Problem, like: Tensor) -> float:
    """An eigenvalue of AᵀA above which there is none, by powers; a tenth is for what they do not reach."""
    v = problem.At(problem.y) + like.new_ones(like[:1].shape)
    for _ in range(20):
        v = problem.normal(v / v.norm())
    return 1.1 * float(v.norm())
