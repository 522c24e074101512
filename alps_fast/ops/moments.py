"""moments: streaming mean and variance over chains and steps."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check
from ._compiled import Kernel, compiled
from ._dispatch import Op, dispatch, implements
from ._reused_memory import empty_like


@implements("moments", "torch")
def moments_reference(count: Tensor, mean: Tensor, m2: Tensor, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The definition: Welford's update row after row, so the result does not depend on how rows are split over calls."""
    groups, column = len(count), (-1,) + (1,) * (x.ndim - 1)
    count, mean, m2 = count.clone(), mean.clone(), m2.clone()
    rows = zip(x.unflatten(0, (groups, -1)).unbind(1), keep.view(groups, -1).unbind(1), strict=True)
    for row, kept in rows:
        count += kept
        row = torch.where(kept.view(column), row, mean)  # a row left out may hold NaN
        delta = row - mean
        mean += delta / count.clamp(min=1).view(column)
        m2 += delta * (row - mean)
    return count, mean, m2


@compiled("moments", cpu="contiguous statistics", cuda="contiguous statistics")
def _moments(kernel: Kernel, count: Tensor, mean: Tensor, m2: Tensor, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if not (mean.is_contiguous() and m2.is_contiguous()):  # whose layout the results keep
        return NotImplemented
    count, x, keep = count.contiguous(), x.contiguous(), keep.contiguous()
    groups, rows, n, is_double = len(count), len(x), mean[0].numel(), x.dtype == torch.float64
    count_after, mean_after, m2_after = torch.empty_like(count), empty_like(mean), empty_like(m2)
    kernel(locals(), x.device)
    return count_after, mean_after, m2_after


@Op
def moments(count: Tensor, mean: Tensor, m2: Tensor, x: Tensor, keep: Tensor,
            backend: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
    """Take the rows of x into running means and sums of squared deviations, one for each of B groups.

        for every kept row:  n += 1,  δ = x − mean,  mean += δ/n,  M2 += δ (x − mean);   variance M2/n or M2/(n − 1)

    Args:
        count: (B,) int64, rows taken so far; zeros to begin with.
        mean, m2: (B, ...) float32 or float64; zeros to begin with. Units of x and of x².
        x: (N, ...) of the dtype of mean, B dividing N; row n belongs to group n // (N // B). B = 1 pools all
            chains, B = number of measurements keeps these apart, B = N keeps every chain apart.
        keep: (N,) bool; a row with False is not read into anything, whatever it holds.

    Returns:
        (count, mean, m2) after the rows; the arguments are left as they were.

    Raises:
        ArgumentError: naming the argument.

    Source: Welford, "Note on a method for calculating corrected sums of squares and products", 1962.
    """
    groups = len(count) if count.ndim == 1 else 0
    check(groups > 0 and count.dtype == torch.int64, "count", f"{count.dtype} of shape {tuple(count.shape)}", "int64 (B,)")
    check(x.dtype in (torch.float32, torch.float64) and x.ndim >= 1 and len(x) % groups == 0 < len(x), "x",
          f"{x.dtype} of shape {tuple(x.shape)}", f"float32 or float64 (N, ...), N a multiple of B = {groups}")
    for name, value in (("mean", mean), ("m2", m2)):
        check(value.dtype == x.dtype and value.shape == (groups, *x.shape[1:]), name,
              f"{value.dtype} of shape {tuple(value.shape)}", f"{x.dtype} of shape {(groups, *x.shape[1:])}")
    check(keep.dtype == torch.bool and keep.shape == x.shape[:1], "keep",
          f"{keep.dtype} of shape {tuple(keep.shape)}", f"torch.bool of shape {tuple(x.shape[:1])}")
    for name, value in (("count", count), ("mean", mean), ("m2", m2), ("keep", keep)):
        check(value.device == x.device, name, value.device, f"the device of x, {x.device}")
    return dispatch("moments", backend, x.device, count, mean, m2, x, keep)


@moments.register_fake
def _(count: Tensor, mean: Tensor, m2: Tensor, x: Tensor, keep: Tensor,
      backend: str = "auto") -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(count), torch.empty_like(mean), torch.empty_like(m2)
