"""Whether conjugate gradients left noise its variance, asked once a level."""

from __future__ import annotations

import warnings

from torch import Tensor

from ..ops._scalars import StepScalars
from ..ops.philox_normal import streams
from .base import Operator

CHAINS = 8  # whose noise is looked at


class NoiseAsked:
    """Warns where they stopped before the noise had its variance: δᵀP⁻¹δ is χ² of as many numbers."""

    def __init__(self) -> None:
        self._levels: set[tuple[float, float]] = set()

    def __call__(self, operator: Operator, after: Tensor, mean: Tensor, ids: Tensor, s: StepScalars) -> None:
        """Once for each (inv_eta2, noise_lam), so that no captured step asks: what is captured has run before.

        Where these are in a device's memory, of the first level alone, whose systems are the worst.
        """
        if (s.inv_eta2, s.noise_lam) in self._levels:
            return
        self._levels.add((s.inv_eta2, s.noise_lam))
        inv_eta2, lam = (s.inv_eta2, s.noise_lam) if s.level is None else s.level[3:].tolist()
        noise, ids = after[:CHAINS] - mean[:CHAINS], ids[:CHAINS]
        noise = noise[noise.flatten(1).isfinite().all(1)]
        if len(noise):
            share = float((noise * (operator.normal_state(noise) * inv_eta2 + noise * lam)).double().mean())
            if share < 0.97 - 5 * (2 / (streams(ids) * noise[0].numel())) ** 0.5:
                warnings.warn(f"conjugate gradients: noise has {share:.2g} of its variance at noise_std = "
                              f"{inv_eta2**-0.5:.3g}, so std comes out too small; lower tol or raise noise_std", stacklevel=3)
