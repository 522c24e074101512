"""Weights of modes that lie apart, under mixtures of Gaussians whose posterior weights are known, without leaps and with them.

    prior Σ_k w_k N(μ_k, S_k),  y = A x + N(0, η²):   posterior weights ∝ w_k N(y; A μ_k, A (S_k + t²) Aᵀ + η²),  t = σ_min
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alps_fast import sample
from alps_fast.energies import Energy, GaussianMixtureEnergy
from alps_fast.operators import CircularBlur, Inpainting, Operator
from alps_fast.posterior import Posterior

WEIGHT = 0.8825  # of the first of two modes, by what y says: the prior has them alike
STD, ETA = 0.15, 0.5
CHAINS, TOGETHER = 32, 4  # chains a measurement, and measurements that are sampled at once


class WithoutBound(GaussianMixtureEnergy):
    """A mixture that does not know its curvature: L = 1."""

    def curvature(self, t: float) -> None:  # type: ignore[override]  # as an energy's is that knows none
        return None


class Correlated(Energy):
    """x ~ Σ_k w_k N(μ_k, F* s² F), two components or more, s² a spectrum: E(x, t) = −t² log Σ_k w_k N(x; μ_k, F* s² F + t²).

    means: (K, 1, H, W). spectrum: (H, W) variances of frequencies, as `torch.fft.fft2` of norm "ortho" has them.
    """

    unit, finest = False, 0.02

    def __init__(self, means: Tensor, spectrum: Tensor):
        self.means, self.variances = means, spectrum
        self.spread = math.hypot(float(spectrum.max().sqrt()), float((means[0] - means[1]).norm()) / 2)

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        apart = x[:, None] - self.means
        towards = torch.fft.ifft2(torch.fft.fft2(apart) / (self.variances + t * t)).real
        squares = (apart * towards).flatten(2).sum(2)
        grad = t * t * (torch.softmax(-0.5 * squares, 1)[..., None, None, None] * towards).sum(1)
        return -t * t * torch.logsumexp(-0.5 * squares, 1), grad


class Problem(NamedTuple):
    """A measurement, and what is known of its posterior's modes.

    exact: (K,) weights. nearest: which of them images (N, 1, H, W) belong to, (N,).
    """

    y: Tensor
    operator: Operator
    energy: Energy
    exact: Tensor
    nearest: Callable[[Tensor], Tensor]


def nearest_of(means: Tensor) -> Callable[[Tensor], Tensor]:
    """Which of means (K, 1, H, W) is the nearest."""
    def which(x: Tensor) -> Tensor:
        return torch.cdist(x.flatten(1), means.flatten(1)).argmin(1)
    return which


def inpainting(means: Tensor, stds: Tensor, wanted: list[float], seed: int = 0) -> Problem:
    """Half of the pixels of modes that the prior has alike; y makes them weigh what is wanted, where widths are the same."""
    g = torch.Generator().manual_seed(seed)
    mask = (torch.rand(means.shape[-2:], generator=g) < 0.5).float()
    energy = WithoutBound(torch.ones(len(means)), means, stds)
    variance = stds.double().square() + energy.finest**2 + ETA**2
    seen = (mask * means).double().flatten(1)
    apart, noise = seen[1:] - seen[:1], torch.randn(seen.shape[1], generator=g, dtype=torch.float64) * variance[0].sqrt()
    noise = (mask * noise.view_as(mask)).flatten()
    goal = variance[0] * (torch.tensor(wanted[1:]) / wanted[0]).log() + (seen[1:].square().sum(1) - seen[0].square().sum()) / 2
    share = torch.linalg.pinv(apart @ apart.T, rtol=1e-9) @ (goal - apart @ noise)
    y = noise + share @ apart
    logs = -0.5 * (y - seen).square().sum(1) / variance - 0.5 * float(mask.sum()) * variance.log()
    return Problem(y.view(means.shape[1:]).float(), Inpainting(mask, ETA), energy, torch.softmax(logs, 0), nearest_of(means))


def square(size: int, row: float, column: float, side: int = 8) -> Tensor:
    """A square (1, H, W) of ones."""
    image = torch.zeros(1, size, size)
    top, left = int(row * size), int(column * size)
    image[:, top:top + side, left:left + side] = 1.0
    return image


def waves(size: int, height: float = 0.6) -> Tensor:
    """Something that is nowhere nought for long, (1, H, W)."""
    at = torch.arange(size) * (2 * math.pi / size)
    return height * (torch.sin(3 * at)[None, :] * torch.cos(2 * at)[:, None])[None]


def two(difference: Tensor, first: float = STD, second: float = STD) -> Problem:
    """Two modes, ± half of the difference."""
    return inpainting(torch.stack([difference, -difference]) / 2, torch.tensor([first, second]), [WEIGHT, 1 - WEIGHT])


def lesion(size: int, ratio: float = 1.0) -> Problem:
    """A square that is there or not; where it is not the width may be another."""
    return two(square(size, 0.3, 0.4), STD, STD * ratio)


def whole(size: int) -> Problem:
    """Two images that differ everywhere."""
    return two(waves(size))


def lesions(size: int) -> Problem:
    """Two squares, each there, with probability .85 and .7, or not: four modes."""
    a, b = square(size, 0.2, 0.2), square(size, 0.6, 0.7)
    return inpainting(torch.stack([a + b, a, b, 0 * a]), torch.full((4,), STD), [0.595, 0.255, 0.105, 0.045])


def three(size: int) -> Problem:
    """Three images that differ everywhere."""
    means = torch.stack([waves(size, 0.3), -waves(size, 0.3), 0.3 * waves(size, 0.5).transpose(1, 2)])
    return inpainting(means, torch.full((3,), STD), [0.6, 0.3, 0.1])


def blurred(size: int) -> Problem:
    """A spot that is there or not, blurred, in images whose neighbours are alike: deviations .5 … .05 by frequency."""
    g = torch.Generator().manual_seed(0)
    f = torch.fft.fftfreq(size)
    spectrum = (0.5 / (1 + (f[:, None].square() + f[None].square()) * 200)).clamp(min=0.05).square()
    at = torch.arange(size) - size / 2
    spot = 1.5 * torch.exp(-(at[:, None].square() + at[None].square()) / (2 * 3.0**2))[None]
    means = torch.stack([spot, -spot]) / 2
    energy, operator = Correlated(means, spectrum), CircularBlur.gaussian(1.5, ETA)
    one = torch.zeros(1, size, size)
    one[0, 0, 0] = 1.0
    gain = torch.fft.fft2(operator.forward(one))[0].abs().square()
    variance = gain * (spectrum + energy.finest**2) + ETA**2

    def product(a: Tensor, b: Tensor) -> float:
        """⟨a, C⁻¹ b⟩, C the covariance of y."""
        return float((torch.fft.fft2(a).conj() * torch.fft.fft2(b) / variance).real.double().sum()) / size**2

    seen = operator.forward(spot)
    y = torch.fft.ifft2(torch.fft.fft2(torch.randn(1, size, size, generator=g)) * variance.sqrt()).real
    y += (math.log(WEIGHT / (1 - WEIGHT)) - product(seen, y)) / product(seen, seen) * seen
    logs = torch.tensor([-0.5 * product(y - m, y - m) for m in (seen / 2, -seen / 2)], dtype=torch.float64)

    def which(x: Tensor) -> Tensor:
        """By the prior's own distance: the spot is smooth, and so is what hides it."""
        along = torch.fft.ifft2(torch.fft.fft2(spot) / (spectrum + energy.finest**2)).real
        return ((x * along).flatten(1).sum(1) < 0).long()

    return Problem(y, operator, energy, torch.softmax(logs, 0), which)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "a square, 64²": lambda: lesion(64),
    "a square, 128²": lambda: lesion(128),
    "all of the image, 64²": lambda: whole(64),
    "all of the image, 128²": lambda: whole(128),
    "a spot, correlated, blurred, 64²": lambda: blurred(64),
    "two squares, four modes, 64²": lambda: lesions(64),
    "three modes, 64²": lambda: three(64),
    "a square, widths 2 % apart, 64²": lambda: lesion(64, 1.02),
    "a square, widths 5 % apart, 64²": lambda: lesion(64, 1.05),
}
WAYS: dict[str, dict[str, Any]] = {
    "alps": {}, "leap": {"moves": "leap"}, "measurement": {"method": "measurement"},
    "measurement, leap": {"method": "measurement", "moves": "leap"}}


