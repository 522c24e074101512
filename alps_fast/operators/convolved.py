"""MRI whose AᴴA is coil maps around one convolution: sampling that is not Cartesian, and images of several components."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import check, check_positive, check_std, whole
from ..layout import Placed, from_state, to_state
from ..ops._alike import fft, inverse_fft, power, product
from ..ops._cg import PRECISELY, allowed, conjugate_gradients
from ..ops._scalars import StepScalars
from ..ops._step import check_step, perturbed_and_solved, right_hand_side, unit_noise
from ..ops.langevin_sense_cg import CACHE
from ._asked import NoiseAsked
from .base import Operator, check_finite, check_image, check_values
from .sense import CENTRE_TOL, MAP_TOL

# Iterations at t = 50 η by the powers 0, ½, ¾ and 1: 309, 88, 72, 86 of 18 spokes; 471, 104, 69, 71 of 60;
# 99, 86, 94, 149 of two sets of maps.
POWER = 0.75


class ConvolvedMRI(Operator):
    """y_c = E Σ_m S_mc x_m + noise with EᴴE a convolution; images (sets, H, W) complex.

        AᴴA = Sᴴ C S,   C = crop · F⁻¹ · diag(spectrum) · F · pad

    P_t by conjugate gradients on AᴴA, preconditioned by a power of the circular convolution nearest to it, set by set, within
    what some coil sees; noise by perturb-and-solve, ξ = (ε₂, ε₁). Where a set's maps are all zero nothing is measured of it and
    nothing is sampled.

    Subclasses say E by `_encode` and `_decode` and give its spectrum in torch.fft order, on a grid as large as the image (no pad)
    or twice as large.
    """

    is_complex = True

    def __init__(self, maps: Tensor, spectrum: Tensor, noise_std: float, tol: float, max_iter: int):
        super().__init__(check_std("noise_std", noise_std))  # one for all data: whiten coils that differ
        self.tol, self.max_iter = check_positive("tol", tol), whole("max_iter", max_iter, 1)
        self.maps = maps
        self._placed = Placed(self.maps, self.maps.conj().resolve_conj(), spectrum, _diagonals(maps, spectrum))
        seen = (self.maps != 0).any(1)  # (sets, H, W)
        self._support = None if bool(seen.all()) else Placed(seen.movedim(0, -1).repeat_interleave(2, -1)[None].float())
        self._asked = NoiseAsked()

    @property
    def iterative(self) -> bool:
        """Always."""
        return True

    @abstractmethod
    def _encode(self, coils: Tensor) -> Tensor:
        """E of coil images (coils, H, W)."""

    @abstractmethod
    def _decode(self, y: Tensor) -> Tensor:
        """Eᴴ of what a scan measured, (coils, …)."""

    @property
    @abstractmethod
    def measured(self) -> tuple[int, ...]:
        """Shape of a measurement."""

    def forward(self, x: Tensor) -> Tensor:
        """A x."""
        self._check_image(x)
        maps = self._placed.like(x)[0]
        out = torch.stack([self._encode(product(maps, image[:, None]).sum(0)) for image in x.reshape(-1, *x.shape[-3:])])
        return out if x.ndim == 4 else out[0]

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y, (sets, H, W) or (B, sets, H, W)."""
        rows = self._rows(y)
        conjugate = self._placed.like(y)[1]
        out = torch.stack([product(self._decode(row), conjugate).sum(1) for row in rows])
        return out if y.ndim > len(self.measured) else out[0]

    def normal(self, x: Tensor) -> Tensor:
        """AᴴA x, by the spectrum."""
        self._check_image(x)
        maps, conjugate, spectrum, _ = self._placed.like(x)
        height, width = x.shape[-2:]

        rows = max(1, CACHE // (maps[0].numel() * spectrum.numel() // (height * width))) if x.device.type == "cpu" else len(x)

        def of(images: Tensor) -> Tensor:
            coils = pad(product(maps, images[:, :, None]).sum(1), (0, spectrum.shape[1] - width, 0, spectrum.shape[0] - height))
            convolved = inverse_fft(fft(coils) * spectrum)[..., :height, :width]
            return product(conjugate, convolved[:, None]).sum(2)

        return torch.cat([of(images) for images in x.reshape(-1, *x.shape[-3:]).split(rows)]).view(x.shape)

    def check_measurement(self, y: Tensor) -> Tensor:
        """y with a batch dimension."""
        rows = self._rows(y)
        check_finite("y", rows)
        return rows

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(sets, H, W)."""
        return len(self.maps), self.maps.shape[-2], self.maps.shape[-1]

    def support(self, x: Tensor) -> Tensor | None:
        """(1, H, W, 2 sets): where Σ_c |S_mc|² > 0; None where that is everywhere."""
        return None if self._support is None else self._support.like(x)[0]

    def solve_state(self, rhs: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """(AᴴA inv_eta2 + lam)⁻¹ rhs, to the rounding of the dtype."""
        return self._solve(rhs, torch.zeros_like(rhs), inv_eta2, rhs.new_full((len(rhs),), lam), 0.0, PRECISELY * self.max_iter)

    def centre(self, y: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """As every operator's."""
        b = self.adjoint_state(y.to(torch.complex128)) * inv_eta2
        return self._solve(b, torch.zeros_like(b), inv_eta2, b.new_full((len(b),), lam), CENTRE_TOL * math.sqrt(b[0].numel()),
                           PRECISELY * self.max_iter).float()

    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, xi: Tensor | None = None,
                 backend: str = "auto") -> tuple[Tensor, Tensor]:
        """The step of `langevin_sense_cg` on torch, whatever the backend; xi (N, n): ε₂ in state order, then ε₁ as y lies."""
        tol, max_iter = (self.tol, self.max_iter) if s.noise else (min(self.tol, MAP_TOL), PRECISELY * self.max_iter)
        after, mean = self._step(x, grad, b, ids, s, xi, tol, max_iter, joint=False)
        if s.noise and xi is None:
            self._asked(self, after, mean, ids, s)
        return after, mean

    def advance(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, backend: str = "auto") -> Tensor:
        """x⁺, from one system, to an error that the next steps forget."""
        return self._step(x, grad, b, ids, s, None, allowed(self.tol, s.noise), self.max_iter, joint=s.noise_lam == s.lam)[0]

    def _step(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, xi: Tensor | None, tol: float, max_iter: int,
              joint: bool) -> tuple[Tensor, Tensor]:
        """x⁺ and m; of one system with noise and all in place of both if `joint`, and m is of no use."""
        x, grad, b = x.contiguous(), grad.contiguous(), b.contiguous()
        pixels, samples = x[0].numel(), 2 * math.prod(self.measured)
        check_step(x, grad, b, ids, s.lam, s.lin, s.w, s.inv_eta2, s.noise_lam, s.noise, xi, (len(x), pixels + samples))
        rhs, drawn = right_hand_side(x, grad, b, s.lin, s.w), None
        if s.noise:
            eps = unit_noise(x, (len(x), pixels + samples), ids, s.noise, s.seed, s.step, xi)
            noise = torch.view_as_complex(eps[:, pixels:].reshape(len(x), *self.measured, 2).contiguous())
            drawn = to_state(self.adjoint(noise)) * math.sqrt(s.inv_eta2) + eps[:, :pixels].view(x.shape) * math.sqrt(s.noise_lam)
        if joint and drawn is not None:
            rhs, drawn = rhs.add_(drawn), None

        def solve(rhs: Tensor, start: Tensor, shift: Tensor) -> Tensor:
            return self._solve(rhs, start, s.inv_eta2, shift, tol * math.sqrt(pixels), max_iter)

        return perturbed_and_solved(x, rhs, drawn, s.lam, s.noise_lam, solve)

    def _solve(self, rhs: Tensor, start: Tensor, inv_eta2: float, shift: Tensor, error: float, max_iter: int) -> Tensor:
        """(AᴴA inv_eta2 + shift)⁻¹ rhs for states, shift (N,), by `conjugate_gradients`.

        The preconditioner is, where some map of a set is not zero, (D inv_eta2 + shift)^-POWER shift^(POWER − 1), D the diagonals
        of F AᴴA Fᴴ, between transforms; elsewhere 1/shift, which is exact.
        """
        wide = shift[:, None, None, None]
        gain = (self._placed.like(rhs)[3] * inv_eta2 + wide) ** -POWER * wide ** (POWER - 1)  # (N, sets, H, W)
        seen = self.support(rhs)

        def apply(p: Tensor) -> Tensor:
            return self.normal_state(p) * inv_eta2 + p * wide

        def precondition(r: Tensor) -> Tensor:
            inside = to_state(inverse_fft(fft(from_state(r if seen is None else r * seen, True)) * gain))
            return inside if seen is None else torch.where(seen > 0, inside, r / wide)

        return conjugate_gradients(apply, rhs, start, error, max_iter, precondition)

    def _rows(self, y: Tensor) -> Tensor:
        check_values("y", y, is_complex=True)
        shape = self.measured
        check(tuple(y.shape[-len(shape):]) == shape and y.ndim - len(shape) in (0, 1), "y", f"shape {tuple(y.shape)}",
              f"{shape} or (B, *{shape})")
        return y.reshape(-1, *shape)

    def _check_image(self, x: Tensor) -> None:
        check_image(x, True)
        wanted = self.image_shape(x)
        check(tuple(x.shape[-3:]) == wanted, "x", f"shape {tuple(x.shape)}", f"{wanted} or (B, *{wanted})")


