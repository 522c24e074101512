"""Any linear operator, given as two functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..adapters import check_own
from ..errors import check, check_positive, whole
from ..layout import from_state, to_state
from ..ops._cg import PRECISELY, damped_least_squares
from ..ops._langevin import check_step, right_hand_side, unit_noise
from ..ops._modes import settled, uncast
from ..ops._scalars import StepScalars
from .base import Operator, check_finite, check_image

MAP_TOL = 0.01  # errors of steps without noise add up, where noise would soon make them forgotten


class LinearOperator(Operator):
    """y = A x + noise with A and Aᴴ given as functions on batches; P_t by conjugate gradients, noise by perturb-and-solve.

        x⁺ = m + P(noise_lam)(√inv_eta2 Aᴴε₁ + √noise_lam ε₂),   ξ = (ε₂, ε₁)

    Every system is a damped least squares problem, solved by `ops._cg.damped_least_squares`, and stops once a bound of its
    error is tol posterior standard deviations, root mean square over the unknowns; without noise, as in MAP, at most 0.01.

    Args:
        forward: (B, C, H, W) -> (B, ...), every image on its own.
        adjoint: its adjoint, (B, ...) -> (B, C, H, W), with respect to Re⟨·,·⟩; real if images are real.
        noise_std: η > 0, in every real component of y.
        image_shape: (C, H, W).
        is_complex: whether images are complex; measurements may be either.
        tol: error of a step allowed, in posterior standard deviations. max_iter: iterations at most.

    Raises:
        ArgumentError: naming the argument; at the first use too, on whose device ⟨Ax, z⟩ = ⟨x, Aᴴz⟩ is tried once.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], noise_std: float,
                 image_shape: Sequence[int], *, is_complex: bool = False, tol: float = 0.03, max_iter: int = 1000):
        super().__init__(noise_std)
        for name, function in (("forward", forward), ("adjoint", adjoint)):
            check_own(name, function, "a function")
            check(callable(function), name, type(function).__name__, "a function")
        check(isinstance(image_shape, Sequence) and len(image_shape) == 3, "image_shape", image_shape, "(C, H, W)")
        self.is_complex = is_complex
        self.tol, self.max_iter = check_positive("tol", tol), whole("max_iter", max_iter, 1)
        self._functions = forward, adjoint
        channels, height, width = (whole("image_shape", size, 1) for size in image_shape)
        self._shape = channels, height, width
        self._measured: tuple[int, ...] | None = None  # shape of one measurement, known once _plan has run
        self._complex_data = False

    def forward(self, x: Tensor) -> Tensor:
        """A x."""
        batch = self._batch(x)
        self._plan(x.device)
        return self._forward(batch) if x.ndim == 4 else self._forward(batch)[0]

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y."""
        shape = self._plan(y.device)
        check(y.shape[-len(shape):] == shape and y.ndim - len(shape) in (0, 1), "y", f"shape {tuple(y.shape)}",
              f"{shape} or (B, *{shape})")
        return self._adjoint(y) if y.ndim > len(shape) else self._adjoint(y[None])[0]

    def normal(self, x: Tensor) -> Tensor:
        """AᴴA x."""
        batch = self._batch(x)
        self._plan(x.device)
        batch = self._adjoint(self._forward(batch))
        return batch if x.ndim == 4 else batch[0]

    def check_measurement(self, y: Tensor) -> Tensor:
        """y with a batch dimension."""
        check(isinstance(y, Tensor), "y", type(y).__name__, "a torch tensor")
        shape = self._plan(y.device)
        check(y.shape[-len(shape):] == shape and y.ndim - len(shape) in (0, 1), "y", f"shape {tuple(y.shape)}",
              f"{shape} or (B, *{shape}), what forward gives")
        floating = y.is_complex() if self._complex_data else y.is_floating_point()
        check(floating, "y", str(y.dtype), "complex, as forward gives" if self._complex_data else "real floating point")
        check_finite("y", y)
        return y if y.ndim > len(shape) else y[None]

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(C, H, W)."""
        return self._shape

    def centre(self, y: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """As every operator's, in the precision that the functions have: `damped_least_squares` never forms Aᴴy inv_eta2."""
        prior = y.new_zeros(len(y), *self._shape[1:], self._shape[0] * (2 if self.is_complex else 1), dtype=y.dtype.to_real())
        return self._solve(prior, self._rows(y), inv_eta2, prior.new_full((len(y),), lam), 0.0, PRECISELY * self.max_iter)

    def solve_state(self, rhs: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """(AᴴA inv_eta2 + lam)⁻¹ rhs to the rounding of its dtype."""
        return self._solve(rhs / lam, None, inv_eta2, rhs.new_full((len(rhs),), lam), 0.0, PRECISELY * self.max_iter)

    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, xi: Tensor | None = None,
                 backend: str = "auto") -> tuple[Tensor, Tensor]:
        """The step above on torch, whatever the backend; xi is (N, n), ε₂ in state order, then ε₁ as y is laid out."""
        x, grad, b = x.contiguous(), grad.contiguous(), b.contiguous()
        pixels, measured = x[0].numel(), self._plan(x.device)
        total = pixels + math.prod(measured) * (2 if self._complex_data else 1)
        check_step(x, grad, b, ids, s.lam, s.lin, s.w, s.inv_eta2, s.noise_lam, s.noise, xi, (len(x), total))
        prior, data = right_hand_side(x, grad, b, s.lin, s.w).div_(s.lam), None
        shift = x.new_full((len(x),), s.lam)
        if s.noise:
            eps = unit_noise(x, (len(x), total), ids, s.noise, s.seed, s.step, xi)
            prior = torch.cat([prior, eps[:, :pixels].view(x.shape) * s.noise_lam**-0.5])
            if s.inv_eta2 > 0:
                data = torch.cat([torch.zeros_like(eps[:, pixels:]), eps[:, pixels:] * s.inv_eta2**-0.5])[..., None]
            shift = torch.cat([shift, torch.full_like(shift, s.noise_lam)])
        tol, max_iter = (self.tol, self.max_iter) if s.noise else (min(self.tol, MAP_TOL), PRECISELY * self.max_iter)
        solved = self._solve(prior, data, s.inv_eta2, shift, math.sqrt(pixels) * tol, max_iter)
        m = solved[:len(x)]
        return (m + solved[len(x):], m) if s.noise else (m.clone(), m)

    def _solve(self, prior: Tensor, data: Tensor | None, inv_eta2: float, shift: Tensor, error: float,
               max_iter: int) -> Tensor:
        """(AᴴA inv_eta2 + shift)⁻¹ (Aᴴdata inv_eta2 + shift prior), data (N, n, 1) or zero; error 0: as the dtype allows."""
        if inv_eta2 == 0:
            return prior.clone()

        def forward(x: Tensor) -> Tensor:
            return self._rows(self._forward(from_state(x, self.is_complex)))

        def adjoint(rows: Tensor) -> Tensor:
            rows = torch.view_as_complex(rows.view(len(rows), -1, 2)) if self._complex_data else rows
            return to_state(self._adjoint(rows.reshape(len(rows), *self._plan(rows.device))))

        data = torch.zeros_like(forward(prior)) if data is None else data
        return damped_least_squares(forward, adjoint, prior, data, inv_eta2, shift, error, max_iter)

    @staticmethod
    def _rows(y: Tensor) -> Tensor:
        """Measurements (N, ...) as real rows (N, n, 1)."""
        y = torch.view_as_real(y.resolve_conj()) if y.is_complex() else y
        return y.reshape(len(y), -1, 1).contiguous()

    def _forward(self, x: Tensor) -> Tensor:
        with uncast():
            return self._functions[0](x)

    def _adjoint(self, y: Tensor) -> Tensor:
        with uncast():
            return self._functions[1](y)

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
        x = torch.randn(1, *self._shape, generator=generator, dtype=torch.complex64 if self.is_complex else torch.float32)
        x = x.to(device)
        y = self._forward(x)
        check(y.shape[:1] == (1,) and y.ndim > 1, "forward", f"an output of shape {tuple(y.shape)}",
              "(B, ...) for (B, C, H, W)")
        z = torch.randn(y.shape, generator=generator, dtype=y.dtype).to(device)
        back = self._adjoint(z)
        check(back.shape == x.shape and back.dtype == x.dtype, "adjoint",
              f"an output {back.dtype} of shape {tuple(back.shape)}", f"{x.dtype} of shape {tuple(x.shape)}")
        there, here = (y * z.conj()).real.sum(), (x * back.conj()).real.sum()
        scale = y.norm() * z.norm()
        check(bool((there - here).abs() <= 1e-3 * scale), "adjoint", f"⟨Ax, z⟩ = {there:.6g} but ⟨x, Aᴴz⟩ = {here:.6g}",
              "the adjoint of forward")
        return tuple(y.shape[1:]), y.is_complex()
