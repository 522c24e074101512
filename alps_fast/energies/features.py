"""Smooth features of the noise level, the input of every small net that turns t into weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def level_features(t: Tensor, count: int) -> Tensor:
    """Sines and cosines of ln t for t (N,): (N, count), from two cycles over e^±4.5 down to nearly none."""
    k = torch.arange(count // 2, device=t.device, dtype=t.dtype)
    angle = (torch.log(t)[:, None] / 4.5) * (math.pi / 2 ** (k / 4 - 1.0))
    return torch.cat([angle.sin(), angle.cos()], 1)
