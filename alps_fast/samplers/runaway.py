"""Chains that ran away: finite, and far beyond anything that the prior knows or the measurement says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..ops._step import by_measurement

if TYPE_CHECKING:
    from ..energies.base import Energy
    from ..schedule import Schedule

RUNAWAY = 1e3


def limits(first: Tensor, behind: Tensor, least: float) -> Tensor:
    """How large a number of a state may become, (N,) a chain: RUNAWAY times the largest of what it can be made of.

    That is its first state (N, H, W, C'), which is the data's solution and noise of the largest t, the image behind its
    measurement (B, H, W, C'), and `least`, of which images of the prior and the levels are. Noise of t reaches 7 t, and a step is
    a mean of data and of what the prior makes of a state, so a chain that follows both stays within ten times as much. A network
    that makes its images larger, as one does outside those it has seen, for one after levels too far apart, multiplies them a
    step: a thousand times is soon passed, and leaves single precision four digits for what the prior knows.
    """
    known = by_measurement(sizes(first), behind).maximum(sizes(behind)[:, None]).flatten()
    return RUNAWAY * known.clamp_min(least)


def causes(energy: Energy, schedule: Schedule | None) -> str:
    """What an error that nothing is left says of why, where that is known: a network was asked about what it has never seen."""
    if not energy.unit:
        return ""
    longer = " and steps longer than one (stride)" if schedule is not None and schedule.stride > 1 else ""
    far = "" if schedule is None else f", and so do levels too far apart{longer}: schedule=None chooses them"
    return f"; an image behind y that is not in the energy's units does that{far}"


def sizes(x: Tensor) -> Tensor:
    """The largest magnitude of a number of each state, (N,)."""
    return torch.linalg.vector_norm(x.flatten(1), math.inf, dim=1)
