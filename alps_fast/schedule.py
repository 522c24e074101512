"""The noise levels of a run: which, how many, and the steps at each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .errors import check, check_positive, check_std, whole

MOST = 1_000_001  # levels, and steps at one, are fewer
FOLDED = "folded"  # a predictor without a gradient of its own


@dataclass(frozen=True)
class Schedule:
    """t_i = (σ_max^{1/ρ} + i/(N−1) (σ_min^{1/ρ} − σ_max^{1/ρ}))^ρ, i = 0 … N−1, with K steps a level ([EDM] eq. 5).

    Args:
        sigma_max, sigma_min: first and last noise level, standard deviations in image units.
        levels: N >= 1; one level is sigma_min alone.
        steps: K >= 1 Langevin steps a level.
        rho: spacing; larger puts more levels near sigma_min.
        eta_max, eta_steps: for method="measurement" alone: the noise level of the measurement from which it is
            annealed down to the true one, in image units, and Langevin steps at each of those levels. The default
            of 10 tells next to nothing of images in [−1, 1] under ‖A‖ <= 1.
        predictor: whether a state that leaves a level is moved on to the next one: True, by one gradient a level more, see
            `samplers.alps.predictor`; "folded", by what the last step of the level does beside, for no gradient at all, see
            `samplers.alps.folded` and docs/exactness.md §15, which wants two steps a level or more and cannot be had with a
            correction. The published rule has none; MAP estimates, which draw nothing, take none either.
        eta_ratio: for method="alps" alone: where it is given, the measurement's noise is annealed beside the prior, η_t =
            max(η, t/eta_ratio), at the last level η. For operators that solve their steps by iteration, which takes the longer
            the larger t/η is. None, as published: η throughout. What it may be without a bias: docs/exactness.md §12.
        stride: how long a step is: L/stride stands in for L. Averaged noise leaves Gaussians their variance at any below 2, where
            a step no longer settles, and what is wider than t gets on by so much more a step (docs/exactness.md §17); 1, as
            published, is the longest that never overshoots. With that noise and without a correction alone; MAP estimates, which
            are to descend, take 1.

    Raises:
        ArgumentError: naming the argument.
    """

    sigma_max: float = 100.0
    sigma_min: float = 0.1
    levels: int = 50
    steps: int = 5
    rho: float = 5.0
    eta_max: float = 10.0
    eta_steps: int = 20
    predictor: bool | str = False
    eta_ratio: float | None = None
    stride: float = 1.0

    def __post_init__(self) -> None:
        for name in ("sigma_min", "sigma_max", "eta_max"):
            object.__setattr__(self, name, check_std(name, getattr(self, name)))
        object.__setattr__(self, "rho", check_positive("rho", self.rho, 0.1, 100.0))  # outside, powers lose all digits
        check(self.sigma_max >= self.sigma_min, "sigma_max", self.sigma_max, f"at least sigma_min = {self.sigma_min}")
        for name in ("levels", "steps", "eta_steps"):
            object.__setattr__(self, name, whole(name, getattr(self, name), 1, MOST))
        if self.eta_ratio is not None:
            object.__setattr__(self, "eta_ratio", check_positive("eta_ratio", self.eta_ratio))
        object.__setattr__(self, "stride", check_positive("stride", self.stride, 0.1, 1.9))
        check(isinstance(self.predictor, bool) or self.predictor == FOLDED, "predictor", repr(self.predictor),
              "True, False or 'folded'")
        check(self.predictor != FOLDED or self.steps > 1, "steps", self.steps, "2 or more with predictor='folded', which is the "
              "last of them; predictor=True takes one too")

    def t(self) -> np.ndarray:
        """The levels, float64, decreasing."""
        if self.levels == 1:
            return np.array([self.sigma_min])
        u = np.linspace(0.0, 1.0, self.levels)
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        t = (high + u * (low - high)) ** self.rho
        t[0], t[-1] = self.sigma_max, self.sigma_min
        return t

    def beside(self, eta: float) -> np.ndarray:
        """η_t of every level where the true one is eta, see `eta_ratio`."""
        t = self.t()
        if self.eta_ratio is None:
            return np.full(len(t), eta)
        return np.append(np.maximum(t[:-1] / self.eta_ratio, eta), eta)

    def etas(self, eta: float, eta_max: float | None = None) -> np.ndarray:
        """Noise levels of the measurement from eta_max down to eta, each at most √2 below the one before ([XGP])."""
        ratio = max((self.eta_max if eta_max is None else eta_max) / eta, 1.0)
        count = math.ceil(2 * math.log2(ratio))
        return eta * ratio ** np.linspace(1.0, 0.0, count + 1) if count else np.array([eta])


PUBLISHED = Schedule()  # of [ALPS], for inpainting and MRI; for blur levels = 10


class Level(NamedTuple):
    """One target exp(−E(x, t)/t² − ‖Ax − y_i‖²/(2η²)) of the family of docs/design.md §6, and the steps spent on it.

    eta = ∞ sees no data. The state after the last step is a posterior draw if `draw`.
    """

    t: float
    eta: float
    steps: int
    draw: bool = False


def with_draws(levels: list[Level], draws: int, thin: int) -> list[Level]:
    """Make the end of the last level the first draw, and stay there for draws − 1 more, `thin` steps apart."""
    last = levels[-1]._replace(draw=True)
    return [*levels[:-1], last, *[last._replace(steps=thin)] * (draws - 1)]
