"""ridge_langevin: `count` Langevin steps of a ridge energy; contract in alps_fast/ops/ridge_langevin.py.

The kernels of ridge_grad, which read and write the channels-last state as it lies, and that of langevin_pixel in turn.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .langevin_pixel import langevin_pixel
from .ridge_grad import Layout, fits, run


def ridge_langevin(
    x: Tensor, b: Tensor, a: Tensor, chains: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
    channels: int, lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int,
    count: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """On Triton; arguments and results of `ops.ridge_langevin.ridge_langevin_reference`."""
    if not fits(x, filters, channels):
        return NotImplemented
    n, height, width, c = x.shape
    layout, grad, mean = Layout(n, c // channels, channels, height, width, True), torch.empty_like(x), x
    for k in range(count):
        run(x, layout, height, width, filters, weights, r, q, mu, grad, None)
        x, mean = langevin_pixel(x, grad, b, a, chains, lam, lin, w, inv_eta2, noise_lam, noise, seed, step + k,
                                 None if xi is None else xi[k])
    return x, mean
