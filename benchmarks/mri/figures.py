"""How near an estimate is to the truth, and how well its deviation tells where it is not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alps_fast.metrics import correlation, coverage, psnr, ssim

from .images import Truth


class Estimate(NamedTuple):
    """image: (1, H, W) complex. intervals: level -> ends. setting: what a sweep chose, of `tried` that each took as long."""

    image: Tensor
    std: Tensor | None = None
    intervals: dict[float, tuple[Tensor, Tensor]] | None = None
    rhat: float | None = None
    chi2: float | None = None
    setting: float | None = None
    tried: int = 1


def error(image: Tensor, truth: Truth) -> float:
    """‖x̂ − x‖/‖x‖, complex."""
    return float((image - truth.x).norm() / truth.x.norm())


def figures(found: Estimate, truth: Truth) -> dict[str, float | None]:
    """PSNR of the complex error, peak 1; SSIM of magnitudes; NRMSE; on the object's pixels the coverage of intervals of real and
    imaginary part, and the correlation of |error| with the deviation."""
    image, x, inside = (v.numpy() for v in (found.image[0], truth.x[0], truth.inside))
    parts = np.stack([image.real, image.imag]), np.stack([x.real, x.imag])
    told: dict[str, float | None] = {
        "psnr": psnr(*parts, data_range=1.0) - 10 * np.log10(2),  # of a complex pixel, as the model cards have it
        "ssim": ssim(np.abs(image), np.abs(x), 1.0), "nrmse": error(found.image, truth), "rhat": found.rhat, "chi2": found.chi2,
        "setting": found.setting}
    for level, ends in (found.intervals or {}).items():
        low, high, of = (torch.view_as_real(v[0]).numpy()[inside] for v in (*ends, truth.x))
        told[f"cover {100 * level:.0f}"] = coverage(low, high, of)
    if found.std is not None:
        told["error-std"] = correlation(np.abs(image - x)[inside], found.std[0].numpy()[inside])
    return told
