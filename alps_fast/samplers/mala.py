"""Metropolis-adjusted Langevin with the preconditioner of ALPS: within a level, removes what bias discretisation leaves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ..ops.philox_normal import INDEPENDENT, philox_uniform
from .targets import Target

# Best by Roberts & Rosenthal, "Optimal scaling of discrete approximations to Langevin diffusions", 1998.
ACCEPTANCE = 0.574
LONGEST = 50.0  # τ, where even this is accepted: the prior is flat there, and longer would overflow before it helps


class Point(NamedTuple):
    """A state and what the next step needs of it: E, ∇E, m(x), the noise of the next proposal, and δᵀP⁻¹δ, δ = x − m(x)."""

    x: Tensor
    value: Tensor
    grad: Tensor
    mean: Tensor
    noise: Tensor
    norm: Tensor


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Σ a b of every row, float64, summed along one fixed tree: no bit depends on other rows or on threads."""
    return row_sum(a.double() * b.double())


def row_sum(terms: Tensor) -> Tensor:
    """Σ of every row, in the precision of its terms, along one fixed tree."""
    terms = terms.flatten(1)
    while terms.shape[1] > 1:
        half = terms.shape[1] // 2
        odd = terms[:, 2 * half:]
        terms = torch.cat([terms[:, :half] + terms[:, half:2 * half], odd], 1)
    return terms[:, 0]


def point(target: Target, x: Tensor, ids: Tensor, step: int) -> Point:
    """Evaluate the target at x: one energy gradient, one projection, one AᴴA."""
    s = replace(target.scalars, noise=INDEPENDENT, step=step)
    value, grad = target.value_and_grad(x)
    noisy, mean = target.langevin(x, grad, ids, s)
    delta = x - mean
    norm = s.lam * row_dot(delta, delta)
    if s.inv_eta2 > 0:
        norm = norm + s.inv_eta2 * row_dot(delta, target.operator.normal_state(delta))
    return Point(x, value.double(), grad, mean, noisy - mean, norm)


def mala_step(target: Target, at: Point, log_tau: Tensor, ids: Tensor, step: int) -> tuple[Point, Tensor]:
    """Propose, then accept or reject, every chain for itself: the next point and the probability of acceptance (N,).

        x' = x + τ (m(x) − x) + √(2τ) P^{1/2} R_step,      m(x) − x = −P∇U(x),   U = E/t² + quadratic terms
        log α = −(E' − E − ½⟨x' − x, ∇E + ∇E'⟩)/t² − τ/4 (δ'ᵀP⁻¹δ' − δᵀP⁻¹δ)

    The proposal densities are exact: with P⁻¹δ = ∇U, what ‖x − x' − τ(m' − x')‖²_{P⁻¹}/(4τ) and its mirror image leave is
    ½⟨x' − x, ∇U + ∇U'⟩ − τ/4 (…), in which the misfit, a quadratic, cancels to the last term; so nothing large is
    subtracted in float32. An ALPS step is τ = 1 with P^{1/2} in place of √2 P^{1/2}.

    A chain whose α is not a number, or infinite, becomes NaN, for the guard to see.
    """
    tau = log_tau.double().exp().float()
    wide = tau.view(-1, *[1] * (at.x.ndim - 1))
    proposal = at.x + wide * (at.mean - at.x) + (2.0 * wide).sqrt() * at.noise
    new = point(target, proposal, ids, step + 1)
    data = at.value - new.value + 0.5 * row_dot(proposal - at.x, at.grad + new.grad)
    log_alpha = target.scalars.w * data + 0.25 * tau.double() * (at.norm - new.norm)
    # rounded to float32, so that a last bit of exp, which may hang on a vector's length, decides nothing
    probability = log_alpha.clamp(max=0.0).exp().float()
    accept = philox_uniform(ids, target.scalars.seed, step) <= probability

    def chosen(old: Tensor, proposed: Tensor) -> Tensor:
        return torch.where(accept.view(-1, *[1] * (old.ndim - 1)), proposed, old)

    picked = Point(*map(chosen, at, new))
    lost = ~log_alpha.isfinite().view_as(wide)
    return picked._replace(x=picked.x.masked_fill(lost, torch.nan), noise=new.noise), probability


def tuned(log_tau: Tensor, probability: Tensor, step: int) -> Tensor:
    """Robbins–Monro, a chain at a time: log τ += (α − 0.574)/√step, τ <= LONGEST; where all that is left to move is wider than
    P, as at the last levels of little data, τ = 1 would accept nearly all and hardly get on."""
    return (log_tau + (probability - ACCEPTANCE) * step**-0.5).clamp(max=math.log(LONGEST))


def first_log_tau(ids: Tensor, size: int) -> Tensor:
    """τ = size^{-1/3}, how the best step scales with the number of variables, (N,)."""
    return torch.full((len(ids),), float(size) ** (-1.0 / 3.0), dtype=torch.float32, device=ids.device).log()
