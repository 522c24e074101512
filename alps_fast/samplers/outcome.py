"""What a run found, as a `Posterior`, and whether its samples fit what was measured."""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..layout import from_state
from ..posterior import BrokenChain, Posterior

if TYPE_CHECKING:
    from .run import Run

CHI2_FAR = 0.25  # χ² a datum may be so far from 1: good data gave 0.98, and the slightest of wrong ones that were tried 1.33
CHI2_ABOVE = ("noise_std is too small, or maps, mask or kernel are not those of the data, signal lies where all maps are zero, "
              "frequency zero is not in the middle, or data and prior differ in scale")
CHI2_BELOW = "noise_std is too large, or the mask counts as measured what was not"
CHI2_ROWS = 16  # images whose misfit is formed at a time, and
CHI2_NUMBERS = 1 << 19  # numbers of their measurements: k-space of many coils is as much as a whole run works in


def posterior_of(run: Run) -> Posterior:
    """The posterior of a run that is over; of one stopped before its first draw, by the states as they stand."""
    sampler, ensemble, record = run.sampler, run.ensemble, run.record
    if not bool(record.count.any()):
        record.take(ensemble.x, ensemble.x, ensemble.alive, sampler.backend)
    rows, complex_image = (len(run.y), sampler.chains), sampler.operator.is_complex
    found = record.pooled(ensemble.alive, len(run.y), sampler.first_chain, sampler.paired, sampler.backend)
    whole = ensemble.alive.view(-1, 1, 1, 1)
    drawn = max(ensemble.level - run.course.annealed + 1, 0)
    trace = record.trace[:drawn].unflatten(1, rows).permute(1, 2, 0, 3).contiguous()
    lost = [BrokenChain(row // sampler.chains, sampler.first_chain + row % sampler.chains, *ensemble.broken[row].tolist())
            for row in (~ensemble.alive).nonzero().flatten().tolist()]
    shown, levels = run.course.annealed, run.course.levels
    by_level = {
        "t": [level.t for level in levels[:shown]], "eta": [level.eta for level in levels[:shown]],
        **{name: _mean_over(getattr(record, name)[:shown], ensemble.alive) for name in ("energy", "acceptance", "tau")}}
    if sampler.operator.iterative:
        by_level["applications"] = record.applications[:shown].tolist()

    def one(v: Tensor) -> Tensor:
        return v if run.batched else v[0]

    def images(state: Tensor, is_complex: bool = complex_image) -> Tensor:
        return one(from_state(state, is_complex))

    def of_chains(state: Tensor, is_complex: bool = complex_image) -> Tensor:
        return one(from_state(state, is_complex).unflatten(0, rows))

    polar_means = polar_std = None
    if found.polar_variance is not None:
        polar_means = of_chains(torch.where(whole, record.polar_mean, torch.nan), False)
        polar_std = images(found.polar_variance.sqrt(), False)
    return Posterior(
        mean=images(found.mean), channel_std=images(found.variance.sqrt(), False), samples=of_chains(ensemble.x),
        count=one(found.draws), trace=one(trace), chain_means=of_chains(torch.where(whole, record.mean, torch.nan)),
        polar_means=polar_means, polar_std=polar_std, by_level=by_level,
        acceptance=_acceptance(record.acceptance[shown - 1:], ensemble.alive), interrupted=run.interrupted, broken=lost,
        seed=sampler.seed, schedule=run.schedule, seconds=time.perf_counter() - run.began, gradients=ensemble.gradients,
        chi2=one(_chi2(run)), support=None if run.support is None else run.support.amax((0, -1)) > 0,
        pairs=sampler.paired, first_chain=sampler.first_chain, leap_acceptance=_of_leaps(ensemble.leapt, ensemble.alive))


def _chi2(run: Run) -> Tensor:
    """χ² a datum of the states, (B,) float64: the mean of ‖A x − y‖²/(η² n) over chains that are whole, n real data each."""
    ensemble, operator, each = run.ensemble, run.sampler.operator, run.sampler.chains
    sums = torch.zeros(len(run.ids), dtype=torch.float64, device=ensemble.x.device)
    most = len(sums) if operator.measurements is None else each  # rows from `first` on that are of one operator
    at_once = min(CHI2_ROWS, max(1, CHI2_NUMBERS // run.y[0].numel()))
    for begin in range(0, len(sums), most):
        here = operator.of(begin // each, begin // each + 1) if most == each else operator
        for first in range(begin, begin + most, at_once):
            rows = slice(first, min(first + at_once, begin + most))
            images = from_state(ensemble.x[rows], operator.is_complex)
            residual = here.misfit(images, run.y[torch.arange(len(sums), device=sums.device)[rows] // each])
            sums[rows] = (torch.view_as_real(residual) if residual.is_complex() else residual).double().square().flatten(1).sum(1)
    sums = torch.where(ensemble.alive, sums, torch.nan).view(len(run.y), each)
    counts = torch.tensor(operator.data_counts(run.y), dtype=sums.dtype, device=sums.device)
    return sums.nanmean(1) / (operator.noise_std**2 * counts)


def warn_of_chi2(chi2: Tensor, counts: list[int]) -> None:
    """Warn where χ² a datum is far from 1, as it is for samples of the posterior of what was measured, within √(2/count)."""
    for i, (value, count) in enumerate(zip(chi2.flatten().tolist(), counts, strict=True)):
        if abs(value - 1) > CHI2_FAR + 5 * math.sqrt(2 / count):
            which = f" of measurement {i}" if chi2.ndim else ""
            why = CHI2_ABOVE if value > 1 else CHI2_BELOW
            warnings.warn(f"chi-squared a datum{which} is {value:.3g} for these samples, about 1 expected: {why}", stacklevel=4)


def _mean_over(values: Tensor, alive: Tensor) -> list[float]:
    """Mean over chains that are whole, level by level."""
    return values[:, alive].double().mean(1).tolist()


def _of_leaps(leapt: Tensor | None, alive: Tensor) -> float | None:
    """Mean probability of the leaps that chains tried which are whole, NaN where none did; None without leaps."""
    if leapt is None:
        return None
    tried, accepted = leapt[:, alive].sum(1).tolist()
    return accepted / tried if tried else math.nan


def _acceptance(values: Tensor, alive: Tensor) -> float | None:
    """Mean acceptance at the last level and in the draws; None without MALA."""
    seen = values[:, alive]
    seen = seen[seen.isfinite()]
    return float(seen.mean()) if seen.numel() else None
