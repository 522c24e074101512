"""Simulation-based calibration: where truths from the prior rank among posterior draws of their own measurements.

    truth from p_t, y = A truth + N(0, η²), DRAWS independent draws from p_t(x|y):  ranks are uniform on 0 … DRAWS

Source: Talts, Betancourt, Simpson, Vehtari & Gelman, "Validating Bayesian Inference Algorithms with Simulation-Based
Calibration", arXiv 1804.06788.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from alps_fast import Schedule, sample
from alps_fast.energies import Energy, GaussianEnergy, GaussianMixtureEnergy
from alps_fast.operators import CartesianMRI, Denoising, Inpainting, Operator

T = 0.1  # σ_min, which the prior that truths are drawn from is smoothed by
SCHEDULE = Schedule(4.0, T, 20, 4, 7.0, predictor=True)
DRAWS = 19
S, CENTRE, NARROW = 0.5, 0.4, 0.3  # standard deviations and means of the priors
STATISTICS: dict[str, Callable[[Tensor], Tensor]] = {  # of images (…, C, H, W), real numbers
    "a pixel": lambda x: x.real.flatten(-3)[..., 0],
    "mean": lambda x: x.real.flatten(-3).mean(-1),
    "norm": lambda x: x.abs().square().flatten(-3).sum(-1),
}


class WithoutBound(GaussianEnergy):
    """A Gaussian that does not know its curvature: L = 1."""

    def curvature(self, t: float) -> None:  # type: ignore[override]  # as an energy's is that knows none
        return None


class Problem(NamedTuple):
    """An operator, a prior, and truths (M, C, H, W) of it at t = T."""

    operator: Operator
    energy: Energy
    truth: Tensor


def gaussian(count: int, g: torch.Generator) -> Problem:
    """Half of the pixels of 8 × 8."""
    mask = (torch.rand(8, 8, generator=g) < 0.5).float()
    return Problem(Inpainting(mask, 0.3), WithoutBound(0.0, S), math.hypot(S, T) * torch.randn(count, 1, 8, 8, generator=g))


def mixture(count: int, g: torch.Generator) -> Problem:
    """One pixel, two modes that overlap."""
    energy = GaussianMixtureEnergy(torch.tensor([0.7, 0.3]), torch.tensor([-CENTRE, CENTRE]).view(2, 1, 1, 1),
                                   torch.tensor([NARROW, NARROW]))
    centre = torch.where(torch.rand(count, 1, 1, 1, generator=g) < 0.7, -CENTRE, CENTRE)
    return Problem(Denoising(0.5), energy, centre + math.hypot(NARROW, T) * torch.randn(count, 1, 1, 1, generator=g))


def mri(count: int, g: torch.Generator) -> Problem:
    """Three coils, every other line of 8 × 6; real and imaginary parts are N(0, S²)."""
    maps = torch.complex(*(torch.randn(2, 3, 8, 6, generator=g) / 2).unbind())
    operator = CartesianMRI((torch.arange(8) % 2 == 0).float(), maps, noise_std=0.3, axis=0)
    return Problem(operator, WithoutBound(0.0, S),
                   math.hypot(S, T) * torch.complex(*torch.randn(2, count, 1, 8, 6, generator=g).unbind()))


PROBLEMS = {"Gaussian": gaussian, "mixture": mixture, "MRI": mri}


class Ranks(NamedTuple):
    """chi2: of the ranks of every statistic, `DRAWS` degrees of freedom. coverage: of the 18 inner of 20 ranks, all together."""

    problem: str
    correction: str
    chi2: dict[str, float]
    coverage: float


def ranks(name: str, correction: str | None, count: int, seed: int = 0) -> Ranks:
    """Those of `count` truths, a measurement each with noise of its own."""
    g = torch.Generator().manual_seed(seed)
    operator, energy, truth = PROBLEMS[name](count, g)
    clean = operator.forward(truth)
    parts = [torch.randn(clean.shape, generator=g) for _ in range(1 + clean.is_complex())]
    y = clean + operator.noise_std * (torch.complex(*parts) if clean.is_complex() else parts[0])
    y = y * (clean != 0) if name != "mixture" else y  # what is not measured is 0
    draws = sample(y, operator, energy, chains=DRAWS, schedule=SCHEDULE, correction=correction, pairs=False, seed=seed,
                   progress=False).samples
    found = {key: (of(draws) < of(truth)[:, None]).sum(1) for key, of in STATISTICS.items()}
    expected = count / (DRAWS + 1)
    chi2 = {key: float((torch.bincount(rank, minlength=DRAWS + 1) - expected).square().sum() / expected)
            for key, rank in found.items()}
    inner = torch.stack([(rank > 0) & (rank < DRAWS) for rank in found.values()])
    return Ranks(name, correction or "none", chi2, float(inner.float().mean()))


def table(count: int) -> Iterator[Ranks]:
    """Every problem, without and with MALA."""
    return (ranks(name, correction, count) for name in PROBLEMS for correction in (None, "mala"))
