"""What every measurement operator A offers: forward, adjoint, normal, project, and its Langevin step."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from ..errors import check, check_positive, check_std
from ..layout import from_state, to_state
from ..ops._scalars import StepScalars
from ..ops.philox_normal import NO_NOISE


class Operator(ABC):
    """A linear measurement y = A x + noise, noise_std its standard deviation in every real component.

    Images are (C, H, W) or (B, C, H, W); measurements have the shapes their class documents, with or without B.
    Inside, samplers use states (N, H, W, C'), see `alps_fast.layout`.
    """

    is_complex: bool  # whether images are complex

    def __init__(self, noise_std: float):
        self.noise_std = check_std("noise_std", noise_std)

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y."""

    @abstractmethod
    def normal(self, x: Tensor) -> Tensor:
        """AᴴA x, in the cheapest form the operator has."""

    @abstractmethod
    def check_measurement(self, y: Tensor) -> Tensor:
        """y with a batch dimension added where it had none; raises ArgumentError where shape or dtype do not fit."""

    @abstractmethod
    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(C, H, W) of the image that a checked measurement y belongs to."""

    @abstractmethod
    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, xi: Tensor | None = None,
                 backend: str = "auto") -> tuple[Tensor, Tensor]:
        """One Langevin step on states: (x⁺, m) of `StepScalars`.

        x, grad: (N, H, W, C'). b: (B, H, W, C') with B dividing N; rows of x come measurement by measurement.
        ids: (N,) or (N, 2) int64, of chains and measurements, as `ops.philox_normal` takes them.
        xi: noise to use in place of Philox, in the op's own basis.
        """

    def support(self, x: Tensor) -> Tensor | None:
        """Where images may differ from zero, as a state (1, H, W, 1) of zeros and ones like x; None: everywhere."""
        return None

    def data_count(self, y: Tensor) -> int:
        """Real numbers that were measured of each image behind the checked measurement y."""
        return y[0].numel() * (2 if y.is_complex() else 1)

    def diagonal(self, x: Tensor) -> Tensor | None:
        """AᴴA for states like x, as `ops.langevin_pixel` takes it, where it is diagonal in pixels; else None."""
        return None

    def project(self, rhs: Tensor, t: float) -> Tensor:
        """P_t rhs = (AᴴA/η² + I/t²)⁻¹ rhs, for images (C, H, W) or (B, C, H, W)."""
        check_image(rhs, self.is_complex, "rhs")
        t = check_positive("t", t)
        out = from_state(self.project_state(to_state(rhs.reshape(-1, *rhs.shape[-3:])), t), self.is_complex)
        return out.reshape(rhs.shape)

    def project_state(self, rhs: Tensor, t: float) -> Tensor:
        """P_t rhs on states."""
        return self.solve_state(rhs, self.noise_std**-2, t**-2)

    def solve_state(self, rhs: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """(AᴴA inv_eta2 + lam)⁻¹ rhs on states, in the dtype of rhs."""
        return self._solved_by_step(rhs, inv_eta2, lam, "torch")

    def _solved_by_step(self, rhs: Tensor, inv_eta2: float, lam: float, backend: str) -> Tensor:
        """A step without data or noise, its scalars chosen to leave rhs as it is."""
        s = StepScalars(lam=lam, lin=1.0, w=0.0, inv_eta2=inv_eta2, noise_lam=lam, noise=NO_NOISE, seed=0, step=0)
        ids = torch.zeros(len(rhs), dtype=torch.int64, device=rhs.device)
        return self.langevin(rhs, rhs, torch.zeros_like(rhs[:1]), ids, s, backend=backend)[0]

    def centre(self, y: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """(AᴴA inv_eta2 + lam)⁻¹ Aᴴy inv_eta2, a state (B, H, W, C') of single precision, for a checked measurement.

        In double where it is formed: Aᴴy inv_eta2 is so large where η is small that its rounding in single precision alone
        would pass for data where A says nothing.
        """
        double = y.to(torch.complex128 if y.is_complex() else torch.float64)
        return self.solve_state(self.adjoint_state(double) * inv_eta2, inv_eta2, lam).float()

    def adjoint_state(self, y: Tensor) -> Tensor:
        """Aᴴ y as a state (B, H, W, C') for a checked measurement."""
        return to_state(self.adjoint(y))

    def normal_state(self, x: Tensor) -> Tensor:
        """AᴴA x on states."""
        return to_state(self.normal(from_state(x, self.is_complex)))


def check_image(x: Tensor, is_complex: bool, name: str = "x") -> None:
    """x must be (C, H, W) or (B, C, H, W), complex or real as the operator wants."""
    check_values(name, x, is_complex)
    check(x.ndim in (3, 4) and x.numel() > 0, name, f"shape {tuple(x.shape)}", "(C, H, W) or (B, C, H, W)")


def check_values(name: str, value: Tensor, is_complex: bool) -> None:
    """`value` must be a tensor of single or double precision, complex or real as asked."""
    check(isinstance(value, Tensor), name, type(value).__name__, "a torch tensor")
    wanted = (torch.complex64, torch.complex128) if is_complex else (torch.float32, torch.float64)
    check(value.dtype in wanted, name, str(value.dtype), " or ".join(map(str, wanted)))


def check_finite(name: str, value: Tensor) -> None:
    """`value` must hold no NaN and no infinity."""
    bad = int((~value.isfinite()).sum())
    check(bad == 0, name, f"{bad} of {value.numel()} values NaN or infinite", "finite values")


def check_binary(name: str, value: Tensor) -> Tensor:
    """A copy of `value`, a mask of zeros and ones (any real dtype or bool) that are not all zero, as float32."""
    check(isinstance(value, Tensor) and not value.is_complex(), name, getattr(value, "dtype", type(value).__name__),
          "a real or bool tensor of zeros and ones")
    check(bool(((value == 0) | (value == 1)).all()), name, "other values", "zeros and ones only")
    check(bool((value != 0).any()), name, "all zero", "at least one observed sample")
    return value.detach().float().clone()
