"""Shipped priors under themselves: truths drawn from a prior, measured, and inferred with that prior.

Truths come from a run of their own where nothing is measured: LONG times the levels of the schedule that is chosen, every step
accepted or rejected, and RELAX more steps at the last level. What intervals then cover is the sampler's doing, not that of how
well the prior knows images; where LONG times the levels cover as much, it is not that of the schedule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from alps_fast import data, energies, sample
from alps_fast.energies import Energy
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, Operator

from .levy import crps

SIDE = 32
ETA = 0.05
CHAINS, DRAWS = 4, 4
LONG, RELAX = 4, 200
PRIORS = ("natural-ridge", "natural-denoiser", "brain-ridge", "brain-denoiser")


def operators(prior: str) -> dict[str, Operator]:
    """Those that a prior of photographs, or of MR images, is asked about."""
    if prior.startswith("brain"):
        maps = data.coil_maps(4, SIDE, SIDE)
        return {"MRI, one line in 3": CartesianMRI(data.line_mask(SIDE, SIDE, 3, 6, seed=1), maps, noise_std=ETA)}
    return {"30 % of the pixels": Inpainting(data.pixel_mask(SIDE, SIDE, keep=0.3, seed=1), ETA),
            "Gaussian blur of 1.5 pixels": CircularBlur.gaussian(1.5, ETA)}


def truths(energy: Energy, is_complex: bool, count: int, seed: int) -> Tensor:
    """`count` images (count, 1, SIDE, SIDE) of the prior at t = `Energy.finest`."""
    nothing = Denoising(1e3, is_complex=is_complex)
    y = torch.zeros(1, SIDE, SIDE, dtype=torch.complex64 if is_complex else torch.float32)
    first = sample(y, nothing, energy, chains=1, progress=False).schedule
    schedule = replace(first, levels=LONG * first.levels, predictor=True, stride=1.0)  # proposals have a length of their own
    return sample(y, nothing, energy, chains=count, pairs=False, seed=seed, schedule=schedule, correction="mala", draws=2,
                  thin=RELAX, progress=False).samples


class Cell(NamedTuple):
    """coverage: of 50 and 90 % intervals. error: of the second, a standard error over images. ratio: the mean posterior variance
    over the mean's squared error; 1 but for the Monte Carlo error of the mean. crps: of a draw of every pair."""

    prior: str
    operator: str
    times: int
    coverage: tuple[float, float]
    error: float
    ratio: float
    crps: float
    gradients: int


def cells(prior: str, count: int, times: tuple[int, ...] = (1, LONG), seed: int = 0) -> Iterator[Cell]:
    """Of `count` truths under each of the prior's operators; by so many `times` the levels of the schedule that is chosen."""
    energy = energies.load(prior)
    truth = truths(energy, prior.startswith("brain"), count, seed + 1)
    for name, operator in operators(prior).items():
        y = data.measure(operator, truth, seed=seed + 2)
        chosen = sample(y[:1], operator, energy, chains=1, progress=False).schedule
        for many in times:
            schedule = replace(chosen, levels=many * chosen.levels)
            found = sample(y, operator, energy, chains=CHAINS, draws=DRAWS, seed=seed + 3, schedule=schedule, progress=False)
            inside, of_images = [], torch.zeros(0)
            for level in (0.5, 0.9):
                low, high, want = (torch.view_as_real(v) if v.is_complex() else v for v in (*found.interval(level), truth))
                of_images = ((low <= want) & (want <= high)).flatten(1).float().mean(1)
                inside.append(float(of_images.mean()))
            variance = found.std.square().mean()
            independent = found.samples[:, ::2].numpy().swapaxes(0, 1)
            yield Cell(prior, name, many, (inside[0], inside[1]), float(of_images.std()) / math.sqrt(count),
                       float(variance / (found.mean - truth).abs().square().mean()),
                       float(crps(independent.real, truth.numpy().real).mean()), found.gradients)


def table(count: int) -> Iterator[Cell]:
    """Every prior under its operators, one cell after another."""
    return (cell for prior in PRIORS for cell in cells(prior, count))
