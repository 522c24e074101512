"""Cartesian MRI with several sets of coil maps: soft SENSE."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check
from .base import check_binary
from .convolved import ConvolvedMRI, checked_maps
from .sense import centred_fft, centred_ifft


class SoftSenseMRI(ConvolvedMRI):
    """y_c = mask · F(Σ_m maps_mc · x_m) + noise, F the centred orthonormal FFT; images (sets, H, W) complex.

    For bodies larger than the field of view, where a pixel sees two places at once: ESPIRiT's second set is the second's.
    A prior of one complex channel serves every set by itself if it is told to: `prior.channelwise = True`.

    Measurements are (coils, H, W) or (B, coils, H, W) complex; what they hold where the mask is 0 is not used.

    Args:
        mask: (H, W) bool or zeros and ones, frequency zero in the middle; (H, 1) or (1, W) where it does not vary along an axis.
        maps: (sets, coils, H, W) complex, or (coils, H, W) of one set, for which `CartesianMRI` is faster.
        noise_std, tol, max_iter: as `CartesianMRI` takes them.

    Raises:
        ArgumentError: naming the argument.

    Source: Uecker et al., "ESPIRiT – an eigenvalue approach to autocalibrating parallel MRI", 2014.
    """

    def __init__(self, mask: Tensor, maps: Tensor, *, noise_std: float, tol: float = 0.01, max_iter: int = 1000):
        maps, mask = checked_maps(maps), check_binary("mask", mask)
        fits = mask.ndim == 2 and all(m in (1, n) for m, n in zip(mask.shape, maps.shape[-2:], strict=True))
        check(fits, "mask", f"shape {tuple(mask.shape)}", f"{tuple(maps.shape[-2:])}, as maps have it")
        self.mask = mask.expand(maps.shape[-2:]).contiguous()
        super().__init__(maps, torch.fft.ifftshift(self.mask), noise_std, tol, max_iter)

    @property
    def measured(self) -> tuple[int, ...]:
        """(coils, H, W)."""
        return tuple(self.maps.shape[1:])

    def check_measurement(self, y: Tensor) -> Tensor:
        """y as (B, coils, H, W), 0 where nothing was measured, so that no misfit counts it."""
        return super().check_measurement(y) * self.mask.to(y.device)

    def data_count(self, y: Tensor) -> int:
        """Two for every sample of every coil where the mask is 1."""
        return 2 * y.shape[1] * int(self.mask.sum())

    def _encode(self, coils: Tensor) -> Tensor:
        return centred_fft(coils) * self.mask.to(coils.device)

    def _decode(self, y: Tensor) -> Tensor:
        return centred_ifft(y * self.mask.to(y.device))
