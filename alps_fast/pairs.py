"""Antithetic pairs: chain 2k + 1 takes minus the noise of chain 2k, so what is odd in the noise is not in the pair's mean.

Source: Hammersley & Morton, "A new Monte Carlo technique: antithetic variates", 1956.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .ops.philox_normal import MIRRORED

LEAST = 4  # chains that it takes to tell how pairs vary


def ids(indices: Tensor, measurements: Tensor, pairs: bool) -> Tensor:
    """Rows (N, 2) that the noise of chains of these indices, and of these measurements, is drawn by (`ops.philox_normal`)."""
    second = indices % 2 if pairs else torch.zeros_like(indices)
    return torch.stack([indices - second, measurements + second * MIRRORED], 1)


class Units(NamedTuple):
    """What is independent of each other: pairs of chains, and chains whose other one is not there or broke.

    mean: (B, U, …) of a unit's chains. apart: (B, U, …) the mean square by which these differ from it, 0 of one chain.
    whole: (B, U) bool, whether there is such a unit.
    """

    mean: Tensor
    apart: Tensor
    whole: Tensor


def units(values: Tensor, whole: Tensor, first_chain: int, pairs: bool) -> Units:
    """Those of values (B, chains, …) of chains from index first_chain on, where `whole` (B, chains).

    With K units, the variance over them B of their means, and S the mean of `apart`, S + B is the variance of a chain without
    bias, however the two of a pair hang together, and B/K that of the mean.
    """
    here = whole.view(*whole.shape, *[1] * (values.ndim - 2))
    values = torch.where(here, values, 0)
    if not pairs:
        return Units(values, torch.zeros_like(values), whole)
    front = first_chain % 2
    missing = front, (front + values.shape[1]) % 2
    first, second = (_padded(values, missing).unflatten(1, (-1, 2))).unbind(2)
    count = _padded(whole, missing).unflatten(1, (-1, 2)).sum(2)
    both = (count == 2).view(*count.shape, *[1] * (values.ndim - 2))
    mean = first + second
    return Units(torch.where(both, mean / 2, mean), torch.where(both, ((first - second) / 2).square(), 0), count > 0)


def _padded(v: Tensor, missing: tuple[int, int]) -> Tensor:
    """Zeros before and after, along axis 1."""
    front, back = (v.new_zeros(len(v), count, *v.shape[2:]) for count in missing)
    return torch.cat([front, v, back], 1)
