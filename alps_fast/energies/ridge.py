"""A prior of learned filters and log potentials on a pyramid: explicit, cheap, its curvature bounded."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..errors import check, whole
from ..layout import Placed
from ..ops._modes import one_thread
from ..ops._scalars import StepScalars
from ..ops.ridge_grad import ridge_grad, ridge_grad_bytes
from ..ops.ridge_langevin import ridge_langevin
from .base import Energy

LEVELS = 256  # whose constants are kept


def interpolate(table: Tensor, knots: Tensor, t: Tensor) -> Tensor:
    """Rows of `table` (T, ...) at t (N,), linear in ln t between equidistant knots ln t, constant outside them."""
    position = ((t.log() - knots[0]) / (knots[1] - knots[0])).clamp(0, len(knots) - 1)
    low = position.floor().clamp(max=len(knots) - 2).long()
    share = (position - low).view(-1, *[1] * (table.ndim - 1))
    return table[low] * (1 - share) + table[low + 1] * share


class RidgeEnergy(Energy):
    """E(x, t) = ½ Σ_s q_s(t) ‖x_s‖² + Σ_sjkp w_sjk(t) φ(|(W_sk x_s)_p|² r_sjk(t))/r_sjk(t),   φ(u) = ½ log(1 + u)

    over a pyramid x_s, filters W of zero mean; the formulas are `ops.ridge_grad`'s. A negative q_s spares what is
    smooth at scale s: for large t, x − ∇E is x blurred. w, r and q are tables over ln t, interpolated linearly; below
    the first knot E/t² stays as it is there, above the last E does. The curvature bound is convex in w and q, so
    interpolating the knots' bounds bounds every t between them.

    Args:
        filters: (S, K, 1, k, k), k odd.
        knots: (T,) equidistant ln t.
        w, r, q: (T, S, J, K), (T, S, J, K), (T, Q), Q >= S; r > 0, w of any sign, q_0 at least the sum of all −q_s > 0,
            so that the quadratic term is never negative.
        mu: the mean image value, subtracted first.
        channels: real channels of an image: 1, or 2 for complex.
        channelwise: apply it to each group of its channels as an image of its own (grey prior, RGB image).
        bounds: (T,) curvature bounds at the knots; computed where not given (minutes for large tables).
        backend: of the op.
    """

    channels: int

    def __init__(self, filters: Tensor, knots: Tensor, w: Tensor, r: Tensor, q: Tensor, *, mu: float = 0.0, channels: int = 1,
                 channelwise: bool = False, bounds: Tensor | None = None, backend: str = "auto"):
        ok = filters.ndim == 5 and filters.numel() > 0 and filters.shape[2] == 1 and filters.shape[3] % 2 == 1
        check(ok and filters.shape[3] == filters.shape[4], "filters", f"shape {tuple(filters.shape)}", "(S, K, 1, k, k), k odd")
        check(knots.ndim == 1 and len(knots) > 1 and bool((knots.diff() > 0).all()), "knots", f"shape {tuple(knots.shape)}",
              "(T,) rising numbers, T > 1")
        scales, count = filters.shape[:2]
        size = len(knots)
        check(w.ndim == 4 and w.numel() > 0 and w.shape[:2] == (size, scales) and w.shape[3] == count, "w",
              f"shape {tuple(w.shape)}", f"({size}, {scales}, J, {count})")
        check(r.shape == w.shape and bool((r > 0).all()), "r", f"shape {tuple(r.shape)}", f"positive, {tuple(w.shape)}")
        check(q.ndim == 2 and len(q) == size and q.shape[1] >= scales, "q", f"shape {tuple(q.shape)}",
              f"({size}, Q), Q >= {scales}")
        check(bool((q[:, 0] + q[:, 1:].clamp(max=0).sum(1) >= 0).all()), "q", "an indefinite quadratic term",
              "q_0 + Σ min(q_s, 0) >= 0")
        self.filters, self.knots, self.w, self.r, self.q = (v.detach().double().clone() for v in (filters, knots, w, r, q))
        self.channels, self.channelwise = whole("channels", channels, 1, 1 << 10), channelwise
        self.mu, self.backend = float(mu), backend
        self.floor = math.exp(float(self.knots[0]))
        if bounds is None:
            bounds = torch.tensor([curvature_bound(self.filters, a, b) for a, b in zip(self.w, self.q, strict=True)],
                                  dtype=torch.float64, device="cpu")
        self.bounds = bounds.detach().double().clone()
        check(self.bounds.shape == (size,), "bounds", f"shape {tuple(self.bounds.shape)}", f"({size},)")
        self._placed = Placed(*(f.contiguous() for f in self.filters), torch.tensor([self.mu], dtype=torch.float64, device="cpu"))
        self._curvatures: dict[float, float] = {}
        self._levels: dict[tuple[float, torch.dtype, torch.device], tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]] = {}

    def _at(self, table: Tensor, t: float) -> Tensor:
        return interpolate(table, self.knots, torch.tensor([t], dtype=torch.float64, device=table.device))

    def _below(self, t: float) -> float:
        """Factor that keeps E/t² constant below the first knot."""
        return min(1.0, t * t / math.exp(2 * float(self.knots[0])))

    def curvature(self, t: float) -> float:
        if t not in self._curvatures:
            _keep(self._curvatures, t, self._below(t) * float(self._at(self.bounds, t)))
        return self._curvatures[t]

    def _constants(self, t: float, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
        """Filters, w, r, q, μ as the op takes them, once a level: further runs over the same levels find them."""
        key = t, x.dtype, x.device
        if key not in self._levels:
            w, r = (self._at(v, t).permute(1, 2, 0, 3) for v in (self.w, self.r))
            tables = (self._below(t) * w, r, self._below(t) * self._at(self.q, t).T)
            w, r, q = (v.to(x).contiguous() for v in tables)
            *filters, mu = self._placed.like(x)
            _keep(self._levels, key, (filters, w, r, q, mu))
        return self._levels[key]

    def prepare(self, t: float, x: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
        return self._constants(t, x)

    def level(self, t: float, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """w, r, q."""
        return self._constants(t, x)[1:4]

    def _with(self, level: tuple[Tensor, Tensor, Tensor], x: Tensor) -> tuple[list[Tensor], Tensor, Tensor, Tensor, Tensor]:
        """`_constants` whose w, r, q are those of `level`."""
        *filters, mu = self._placed.like(x)
        return filters, *level, mu

    def _workspace(self, shape: tuple[int, int, int, int], device: torch.device) -> int:
        nothing = torch.empty(0, dtype=torch.float32, device="cpu")
        return ridge_grad_bytes(shape, *self._constants(1.0, nothing), self.backend, device)

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        grad, value = ridge_grad(x, *self._constants(t, x), backend=self.backend)
        return value, grad

    def _grad(self, x: Tensor, t: float) -> Tensor:
        return ridge_grad(x, *self._constants(t, x), want_value=False, backend=self.backend)[0]

    def _value_and_grad_at(self, x: Tensor, level: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        grad, value = ridge_grad(x, *self._with(level, x), backend=self.backend)
        return value, grad

    def _grad_at(self, x: Tensor, level: tuple[Any, ...]) -> Tensor:
        return ridge_grad(x, *self._with(level, x), want_value=False, backend=self.backend)[0]

    def langevin_pixel(self, x: Tensor, b: Tensor, a: Tensor, ids: Tensor, t: float, s: StepScalars, count: int,
                       backend: str, level: tuple[Any, ...] | None = None) -> tuple[Tensor, Tensor] | None:
        """`ops.ridge_langevin`; None where the energy's own backend is another than the step's."""
        if self.backend not in ("auto", backend):
            return None
        constants = self._constants(t, x) if level is None else self._with(level, x)
        return ridge_langevin(x, b, a, ids, *constants, self.channels, **vars(s), count=count, backend=backend)


def _keep(cache: dict[Any, Any], key: Any, value: Any) -> None:
    """At most LEVELS of them, more than a schedule has."""
    if len(cache) >= LEVELS:
        cache.clear()
    cache[key] = value


@one_thread()
@torch.no_grad()
def curvature_bound(filters: Tensor, w: Tensor, q: Tensor, grid: int = 96) -> float:
    """The largest eigenvalue of Σ_s D^sᵀ [q_s + Σ_k c_sk W_skᵀ W_sk] D^s over the whole plane, from above.

    c_sk = Σ_j max(w_sjk, −w_sjk/8), as φ's second derivative along a response lies in [−1/8, 1]. Decimation by
    2^{S−1} couples that many frequencies a side, so at each base frequency this is a small Hermitian matrix, a
    trigonometric polynomial in it of degree d; its maximum over m points a side is at most cos(πd/m)⁻² times the
    largest on them. Zero extension restricts the plane's operator to an image and cannot raise its norm. Scales
    without filters add at most max(q_s, 0), as ‖D‖ = 1.
    """
    scales, _, _, side, _ = filters.shape
    fold = 2 ** (scales - 1)
    kind = torch.complex128
    omega = torch.arange(grid, dtype=torch.float64, device=filters.device)[:, None] * (2 * math.pi / (grid * fold))
    omega = omega + 2 * math.pi / fold * torch.arange(fold, dtype=torch.float64, device=filters.device)  # (base, alias)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=kind, device=filters.device) / 8
    cost = torch.maximum(w, -w / 8).sum(1).to(torch.float64)  # (S, K)
    half = grid // 2 + 1  # the other half is its mirror image
    line, size = torch.eye(fold, dtype=kind, device=filters.device).expand(grid, fold, fold), fold
    parts = []
    for s in range(scales):
        phase = torch.exp(-1j * omega[..., None] * torch.arange(side, device=filters.device))
        bank = filters[s, :, 0].to(kind)
        power = [torch.einsum("an,knm,ybm->kayb", p, bank, phase).abs() ** 2 for p in phase[:half]]
        gain = torch.stack([float(q[s]) + torch.einsum("k,kayb->yab", cost[s], p) for p in power])
        parts.append((gain, line))
        if s + 1 < scales:
            transfer = torch.exp(-1j * omega[..., None] * torch.arange(4, device=filters.device)) @ taps
            size //= 2
            line, omega = (transfer[..., None] * line).unflatten(1, (2, size)).sum(1), 2 * omega[:, :size]
    top = 0.0
    for x in range(half):
        total = torch.zeros(grid, fold * fold, fold * fold, dtype=kind, device=filters.device)
        for gain, lines in parts:
            plane = torch.einsum("ai,ybj->yabij", lines[x], lines).flatten(3).flatten(1, 2)
            total += plane.mH @ (gain[x].flatten(1)[..., None] * plane)
        top = max(top, float(torch.linalg.eigvalsh(total.to(torch.complex64))[:, -1].max()))
    degree = ((side - 1) * fold + 3 * (fold - 1) + fold - 1) // fold
    smooth = float(q[scales:].clamp_min(0).sum())
    return 1.0001 * top / math.cos(math.pi * degree / grid) ** 2 + smooth
