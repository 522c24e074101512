"""What the levels of a run sample from, and the projections and gradients that a step of it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..energies.base import Energy
from ..layout import beside, network_view
from ..operators.base import Operator
from ..ops._dispatch import asked
from ..ops._reused_memory import laid_out
from ..ops._scalars import StepScalars
from ..ops._step import by_measurement
from ..ops.philox_normal import AVERAGED
from ..schedule import Level
from .measurement import bridge


@dataclass(frozen=True)
class Target:
    """exp(−E(x, t)/t² − ‖Ax − y‖²/(2η²) − ‖x − x₀‖²/(2σ²)), the last term only with a warm start.

    b = Aᴴy/η² + x₀/σ² where AᴴA is diagonal in pixels, else (`centred`) that seen through a prior of std one,

        b = c = (AᴴA/η² + 1 + 1/σ²)⁻¹ (Aᴴy/η² + x₀/σ²),

    shape (B, H, W, C') or one a chain; scalars: of a step at this level with its own noise; prior: `Energy.level`, read in place
    of t where there is one. share: (η/η_t)² where the measurement's noise is η_t at this level while c is that of η; x₀ absent,
    Aᴴy/η_t² − AᴴA c/η_t² is (η/η_t)² c.
    """

    operator: Operator
    energy: Energy
    t: float
    b: Tensor
    scalars: StepScalars
    backend: str
    prior: tuple[Any, ...] | None = None
    share: float = 1.0

    def value_and_grad(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """E (N,) and ∇E (N, H, W, C') of states, without 1/t²."""
        with asked(self.backend):
            value, grad = self.energy.value_and_grad(network_view(x), self.t, *self._given())
        return value, laid_out(grad.movedim(1, -1))

    def grad(self, x: Tensor) -> Tensor:
        """∇E of states, without 1/t²."""
        with asked(self.backend):
            return laid_out(self.energy.grad(network_view(x), self.t, *self._given()).movedim(1, -1))

    def langevin(self, x: Tensor, grad: Tensor, ids: Tensor, s: StepScalars) -> tuple[Tensor, Tensor]:
        """x⁺ = m(x) + P^{1/2} ξ and m(x), ∇E given.

        With P⁻¹c = Aᴴy/η² + x₀/σ² + (L/t² − 1) c a step around c is one whose data is c: m − c = P (c + L (x − c)/t² − ∇E/t²).
        So nothing is ever added to Aᴴy/η², which in single precision drowns all else where η is small.
        Outside the operator's support x stays 0; AᴴA couples it to nothing there, so the step within is that of the rest.
        """
        stepped = self.operator.langevin(self.around(x), grad, self._data, ids, s, backend=self.backend)
        return self.back(stepped[0]), self.back(stepped[1])

    def advance(self, x: Tensor, grad: Tensor, ids: Tensor, s: StepScalars) -> Tensor:
        """x⁺ alone, as `Operator.advance` has it."""
        return self.back(self.operator.advance(self.around(x), grad, self._data, ids, s, backend=self.backend))

    @property
    def _data(self) -> Tensor:
        """b as a step takes it."""
        return self.b if self.share == 1.0 else self.b * self.share

    def fused(self, x: Tensor, ids: Tensor, s: StepScalars, count: int) -> tuple[Tensor, Tensor] | None:
        """x⁺ and m after `count` steps, where one op takes them, gradients and all; else None."""
        a = self.operator.diagonal(x)
        if a is None:
            return None
        return self.energy.langevin_pixel(x, self.b, beside(a, self.b), ids, self.t, s, count, self.backend, *self._given())

    def _given(self) -> tuple[Any, ...]:
        """Of an energy's methods: none more than t, where that is read."""
        return () if self.prior is None else (self.prior,)

    def around(self, x: Tensor) -> Tensor:
        """x − c where steps are taken around c, else x."""
        return by_measurement(x, self.b).sub(self.b[:, None]).flatten(0, 1) if centred(self.operator, x) else x

    def back(self, v: Tensor) -> Tensor:
        """v + c where steps are taken around c, in place, else v."""
        if centred(self.operator, v):
            by_measurement(v, self.b).add_(self.b[:, None])
            support = self.operator.support(v)
            if support is not None:
                v.mul_(beside(support, v))
        return v


def centred(operator: Operator, x: Tensor) -> bool:
    """Whether steps on states like x are taken around c, see `Target`."""
    return operator.diagonal(x) is None


def majorant(energy: Energy, t: float) -> float:
    """L/t²; L = 1, as published, where the energy knows no bound."""
    bound = energy.curvature(t)
    return (1.0 if bound is None else bound) / t**2


@dataclass
class Targets:
    """The target of every level of a run: of measurements y, Aᴴy = `adjoint` (B, H, W, C'), and their chains, whose numbers and
    measurements' are the rows of `ids` (N, 2).

    warm: x₀ (B, H, W, C'), of standard deviation warm_std, if there is one. stride: `Schedule.stride`.
    """

    operator: Operator
    energy: Energy
    y: Tensor
    adjoint: Tensor
    ids: Tensor
    warm: Tensor | None
    warm_std: float | None
    seed: int
    backend: str
    stride: float = 1.0
    _centre: tuple[float, Tensor] | None = field(default=None, init=False)  # 1/η², and the measurement's part of c there

    def at(self, level: Level, data_noise: Tensor) -> Target:
        """What a level samples from. data_noise: Aᴴ of the noise on every chain's own y_i, a state; empty where y is as it is."""
        inv_eta2 = level.eta**-2
        noise = data_noise if data_noise.numel() and inv_eta2 else None
        share = 1.0
        if not centred(self.operator, self.adjoint):
            b = self._data(inv_eta2, noise)
        elif data_noise.numel() or self.warm is not None:  # y, or what a step is to stay near, differs from that of other levels
            b = self.centre(inv_eta2, noise)
        else:
            b, share = self.centre(self.operator.noise_std**-2), (self.operator.noise_std / level.eta)**2
        return Target(self.operator, self.energy, level.t, b, self.scalars(level), self.backend, share=share)

    def scalars(self, level: Level) -> StepScalars:
        """Of a step at this level with its own noise."""
        lin = self.lin(level.t)
        lam = lin + self.warm_lam
        return StepScalars(lam=lam, lin=lin, w=level.t**-2, inv_eta2=level.eta**-2, noise_lam=lam, noise=AVERAGED, seed=self.seed,
                           step=0)

    def noise_lam(self, level: Level) -> float:
        """`StepScalars.noise_lam` of a level."""
        return self.lin(level.t) + self.warm_lam

    def lin(self, t: float) -> float:
        """What stands for L/t² in a step."""
        return majorant(self.energy, t) / self.stride

    @property
    def warm_lam(self) -> float:
        """1/σ², or 0."""
        return 0.0 if self.warm_std is None else self.warm_std**-2

    def bridged(self, levels: list[Level], i: int, data_noise: Tensor) -> Tensor:
        """The noise on an annealed measurement at level i, as `at` takes it, from that of the level before."""
        if not data_noise.numel() or levels[i].eta == math.inf:
            return data_noise
        eta2 = self.operator.noise_std**2
        before, after = (max(levels[j].eta**2 - eta2, 0.0) if j >= 0 else math.inf for j in (i - 1, i))
        if after == before:
            return data_noise
        return bridge(data_noise, before, after, self.operator, self.y, self.ids, self.seed, i, self.backend)

    def _data(self, inv_eta2: float, noise: Tensor | None) -> Tensor:
        """b = Aᴴy/η² + x₀/σ², of every chain where its measurement is noisy."""
        b = self.adjoint * inv_eta2
        if noise is not None:
            b = (self._of_every_chain(self.adjoint) + noise) * inv_eta2
        return b if self.warm is None else _added(b, self.warm * self.warm_lam)

    def centre(self, inv_eta2: float, noise: Tensor | None = None) -> Tensor:
        """c of `Target`; the measurement's part is kept from level to level, as it hangs on η alone."""
        operator, lam = self.operator, 1.0 + self.warm_lam
        if self._centre is None or inv_eta2 != self._centre[0]:
            with asked(self.backend):
                self._centre = inv_eta2, operator.centre(self.y, inv_eta2, lam) if inv_eta2 else self.adjoint * 0.0
        c = self._centre[1]
        if noise is not None:
            c = self._of_every_chain(c) + operator.solve_state(noise * inv_eta2, inv_eta2, lam)
        return c if self.warm is None else _added(c, operator.solve_state(self.warm * self.warm_lam, inv_eta2, lam))

    def _of_every_chain(self, v: Tensor) -> Tensor:
        """(B, ...) -> (N, ...)."""
        return v.repeat_interleave(len(self.ids) // len(v), 0)


def _added(b: Tensor, warm: Tensor) -> Tensor:
    """A row of b a measurement or a chain, one of `warm` a measurement."""
    return b + (warm.repeat_interleave(len(b) // len(warm), 0) if len(b) > len(warm) else warm)
