"""What every measurement operator A offers: forward, adjoint, normal, project, and its Langevin step."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor

from ..errors import check, check_positive, check_std, number
from ..layout import Placed, beside, from_state, to_state
from ..ops._scalars import StepScalars
from ..ops.philox_normal import NO_NOISE


class Operator(ABC):
    """A linear measurement y = A x + noise, noise_std its standard deviation in every real component.

    Images are (C, H, W) or (B, C, H, W); measurements have the shapes their class documents, with or without B.
    Inside, samplers use states (N, H, W, C'), see `alps_fast.layout`.

    A may differ from measurement to measurement, of which there are then M = `measurements`: a batch of images or of what was
    measured has k M rows, measurement by measurement, so row n belongs to measurement n // k. `of` is a part of them.

    Noise that is not everywhere the same, W its inverse variance in units of 1/η², is whitened: what `check_measurement` returns
    is W^{1/2} y, and `adjoint_state`, `normal_state`, `misfit` and all that samplers use are those of W^{1/2} A, whose noise is η
    throughout. `forward`, `adjoint` and `normal` are A's own.
    """

    is_complex: bool  # whether images are complex
    measurements: int | None = None  # M, where A or the noise are those of each measurement
    _roots: Placed | None = None  # W^{1/2}, (1|M, ...) or (M,)
    _count = 1  # measurements that constants are kept of
    _which: slice = slice(None)  # which of them this operator is of
    takes_rows: bool = False  # whether `langevin` hands its scalars to an op as they are, which takes `StepScalars.level` too

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        if "langevin" in vars(cls) and "takes_rows" not in vars(cls):  # its parent's does not say so of it
            cls.takes_rows = False

    def __init__(self, noise_std: float | Tensor, by_datum: bool = False):
        """noise_std: η, or (M,) of them, one a measurement, or `by_datum` one a datum, beside y with a batch in front."""
        if isinstance(noise_std, Tensor) and noise_std.ndim > 0:
            check(noise_std.ndim == 1 or by_datum, "noise_std", described(noise_std), "a number, or one a measurement, (M,)")
            check(noise_std.numel() > 0 and noise_std.is_floating_point(), "noise_std", described(noise_std), "numbers > 0")
            check_finite("noise_std", noise_std)
            stds = noise_std.detach().double()
            self.noise_std = check_std("noise_std", float(stds.min()))
            check_std("noise_std", float(stds.max()))
            self._roots = Placed(self.noise_std / stds)
        else:
            self.noise_std = check_std("noise_std", number(noise_std))
        self._parts: dict[tuple[int, int], Self] = {}

    def _agree(self, **constants: Tensor | None) -> None:
        """Set `measurements` by those that lead with one entry a measurement, or with a single one for all."""
        lengths = {name: len(v) for name, v in constants.items() if v is not None and len(v) > 1}
        if self._roots is not None and len(self._roots.tensors[0]) > 1:
            lengths["noise_std"] = len(self._roots.tensors[0])
        for name, length in lengths.items():
            first, wanted = next(iter(lengths.items()))
            check(length == wanted, name, f"{length} measurements", f"{wanted}, as many as in {first}, or one for all")
            self.measurements = self._count = wanted

    def of(self, first: int, last: int) -> Self:
        """The operator of measurements first … last − 1, with what this one has formed for them; itself where all are alike.

        It samples them as the whole batch does, to the bit, given `first_measurement=first` and the batch's schedule.
        """
        if self.measurements is None or (first, last) == (0, self.measurements):
            return self
        check(0 <= first < last <= self.measurements, "first, last", f"{first}, {last}", f"a range within {self.measurements}")
        if (first, last) not in self._parts:
            part = copy.copy(self)
            begin = (self._which.start or 0) + first
            part._which, part.measurements, part._parts = slice(begin, begin + last - first), last - first, {}
            self._parts[first, last] = part
        return self._parts[first, last]

    def _mine(self, constant: Tensor) -> Tensor:
        """Constants (1|M, ...) of all measurements: those of the ones this operator is of."""
        return constant if len(constant) == 1 else constant[self._which]

    def _counted(self, name: str, value: Tensor, batch: bool, exact: bool = False) -> None:
        """A batch of images or measurements must have a multiple of M rows, or exactly M."""
        if self.measurements is not None:
            rows = len(value) if batch else 1
            ok = rows == self.measurements if exact else rows > 0 and rows % self.measurements == 0
            check(ok, name, f"{rows} rows" if batch else "no batch",
                  f"{'a batch of' if exact else 'a multiple of'} {self.measurements}, the operator's measurements")

    def stds(self, y: Tensor) -> Tensor | float:
        """The standard deviation of the noise beside a measurement y, or a batch of them."""
        if self._roots is None:
            return self.noise_std
        return self.noise_std / (self._roots.like(y)[0][0] if self.measurements is None else self._root(y))

    def _root(self, y: Tensor) -> Tensor:
        """W^{1/2} beside measurements (N, ...)."""
        assert self._roots is not None
        roots = self._mine(self._roots.like(y)[0])
        roots = roots.view(-1, *[1] * (y.ndim - 1)) if roots.ndim == 1 else roots
        check(all(a in (1, b) for a, b in zip(roots.shape[1:], y.shape[1:], strict=True)), "noise_std",
              f"shape {tuple(roots.shape)}", f"what fits measurements of shape {tuple(y.shape)}")
        return beside(roots, y)

    def whitened(self, y: Tensor) -> Tensor:
        """W^{1/2} y for measurements (N, ...)."""
        return y if self._roots is None else y * self._root(y)

    def misfit(self, x: Tensor, y: Tensor) -> Tensor:
        """W^{1/2} A x − y for images (N, C, H, W) and checked measurements, whose noise is η throughout."""
        return self.whitened(self.forward(x)) - y

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
        """y with a batch dimension added where it had none, whitened; raises ArgumentError where shape or dtype do not fit."""

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

    def advance(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, backend: str = "auto") -> Tensor:
        """x⁺ alone, of a step whose m nobody looks at and which other steps follow; the arguments are those of `langevin`.

        What is solved by iteration takes one system here in place of two, to an error that the next steps forget.
        """
        return self.langevin(x, grad, b, ids, s, backend=backend)[0]

    @property
    def iterative(self) -> bool:
        """Whether steps are solved by iteration, which takes the longer the larger t/η is."""
        return False

    def kept(self) -> int:
        """Bytes of what it makes once for its solutions, and keeps; what it was given is not counted."""
        return 0

    def support(self, x: Tensor) -> Tensor | None:
        """Where images may differ from zero, as a state (1|M, H, W, 1) of zeros and ones like x; None: everywhere."""
        return None

    def data_count(self, y: Tensor) -> int:
        """Real numbers that were measured of each image behind the checked measurement y, of a single one if they differ."""
        return y[0].numel() * (2 if y.is_complex() else 1)

    def data_counts(self, y: Tensor) -> list[int]:
        """`data_count` of each checked measurement."""
        if self.measurements is None:
            return [self.data_count(y)] * len(y)
        return [self.of(i, i + 1).data_count(y[i:i + 1]) for i in range(len(y))]

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
        return self._solved_by_step(rhs, inv_eta2, lam, "torch" if rhs.dtype == torch.float64 else "auto")

    def _solved_by_step(self, rhs: Tensor, inv_eta2: float, lam: float, backend: str) -> Tensor:
        """A step without data or noise, its scalars chosen to leave rhs as it is."""
        s = by_itself(inv_eta2, lam)
        ids = torch.zeros(len(rhs), dtype=torch.int64, device=rhs.device)
        return self.langevin(rhs, rhs, torch.zeros_like(rhs[:self.measurements or 1]), ids, s, backend=backend)[0]

    def centre(self, y: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """(AᴴA inv_eta2 + lam)⁻¹ Aᴴy inv_eta2, a state (B, H, W, C') of single precision, for a checked measurement.

        In double where it is formed: Aᴴy inv_eta2 is so large where η is small that its rounding in single precision alone
        would pass for data where A says nothing.
        """
        double = y.to(torch.complex128 if y.is_complex() else torch.float64)
        return self.solve_state(self.adjoint_state(double) * inv_eta2, inv_eta2, lam).float()

    def adjoint_state(self, y: Tensor) -> Tensor:
        """Aᴴ y as a state (B, H, W, C') for a checked measurement."""
        return to_state(self.adjoint(self.whitened(y)))

    def normal_state(self, x: Tensor) -> Tensor:
        """AᴴA x on states."""
        images = from_state(x, self.is_complex)
        return to_state(self.normal(images)) if self._roots is None else self.adjoint_state(self.whitened(self.forward(images)))


def by_itself(inv_eta2: float, lam: float) -> StepScalars:
    """Those of a step that takes x to (AᴴA inv_eta2 + lam)⁻¹ x."""
    return StepScalars(lam=lam, lin=1.0, w=0.0, inv_eta2=inv_eta2, noise_lam=lam, noise=NO_NOISE, seed=0, step=0)


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


def described(value: Tensor) -> str:
    """A tensor, for an error."""
    return f"{value.dtype} of shape {tuple(value.shape)}"


def check_binary(name: str, value: Tensor) -> Tensor:
    """A copy of `value`, a mask of zeros and ones (any real dtype or bool) that are not all zero, as float32."""
    check(isinstance(value, Tensor) and not value.is_complex(), name, getattr(value, "dtype", type(value).__name__),
          "a real or bool tensor of zeros and ones")
    check(bool(((value == 0) | (value == 1)).all()), name, "other values", "zeros and ones only")
    check(bool((value != 0).any()), name, "all zero", "at least one observed sample")
    return value.detach().float().clone()
