"""Dense matrices of small linear maps, to hold the fast forms against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alps_fast.layout import from_state


def real_rows(v: Tensor) -> Tensor:
    """(N, ...) real or complex -> (N, n) real."""
    return (torch.view_as_real(v.resolve_conj()) if v.is_complex() else v).flatten(1)


def matrix(function: Callable[[Tensor], Tensor], shape: Sequence[int], dtype: torch.dtype = torch.float64) -> Tensor:
    """The real matrix of a linear map on real tensors (N, *shape), one row of N each."""
    n = torch.Size(shape).numel()
    return real_rows(function(torch.eye(n, dtype=dtype).view(n, *shape))).T


def image_matrix(function: Callable[[Tensor], Tensor], image: Sequence[int], is_complex: bool) -> Tensor:
    """The same for a map on images (N, C, H, W); columns are states (H, W, C')."""
    c, h, w = image
    return matrix(lambda state: function(from_state(state, is_complex)), (h, w, 2 * c if is_complex else c))


def fft_law(n: int) -> float:
    """Relative error allowed to a float32 FFT of n points (docs/design.md §9)."""
    return 2e-6 + 5e-7 * float(torch.log10(torch.tensor(float(n))))


def posterior_power(normal: Tensor, inv_eta2: float, lam: float, power: float) -> Tensor:
    """(AᴴA inv_eta2 + lam)^power, dense and symmetric."""
    values, vectors = torch.linalg.eigh((normal + normal.T) / 2)
    return vectors * (values.clamp_min(0) * inv_eta2 + lam) ** power @ vectors.T
