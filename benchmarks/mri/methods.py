"""Every method of the table by its name."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np

import alps_fast as af
from alps_fast.cli.options import chosen_precision
from alps_fast.energies.base import Energy
from alps_fast.schedule import PUBLISHED, Schedule

from . import peers
from .figures import Estimate
from .problems import Problem
from .published import published

LEVELS = (0.5, 0.9)


class Effort(NamedTuple):
    """What runs are given: chains and draws of ours, settings that sweeps begin with, the published loop's schedule."""

    chains: int = 4
    draws: int = 10
    settings: tuple[float, ...] = peers.LAMBDAS
    published: Schedule = PUBLISHED
    schedule: Schedule | None = None  # None: chosen


QUICK = Effort(4, 4, (0.01,), Schedule(levels=5, steps=2), Schedule(1.0, 0.05, 5, 2, 7.0, predictor=True))


@cache
def prior(name: str) -> Energy:
    """A shipped energy, in the precision that `alps-fast reconstruct` takes on this machine."""
    return af.energies.load(name, precision=chosen_precision(None))


def mmse(of: Problem, name: str, effort: Effort) -> Estimate:
    """Mean, deviation and intervals of `sample`."""
    post = af.sample(of.y, of.operator, prior(name), chains=effort.chains, draws=effort.draws, schedule=effort.schedule,
                     progress=False)
    return Estimate(post.mean, post.std, {level: post.interval(level) for level in LEVELS},
                    float(np.nanmax(post.diagnostics().rhat)), float(post.chi2))


def mode(of: Problem, name: str, effort: Effort) -> Estimate:
    """`map_estimate`."""
    return Estimate(af.map_estimate(of.y, of.operator, prior(name), schedule=effort.schedule, progress=False).image)


METHODS: dict[str, Callable[[Problem, Effort], Estimate]] = {
    "zero-filled": lambda of, _: peers.zero_filled(of),
    "CG-SENSE": lambda of, _: peers.cg_sense(of),
    "BART pics, l1-wavelet": lambda of, effort: peers.bart_pics(of, effort.settings),
    "SigPy, l1-wavelet": lambda of, effort: peers.sigpy_app("L1WaveletRecon")(of, effort.settings),
    "SigPy, TV": lambda of, effort: peers.sigpy_app("TotalVariationRecon")(of, effort.settings),
    "ours, MAP, brain-ridge": lambda of, effort: mode(of, "brain-ridge", effort),
    "ours, MMSE, brain-ridge": lambda of, effort: mmse(of, "brain-ridge", effort),
    "ours, MAP, brain-denoiser": lambda of, effort: mode(of, "brain-denoiser", effort),
    "ours, MMSE, brain-denoiser": lambda of, effort: mmse(of, "brain-denoiser", effort),
    "published loop, brain-denoiser": lambda of, effort: published(of, prior("brain-denoiser"), effort.published),
}
