"""Lévy processes of 64 samples seen through four operators, whose posteriors a Gibbs sampler draws from exactly.

    x_i = u₁ + … + u_i,  u Gaussian of variance ¼, Laplace of scale 1 or Student of 3 degrees of freedom;  y = A x + N(0, η²)

Given its variance 1/λ an increment is Gaussian, so x given λ is too, with precision AᵀA/η² + DᵀΛD, and λ given x is drawn one by
one. The same for A = 1 and η = t gives E[x₀|x_t], by which the sampler under test knows the prior exactly at every level.

Source: Zach, Haouchat & Unser, "A Statistical Benchmark for Diffusion Posterior Sampling Algorithms", arXiv 2509.12821. The
processes, their length and the noise are theirs; samples and frequencies are chosen here, and convolution is circular.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alps_fast import sample
from alps_fast.energies import Energy
from alps_fast.operators import CircularBlur, Denoising, Inpainting, Operator

from .stein import Discrepancy, discrepancy

LENGTH = 64
SNR = 25.0  # dB, of the median power of A x to η²
SWEEPS = 8  # of Gibbs, whose conditional means make one E[x₀|x_t] where λ is not known; λ goes on from call to call
PAIRS = 9  # of chains: the truth's rank among as many independent draws and itself says 90 % exactly
BURN_IN, KEPT, THIN = 200, 50, 8  # of each of the two runs that are the exact answer
SHARE = 0.4  # of samples, or of frequencies, that are measured; the lowest five of these always


class Increments(NamedTuple):
    """How u is drawn, λ given u, log p(u) but for a constant, its derivative, the variance of u, and the sweeps of E[x₀|x_t]."""

    draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
    latent: Callable[[np.random.Generator, np.ndarray], np.ndarray]
    log_density: Callable[[np.ndarray], np.ndarray]
    score: Callable[[np.ndarray], np.ndarray]
    variance: float
    sweeps: int = SWEEPS


INCREMENTS = {
    "Gauss": Increments(lambda g, shape: 0.5 * g.normal(size=shape), lambda g, u: np.full_like(u, 4.0), lambda u: -2.0 * u * u,
                        lambda u: -4.0 * u, 0.25, 1),
    "Laplace": Increments(lambda g, shape: g.laplace(size=shape), lambda g, u: g.wald(1.0 / np.maximum(np.abs(u), 1e-7), 1.0),
                          lambda u: -np.abs(u), lambda u: -np.sign(u), 2.0),
    "Student": Increments(lambda g, shape: g.standard_t(3.0, size=shape), lambda g, u: g.gamma(2.0, 2.0 / (3.0 + u * u)),
                          lambda u: -2.0 * np.log1p(u * u / 3.0), lambda u: -4.0 * u / (3.0 + u * u), 3.0),
}


def increments(x: np.ndarray) -> np.ndarray:
    """u of x (…, 64); x before the first is 0."""
    return np.diff(x, axis=-1, prepend=0.0)


def given_latents(lam: np.ndarray, b: np.ndarray, a: np.ndarray | float, g: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mean and a draw of N(Q⁻¹b, Q⁻¹), Q = DᵀΛD + a, a diagonal; all (N, 64). Cholesky of a tridiagonal matrix."""
    lam, b = lam.T, b.T
    diagonal, last = lam + np.asarray(a).T, len(lam) - 1
    diagonal[:-1] += lam[1:]
    root, below, half = np.empty_like(lam), np.empty_like(lam), np.empty_like(lam)
    for i in range(last + 1):
        if i:
            below[i] = -lam[i] / root[i - 1]
        root[i] = np.sqrt(diagonal[i] - (below[i] ** 2 if i else 0.0))
        half[i] = (b[i] - (below[i] * half[i - 1] if i else 0.0)) / root[i]
    both = np.stack([half, half + g.normal(size=half.shape)], 1)  # (64, 2, N)
    both[last] /= root[last]
    for i in range(last - 1, -1, -1):
        both[i] = (both[i] - below[i + 1] * both[i + 1]) / root[i]
    return both[:, 0].T, both[:, 1].T


