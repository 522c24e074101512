"""The ALPS sampler ([ALPS], docs/design.md §3 and 4): anneal the prior, one preconditioned Langevin step after another."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..layout import network_view
from ..ops._dispatch import asked
from ..ops._langevin import by_measurement
from ..ops._memory import laid_out
from .schedule import INDEPENDENT, Level, Predictor, Schedule, StepScalars

if TYPE_CHECKING:
    from ..energies.base import Energy
    from ..operators.base import Operator


SMALLEST, LARGEST = 0.01, 30.0  # sizes of images that a prior for images that reach about 1 can be asked about


@dataclass(frozen=True)
class Target:
    """exp(−E(x, t)/t² − ‖Ax − y‖²/(2η²) − ‖x − x₀‖²/(2σ²)), the last term only with a warm start.

    b = Aᴴy/η² + x₀/σ² where AᴴA is diagonal in pixels, else (`centred`) that seen through a prior of std one,

        b = c = (AᴴA/η² + 1 + 1/σ²)⁻¹ (Aᴴy/η² + x₀/σ²),

    shape (B, H, W, C') or one a chain; scalars: of a step at this level with its own noise.
    """

    operator: Operator
    energy: Energy
    t: float
    b: Tensor
    scalars: StepScalars
    backend: str

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """E (N,) and ∇E (N, H, W, C') of states, without 1/t²."""
        with asked(self.backend):
            value, grad = self.energy.value_and_grad(network_view(x), self.t)
        return value, laid_out(grad.movedim(1, -1))

    def grad(self, x: Tensor) -> Tensor:
        """∇E of states, without 1/t²."""
        with asked(self.backend):
            return laid_out(self.energy.grad(network_view(x), self.t).movedim(1, -1))

    def langevin(self, x: Tensor, grad: Tensor, chains: Tensor, s: StepScalars) -> tuple[Tensor, Tensor]:
        """x⁺ = m(x) + P^{1/2} ξ and m(x), ∇E given.

        With P⁻¹c = Aᴴy/η² + x₀/σ² + (L/t² − 1) c a step around c is one whose data is c: m − c = P (c + L (x − c)/t² − ∇E/t²).
        So nothing is ever added to Aᴴy/η², which in single precision drowns all else where η is small.
        Outside the operator's support x stays 0; AᴴA couples it to nothing there, so the step within is that of the rest.
        """
        stepped = self.operator.langevin(self._around(x), grad, self.b, chains, s, backend=self.backend)
        return self._back(stepped[0]), self._back(stepped[1])

    def predict(self, x: Tensor, chains: Tensor, p: Predictor) -> Tensor:
        """x − keep (x − m(x)) − flow (L/t²) P ∇E(x, t), where the next level finds a state: one gradient, one projection."""
        around = self._around(x)
        projected = self.operator.langevin(around, self.grad(x), self.b * p.keep, chains, p.scalars, backend=self.backend)[1]
        return self._back(projected.add_(around, alpha=1.0 - p.keep))

    def _around(self, x: Tensor) -> Tensor:
        """x − c where steps are taken around c, else x."""
        return by_measurement(x, self.b).sub(self.b[:, None]).flatten(0, 1) if centred(self.operator, x) else x

    def _back(self, v: Tensor) -> Tensor:
        """v + c where steps are taken around c, in place, else v."""
        if centred(self.operator, v):
            by_measurement(v, self.b).add_(self.b[:, None])
            support = self.operator.support(v)
            if support is not None:
                v.mul_(support)
        return v

    def fused(self, x: Tensor, chains: Tensor, s: StepScalars, count: int) -> tuple[Tensor, Tensor] | None:
        """x⁺ and m after `count` steps, where one op takes them, gradients and all; else None."""
        a = self.operator.diagonal(x)
        return None if a is None else self.energy.langevin_pixel(x, self.b, a, chains, self.t, s, count, self.backend)


def centred(operator: Operator, x: Tensor) -> bool:
    """Whether steps on states like x are taken around c, see `Target`."""
    return operator.diagonal(x) is None


def in_single(y: Tensor) -> Tensor:
    """y as float32 or complex64: states have that precision."""
    return y.to(torch.complex64 if y.is_complex() else torch.float32)


def warn_of_size(operator: Operator, energy: Energy, adjoint: Tensor, centre: Tensor) -> None:
    """Warn where the image behind y is of a size that the energy cannot know: Aᴴy where A is a mask, else c of `Target`."""
    if energy.unit:
        eta = operator.noise_std
        size = float(centre.abs().max()) * (1 + eta**2) if centred(operator, adjoint) else float(adjoint.abs().max())
        if 0 < size < SMALLEST or size > LARGEST + 6 * eta:
            warnings.warn(f"y: the image behind it reaches {size:.2g}, and the energy knows images that reach about 1; divide y "
                          "and noise_std by a common scale, as alps_fast.io.scaled_kspace does with k-space", stacklevel=5)


def alps_levels(schedule: Schedule, eta: float) -> list[Level]:
    """Prior levels t_i, every one with the whole measurement."""
    return [Level(t, eta, schedule.steps) for t in schedule.t().tolist()]


def start(target: Target, shape: tuple[int, ...], chains: Tensor) -> Tensor:
    """x = P b + P^{1/2} R₀ of the first level. The chain goes on from step 1, so R₀ is used here alone."""
    nothing = target.b.new_zeros(len(chains), *shape)
    return target.langevin(nothing, nothing, chains, replace(target.scalars, noise=INDEPENDENT, step=0))[0]


def steps(target: Target, x: Tensor, chains: Tensor, s: StepScalars, most: int) -> tuple[Tensor, Tensor, int]:
    """x -> m(x) + P^{1/2} ξ, `most` times from the step of s on if one op takes them, else once: x⁺, m, and how many."""
    fused = target.fused(x, chains, s, most)
    return (*fused, most) if fused is not None else (*target.langevin(x, target.grad(x), chains, s), 1)
