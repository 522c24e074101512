"""What `alps-fast reconstruct` does with measurements that are images: their operators, blur kernels and noise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..errors import ArgumentError, check

if TYPE_CHECKING:
    from torch import Tensor

    from ..operators.base import Operator

T = TypeVar("T")
ASSUMED = 0.02  # noise_std of images in [−1, 1] where nothing tells it


def needed(name: str, value: T | None, wanted: str) -> T:
    """`value`, which must have been given."""
    if value is None:
        raise ArgumentError(f"{name}: got none; wanted {wanted}")
    return value


def read_blur(blur_std: float | None, motion: tuple[float, float] | None, psf: Path | None) -> Tensor | None:
    """The blur kernel that one of the three options gives, None without any."""
    from ..io import read_psf
    from ..operators.fourier import gaussian_psf, motion_psf

    given = [name for name, value in (("blur_std", blur_std), ("motion", motion), ("psf", psf)) if value is not None]
    check(len(given) <= 1, " and ".join(given), "all of these", "one description of the blur")
    if blur_std is not None:
        return gaussian_psf(blur_std, "blur_std")
    if motion is not None:
        check(0 < motion[0] < math.inf and math.isfinite(motion[1]), "motion", motion, "a length > 0 and an angle, both finite")
        return motion_psf(*motion, "motion")
    return None if psf is None else read_psf(psf)


def image_operator(kind: str, image: Tensor, noise_std: float, mask: Path | None, blur: Tensor | None,
                   factor: int | None) -> Operator:
    """A for a measurement that is an image."""
    from .. import operators
    from ..io import read_mask

    is_complex = image.is_complex()
    if kind == "inpaint":
        seen = read_mask(needed("mask", mask, "a file, for --operator inpaint"))
        return operators.Inpainting(seen, noise_std, is_complex=is_complex)
    if kind == "deblur":
        kernel = needed("blur_std, motion or psf", blur, "one of them for --operator deblur")
        return operators.CircularBlur(kernel, noise_std, is_complex=is_complex)
    if kind == "superres":
        return operators.SuperResolution(2 if factor is None else factor, noise_std, blur, is_complex=is_complex)
    return operators.Denoising(noise_std, is_complex=is_complex)


def image_noise_std(kind: str, image: Tensor, noise_std: float | None) -> tuple[float, str]:
    """η of a measurement that is an image, and whether it was given, estimated or assumed."""
    from ..io import image_noise

    if noise_std is not None:
        return noise_std, "given"
    found = image_noise(image) if kind in ("denoise", "deblur") else None  # pixels that are missing or apart are no neighbours
    return (ASSUMED, "assumed") if found is None else (found, "estimated")
