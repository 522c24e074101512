"""Orthonormal transforms along one axis, pixel and frequency zero in the middle (n // 2)."""

from __future__ import annotations

import torch
from torch import Tensor


def to_kspace(x: Tensor, axis: int) -> Tensor:
    """Image to k-space along `axis`."""
    return torch.fft.fftshift(torch.fft.fft(torch.fft.ifftshift(x, axis), dim=axis, norm="ortho"), axis)


def to_image(kspace: Tensor, axis: int) -> Tensor:
    """Its inverse."""
    return torch.fft.fftshift(torch.fft.ifft(torch.fft.ifftshift(kspace, axis), dim=axis, norm="ortho"), axis)


def middle(x: Tensor, size: int, axis: int) -> Tensor:
    """The `size` entries around n // 2 of an axis, such that theirs is at size // 2."""
    return x.narrow(axis, x.shape[axis] // 2 - size // 2, size)
