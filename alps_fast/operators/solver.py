"""Which of two ways to P_t of a scan takes less time: one factorisation a line, or conjugate gradients."""

from __future__ import annotations

import math
from typing import NamedTuple

STEPS = 2000  # of all chains, that a run is taken to have: 250 gradients of 8 chains
CLEARLY = 2.0  # times that conjugate gradients must be faster to be chosen: lines are exact
MOST = 4 << 30  # bytes of factors; not what memory there is, as what is chosen must not hang on what else runs
# Seconds of one core, Xeon with AMX, 128² to 320², eight and twelve coils, of every
FACTORED = 1.2e-9  # line and n³
ON_LINES = 6e-10  # line and n², a step of a chain among eight
BY_CG = 1.5e-8  # coil, pixel and log₂ pixels, a step of a chain: about 14 iterations of both systems


class Cost(NamedTuple):
    """Seconds of one core before the first step and for a step of a chain, and bytes that are kept."""

    first: float
    step: float
    bytes: int

    def of(self, steps: int = STEPS) -> float:
        """Seconds of a run of so many steps of all chains."""
        return self.first + steps * self.step

    def __str__(self) -> str:
        return f"{self.first:.2g} s and {self.bytes / 1e6:.3g} MB first, {self.step:.2g} s a step"


def costs(coils: int, height: int, width: int, line_axis: int | None) -> dict[str, Cost]:
    """By the name of a solver; "lines" where there is an axis along which alone the mask varies."""
    pixels = height * width
    found = {"cg": Cost(0.0, BY_CG * coils * pixels * math.log2(max(2, pixels)), 0)}
    if line_axis is not None:
        n, lines = (height, width) if line_axis == 0 else (width, height)
        found["lines"] = Cost(FACTORED * lines * n**3, ON_LINES * lines * n**2, 8 * lines * n**2)
    return found


def cheaper(found: dict[str, Cost]) -> str:
    """Lines, unless they take more than `MOST` bytes, or clearly more time over a run."""
    lines = found.get("lines")
    return "lines" if lines is not None and lines.bytes <= MOST and lines.of() <= CLEARLY * found["cg"].of() else "cg"
