"""Conjugate gradients for many systems at once, each with step sizes and a stopping rule of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor


def rowwise_dot(a: Tensor, b: Tensor) -> Tensor:
    """Σ a b over all but the first dimension; in two stages, so that a row's rounding never depends on the other rows."""
    return (a * b).flatten(2).sum(-1).sum(-1)


def conjugate_gradients(apply: Callable[[Tensor], Tensor], rhs: Tensor, start: Tensor, tolerance: Tensor | float,
                        max_iter: int) -> Tensor:
    """Solve M x = rhs row by row for a symmetric positive definite M that acts on each row alone.

    A row stops, and changes no more, once ‖rhs − M x‖ ≤ max(tolerance, ε‖rhs‖), ε the rounding of the dtype: beyond
    that there is nothing to gain. A row that is not finite comes back as NaN and leaves the others alone.

    Args:
        apply: p -> M p for rows (N, ...).
        rhs, start: (N, ...) real, at least three dimensions; start is the first guess.
        tolerance: (N,) or a number, residual norm allowed.
        max_iter: iterations at most; a warning tells where they did not suffice.

    Returns:
        x like rhs.
    """
    def columns(v: Tensor) -> Tensor:
        return v.view(-1, *[1] * (rhs.ndim - 1))

    limit = (torch.finfo(rhs.dtype).eps ** 2 * rowwise_dot(rhs, rhs)).clamp_min(torch.as_tensor(tolerance).to(rhs) ** 2)
    x = start.clone()
    r = rhs - apply(x)
    p, rr = r, rowwise_dot(r, r)
    for _ in range(max_iter):
        active = rr > limit  # False where rr is NaN
        if not active.any():
            break
        q = apply(p)
        alpha = columns(torch.where(active, rr / rowwise_dot(p, q), 0))
        x += alpha * p
        r = r - alpha * q
        last, rr = rr, torch.where(active, rowwise_dot(r, r), rr)
        p = r + columns(torch.where(active, rr / last, 0)) * p
    else:
        if (rr > limit).any():
            warnings.warn(f"conjugate gradients: {max_iter} iterations did not reach the tolerance; raise max_iter or tol",
                          stacklevel=2)
    return torch.where(columns(rr.isfinite()), x, torch.nan)
