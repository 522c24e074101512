"""The one layout inside: images channels-last, complex as two channels.

Users hold (..., C, H, W), real or complex64. Samplers, ops and kernels hold the *state* (N, H, W, C'),
contiguous and real, where a complex channel c is the two real channels 2c (real part) and 2c+1.
Unit noise means variance one in each real channel; `torch.randn` of a complex dtype has one half.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .ops._modes import ordinary


class Placed:
    """Tensors on the device and in the precision of whoever asks, each moved there once: a step waits for no copy."""

    def __init__(self, *tensors: Tensor):
        self.tensors = tensors
        self._there: dict[tuple[torch.dtype, torch.device], tuple[Tensor, ...]] = {}

    def like(self, x: Tensor) -> tuple[Tensor, ...]:
        """The tensors in the real or, where they are complex, complex dtype of x and on its device."""
        key = x.dtype.to_real(), x.device
        if key not in self._there:
            with torch.inference_mode(False):  # they outlive whatever mode they are first asked for in
                self._there[key] = tuple(ordinary(v.to(x.device, key[0].to_complex() if v.is_complex() else key[0]))
                                         for v in self.tensors)
        return self._there[key]


def beside(constants: Tensor, rows: Tensor) -> Tensor:
    """Constants (1|M, ...) of all, or of each of M measurements, beside k M rows that come measurement by measurement."""
    return constants if len(constants) in (1, len(rows)) else constants.repeat_interleave(len(rows) // len(constants), 0)


def to_state(image: Tensor) -> Tensor:
    """(N, C, H, W) real or complex -> (N, H, W, C') real, contiguous; C' = 2C if complex."""
    last = image.movedim(-3, -1)
    if image.is_complex():
        last = torch.view_as_real(last.resolve_conj().contiguous()).flatten(-2)
    return last.contiguous()


def from_state(state: Tensor, is_complex: bool) -> Tensor:
    """(N, H, W, C') real -> (N, C, H, W), complex if asked; the inverse of `to_state`."""
    if is_complex:
        state = as_complex(state)
    return state.movedim(-1, -3).contiguous()


def as_complex(state: Tensor) -> Tensor:
    """View of a state (..., 2C) as complex (..., C)."""
    return torch.view_as_complex(state.unflatten(-1, (-1, 2)))


def as_real(state: Tensor) -> Tensor:
    """View of complex (..., C) as a state (..., 2C)."""
    return torch.view_as_real(state.contiguous()).flatten(-2)


def network_view(state: Tensor) -> Tensor:
    """View of a state (N, H, W, C') as (N, C', H, W) with channels-last strides, for convolutions.

    Also where a side of one leaves strides open, by which torch chooses among its convolutions: an op leaves others than a
    checkpoint does.
    """
    return state.flatten().view(state.shape).movedim(-1, 1)
