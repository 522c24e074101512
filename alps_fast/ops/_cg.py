"""Conjugate gradients for many systems at once, each with step sizes and a stopping rule of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

WINDOW = 8  # iterations between looks at the device, or at the error where each would wait for it
SHARE = 4  # of all iterations one in so many, the last ones, are compared with as many before: so errors are seen to fall
SLOWEST = 0.25  # by which the error is taken to fall at most from one such share to the next, however fast it just fell
RISE = 64  # units of rounding by which sums of squares may rise and still count as falling
PRECISELY = 10  # times the iterations of a step are allowed where a solution is wanted to the rounding of its dtype, and in MAP

FORGOTTEN = 3.0  # times the error is allowed in a step that others follow (docs/exactness.md §12)

_solves: ContextVar[list[int] | None] = ContextVar("solves", default=None)
_applied: ContextVar[Applications | None] = ContextVar("applied", default=None)
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


class Applications:
    """How often AᴴA was applied to an image, by solvers that count it."""

    def __init__(self) -> None:
        self.total: int | Tensor | None = None  # None: nobody counted

    def add(self, count: int | Tensor) -> None:
        """So many more."""
        self.total = count if self.total is None else self.total + count


@contextmanager
def applications() -> Iterator[Applications]:
    """Counts what is applied inside."""
    token = _applied.set(counter := Applications())
    try:
        yield counter
    finally:
        _applied.reset(token)


def applied(count: Callable[[], int | Tensor]) -> None:
    """Add `count()` where somebody counts."""
    if (counter := _applied.get()) is not None:
        counter.add(count())


def allowed(tol: float, noise: int) -> float:
    """The error of a step that others follow, where tol is that of one whose state is kept.

    A predictor's, which has no noise, is a tenth of a standard deviation long at most, and is wanted to a tenth too.
    """
    return tol * FORGOTTEN if noise else tol


def rowwise_dot(a: Tensor, b: Tensor) -> Tensor:
    """Σ a b over all but the first dimension; in two stages, so that a row's rounding never depends on the other rows."""
    return (a * b).flatten(2).sum(-1).sum(-1)


def warn_of_max_iter(max_iter: int) -> None:
    """Tell that some row did not stop."""
    warnings.warn(f"conjugate gradients: {max_iter} iterations did not reach the tolerance; raise max_iter or tol", stacklevel=3)


