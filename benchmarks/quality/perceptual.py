"""A perceptual distance by learned features, from a package that brings its networks' weights."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..peers import deepinv

NEEDED = ("stlpips_pytorch", "torchsummary", "IPython", "torchvision")  # the last three it imports, and does not ask for

LEAST = 32  # of a side, below which its deepest features have no room


@cache
def network() -> Any:
    """Shift-tolerant LPIPS by AlexNet, or None where the extra `perceptual` is not installed."""
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        return None
    deepinv()  # settles what torchvision needs
    return importlib.import_module("stlpips_pytorch.stlpips").LPIPS(net="alex", variant="shift_tolerant", verbose=False)


def st_lpips(image: Tensor, truth: Tensor) -> float | None:
    """Of grey photographs (1, H, W) in [−1, 1]: 0 of the same, about 1 of noise and nothing. None of small ones, or without it.

    Source: Ghildyal & Liu, "Shift-tolerant Perceptual Similarity Metric", arXiv 2207.13686.
    """
    found = network()
    if found is None or min(truth.shape[1:]) < LEAST:
        return None
    both = (v.float().clamp(-1, 1).expand(1, 3, -1, -1) for v in (image, truth))
    with torch.no_grad():
        return float(found(*both))
