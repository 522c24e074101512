"""Denoising and inpainting: A is a mask, AᴴA diagonal in pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check
from ..layout import Placed
from ..ops._scalars import StepScalars
from ..ops.langevin_pixel import langevin_pixel
from .base import Operator, check_binary, check_finite, check_image


class Inpainting(Operator):
    """y = mask · x + noise.

    Measurements have the shape of the image, (C, H, W) or (B, C, H, W); what they hold where the mask is 0 is not
    used, but must be finite.

    Args:
        mask: (H, W), (1, H, W) or (C, H, W), bool or zeros and ones, 1 = observed; every channel has it if not (C, H, W).
        noise_std: η > 0, in image units, in every real component.
        is_complex: whether images are complex.

    Raises:
        ArgumentError: naming the argument.
    """

    def __init__(self, mask: Tensor, noise_std: float, *, is_complex: bool = False):
        super().__init__(noise_std)
        self.is_complex = is_complex
        mask = check_binary("mask", mask)
        check(mask.ndim in (2, 3), "mask", f"shape {tuple(mask.shape)}", "(H, W) or (C, H, W)")
        self.mask = mask if mask.ndim == 3 else mask[None]
        self._placed = Placed(self.mask)
        self._diagonals: dict[tuple[tuple[int, ...], torch.dtype, torch.device], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """mask · x."""
        check_image(x, self.is_complex)
        self._check_size("x", x)
        return x * self._placed.like(x)[0]

    def adjoint(self, y: Tensor) -> Tensor:
        """mask · y."""
        return self.forward(y)

    def normal(self, x: Tensor) -> Tensor:
        """mask · x."""
        return self.forward(x)

    def check_measurement(self, y: Tensor) -> Tensor:
        """y as (B, C, H, W)."""
        check_image(y, self.is_complex, "y")
        self._check_size("y", y)
        check_finite("y", y)
        y = y * self._placed.like(y)[0]  # so that no misfit counts what was not observed
        return y if y.ndim == 4 else y[None]

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(C, H, W) of y."""
        return y.shape[-3], y.shape[-2], y.shape[-1]

    def data_count(self, y: Tensor) -> int:
        """Numbers where the mask is 1."""
        return int(self.mask.expand(y.shape[1:]).sum()) * (2 if self.is_complex else 1)

    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, xi: Tensor | None = None,
                 backend: str = "auto") -> tuple[Tensor, Tensor]:
        """`ops.langevin_pixel` with a = mask; xi is counted in pixels."""
        return langevin_pixel(x.contiguous(), grad.contiguous(), b.contiguous(), self.diagonal(x), ids, **vars(s), xi=xi,
                              backend=backend)

    def diagonal(self, x: Tensor) -> Tensor:
        """The diagonal of AᴴA for states x (N, H, W, C'), (1, H, W, 1|C'): laid out once for a size, dtype and device."""
        key = tuple(x.shape[1:3]), x.dtype, x.device
        if key not in self._diagonals:
            a = self.mask.movedim(0, -1)[None]
            if a.shape[-1] > 1 and self.is_complex:
                a = a.repeat_interleave(2, -1)
            self._diagonals[key] = a.expand(1, *x.shape[1:3], a.shape[-1]).to(x.device, x.dtype).contiguous()
        return self._diagonals[key]

    def _check_size(self, name: str, image: Tensor) -> None:
        channels, height, width = self.mask.shape
        c, h, w = image.shape[-3:]
        ok = channels in (1, c) and (height, width) == (h, w)
        check(ok, name, f"shape {tuple(image.shape)}", f"an image that fits the mask {tuple(self.mask.shape)}")


class Denoising(Inpainting):
    """y = x + noise. Measurements have the shape of the image, (C, H, W) or (B, C, H, W), any size.

    Args:
        noise_std: η > 0, in image units, in every real component.
        is_complex: whether images are complex.

    Raises:
        ArgumentError: naming the argument.
    """

    def __init__(self, noise_std: float, *, is_complex: bool = False):
        super().__init__(torch.ones(1, 1, 1, dtype=torch.bool), noise_std, is_complex=is_complex)

    def _check_size(self, name: str, image: Tensor) -> None:
        pass
