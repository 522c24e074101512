"""Super-resolution: blur, then keep every factor-th pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import whole
from .base import check_image
from .fourier import CircularBlur, check_psf, gaussian_psf


class SuperResolution(CircularBlur):
    """y = (psf ∗ x)[::factor, ::factor] + noise, circular convolution.

    Measurements are (C, h, w) or (B, C, h, w), images (C, factor·h, factor·w).

    Args:
        factor: >= 1, along both axes.
        noise_std: η > 0, in image units, in every real component; (M,) one a measurement.
        blur: the psf or psfs (see CircularBlur), or the standard deviation of a Gaussian in pixels of the large image, or
            None for no blur.
        is_complex: whether images are complex.

    Raises:
        ArgumentError: naming the argument.
    """

    def __init__(self, factor: int, noise_std: float | Tensor, blur: Tensor | float | None = None, *, is_complex: bool = False):
        self.factor = whole("factor", factor, 1)
        if blur is None:
            blur = torch.ones(1, 1, dtype=torch.float64, device="cpu")
        elif isinstance(blur, Tensor):
            check_psf("blur", blur)
        else:
            blur = gaussian_psf(blur, "blur")
        super().__init__(blur, noise_std, is_complex=is_complex)

    def forward(self, x: Tensor) -> Tensor:
        """Every factor-th pixel of psf ∗ x."""
        return super().forward(x)[..., ::self.factor, ::self.factor].contiguous()

    def adjoint(self, y: Tensor) -> Tensor:
        """Correlation with the psf of y set among zeros."""
        check_image(y, self.is_complex, "y")
        large = y.new_zeros(*y.shape[:-2], y.shape[-2] * self.factor, y.shape[-1] * self.factor)
        large[..., ::self.factor, ::self.factor] = y
        return super().adjoint(large)
