"""What a Langevin step is told of its level, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StepScalars:
    """The scalars of one Langevin step, computed once a level:

        m  = (AᴴA inv_eta2 + lam)⁻¹ (b + lin x − w ∇E),    x⁺ = m + (AᴴA inv_eta2 + noise_lam)^{-1/2} ξ

    w = 1/t², lin = L/t², inv_eta2 = 1/η²; lam = lin, plus 1/σ² with a warm start. `noise` is NO_NOISE (ξ = 0),
    INDEPENDENT (ξ = R_step) or AVERAGED (ξ = (R_step + R_{step+1})/√2), of ops.philox_normal.
    """

    lam: float
    lin: float
    w: float
    inv_eta2: float
    noise_lam: float
    noise: int
    seed: int
    step: int
