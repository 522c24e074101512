"""What a step of preparation leaves."""

from __future__ import annotations

from typing import NamedTuple

from ..io.kspace import KSpace


class Done(NamedTuple):
    """k-space after a step, what was done in words, and the noise of real and imaginary part each where the step tells it."""

    data: KSpace
    words: str
    noise_std: float | None = None
