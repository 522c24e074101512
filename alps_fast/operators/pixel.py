"""Denoising and inpainting: A is a mask, AᴴA diagonal in pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check
from ..layout import Placed, beside
from ..ops._scalars import StepScalars
from ..ops.langevin_pixel import langevin_pixel
from .base import Operator, check_binary, check_finite, check_image


class Inpainting(Operator):
    """y = mask · x + noise.

    Measurements have the shape of the image, (C, H, W) or (B, C, H, W); what they hold where the mask is 0 is not
    used, but must be finite.

    Args:
        mask: (H, W), (1, H, W) or (C, H, W), bool or zeros and ones, 1 = observed; every channel has it if not (C, H, W).
            (M, 1|C, H, W): one a measurement; y is then a batch of M.
        noise_std: η > 0, in image units, in every real component; (M,) one a measurement, (H, W), (1|C, H, W) or
            (M, 1|C, H, W) one a pixel. `counting_std` has that of Poisson counts.
        is_complex: whether images are complex.

    Raises:
        ArgumentError: naming the argument.
    """

    takes_rows = True

    def __init__(self, mask: Tensor, noise_std: float | Tensor, *, is_complex: bool = False):
        if isinstance(noise_std, Tensor) and noise_std.ndim in (2, 3):
            noise_std = noise_std.view(1, -1, *noise_std.shape[-2:])
        super().__init__(noise_std, by_datum=True)
        self.is_complex = is_complex
        mask = check_binary("mask", mask)
        check(mask.ndim in (2, 3, 4), "mask", f"shape {tuple(mask.shape)}", "(H, W), (C, H, W) or (M, C, H, W)")
        masks = mask if mask.ndim == 4 else mask.view(1, -1, *mask.shape[-2:])
        check(bool((masks != 0).flatten(1).any(1).all()), "mask", "one that is all zero", "at least one observed sample in each")
        if self._roots is not None and (stds := self._roots.tensors[0]).ndim > 1:
            check(stds.ndim == 4 and (masks.shape[2:] == (1, 1) or stds.shape[2:] == masks.shape[2:]), "noise_std",
                  f"shape {tuple(stds.shape)}", f"a number, (M,), or one a pixel of images {tuple(masks.shape[2:])}")
        self.mask = masks if mask.ndim == 4 else masks[0]
        self._placed = Placed(masks)
        self._agree(mask=masks)
        self._diagonals: dict[tuple[tuple[int, ...], torch.dtype, torch.device], Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        """mask · x."""
        check_image(x, self.is_complex)
        self._check_size("x", x)
        self._counted("x", x, x.ndim == 4)
        return self._masked(x)

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
        self._counted("y", y, y.ndim == 4, exact=True)
        check_finite("y", y)
        y = self._masked(y)  # so that no misfit counts what was not observed
        return self.whitened(y if y.ndim == 4 else y[None])

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(C, H, W) of y."""
        return y.shape[-3], y.shape[-2], y.shape[-1]

    def data_count(self, y: Tensor) -> int:
        """Numbers where the mask is 1."""
        return int(self._mine(self._placed.tensors[0])[0].expand(y.shape[1:]).sum()) * (2 if self.is_complex else 1)

    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, xi: Tensor | None = None,
                 backend: str = "auto") -> tuple[Tensor, Tensor]:
        """`ops.langevin_pixel` with a = mask; xi is counted in pixels."""
        return langevin_pixel(x.contiguous(), grad.contiguous(), b.contiguous(), beside(self.diagonal(x), b), ids, **vars(s),
                              xi=xi, backend=backend)

    def diagonal(self, x: Tensor) -> Tensor:
        """That of AᴴA for states x (N, H, W, C'), (1|M, H, W, 1|C'): laid out once for a size, dtype and device."""
        key = tuple(x.shape[1:3]), x.dtype, x.device
        if key not in self._diagonals:
            a = self._placed.tensors[0].double()
            if self._roots is not None:
                roots = self._roots.tensors[0]
                a = a * (roots.view(-1, 1, 1, 1) if roots.ndim == 1 else roots).square()
            a = a.movedim(1, -1)
            if a.shape[-1] > 1 and self.is_complex:
                a = a.repeat_interleave(2, -1)
            self._diagonals[key] = a.expand(-1, *x.shape[1:3], -1).to(x.device, x.dtype).contiguous()
        return self._mine(self._diagonals[key])

    def _masked(self, image: Tensor) -> Tensor:
        masks = self._mine(self._placed.like(image)[0])
        return image * (beside(masks, image) if image.ndim == 4 else masks[0])

    def _check_size(self, name: str, image: Tensor) -> None:
        channels, height, width = self._placed.tensors[0].shape[1:]
        c, h, w = image.shape[-3:]
        ok = channels in (1, c) and (height, width) == (h, w)
        check(ok, name, f"shape {tuple(image.shape)}", f"an image that fits the mask {(channels, height, width)}")


class Denoising(Inpainting):
    """y = x + noise. Measurements have the shape of the image, (C, H, W) or (B, C, H, W), any size.

    Args:
        noise_std: η > 0, in image units, in every real component; one a measurement or a pixel as `Inpainting` takes them.
        is_complex: whether images are complex.

    Raises:
        ArgumentError: naming the argument.
    """

    def __init__(self, noise_std: float | Tensor, *, is_complex: bool = False):
        super().__init__(torch.ones(1, 1, 1, dtype=torch.bool, device="cpu"), noise_std, is_complex=is_complex)

    def _check_size(self, name: str, image: Tensor) -> None:
        pass