class Row(NamedTuple):
    """What a way of sampling found: shares of modes over all runs, standard error of the first, and what it took.

    seconds: of the processor, for `TOGETHER` measurements, the median. times: those over the first way's.
    """

    problem: str
    way: str
    exact: list[float]
    found: list[float]
    error: float
    acceptance: float | None
    gradients: int
    seconds: float
    times: float


def rows(name: str, ways: list[str], count: int) -> list[Row]:
    """Of `count` times 32 chains. The ways take turns, so that their times can be compared."""
    y, operator, energy, exact, nearest = PROBLEMS[name]()
    shares: dict[str, list[Tensor]] = {way: [] for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    runs: dict[str, list[Posterior]] = {way: [] for way in ways}
    for first in range(0, count, TOGETHER):
        several = y.expand(min(TOGETHER, count - first), *y.shape)
        for way in ways:
            began = time.process_time()
            found = sample(several, operator, energy, chains=CHAINS, first_measurement=first, pairs=False, progress=False,
                           **WAYS[way])
            seconds[way].append(time.process_time() - began)
            kinds = nearest(found.samples.flatten(0, 1)).view(-1, CHAINS)
            shares[way].append(torch.nn.functional.one_hot(kinds, len(exact)).double().mean(1))
            runs[way].append(replace(found, samples=found.samples[:0], chain_means=found.chain_means[:0]))
    took = {way: float(np.median(seconds[way])) for way in ways}
    return [of_runs(name, way, exact, torch.cat(shares[way]), runs[way], took[way], took[way] / took[ways[0]]) for way in ways]


def of_runs(name: str, way: str, exact: Tensor, shares: Tensor, runs: list[Posterior], seconds: float, times: float) -> Row:
    """shares: (measurements, K), of each one's chains."""
    rates = [p.leap_acceptance for p in runs if p.leap_acceptance is not None]
    error = float(shares[:, 0].std() / math.sqrt(len(shares))) if len(shares) > 1 else math.nan
    return Row(name, way, exact.tolist(), shares.mean(0).tolist(), error, float(np.nanmean(rates)) if rates else None,
               runs[0].gradients, seconds, times)


def table(count: int) -> Iterator[Row]:
    """Every problem; annealing the measurement in two of them."""
    return (row for i, name in enumerate(PROBLEMS)
            for row in rows(name, list(WAYS) if i in (0, 2) else ["alps", "leap"], count))