class LevyPrior(Energy):
    """∇E(x, t) = x − E[x₀|x_t = x], by Gibbs: conditional means of a few sweeps from λ as the last call left it. No value.

    Exact for Gaussian increments; for others a step has the noise of the sweeps beside its own.
    """

    channels, unit = 1, False

    def __init__(self, kind: Increments, seed: int):
        self.kind, self.generator = kind, np.random.default_rng(seed)
        self.latent = np.empty((0, LENGTH))
        wide = 1.0 / (2.0 * math.sin(0.5 * math.pi / (2 * LENGTH + 1)))  # of DᵀD's smallest eigenvalue, 1/√
        self.spread, self.finest = wide * math.sqrt(kind.variance), 0.05 * math.sqrt(kind.variance)

    def begin(self) -> None:
        self.latent = np.empty((0, LENGTH))

    def _grad(self, x: Tensor, t: float) -> Tensor:
        b = x.flatten(1).double().numpy() / t**2
        if len(self.latent) != len(b):
            self.latent = np.full(b.shape, 1.0 / self.kind.variance)
        total = np.zeros_like(b)
        for _ in range(self.kind.sweeps):
            mean, drawn = given_latents(self.latent, b, t**-2, self.generator)
            self.latent = self.kind.latent(self.generator, increments(drawn))
            total += mean
        return x - torch.from_numpy(total / self.kind.sweeps).view(x.shape).to(x.dtype)