def checked_maps(maps: Tensor) -> Tensor:
    """(sets, coils, H, W), a copy of maps that may be of one set, (coils, H, W)."""
    check_values("maps", maps, is_complex=True)
    check(maps.ndim in (3, 4) and maps.numel() > 0, "maps", f"shape {tuple(maps.shape)}", "(coils, H, W) or (sets, coils, H, W)")
    check_finite("maps", maps)
    check(bool((maps != 0).any()), "maps", "all zero", "maps that are not")
    maps = maps.detach().resolve_conj().contiguous().clone()
    return maps if maps.ndim == 4 else maps[None]


def _diagonals(maps: Tensor, spectrum: Tensor) -> Tensor:
    """The diagonals of F AᴴA Fᴴ, (sets, H, W), set by set, as `sense_spectrum` has them.

        d(k) = Σ_δ c(δ) a(δ) exp(−2πi k·δ)/(H W),   c the kernel of C, a(δ) = Σ_r Σ_c conj(S_c(r + δ)) S_c(r)
    """
    height, width = maps.shape[-2:]
    total = torch.stack([power(torch.fft.fft2(one.to(torch.complex128), s=spectrum.shape)).sum(0) for one in maps])
    kernel = torch.fft.ifft2(spectrum.to(torch.complex128))
    folded = torch.fft.fft2(kernel * torch.fft.ifft2(total).conj()).real
    every = tuple(n // m for n, m in zip(spectrum.shape, (height, width), strict=True))  # frequencies of the image among them
    return folded[:, ::every[0], ::every[1]].clamp_min(0) / (height * width)
