"""Methods that no package of the registry has, written from their papers; and the published loop of [ALPS]."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from alps_fast import energies
from alps_fast.energies import DenoiserEnergy
from alps_fast.operators import CartesianMRI
from alps_fast.schedule import Schedule

from ..bench_alps import PlainMRI, plain_loop
from .figures import Draws
from .problems import Problem
from .target import Target
from .teacher import Teacher

CLEAN = 0.01  # the level at which an image counts as clean


def spaced(first: float, last: float, levels: int) -> list[float]:
    """Noise levels after [EDM] eq. 5, ρ = 7."""
    return [float(t) for t in Schedule(first, last, levels, rho=7.0).t()]


def flow(teacher: Teacher, x: Tensor, sigma: float, steps: int) -> Tensor:
    """An image for x at sigma: the probability flow by Euler's rule, its last step the teacher's answer."""
    ts = spaced(sigma, min(CLEAN, sigma / 2), steps)
    for t, s in zip(ts, [*ts[1:], 0.0], strict=True):
        clean = teacher(x, t)
        x = clean + s / t * (x - clean)
    return x


def reverse(teacher: Teacher, x: Tensor, sigma: float, steps: int) -> Tensor:
    """A draw of the images that x at sigma may come from: the reverse diffusion, each step exact for the teacher's answer."""
    ts = spaced(sigma, min(CLEAN, sigma / 2), steps)
    for t, s in zip(ts, [*ts[1:], 0.0], strict=True):
        clean = teacher(x, t)
        x = clean + (s / t) ** 2 * (x - clean) + s * (1 - (s / t) ** 2) ** 0.5 * torch.randn_like(x)
    return x


def noise(problem: Problem, draws: int, sigma: float) -> Tensor:
    return sigma * torch.randn(draws, *problem.truth.shape[1:], device=problem.truth.device)


@torch.no_grad()
def daps(problem: Problem, teacher: Teacher, draws: int, seed: int, *, rate: float, last: float, levels: int, ode: int,
         langevin: int) -> Draws:
    """[DAPS]: an image by the probability flow, Langevin steps from it, and noise of the next level.

    The steps are at N(x; image, t²) N(y; A x, η²), not to equilibrium: their size, `rate` η² at first, falls by a hundred as
    levels do, as published (there 10⁻⁴ with η = .01), and so they add less noise than t; a quarter of t² at most, where published
    settings never come: one of t² doubles the variance, which a denoiser is not told. Levels from 10 to `last`, ρ = 7.
    """
    torch.manual_seed(seed)
    ts, target = spaced(10.0, last, levels), problem.At(problem.y) / problem.eta**2
    x = noise(problem, draws, ts[0])
    for i, (t, s) in enumerate(zip(ts, [*ts[1:], 0.0], strict=True)):
        image = flow(teacher, x, t, ode)
        step = min(rate * problem.eta**2 * (1 - 0.99 * i / levels), t * t / 4)
        x = image
        for _ in range(langevin):
            slope = problem.normal(x) / problem.eta**2 - target + (x - image) / t**2
            x = x - step * slope + (2 * step) ** 0.5 * torch.randn_like(x)
        x = x + noise(problem, draws, s)
    return Draws(x)


@torch.no_grad()
def pnpdm(problem: Problem, teacher: Teacher, draws: int, seed: int, *, last: float, decay: float, rounds: int,
          steps: int) -> Draws:
    """[PnPDM]: by turns a draw of N(z; x, ρ²) N(y; A z, η²), exact, and of the images that z at level ρ may come from.

    ρ falls from 10 by `decay` a round to `last`, as published, in `rounds` rounds at least; `steps` of every reverse diffusion.
    """
    torch.manual_seed(seed)
    rho, x, done = 10.0, noise(problem, draws, 10.0), 0
    while done < rounds or rho > last:
        x = reverse(teacher, problem.posterior(x, rho), rho, steps)
        rho, done = max(rho * decay, last), done + 1
    return Draws(x)


class Pixels:
    """What the published loop asks of A where that is solved in closed form: P r, and P^{1/2} ξ by perturbing and solving."""

    def __init__(self, problem: Problem):
        self.problem = problem

    def project(self, r: Tensor, lam: float) -> Tensor:
        return self.problem.solve(r, lam)

    def noise(self, like: Tensor, lam: float) -> Tensor:
        data = torch.randn(len(like), self.problem.y.shape[1], device=like.device) / self.problem.eta
        return self.problem.solve(self.problem.At(data) + lam**0.5 * torch.randn_like(like), lam)


@cache
def distilled(domain: str) -> DenoiserEnergy:
    """½‖x − ψ‖², distilled from the teacher, its convolutions in bfloat16 as the teacher's are."""
    energy = energies.load(f"{domain}-denoiser", precision="fast")
    assert isinstance(energy, DenoiserEnergy)
    return energy


def published(problem: Problem, teacher: Teacher, draws: int, seed: int, *, first: float, last: float, levels: int) -> Draws:
    """[ALPS], its loop as published: five steps a level, ρ = 5, the noise of the next level in the last, the last of all without.

    For MRI ten conjugate gradients a step and noise coloured by the mask alone, as there.
    """
    torch.manual_seed(seed)
    energy = distilled(problem.domain)

    def gradient(t: float) -> Callable[[Tensor], Tensor]:
        def at(x: Tensor) -> Tensor:
            teacher.evaluations += 2 * len(x)
            return energy.grad(x, t)
        return at

    operator = problem.operator
    a: Any = PlainMRI(operator, problem.measured.device) if isinstance(operator, CartesianMRI) else Pixels(problem)
    ts = [float(t) for t in Schedule(first, last, levels, rho=5.0).t()]
    x = plain_loop(a, gradient, energy.curvature, problem.At(problem.y) / problem.eta**2, draws, ts, steps=5)
    return Draws(x, target=Target(last, energy.grad))
