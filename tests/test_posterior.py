"""Standard deviations and intervals: of the value, of magnitude and phase; what they cover; blocks of chains; files."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alps_fast import ArgumentError, Schedule, data, sample
from alps_fast.energies import GaussianEnergy
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, Operator, SuperResolution
from alps_fast.ops.moments import moments
from alps_fast.posterior import Posterior
from alps_fast.samplers.chains import Record, joined, over_chains, polar
from alps_fast.student import student

SIDE, S, NOISE = 64, 0.5, 0.02
FEW = Schedule(2.0, 0.2, 4, 3)
SLOW = Schedule(10, 0.02, 25, 4)  # at its end t ≪ s: where nothing is observed a chain hardly moves between draws


class Sharp(GaussianEnergy):
    """A Gaussian that does not know its bound, so that L = 1."""

    def curvature(self, t: float) -> None:
        return None


def mask(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.2).float()


def problem(operator: Operator, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A truth from the prior, std ½ in every real channel, and its measurement."""
    g = torch.Generator().manual_seed(seed)
    kind = torch.complex64 if operator.is_complex else torch.float32
    x = S * torch.randn(1, SIDE, SIDE, generator=g, dtype=kind) * (math.sqrt(2) if operator.is_complex else 1)
    y = operator.forward(x)
    noise = torch.randn(y.shape, generator=g, dtype=y.dtype) * (math.sqrt(2) if y.is_complex() else 1)
    return x, y + NOISE * noise * (y != 0)


def inside(x: Tensor, ends: tuple[Tensor, Tensor], where: Tensor | None = None) -> float:
    """Share of the real numbers of x at the pixels `where` that are between the ends."""
    parts = [torch.view_as_real(v) if v.is_complex() else v[..., None] for v in (x, *ends)]
    found = ((parts[0] > parts[1]) & (parts[0] < parts[2])).float()
    return float((found if where is None else found[:, where.bool()]).mean())


def complex_inpainting() -> Inpainting:
    return Inpainting(mask(SIDE, SIDE), noise_std=NOISE, is_complex=True)


@pytest.mark.parametrize("chains, draws", [(4, 20), (4, 6), (3, 6), (16, 1), (2, 20), (2, 6), (2, 1)])
@pytest.mark.parametrize("is_complex", [False, True])
def test_ninety_percent_intervals_cover_what_chains_hardly_explore(is_complex: bool, chains: int, draws: int) -> None:
    """Truth from the prior, unobserved pixels. As draws of one chain are near each other they used to cover 11 to 75 %.

    Law: 90 ± 2 %, and four standard errors of a share of so many pixels.
    """
    op = Inpainting(mask(SIDE, SIDE), noise_std=NOISE, is_complex=is_complex)
    x, y = problem(op)
    posterior = sample(y, op, Sharp(0.0, S), chains=chains, draws=draws, schedule=SLOW, progress=False)
    unobserved = 1 - mask(SIDE, SIDE)
    error = 4 * math.sqrt(0.09 / float(unobserved.sum()) / (2 if is_complex else 1))
    assert inside(x, posterior.interval(0.9), unobserved) == pytest.approx(0.9, abs=0.02 + error)
    # a chi-square of chains − 1 degrees of freedom a pixel; the schedule's steps make the variance 8 % too large
    spread = 4 * math.sqrt(2 / (chains - 1) / float(unobserved.sum()) / (2 if is_complex else 1))
    assert float(posterior.channel_std.square()[:, unobserved.bool()].mean()) / S**2 == pytest.approx(1.04, abs=0.04 + 1.1 * spread)


MAPS = data.coil_maps(4, SIDE, SIDE)
OPERATORS = {
    "denoising": lambda: Denoising(NOISE),
    "blur": lambda: CircularBlur.gaussian(2.0, NOISE),
    "superres": lambda: SuperResolution(2, NOISE),
    "one coil": lambda: CartesianMRI(mask(SIDE, SIDE), noise_std=NOISE),
    "lines": lambda: CartesianMRI(mask(SIDE).expand(SIDE, SIDE), MAPS, noise_std=NOISE),
    "coils": lambda: CartesianMRI(mask(SIDE, SIDE), MAPS, noise_std=NOISE),
    "functions": lambda: LinearOperator(lambda x: x * mask(SIDE, SIDE), lambda y: y * mask(SIDE, SIDE), NOISE, (1, SIDE, SIDE)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_ninety_percent_intervals_cover_whatever_the_operator(name: str) -> None:
    """Numbers of an image: neighbours hang together where the operator spreads noise, by up to some 30 pixels each."""
    op = OPERATORS[name]()
    x, y = problem(op)
    posterior = sample(y, op, Sharp(0.0, S), chains=4, draws=6, schedule=SLOW, progress=False)
    assert inside(x, posterior.interval(0.9)) == pytest.approx(0.9, abs=0.02 + 4 * math.sqrt(30 * 0.09 / SIDE**2) / 2)
