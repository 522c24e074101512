"""Conjugate gradients for many systems at once, each with step sizes and a stopping rule of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

WINDOW = 8  # iterations between looks at the error: what it fell by meanwhile tells where it stands
PRECISELY = 10  # times the iterations of a step are allowed where a solution is wanted to the rounding of its dtype

_solves: ContextVar[list[int] | None] = ContextVar("solves", default=None)
_in_graphs: dict[torch.device, Tensor] = {}  # max_iter, where it did not suffice in some replay of a graph, else 0


@contextmanager
def looks() -> Iterator[list[int]]:
    """The max_iter of each solve inside by `conjugate_gradients`, which looks at the device, and so cannot be captured."""
    solves: list[int] = []
    token = _solves.set(solves)
    try:
        yield solves
    finally:
        _solves.reset(token)


def rowwise_dot(a: Tensor, b: Tensor) -> Tensor:
    """Σ a b over all but the first dimension; in two stages, so that a row's rounding never depends on the other rows."""
    return (a * b).flatten(2).sum(-1).sum(-1)


def warn_of_max_iter(max_iter: int) -> None:
    """Tell that some row did not stop."""
    warnings.warn(f"conjugate gradients: {max_iter} iterations did not reach the tolerance; raise max_iter or tol", stacklevel=3)


def looked(flag: Tensor) -> bool:
    """Its value, for a loop that looks at the device here but not in a graph: so torch does not tell of it as of who waits."""
    if flag.device.type != "cuda" or not (mode := torch.cuda.get_sync_debug_mode()):
        return bool(flag)
    torch.cuda.set_sync_debug_mode(0)
    try:
        return bool(flag)
    finally:
        torch.cuda.set_sync_debug_mode(mode)


def in_graphs(device: torch.device) -> Tensor:
    """Where graphs note on `device` that max_iter did not suffice, for `warn_of_graphs`; made before any is captured."""
    if device not in _in_graphs:
        if torch.cuda.is_current_stream_capturing():
            raise RuntimeError(f"conjugate gradients must run once on {device} before they are captured")
        with torch.inference_mode(False):
            _in_graphs[device] = torch.zeros((), dtype=torch.int64, device=device)
    return _in_graphs[device]


def warn_of_graphs(device: torch.device) -> None:
    """`warn_of_max_iter` for the graphs replayed on `device` since the last call; waits for it where there may be some."""
    if device in _in_graphs and (max_iter := int(_in_graphs[device])):
        _in_graphs[device].zero_()
        warn_of_max_iter(max_iter)


def conjugate_gradients(apply: Callable[[Tensor], Tensor], rhs: Tensor, start: Tensor, error: float, max_iter: int,
                        precondition: Callable[[Tensor], Tensor] = lambda r: r) -> Tensor:
    """Solve M x = rhs row by row for a symmetric positive definite M that acts on each row alone.

    A step of size α from residual r lowers the squared error eᵀM e by exactly α rᵀC⁻¹r (Hestenes and Stiefel), and
    where M is the precision of a Gaussian, eᵀM e counts the error in its standard deviations. A row stops, and changes
    no more, once WINDOW steps together lowered it by at most max(error², ε² of all it fell by), ε the rounding of the
    dtype. A row that is not finite comes back as NaN and leaves the others alone.

    Args:
        apply: p -> M p for rows (N, ...).
        rhs, start: (N, ...) real, at least three dimensions; start is the first guess, put aside for zero where zero is nearer.
        error: √(eᵀM e) allowed.
        max_iter: iterations at most; a warning tells where they did not suffice.
        precondition: r -> C⁻¹ r with C ≈ M symmetric positive definite, each row alone.

    Returns:
        x like rhs.
    """
    def columns(v: Tensor) -> Tensor:
        return v.view(-1, *[1] * (rhs.ndim - 1))

    if (solves := _solves.get()) is not None:
        solves.append(max_iter)
    r = rhs - apply(start)
    misleads = columns(rowwise_dot(start, rhs + r) < 0)  # ½xᵀM x − rhsᵀx is above its value at zero
    x, r = torch.where(misleads, 0, start), torch.where(misleads, rhs, r)
    p = precondition(r)
    rz = rowwise_dot(r, p)
    fell, total = torch.zeros_like(rz), torch.zeros_like(rz)
    active = rz > 0  # False where rz is NaN
    for i in range(1, max_iter + 1):
        q = apply(p)
        curvature = rowwise_dot(p, q)
        moves = active & (rz > 0) & (curvature > 0)
        alpha = torch.where(moves, rz / curvature, 0)
        x += columns(alpha) * p
        r = r - columns(alpha) * q
        fell += alpha * rz
        z = precondition(r)
        last, rz = rz, torch.where(moves, rowwise_dot(r, z), rz)
        p = z + columns(torch.where(moves, rz / last, 0)) * p
        if i % WINDOW == 0:
            total += fell
            active = active & (fell > (total * torch.finfo(rhs.dtype).eps ** 2).clamp_min(error**2))
            fell = torch.zeros_like(fell)
            if not active.any():
                break
    else:
        warn_of_max_iter(max_iter)
    return torch.where(columns(rz.isfinite()), x, torch.nan)