def warn_of_error(reached: float, error: float, iterations: int) -> None:
    """Tell what some row may be off by, both in posterior standard deviations, root mean square over its unknowns."""
    warnings.warn(f"conjugate gradients: after {iterations} iterations a step may be {reached:.2g} posterior standard deviations "
                  f"off, tol is {error:.2g}; raise max_iter or tol, or noise_std, which may be too small for single precision",
                  stacklevel=3)


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
                        precondition: Callable[[Tensor], Tensor] = lambda r: r, window: int | None = None) -> Tensor:
    """Solve M x = rhs row by row for a symmetric positive definite M that acts on each row alone.

    A step of size α from residual r lowers the squared error eᵀM e by exactly α rᵀC⁻¹r (Hestenes and Stiefel), and
    where M is the precision of a Gaussian, eᵀM e counts the error in its standard deviations. With f what the last quarter of the
    steps lowered it by and f/ρ what as many before did, f ρ/(1 − ρ) is what is left of it if it goes on falling so. A row stops,
    and changes no more, once that, ρ taken for a quarter at least, is at most error², or f at most ε² of all it fell by, ε the
    rounding of the dtype. A row that is not finite comes back as NaN and leaves the others alone.

    Args:
        apply: p -> M p for rows (N, ...).
        rhs, start: (N, ...) real, at least three dimensions; start is the first guess, put aside for zero where zero is nearer.
        error: √(eᵀM e) allowed.
        max_iter: iterations at most; a warning tells where they did not suffice.
        precondition: r -> C⁻¹ r with C ≈ M symmetric positive definite, each row alone.
        window: iterations between looks, for a preconditioner that is all but exact: a row then stops once those together
            lowered the error by at most max(error², ε² of all it fell by).

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
    falls, total = list[Tensor](), torch.zeros_like(rz)
    active = rz > 0  # False where rz is NaN
    applied(lambda: len(rhs))
    for i in range(1, max_iter + 1):
        q = apply(p)
        applied(active.sum)
        curvature = rowwise_dot(p, q)
        moves = active & (rz > 0) & (curvature > 0)
        alpha = torch.where(moves, rz / curvature, 0)
        x += columns(alpha) * p
        r = r - columns(alpha) * q
        falls.append(alpha * rz)
        total = total + falls[-1]
        z = precondition(r)
        last, rz = rz, torch.where(moves, rowwise_dot(r, z), rz)
        p = z + columns(torch.where(moves, rz / last, 0)) * p
        if i == 1 or (window is not None and i % window != 0):
            continue
        fell, left = _left(falls) if window is None else 2 * [torch.stack(falls[-window:]).sum(0)]
        active = active & (left > error**2) & (fell > total * torch.finfo(rhs.dtype).eps ** 2)
        if not active.any():
            break
    else:
        warn_of_max_iter(max_iter)
    return torch.where(columns(rz.isfinite()), x, torch.nan)


def _left(falls: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What the last share of the steps lowered the squared error by, and how much of it that tells to be left."""
    share = max(1, len(falls) // SHARE)
    fell, before = (torch.stack(part).sum(0) for part in (falls[-share:], falls[-2 * share:-share]))
    return fell, torch.where(fell < before, fell * torch.maximum(fell, SLOWEST * before) / (before - fell), torch.inf)


def damped_least_squares(forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], prior: Tensor, data: Tensor,
                         inv_eta2: float, shift: Tensor, error: float, max_iter: int) -> Tensor:
    """argmin inv_eta2 ‖A x − data‖² + shift ‖x − prior‖² row by row, by conjugate gradients on its normal equations (CGLS).

    Started from the prior's x, all corrections are Aᴴ of something: where A says nothing x is the prior's to the last bit, and
    nothing is ever added to Aᴴ data inv_eta2. With M = AᴴA inv_eta2 + shift, eᵀM e counts the error in posterior standard
    deviations. A row stops, and changes no more, once the upper bound of Gauss and Radau for it, as the smallest eigenvalue
    of M is at least shift, is below error², or its gradient is all rounding, or what is minimised rises.

    Args:
        forward, adjoint: A and Aᴴ between rows (N, H, W, C') and (N, n, 1), real, with respect to the dot product.
        prior: (N, H, W, C'). data: (N, n, 1). inv_eta2 > 0. shift: (N,) > 0.
        error: √(eᵀM e) allowed; 0: what the dtype has.
        max_iter: iterations at most. Where they, or the dtype, do not suffice for an error > 0 a warning tells the bound.

    Returns:
        x like prior.

    Source: Meurant & Tichý, "On computing quadrature-based bounds for the A-norm of the error in conjugate gradients", 2013.
    """
    def columns(v: Tensor) -> Tensor:
        return v[:, None, None, None]

    if (solves := _solves.get()) is not None:
        solves.append(max_iter)
    eps, mu = torch.finfo(prior.dtype).eps, shift / inv_eta2  # the smallest eigenvalue of AᴴA + μ is at least μ
    r = data - forward(prior)
    s = adjoint(r)
    # Squares of small images seen by a weak A leave the range of single precision: a row is solved as a power of two times it.
    powers = -torch.frexp(s.abs().amax((1, 2, 3))).exponent.clamp(-50, 50)
    unit = torch.ldexp(torch.ones_like(mu), powers).to(mu)  # torch 2.10 gives the default dtype
    prior, r, s, limit = prior * columns(unit), r * unit[:, None, None], s * columns(unit), (error * unit).square()
    drift = (eps * rowwise_dot(r, r).sqrt()).square() * inv_eta2  # what r, which is carried along, comes to be off by
    x, p, squares, radau = prior, s, rowwise_dot(s, s), 1 / mu
    largest, least = torch.zeros_like(squares), torch.full_like(squares, torch.inf)
    bound = squares * radau * inv_eta2 + drift
    active = squares > 0  # False where it is NaN
    applied(lambda: len(prior))
    for i in range(1, max_iter + 1):
        q = forward(p)
        applied(active.sum)
        length = rowwise_dot(p, p)
        curvature = rowwise_dot(q, q) + mu * length
        alpha = torch.where(active, squares / curvature, 0)
        x = x + columns(alpha) * p
        r = r - alpha[:, None, None] * q
        s = adjoint(r) - columns(mu) * (x - prior)
        last, squares = squares, torch.where(active, rowwise_dot(s, s), squares)
        beta = torch.where(active, squares / last, 0)
        ahead = (radau - alpha).clamp_min(0)
        radau = torch.where(active, ahead / (mu * ahead + beta), radau)
        bound = torch.where(active, squares * radau * inv_eta2 + drift, bound)
        p = s + columns(beta) * p
        largest = torch.maximum(largest, torch.where(active, curvature / length, 0))
        misfit, moved = rowwise_dot(r, r), rowwise_dot(x - prior, x - prior)
        rounding = (4 * eps) ** 2 * (largest * misfit + mu**2 * moved)
        value = misfit + mu * moved  # falls with every step, until steps are all rounding: going on from there leads away
        least = torch.minimum(least, value)
        active = active & (bound > limit) & (squares > rounding) & (value <= least * (1 + RISE * eps))
        if i % WINDOW == 0 and not looked(active.any()):
            break
    if error > 0 and looked((bound > limit).any()):
        unknowns = prior[0].numel()
        warn_of_error(float((bound / unit.square()).max() / unknowns) ** 0.5, error / unknowns**0.5, i)
    return torch.where(columns(squares.isfinite()), x / columns(unit), torch.nan)
