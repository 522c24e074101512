"""What a run carries from level to level, and what it gathers on the way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from ..layout import as_complex
from ..ops._reused_memory import empty_like
from ..ops.moments import moments
from ..pairs import units
from .mala import Point
from .rows import Stepped
from .runaway import sizes

TRACED = 256  # at most so many numbers of an image are kept of every draw
BLOCK = 16  # chains, by their index, whose statistics are summed before they meet those of others


@dataclass
class Ensemble:
    """The chains of a run, rows measurement by measurement (N = B · chains)."""

    x: Tensor  # (N, H, W, C') states
    data_noise: Tensor  # (N, H, W, C') Aᴴ of the noise on every chain's own y_i; empty where y is not annealed
    log_tau: Tensor  # (N,) MALA's step
    alive: Tensor  # (N,) bool: finite so far, and no runaway
    broken: Tensor  # (N, 2) level and step within it where a chain was seen not to be, else −1
    point: Point | None = None  # MALA's evaluation at x, which is its x
    level: int = 0  # the level to go on with
    step: int = 1  # Philox step index to go on with
    gradients: int = 0  # evaluations a chain so far
    leapt: Tensor | None = None  # (2, N) float64 leaps that were tried, and the sum of their probabilities, if there are leaps

    def stepped(self, done: Stepped, steps: int, gradients: int) -> None:
        """Stand where so many steps of a level, and gradients in them, have led."""
        self.x, self.log_tau, self.point, self.alive, self.broken = done.x, done.log_tau, done.at, done.alive, done.broken
        self.step, self.gradients = self.step + steps, self.gradients + gradients

    def lose_beyond(self, limits: Tensor, level: int, step: int) -> None:
        """Make NaN of the chains that went beyond their limits (N,) in a level whose last step is `step`; the device goes on."""
        lost = self.alive & (sizes(self.x) > limits)
        at = torch.stack([torch.full_like(self.broken[:, 0], number) for number in (level, step)], 1)
        self.alive, self.broken = self.alive & ~lost, torch.where(lost[:, None], at, self.broken)
        self.x.masked_fill_(lost.view(-1, 1, 1, 1), torch.nan)
        if self.point is not None:  # of several parts, or a graph's, it has a copy
            self.point = self.point._replace(x=self.x)


@dataclass
class Record:
    """What a run gathers: streaming moments of every chain's draws, and figures by level."""

    count: Tensor  # (N,) draws
    mean: Tensor  # (N, H, W, C') of the samples x⁺
    m2: Tensor  # (N, H, W, C') sum of squared deviations of the samples
    polar_mean: Tensor  # (N, H, W, 3C) the same of `polar`; empty of real images
    polar_m2: Tensor
    projected: Tensor  # (N, H, W, C') mean of the noise-free projections m(x): the MMSE estimate
    trace: Tensor  # (draws, N, <= 256) fixed numbers of the state of every draw
    energy: Tensor  # (levels, N) E(x, t)/t² before the last step of a level; NaN in the draws after the first
    acceptance: Tensor  # (levels, N) mean probability of acceptance; NaN without MALA
    tau: Tensor  # (levels, N) MALA's step at the end of a level; NaN without MALA
    applications: Tensor  # (levels,) of AᴴA a step and chain, the predictor's spread over the steps; NaN where none is counted

    @classmethod
    def empty(cls, x: Tensor, is_complex: bool, draws: int, levels: int, traced: int) -> Record:
        """Nothing gathered yet, for states shaped like x, of which `traced` numbers are kept."""
        rows = len(x)
        count = torch.zeros(rows, dtype=torch.int64, device=x.device)
        mean, m2, projected = (torch.zeros_like(x) for _ in range(3))
        of_polar = (*x.shape[:-1], x.shape[-1] // 2 * 3) if is_complex else (0,)
        polar_mean, polar_m2 = (x.new_zeros(of_polar) for _ in range(2))
        by_level = [*(x.new_full((levels, rows), torch.nan) for _ in range(3)), x.new_full((levels,), torch.nan)]
        trace = x.new_zeros(draws, rows, traced)
        return cls(count, mean, m2, polar_mean, polar_m2, projected, trace, *by_level)

    def draw(self, index: int, x: Tensor, mean: Tensor, alive: Tensor, kept: Tensor, backend: str) -> None:
        """Take the samples x and their projections into the statistics, broken chains left out; trace the numbers `kept`."""
        self.take(x, mean, alive, backend)
        self.trace[index] = x.flatten(1)[:, kept]

    def take(self, x: Tensor, mean: Tensor, alive: Tensor, backend: str) -> None:
        """The moments alone; all of them or, where Ctrl-C comes in between, none."""
        count, *samples = moments(self.count, self.mean, self.m2, x, alive, backend)
        of_polar = [self.polar_mean, self.polar_m2]
        if len(self.polar_mean):
            _, *of_polar = moments(self.count, self.polar_mean, self.polar_m2, polar(x), alive, backend)
        lost, taken = (v.view(-1, 1, 1, 1) for v in (~alive, count.clamp(min=1)))
        projected = torch.sub(mean, self.projected, out=empty_like(self.projected))
        projected.masked_fill_(lost, 0).div_(taken).add_(self.projected)
        self.count, self.mean, self.m2, self.polar_mean, self.polar_m2, self.projected = count, *samples, *of_polar, projected

    def pooled(self, alive: Tensor, measurements: int, first_chain: int, pairs: bool, backend: str) -> Pooled:
        """The statistics of the chains of every measurement that are alive; all of these have as many draws, m.

            variance = (m − 1)/m W + B/m,   W the mean of the variances M2/(m − 1) within chains, B/m the variance of their means

        W alone is too small while chains still move away from where they began, B/m is known from as many numbers as chains; of
        antithetic pairs it is how the means of pairs vary and how far the two of a pair are apart (`pairs.units`).

        Source: Gelman & Rubin, "Inference from iterative simulation using multiple sequences", 1992.
        """
        def of(rows: Tensor) -> Spread:
            return over_chains(rows, alive, measurements, first_chain, backend)

        def variance(mean: Tensor, m2: Tensor) -> Tensor:
            each, here = (v.unflatten(0, (measurements, -1)) for v in (mean, alive))
            means, apart, whole = (v.flatten(0, 1) for v in units(each, here, first_chain, pairs))
            first = first_chain // 2 if pairs else first_chain
            n, _, between = over_chains(means, whole, measurements, first, backend)
            draws = torch.where(alive, self.count, 0).view(measurements, -1).amax(1)
            n, draws = (v.view(-1, 1, 1, 1) for v in (n, draws))
            within = of(m2).mean / draws
            if pairs:
                within += over_chains(apart, whole, measurements, first, backend).mean
            return torch.where(n > 1, within + between / (n - 1), torch.nan).float()

        count = torch.where(alive, self.count, 0).view(measurements, -1).sum(1)
        mean = torch.where(count.view(-1, 1, 1, 1) > 0, of(self.projected).mean, torch.nan).float()
        return Pooled(count, mean, variance(self.mean, self.m2),
                      variance(self.polar_mean, self.polar_m2) if len(self.polar_mean) else None)


class Pooled(NamedTuple):
    """Statistics of all chains of each of B measurements: NaN where there is no chain, the variances also where there is one, or
    one pair."""

    draws: Tensor  # (B,)
    mean: Tensor  # (B, H, W, C') of the projections
    variance: Tensor  # (B, H, W, C') of the samples
    polar_variance: Tensor | None  # (B, H, W, 3C)


def polar(x: Tensor) -> Tensor:
    """Magnitude, and cosine and sine of the phase, of complex states (N, H, W, 2C): (N, H, W, 3C), a kind after another.

    Cosine and sine because a phase has no mean: it jumps by 2π. Both are 0 where x is.
    """
    z = as_complex(x)
    unit = torch.sgn(z)
    return torch.cat([z.abs(), unit.real, unit.imag], -1)


class Spread(NamedTuple):
    """Of the chains of each of B measurements: how many (B,), their mean and the sum of squared deviations, (B, …) float64."""

    n: Tensor
    mean: Tensor
    m2: Tensor


def over_chains(rows: Tensor, alive: Tensor, measurements: int, first_chain: int, backend: str) -> Spread:
    """How rows (N, …) spread over the chains that are alive.

    A chain after another within blocks of `BLOCK` by their index, in float64, then a block after another; so blocks that were
    summed elsewhere give the same bits.
    """
    of_each, keep = (v.unflatten(0, (measurements, -1)) for v in (rows, alive))
    chains, nothing = keep.shape[1], torch.zeros_like(of_each[:, 0], dtype=torch.float64)
    none = torch.zeros(measurements, dtype=torch.int64, device=rows.device)
    bounds = [0, *range(BLOCK - first_chain % BLOCK, chains, BLOCK), chains]
    blocks = [Spread(*moments(none, nothing, nothing, of_each[:, begin:end].double().flatten(0, 1), keep[:, begin:end].flatten(),
                              backend)) for begin, end in pairwise(bounds)]
    return reduce(joined, blocks)


def joined(a: Spread, b: Spread) -> Spread:
    """That of the chains of both.

    Source: Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979.
    """
    n, apart = a.n + b.n, b.mean - a.mean
    here, there = (v.view(-1, *[1] * (apart.ndim - 1)) for v in (a.n, b.n / n.clamp(min=1)))
    return Spread(n, a.mean + apart * there, a.m2 + b.m2 + apart.square() * there * here)


def traced(x: Tensor, support: Tensor | None) -> Tensor:
    """Which numbers of states like x are traced: evenly spaced ones of those in the support."""
    inside = torch.arange(x[0].numel(), device=x.device)
    if support is not None:
        inside = inside[support.amax(0).expand(x.shape[1:]).flatten() > 0]
    count = min(TRACED, len(inside))
    return inside[torch.arange(count, device=x.device) * len(inside) // count]
