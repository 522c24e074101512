"""How near an estimate is to the truth, and how well its uncertainty tells the error. NumPy arrays, real."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


def psnr(estimate: Array, truth: Array, data_range: float) -> float:
    """10 log₁₀(range² / mean (estimate − truth)²) in dB."""
    mse = float(np.mean(np.square(estimate - truth, dtype=np.float64)))
    return math.inf if mse == 0 else 10 * math.log10(data_range**2 / mse)


def ssim(estimate: Array, truth: Array, data_range: float) -> float | None:
    """Structural similarity of images (H, W), by scikit-image; None where that is not installed."""
    try:
        from skimage.metrics import structural_similarity
    except ImportError:
        return None
    return float(structural_similarity(truth, estimate, data_range=data_range))


def coverage(low: Array, high: Array, truth: Array) -> float:
    """The fraction of the truth that lies within [low, high]."""
    return float(np.mean((low <= truth) & (truth <= high)))


def correlation(a: Array, b: Array) -> float | None:
    """Pearson correlation over all elements; None where one of them is constant."""
    a, b = (v.astype(np.float64).ravel() - v.mean(dtype=np.float64) for v in (a, b))
    scale = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / scale if scale > 0 else None
