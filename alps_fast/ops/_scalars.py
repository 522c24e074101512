"""What a Langevin step is told of its level, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor


@dataclass(frozen=True)
class StepScalars:
    """The scalars of one Langevin step, computed once a level:

        m  = (AᴴA inv_eta2 + lam)⁻¹ (b + lin x − w ∇E),    x⁺ = m + (AᴴA inv_eta2 + noise_lam)^{-1/2} ξ

    w = 1/t², lin = L/t², inv_eta2 = 1/η²; lam = lin, plus 1/σ² with a warm start. `noise` is NO_NOISE (ξ = 0),
    INDEPENDENT (ξ = R_step) or AVERAGED (ξ = (R_step + R_{step+1})/√2), of ops.philox_normal. `level`: a row of
    `ops._step.table` with the first five in place of the numbers, which are NaN then.
    """

    lam: float
    lin: float
    w: float
    inv_eta2: float
    noise_lam: float
    noise: int
    seed: int
    step: int
    level: Tensor | None = None

    def numbers(self) -> tuple[float, float, float, float, float]:
        """Those that a row of the table has."""
        return self.lam, self.lin, self.w, self.inv_eta2, self.noise_lam

    def from_row(self, level: Tensor) -> StepScalars:
        """The same step with its numbers in memory alone."""
        return replace(self, lam=math.nan, lin=math.nan, w=math.nan, inv_eta2=math.nan, noise_lam=math.nan, level=level)
