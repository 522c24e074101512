"""Posteriors known in closed form, under every operator: what intervals cover, and how far means and draws are from exact ones.

    x ~ Σ_k w_k N(μ_k, C_k), C_k diagonal:   p(x|y) = Σ_k w_k(y) N(m_k(y), Σ_k),   Σ_k = (AᴴA/η² + C_k⁻¹)⁻¹

with A a dense matrix of real numbers, a column a number of the image. The prior of the run is the same, and its schedule the one
that is chosen where none is given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alps_fast import metrics, sample
from alps_fast.energies import Energy, GaussianEnergy, GaussianMixtureEnergy
from alps_fast.layout import from_state, to_state
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, Operator, SuperResolution

from .levy import crps
from .stein import Discrepancy, discrepancy

HEIGHT, WIDTH = 6, 8
NUMBERS = HEIGHT * WIDTH
CHAINS = (2, 3, 4, 16)  # independent ones, below four, and pairs
LEVELS = (0.5, 0.9)
DRAWS = 2  # a chain
STDS = (0.1, 2.0)  # narrowest and widest of the Gaussian's pixels, in an order of chance
WEIGHT, APART, WIDE = 0.6, 1.3, (0.5, 0.6)  # of the mixture: of its first mode; half the modes' distance; their widths


class Prior(NamedTuple):
    """Of states of n real numbers: w_k (K,), μ_k (K, n), the square roots of C_k (K, n), and the energy that the run is given."""

    weights: np.ndarray
    means: np.ndarray
    stds: np.ndarray
    energy: Energy


class NoBound(GaussianEnergy):
    """A Gaussian that does not know its curvature: L = 1, as of a prior that was learned."""

    def curvature(self, t: float) -> None:  # type: ignore[override]  # as an energy's is that knows none
        return None


class MixtureNoBound(GaussianMixtureEnergy):
    """A mixture that does not know its curvature."""

    def curvature(self, t: float) -> None:  # type: ignore[override]
        return None


def images(rows: np.ndarray) -> Tensor:
    """(K, n) numbers of states as float32 images (K, C', H, W)."""
    return torch.from_numpy(rows).float().view(len(rows), HEIGHT, WIDTH, -1).movedim(-1, 1)


def gaussian(n: int) -> Prior:
    """Pixels of standard deviations from .1 to 2, so that its directions are those of no blur and no Fourier mask."""
    g = np.random.default_rng(1)
    mean, stds = g.normal(size=(1, n)), g.permutation(np.geomspace(*STDS, n))[None]
    return Prior(np.ones(1), mean, stds, NoBound(images(mean)[0], images(stds)[0]))


def mixture(n: int) -> Prior:
    """Two modes of different widths that a measurement often cannot tell."""
    g = np.random.default_rng(2)
    unit = g.normal(size=n)
    means = np.stack([-APART * unit, APART * unit]) / np.linalg.norm(unit) * WIDE[0]
    weights, stds = np.array([WEIGHT, 1.0 - WEIGHT]), np.array(WIDE)
    energy = MixtureNoBound(torch.from_numpy(weights), images(means), torch.from_numpy(stds))
    return Prior(weights, means, np.tile(stds[:, None], n), energy)


PRIORS = {"Gaussian": gaussian, "mixture": mixture}


def of_matrix(a: Tensor, noise_std: float) -> LinearOperator:
    """y = a x, a (m, n) real or complex as images are."""
    return LinearOperator(lambda x: x.flatten(1) @ a.T, lambda y: (y @ a.conj()).view(-1, 1, HEIGHT, WIDTH), noise_std,
                          (1, HEIGHT, WIDTH), is_complex=a.is_complex())


def operators() -> dict[str, Operator]:
    """Every one, of real and of complex images where it takes both."""
    g = torch.Generator().manual_seed(1)
    lines, plane = (torch.arange(HEIGHT) % 2 == 0).float(), (torch.rand(HEIGHT, WIDTH, generator=g) < 0.5).float()
    maps = torch.complex(*(torch.randn(2, 3, HEIGHT, WIDTH, generator=g) / 2).unbind())
    found: dict[str, Operator] = {}
    for name, is_complex in (("", False), (", complex", True)):
        dense = torch.randn(NUMBERS // 3, NUMBERS, generator=g, dtype=torch.complex64 if is_complex else torch.float32) / 5
        found |= {
            f"Denoising{name}": Denoising(0.3, is_complex=is_complex),
            f"Inpainting{name}": Inpainting(plane, 0.2, is_complex=is_complex),
            f"CircularBlur{name}": CircularBlur.gaussian(1.0, 0.1, is_complex=is_complex),
            f"SuperResolution{name}": SuperResolution(2, 0.1, blur=0.8, is_complex=is_complex),
            f"LinearOperator{name}": of_matrix(dense, 0.2),
        }
    return found | {
        "CartesianMRI, one coil": CartesianMRI(plane, noise_std=0.2),
        "CartesianMRI, three coils, lines": CartesianMRI(lines, maps, noise_std=0.2, axis=0),
        "CartesianMRI, three coils, any mask": CartesianMRI(plane, maps, noise_std=0.2),
    }


def real_rows(v: Tensor) -> np.ndarray:
    """(N, …) real or complex as (N, n) real numbers."""
    return (torch.view_as_real(v.resolve_conj()) if v.is_complex() else v).flatten(1).double().numpy()


class Exact(NamedTuple):
    """Posteriors of M measurements: w_k (K, M), m_k (K, M, n) and Σ_k (K, n, n)."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """(M, n)."""
        return (self.weights[..., None] * self.means).sum(0)

    def crps(self, truth: np.ndarray) -> np.ndarray:
        """Of every number of truths (M, n): E|x − truth| − ½ E|x − x′|, x and x′ drawn from the posterior.

        Source: Grimit, Gneiting, Berrocal & Johnson, "The continuous ranked probability score for circular variables and its
        application to mesoscale forecast ensemble verification", 2006, of mixtures.
        """
        w = self.weights[..., None]
        variances = np.broadcast_to(np.diagonal(self.covariances, axis1=1, axis2=2)[:, None], self.means.shape)
        score = (w * mean_distance(truth - self.means, variances)).sum(0)
        for k in range(len(w)):
            score -= 0.5 * (w[k] * w * mean_distance(self.means[k] - self.means, variances[k] + variances)).sum(0)
        return score


def mean_distance(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """E|x| of N(mean, variance)."""
    std = np.sqrt(variance)
    z = torch.from_numpy(mean / std)
    return mean * (2.0 * torch.special.ndtr(z).numpy() - 1.0) + std * math.sqrt(2.0 / math.pi) * np.exp(-0.5 * z.numpy() ** 2)


def exact(prior: Prior, a: np.ndarray, eta: float, y: np.ndarray) -> Exact:
    """The posteriors of measurements y (M, m), A being (m, n)."""
    logs, means, covariances = [], [], []
    for weight, mean, std in zip(prior.weights, prior.means, prior.stds, strict=True):
        covariance = np.linalg.inv(a.T @ a / eta**2 + np.diag(std**-2.0))
        seen = (a * std**2) @ a.T + eta**2 * np.eye(len(a))
        off = y - a @ mean
        logs.append(math.log(weight) - 0.5 * (np.linalg.slogdet(seen)[1] + (off * np.linalg.solve(seen, off.T).T).sum(1)))
        means.append(mean + off @ (a / eta**2) @ covariance)
        covariances.append(covariance)
    share = np.exp(np.stack(logs) - np.max(logs, 0))
    return Exact(share / share.sum(0), np.stack(means), np.stack(covariances))


def score(prior: Prior, a: np.ndarray, eta: float, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """∇ log p(x|y) at x (…, M, n), y being (M, m)."""
    off = [(x - mean) / std for mean, std in zip(prior.means, prior.stds, strict=True)]
    logs = np.stack([math.log(weight) - np.log(std).sum() - 0.5 * np.square(z).sum(-1)
                     for weight, std, z in zip(prior.weights, prior.stds, off, strict=True)])
    share = np.exp(logs - logs.max(0))
    share /= share.sum(0)
    inward = sum(w[..., None] * z / std for w, z, std in zip(share, off, prior.stds, strict=True))
    return (y - x @ a.T) @ a / eta**2 - inward


class Problem(NamedTuple):
    """Truths (M, n) of a prior and their measurements. matrix: A (m, n) of real numbers, as `real_rows` has them."""

    prior: Prior
    operator: Operator
    truth: np.ndarray
    y: Tensor
    matrix: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """(M, m) y as real numbers."""
        return real_rows(self.y)


def problem(prior_name: str, operator_name: str, count: int, seed: int) -> Problem:
    """`count` truths from the prior, and a measurement of each."""
    operator = operators()[operator_name]
    n = NUMBERS * (2 if operator.is_complex else 1)
    prior, g = PRIORS[prior_name](n), np.random.default_rng(seed)

    def measured(rows: np.ndarray) -> Tensor:
        states = torch.from_numpy(rows).float().view(-1, HEIGHT, WIDTH, n // NUMBERS)
        return operator.forward(from_state(states, operator.is_complex))

    a = real_rows(measured(np.eye(n))).T
    mode = g.choice(len(prior.weights), count, p=prior.weights)
    truth = prior.means[mode] + prior.stds[mode] * g.normal(size=(count, n))
    clean = measured(truth)
    noise = torch.from_numpy(operator.noise_std * g.normal(size=(count, len(a))) * (np.abs(a).sum(1) > 0)).float()
    y = clean + (torch.view_as_complex(noise.view(*clean.shape, 2)) if clean.is_complex() else noise.view(clean.shape))
    return Problem(prior, operator, truth, y, a)


class Figures(NamedTuple):
    """Of a sampler. gap: of its mean's squared error over that of the exact mean, dB. crps: of independent draws over that of
    the exact posterior. ksd: of these draws, by the exact score."""

    gap: float
    crps: float
    ksd: Discrepancy


def judged(of: Problem, mean: np.ndarray, draws: np.ndarray, error: float = 0.0) -> Figures:
    """A mean (M, n) and independent draws (k, M, n).

    The gap is of the mean squared distance d to the exact mean, less the Monte Carlo `error` in it: E|mean − truth|² =
    E|exact − truth|² + d, of which what d does not decide is noise of the truths alone.
    """
    eta, y = of.operator.noise_std, of.rows
    known = exact(of.prior, of.matrix, eta, y)
    apart = np.square(mean - known.mean).mean() - error
    return Figures(10.0 * math.log10(1.0 + apart / np.square(of.truth - known.mean).mean()),
                   float(crps(draws, of.truth).mean() / known.crps(of.truth).mean()),
                   discrepancy(draws, score(of.prior, of.matrix, eta, y, draws), np.linalg.cholesky(known.covariances[0])))


class Cell(NamedTuple):
    """Of a prior under an operator. coverage: of intervals of each of LEVELS, of each of CHAINS. figures: of `CHAINS[-1]`
    chains' mean, and of a draw of every pair."""

    prior: str
    operator: str
    coverage: dict[int, tuple[float, ...]]
    figures: Figures
    gradients: int


def cell(prior_name: str, operator_name: str, count: int, seed: int = 0) -> Cell:
    """A run on `count` measurements for each of CHAINS."""
    given = problem(prior_name, operator_name, count, seed)
    coverage: dict[int, tuple[float, ...]] = {}
    for chains in CHAINS:
        found = sample(given.y, given.operator, given.prior.energy, chains=chains, draws=DRAWS, seed=seed + chains,
                       progress=False)
        ends = ((real_rows(to_state(end)) for end in found.interval(level)) for level in LEVELS)
        coverage[chains] = tuple(metrics.coverage(low, high, given.truth) for low, high in ends)
    draws = real_rows(to_state(found.samples[:, ::2].flatten(0, 1))).reshape(*given.truth.shape[:1], -1, given.truth.shape[1])
    figures = judged(given, real_rows(to_state(found.mean)), draws.swapaxes(0, 1))
    return Cell(prior_name, operator_name, coverage, figures, found.gradients)


def table(count: int) -> Iterator[Cell]:
    """Every prior under every operator, one after another."""
    return (cell(prior, operator, count) for prior in PRIORS for operator in operators())
