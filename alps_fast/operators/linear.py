"""Any linear operator, given as two functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..adapters import check_own
from ..errors import check, check_positive, sides, whole
from ..layout import from_state, to_state
from ..ops._cg import PRECISELY, allowed, damped_least_squares
from ..ops._modes import settled, uncast
from ..ops._scalars import StepScalars
from ..ops._step import check_step, right_hand_side, unit_noise
from .base import Operator, check_finite, check_image, described

PROBED = 1e-3  # by which a product with A, solve or sqrt in single precision may be off, relative
REFINED = 3  # times that what a known P leaves of the centre is solved for
MAP_TOL = 0.01  # errors of steps without noise add up, where noise would soon make them forgotten


class LinearOperator(Operator):
    """y = A x + noise with A and Aᴴ given as functions on batches; P_t by conjugate gradients, noise by perturb-and-solve.

        x⁺ = m + P(noise_lam)(√inv_eta2 Aᴴε₁ + √noise_lam ε₂),   ξ = (ε₂, ε₁)

    Every system is a damped least squares problem, solved by `ops._cg.damped_least_squares`, and stops once a bound of its
    error is tol posterior standard deviations, root mean square over the unknowns; without noise, as in MAP, at most 0.01.

    Who knows P gives it as `solve`, and no iterations are left; with `sqrt` besides, a step's noise is S ξ, S Sᴴ = P, and A is
    not asked.

    Args:
        forward: (B, C, H, W) -> (B, ...), every image on its own.
        adjoint: its adjoint, (B, ...) -> (B, C, H, W), with respect to Re⟨·,·⟩; real if images are real.
        noise_std: η > 0, in every real component of y; (M,) one a measurement, (1, ...) or (M, ...) one a datum.
        image_shape: (C, H, W).
        is_complex: whether images are complex; measurements may be either.
        tol: error allowed of a step whose state is kept, in posterior standard deviations; of those on the way there three times
            as much (docs/exactness.md §12). max_iter: iterations at most.
        solve: (rhs, inv_eta2, lam) -> (AᴴA inv_eta2 + lam)⁻¹ rhs for images (B, C, H, W) and two numbers. Not where noise_std
            differs from datum to datum.
        sqrt: (ξ, inv_eta2, lam) -> S ξ for white noise like images, of variance one in every real component, and any S with
            S Sᴴ = (AᴴA inv_eta2 + lam)⁻¹.
        measurements: M, where A differs from one measurement of a batch to another. All functions have one argument more then,
            the last: which measurement each row is of, (B,) int64 on its device.

    Raises:
        ArgumentError: naming the argument; at the first use too, on whose device ⟨Ax, z⟩ = ⟨x, Aᴴz⟩ is tried once, as is
            (AᴴA inv_eta2 + lam) solve(r) = r, and that S ξ has as many (AᴴA inv_eta2 + lam)^{1/2} as ξ has units.
    """

    def __init__(self, forward: Callable[..., Tensor], adjoint: Callable[..., Tensor], noise_std: float | Tensor,
                 image_shape: Sequence[int], *, is_complex: bool = False, tol: float = 0.01, max_iter: int = 1000,
                 solve: Callable[..., Tensor] | None = None, sqrt: Callable[..., Tensor] | None = None,
                 measurements: int | None = None):
        super().__init__(noise_std, by_datum=True)
        for name, function in (("forward", forward), ("adjoint", adjoint), ("solve", solve), ("sqrt", sqrt)):
            check_own(name, function, "a function")
            check(callable(function) or (function is None and name in ("solve", "sqrt")), name, type(function).__name__,
                  "a function")
        check(solve is not None or sqrt is None, "solve", solve, "a function too where sqrt is given")
        check(solve is None or self._roots is None, "solve", "a function",
              "None where noise_std is a tensor, as it would have to know W too")
        self._indexed = measurements is not None
        if measurements is not None:
            self._count = self.measurements = whole("measurements", measurements, 1)
        if self._roots is not None and (given := len(self._roots.tensors[0])) > 1:
            check(self.measurements in (None, given), "noise_std", f"{given} measurements", f"{self.measurements} or one for all")
            self._count = self.measurements = given
        self._shape = sides(image_shape)
        self.is_complex = is_complex
        self.tol, self.max_iter = check_positive("tol", tol), whole("max_iter", max_iter, 1)
        self._functions = forward, adjoint
        self._known = solve, sqrt
        self._measured: tuple[int, ...] | None = None  # shape of one measurement, known once _plan has run
        self._complex_data = False

    @property
    def iterative(self) -> bool:
        """Where no `solve` is known."""
        return self._known[0] is None

    def forward(self, x: Tensor) -> Tensor:
        """A x."""
        batch = self._batch(x)
        self._plan(x.device)
        self._counted("x", x, x.ndim == 4)
        return self._forward(batch) if x.ndim == 4 else self._forward(batch)[0]

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y."""
        shape = self._plan(y.device)
        check(y.shape[-len(shape):] == shape and y.ndim - len(shape) in (0, 1), "y", f"shape {tuple(y.shape)}",
              f"{shape} or (B, *{shape})")
        self._counted("y", y, y.ndim > len(shape))
        return self._adjoint(y) if y.ndim > len(shape) else self._adjoint(y[None])[0]

    def normal(self, x: Tensor) -> Tensor:
        """AᴴA x."""
        batch = self._batch(x)
        self._plan(x.device)
        self._counted("x", x, x.ndim == 4)
        batch = self._adjoint(self._forward(batch))
        return batch if x.ndim == 4 else batch[0]

    def check_measurement(self, y: Tensor) -> Tensor:
        """y with a batch dimension."""
        check(isinstance(y, Tensor), "y", type(y).__name__, "a torch tensor")
        shape = self._plan(y.device)
        check(y.shape[-len(shape):] == shape and y.ndim - len(shape) in (0, 1) and y.numel() > 0, "y", f"shape {tuple(y.shape)}",
              f"{shape} or (B, *{shape}), what forward gives")
        floating = y.is_complex() if self._complex_data else y.is_floating_point()
        check(floating, "y", str(y.dtype), "complex, as forward gives" if self._complex_data else "real floating point")
        self._counted("y", y, y.ndim > len(shape), exact=True)
        check_finite("y", y)
        return self.whitened(y if y.ndim > len(shape) else y[None])

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self._shape

    def centre(self, y: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """As every operator's, in the precision that the functions have: `damped_least_squares` never forms Aᴴy inv_eta2."""
        if self._known[0] is not None:
            found = self.adjoint_state(y) * 0.0
            for _ in range(REFINED):  # what is left of y is small, and so is what its rounding passes for
                left = self.adjoint_state(y - self._forward(from_state(found, self.is_complex))) * inv_eta2 - lam * found
                found = found + self.solve_state(left, inv_eta2, lam)
            return found.float()
        prior = y.new_zeros(len(y), *self._shape[1:], self._shape[0] * (2 if self.is_complex else 1), dtype=y.dtype.to_real())
        return self._solve(prior, self._rows(y), inv_eta2, prior.new_full((len(y),), lam), 0.0, PRECISELY * self.max_iter)

    def solve_state(self, rhs: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """(AᴴA inv_eta2 + lam)⁻¹ rhs to the rounding of its dtype, or as `solve` has it."""
        if self._known[0] is not None:
            self._plan(rhs.device)
            return self._by(0, rhs, inv_eta2, lam)
        return self._solve(rhs / lam, None, inv_eta2, rhs.new_full((len(rhs),), lam), 0.0, PRECISELY * self.max_iter)

    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, xi: Tensor | None = None,
                 backend: str = "auto") -> tuple[Tensor, Tensor]:
        """The step above on torch, whatever the backend; xi is (N, n), ε₂ in state order, then ε₁ as y is laid out; with `sqrt`
        (N, H, W, C')."""
        x, grad, b = x.contiguous(), grad.contiguous(), b.contiguous()
        pixels, measured = x[0].numel(), self._plan(x.device)
        if self._known[1] is not None:
            check_step(x, grad, b, ids, s.lam, s.lin, s.w, s.inv_eta2, s.noise_lam, s.noise, xi, x.shape)
            m = self._by(0, right_hand_side(x, grad, b, s.lin, s.w), s.inv_eta2, s.lam)
            if not s.noise:
                return m.clone(), m
            return m + self._by(1, unit_noise(x, x.shape, ids, s.noise, s.seed, s.step, xi), s.inv_eta2, s.noise_lam), m
        total = pixels + math.prod(measured) * (2 if self._complex_data else 1)
        check_step(x, grad, b, ids, s.lam, s.lin, s.w, s.inv_eta2, s.noise_lam, s.noise, xi, (len(x), total))
        if self._known[0] is not None:
            m = self._by(0, right_hand_side(x, grad, b, s.lin, s.w), s.inv_eta2, s.lam)
            if not s.noise:
                return m.clone(), m
            eps = unit_noise(x, (len(x), total), ids, s.noise, s.seed, s.step, xi)
            drawn = self._measured_rows(eps[:, pixels:]) * math.sqrt(s.inv_eta2)
            drawn = to_state(self._adjoint(drawn)) + eps[:, :pixels].view(x.shape) * math.sqrt(s.noise_lam)
            return m + self._by(0, drawn, s.inv_eta2, s.noise_lam), m
        tol, max_iter = (self.tol, self.max_iter) if s.noise else (min(self.tol, MAP_TOL), PRECISELY * self.max_iter)
        return self._step(x, grad, b, ids, s, xi, tol, max_iter, joint=False)

    def advance(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, backend: str = "auto") -> Tensor:
        """x⁺; where iterations are left, from one system."""
        if not self.iterative or self.measurements is not None or s.noise_lam != s.lam:
            return super().advance(x, grad, b, ids, s, backend=backend)
        x, grad, b = x.contiguous(), grad.contiguous(), b.contiguous()
        total = x[0].numel() + math.prod(self._plan(x.device)) * (2 if self._complex_data else 1)
        check_step(x, grad, b, ids, s.lam, s.lin, s.w, s.inv_eta2, s.noise_lam, s.noise, None, (len(x), total))
        return self._step(x, grad, b, ids, s, None, allowed(self.tol, s.noise), self.max_iter, joint=True)[0]

    def _step(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, xi: Tensor | None, tol: float, max_iter: int,
              joint: bool) -> tuple[Tensor, Tensor]:
        """x⁺ and m by iteration, of one system with noise and all in place of both if `joint`."""
        pixels = x[0].numel()
        total = pixels + math.prod(self._plan(x.device)) * (2 if self._complex_data else 1)
        prior, shift = right_hand_side(x, grad, b, s.lin, s.w).div_(s.lam), x.new_full((len(x),), s.lam)
        error = math.sqrt(pixels) * tol
        if not s.noise:
            m = self._solve(prior, None, s.inv_eta2, shift, error, max_iter)
            return m.clone(), m
        eps = unit_noise(x, (len(x), total), ids, s.noise, s.seed, s.step, xi)
        drawn, noise_shift = eps[:, :pixels].view(x.shape) * s.noise_lam**-0.5, torch.full_like(shift, s.noise_lam)
        data = eps[:, pixels:, None] * s.inv_eta2**-0.5 if s.inv_eta2 > 0 else None
        if joint:
            after = self._solve(prior.add_(drawn), data, s.inv_eta2, shift, error, max_iter)
            return after.clone(), after
        if self.measurements is not None:  # rows come measurement by measurement: the two systems of a chain one after the other
            m = self._solve(prior, None, s.inv_eta2, shift, error, max_iter)
            return m + self._solve(drawn, data, s.inv_eta2, noise_shift, error, max_iter), m
        data = None if data is None else torch.cat([torch.zeros_like(data), data])
        solved = self._solve(torch.cat([prior, drawn]), data, s.inv_eta2, torch.cat([shift, noise_shift]), error, max_iter)
        m = solved[:len(x)]
        return m + solved[len(x):], m

    def _solve(self, prior: Tensor, data: Tensor | None, inv_eta2: float, shift: Tensor, error: float,
               max_iter: int) -> Tensor:
        """(AᴴA inv_eta2 + shift)⁻¹ (Aᴴdata inv_eta2 + shift prior), data (N, n, 1) or zero; error 0: as the dtype allows."""
        if inv_eta2 == 0:
            return prior.clone()

        def forward(x: Tensor) -> Tensor:
            return self._rows(self.whitened(self._forward(from_state(x, self.is_complex))))

        def adjoint(rows: Tensor) -> Tensor:
            return to_state(self._adjoint(self.whitened(self._measured_rows(rows))))

        data = torch.zeros_like(forward(prior)) if data is None else data
        return damped_least_squares(forward, adjoint, prior, data, inv_eta2, shift, error, max_iter)

    @staticmethod
    def _rows(y: Tensor) -> Tensor:
        """Measurements (N, ...) as real rows (N, n, 1)."""
        y = torch.view_as_real(y.resolve_conj()) if y.is_complex() else y
        return y.reshape(len(y), -1, 1).contiguous()

    def _measured_rows(self, rows: Tensor) -> Tensor:
        """The inverse of `_rows`."""
        measured = self._plan(rows.device)
        rows = torch.view_as_complex(rows.reshape(len(rows), -1, 2)) if self._complex_data else rows
        return rows.reshape(len(rows), *measured)

    def _index(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Which measurement each row is of, where the functions want to know."""
        if not self._indexed or self.measurements is None:
            return ()
        here = torch.arange(self._count, device=rows.device)[self._which]
        return (here.repeat_interleave(len(rows) // len(here)),)

    def _forward(self, x: Tensor) -> Tensor:
        with uncast():
            return self._functions[0](x, *self._index(x))

    def _adjoint(self, y: Tensor) -> Tensor:
        with uncast():
            return self._functions[1](y, *self._index(y))

    def _by(self, which: int, rows: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """`solve` (0) or `sqrt` (1) of states."""
        function = self._known[which]
        assert function is not None
        with uncast():
            out = function(from_state(rows, self.is_complex), inv_eta2, lam, *self._index(rows))
        return to_state(out).to(rows.dtype)

    def _batch(self, x: Tensor) -> Tensor:
        check_image(x, self.is_complex)
        check(tuple(x.shape[-3:]) == self._shape, "x", f"shape {tuple(x.shape)}", f"{self._shape} or (B, *{self._shape})")
        return x if x.ndim == 4 else x[None]

    def _plan(self, device: torch.device) -> tuple[int, ...]:
        """The shape of a measurement, asked of `forward` once."""
        if self._measured is None:
            with settled():
                self._measured, self._complex_data = self._probed(device)
        return self._measured

    def _probed(self, device: torch.device) -> tuple[tuple[int, ...], bool]:
        """The shape of a measurement and whether it is complex, with a test that `adjoint` is the adjoint of `forward`."""
        generator = torch.Generator().manual_seed(0)
        dtype = torch.complex64 if self.is_complex else torch.float32
        x = torch.randn(self.measurements or 1, *self._shape, generator=generator, dtype=dtype, device="cpu").to(device)
        kept = x.clone()
        y = self._forward(x)
        check(isinstance(y, Tensor) and (y.is_floating_point() or y.is_complex()), "forward",
              f"an output {getattr(y, 'dtype', type(y).__name__)}", "a tensor of floating-point or complex numbers")
        check_left("forward", x, kept)
        several = self.measurements is None and y.ndim > 1 and len(y) > 1
        check(y.shape[:1] == x.shape[:1] and y.ndim > 1, "forward",
              f"an output of shape {tuple(y.shape)} for {tuple(x.shape)}", "(B, ...) for (B, C, H, W)"
              + (f"; where each of {len(y)} measurements has another A, measurements={len(y)} and functions of (x, index)"
                 if several else ""))
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype, device="cpu").to(device)
        kept = z.clone()
        back = self._adjoint(z)
        check(isinstance(back, Tensor) and back.shape == x.shape and back.dtype == x.dtype, "adjoint",
              f"an output {described(back) if isinstance(back, Tensor) else type(back).__name__}", described(x))
        check_left("adjoint", z, kept)
        there, here = (y * z.conj()).real.sum(), (x * back.conj()).real.sum()
        scale = y.norm() * z.norm()
        check(bool((there - here).abs() <= 1e-3 * scale), "adjoint", f"⟨Ax, z⟩ = {there:.6g} but ⟨x, Aᴴz⟩ = {here:.6g}",
              "the adjoint of forward")
        self._probe_known(x)
        return tuple(y.shape[1:]), y.is_complex()

    def _probe_known(self, x: Tensor) -> None:
        """Try `solve` and `sqrt` where data and prior balance, and where the data have a hundred times the weight.

            M solve(r) = r,   ⟨S ξ, M S ξ⟩ = ‖ξ‖²,   ⟨S ξ, M S ζ⟩ = ⟨ξ, ζ⟩,   M = AᴴA inv_eta2 + lam

        As S Sᴴ = M⁻¹ and S is square, Sᴴ M S = 1: so two numbers tell whether S is a root, whichever it is.
        """
        def normal(v: Tensor) -> Tensor:
            return self._adjoint(self._forward(v))

        def dot(a: Tensor, b: Tensor) -> float:
            return float((a * b.conj()).real.sum())

        size, zeta, inv_eta2 = float(normal(x).norm() / x.norm()), x.flip(-1), self.noise_std**-2
        for lam in (inv_eta2 * size, 1e-2 * inv_eta2 * size):
            at = f"tried at inv_eta2 = {inv_eta2:.3g}, lam = {lam:.3g}"
            for name, function in zip(("solve", "sqrt"), self._known, strict=True):
                if function is None:
                    continue
                with uncast():
                    kept = x.clone()
                    out, other = (function(v, inv_eta2, lam, *self._index(v)) for v in (x, zeta))
                    check_left(name, x, kept)
                ok = isinstance(out, Tensor) and out.shape == x.shape and out.dtype == x.dtype
                check(ok, name, described(out) if isinstance(out, Tensor) else type(out).__name__, described(x))
                image, cross = (normal(v) * inv_eta2 + v * lam for v in (out, other))
                if name == "solve":
                    off = float((image - x).norm() / (x.norm() + (inv_eta2 * size + lam) * out.norm()))
                    check(off < PROBED, name, f"an answer that is off by {off:.2g}", f"(AᴴA inv_eta2 + lam)⁻¹ r, {at}")
                else:
                    unit = dot(x, x)
                    own, shared, wanted = dot(out, image) / unit, dot(out, cross) / unit, dot(x, zeta) / unit
                    check(abs(own - 1) < PROBED and abs(shared - wanted) < PROBED, name, f"noise of {own:.3g} times its variance",
                          f"S ξ with S Sᴴ = (AᴴA inv_eta2 + lam)⁻¹, {at}")


def check_left(name: str, given: Tensor, before: Tensor) -> None:
    """A function must leave what it is `given` as it was `before`: a run goes on with it.

    Raises:
        ArgumentError: naming the function.
    """
    check(torch.equal(given, before), name, "a function that writes into its argument", "one that leaves it as it is")