def gibbs(kind: Increments, information: np.ndarray, b: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Conditional means and draws (M, 64), one sweep after another, of posteriors with AᵀA/η² = information and Aᵀy/η² = b."""
    g, diagonal = np.random.default_rng(seed), np.diagonal(information)
    lam, plain = np.full(b.shape, 1.0 / kind.variance), np.count_nonzero(information) == np.count_nonzero(diagonal)
    difference = torch.from_numpy(increments(np.eye(LENGTH)).T.copy())
    dense, right = torch.from_numpy(information), torch.from_numpy(b)[..., None]
    while True:
        if plain:
            mean, drawn = given_latents(lam, b, np.broadcast_to(diagonal, b.shape), g)
        else:
            root = torch.linalg.cholesky(dense + difference.T @ (torch.from_numpy(lam)[..., None] * difference))
            half = torch.linalg.solve_triangular(root, right, upper=False)
            both = torch.cat([half, half + torch.from_numpy(g.normal(size=half.shape))], -1)
            mean, drawn = torch.linalg.solve_triangular(root.mT, both, upper=True).numpy().transpose(2, 0, 1)
        yield mean, drawn
        lam = kind.latent(g, increments(drawn))


def operators() -> dict[str, Callable[[float], Operator]]:
    """The four, of a noise_std. A part of the frequencies is a convolution: noise on the others says nothing of x."""
    g = np.random.default_rng(3)
    kept, frequencies = g.random(LENGTH) < SHARE, g.random(LENGTH // 2 + 1) < SHARE
    frequencies[:5] = True
    mask, kernel = torch.from_numpy(kept).float().view(1, LENGTH), np.fft.irfft(frequencies.astype(float), LENGTH)
    around = np.roll(kernel, LENGTH // 2)  # where a psf has its middle
    return {
        "identity": Denoising,
        "convolution": lambda eta: CircularBlur.gaussian(2.0, eta),
        "sampling": lambda eta: Inpainting(mask, eta),
        "Fourier": lambda eta: CircularBlur(torch.from_numpy(around).float().view(1, -1), eta),
    }


class Cell(NamedTuple):
    """Of one process and operator; coverage of 90 % regions of highest density, of ours and of the Gibbs sampler's own draws.

    gap: of our mean's squared error over that of the exact mean, dB, by the mean squared distance between the two, as the rest is
    noise of the truths; limit: the same with endlessly many chains, by taking away what their number adds. crps: ours over that
    of exact draws. ksd: of ours, by the exact score.
    """

    process: str
    operator: str
    coverage: float
    exact_coverage: float
    gap: float
    limit: float
    crps: float
    ksd: Discrepancy
    gradients: int


def matrix(operator: Operator) -> np.ndarray:
    """A, float64, a row a number measured."""
    return operator.forward(torch.eye(LENGTH).view(LENGTH, 1, 1, LENGTH)).flatten(1).double().numpy().T


def cell(process: str, name: str, count: int, seed: int = 0) -> Cell:
    """Ours beside the exact answer on `count` measurements of truths from the prior."""
    kind, g, make = INCREMENTS[process], np.random.default_rng(seed), operators()[name]
    truth, a = np.cumsum(kind.draw(g, (count, LENGTH)), -1), matrix(make(1.0))
    clean = truth @ a.T
    eta = math.sqrt(float(np.median(np.square(clean).mean(1))) / 10 ** (SNR / 10))
    y, operator = clean + eta * g.normal(size=clean.shape) * (np.abs(a).sum(1) > 0), make(eta)  # samples that are missing are 0

    def log_density(x: np.ndarray) -> np.ndarray:
        """Of x (…, M, 64) given y, but for a constant; frequencies that A leaves out have no part in it."""
        misfit = np.square(x @ a.T - y) if name != "Fourier" else np.square((x @ a.T - y) @ a.T)
        return -0.5 * misfit.sum(-1) / eta**2 + kind.log_density(increments(x)).sum(-1)

    def score(x: np.ndarray) -> np.ndarray:
        """Of it at x (…, M, 64)."""
        of_increments = kind.score(increments(x))
        return (y - x @ a.T) @ a / eta**2 + of_increments - np.pad(of_increments, [(0, 0)] * (x.ndim - 1) + [(0, 1)])[..., 1:]

    found = sample(torch.from_numpy(y).float().view(-1, 1, 1, LENGTH), operator, LevyPrior(kind, seed + 1), chains=2 * PAIRS,
                   progress=False)
    drawn, mean = found.samples.double().numpy()[:, :, 0, 0].swapaxes(0, 1), found.mean.double().numpy()[:, 0, 0]
    exacts, kept = np.zeros((2, *truth.shape)), []  # by two runs, the product of whose errors is zero on average
    for exact, run in zip(exacts, (2, 3), strict=True):
        sweeps = gibbs(kind, a.T @ a / eta**2, y @ a / eta**2, seed + run)
        for i, (expected, state) in enumerate(islice(sweeps, BURN_IN + KEPT * THIN)):
            if i >= BURN_IN:
                exact += expected / (KEPT * THIN)
                if i % THIN == 0:
                    kept.append(state)
    exactly, independent = np.stack(kept), drawn[::2]  # one of each pair
    pairs = found.chain_means.double().numpy()[:, :, 0, 0].swapaxes(0, 1).reshape(PAIRS, 2, *truth.shape).mean(1)
    least = ((exacts[0] - truth) * (exacts[1] - truth)).mean()
    apart = ((mean - exacts[0]) * (mean - exacts[1])).mean()
    gap, limit = (10 * math.log10(1.0 + float(d / least)) for d in (apart, apart - pairs.var(0, ddof=1).mean() / PAIRS))
    difference = increments(np.eye(LENGTH)).T
    precision = a.T @ a / eta**2 + difference.T @ difference / kind.variance
    ksd = discrepancy(independent, score(independent), np.linalg.cholesky(np.linalg.inv(precision)))
    return Cell(process, name, covered(log_density(truth), log_density(independent)),
                covered(log_density(truth), log_density(exactly)), gap, limit,
                float(crps(independent, truth).mean() / crps(exactly, truth).mean()), ksd, found.gradients)


def covered(of_truth: np.ndarray, of_draws: np.ndarray, level: float = 0.9) -> float:
    """Share of truths (M,) among the densest `level` of themselves and n draws (n, M), (n + 1) level a whole number or nearly."""
    below = (of_draws < of_truth).sum(0)
    return float((below >= round((len(of_draws) + 1) * (1.0 - level))).mean())


def crps(draws: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of draws (n, …) of a distribution, without bias: E|x − truth| − ½ E|x − x′|.

    Source: Ferro, "Fair scores for ensemble forecasts", 2014.
    """
    n, ordered = len(draws), np.sort(draws, 0)
    weights = (2.0 * np.arange(n) - n + 1.0).reshape(-1, *[1] * truth.ndim)  # Σ |x_i − x_j| over pairs, of sorted numbers
    return np.abs(draws - truth).mean(0) - (weights * ordered).sum(0) / (n * (n - 1))


def table(count: int) -> Iterator[Cell]:
    """Every process through every operator, one after another."""
    return (cell(process, name, count) for process in INCREMENTS for name in operators())
