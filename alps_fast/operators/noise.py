"""Noise that hangs on the signal, as an operator's noise_std takes it."""

from __future__ import annotations

import math
from numbers import Real

import torch
from torch import Tensor

from ..errors import check, check_positive
from .base import check_finite, check_values


def counting_std(y: Tensor, gain: float, read_std: float = 0.0, black: float = 0.0) -> Tensor:
    """The standard deviation of each datum of counts: Poisson noise, and a Gaussian's on top.

        y = black + gain · Poisson((A x − black)/gain) + N(0, read_std²),    std = √(gain max(y − black, gain) + read_std²)

    Its own count stands in for the expected one of each datum, as A x is not known, and no datum is taken to be more precise
    than one count. So where few counts fall the likelihood is not Poisson's: what was by chance low gets the more weight, which
    pulls about one count (gain) below the truth; from some ten counts a datum on that is small beside the noise.

    Args:
        y: a measurement, or a batch, real. gain > 0: what y grows by for one count. read_std >= 0, in units of y.
        black: y where nothing is counted; −1 for images in [−1, 1] that are dark there.

    Returns:
        Like y: `Inpainting(mask, noise_std=counting_std(y, gain))`.

    Raises:
        ArgumentError: naming the argument.
    """
    check_values("y", y, is_complex=False)
    check_finite("y", y)
    gain = check_positive("gain", gain)
    check(isinstance(read_std, Real) and 0 <= read_std < math.inf, "read_std", read_std, "a finite number >= 0")
    check(isinstance(black, Real) and math.isfinite(black), "black", black, "a finite number")
    return torch.sqrt(gain * (y - black).clamp_min(gain) + read_std**2)
