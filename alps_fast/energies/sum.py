"""Energies compose: a weighted sum of energies is an energy."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..adapters import check_ours
from ..errors import check, check_positive
from .base import CPU, Energy


class SumEnergy(Energy):
    """E(x, t) = Σ_i a_i E_i(x, t): a product of experts, its curvature bound the weighted sum of theirs.

    A term that knows no bound counts with the published L = 1, so that the step still shrinks as weights add up.

    Args:
        energies: the terms.
        weights: a_i > 0; default all one.
    """

    def __init__(self, energies: Sequence[Energy], weights: Sequence[float] | None = None):
        check(isinstance(energies, Sequence) and len(energies) > 0, "energies",
              "none" if isinstance(energies, Sequence) else type(energies).__name__, "a sequence of at least one energy")
        for energy in energies:
            check_ours("energies", energy, Energy, "alps_fast energies")
        self.energies = tuple(energies)
        count, given = len(self.energies), (1.0,) * len(self.energies) if weights is None else weights
        check(isinstance(given, Sequence) and len(given) == count, "weights", given, f"{count} numbers > 0")
        self.weights = tuple(check_positive("weights", weight) for weight in given)

    @property
    def has_value(self) -> bool:
        return all(e.has_value for e in self.energies)

    def revision(self) -> Hashable:
        return tuple(e.revision() for e in self.energies)

    def begin(self) -> None:
        for energy in self.energies:
            energy.begin()

    @property
    def unit(self) -> bool:  # type: ignore[override]
        return any(e.unit for e in self.energies)

    @property
    def floor(self) -> float:  # type: ignore[override]
        return min(e.floor for e in self.energies)

    @property
    def stride(self) -> float:  # type: ignore[override]
        return min(e.stride for e in self.energies)

    @property
    def spread(self) -> float:  # type: ignore[override]
        return sum(a / e.spread**2 for a, e in zip(self.weights, self.energies, strict=True)) ** -0.5  # precisions add

    @property
    def finest(self) -> float:  # type: ignore[override]
        return sum(a / e.finest**2 for a, e in zip(self.weights, self.energies, strict=True)) ** -0.5

    @property
    def t_range(self) -> tuple[float, float] | None:  # type: ignore[override]
        ranges = [e.t_range for e in self.energies if e.t_range is not None]
        return (max(low for low, _ in ranges), min(high for _, high in ranges)) if ranges else None

    def check_channels(self, name: str, count: int) -> None:
        for energy in self.energies:
            energy.check_channels(name, count)

    def curvature(self, t: float) -> float:
        bounds = [e.curvature(t) for e in self.energies]
        return sum(a * (1.0 if b is None else b) for a, b in zip(self.weights, bounds, strict=True))

    def prepare(self, t: float, x: Tensor) -> list[object]:
        return [e.prepare(t, x) for e in self.energies]

    def level(self, t: float, x: Tensor) -> tuple[tuple[Any, ...], ...] | None:
        """Those of all terms; None where one of them reads t."""
        levels = [e.level(t, x) for e in self.energies]
        found = tuple(level for level in levels if level is not None)
        return found if len(found) == len(levels) else None

    def workspace(self, shape: tuple[int, int, int, int], device: torch.device = CPU) -> int:
        return max(e.workspace(shape, device) for e in self.energies)

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        return self._summed([e.value_and_grad(x, t) for e in self.energies])

    def _value_and_grad_at(self, x: Tensor, level: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
        return self._summed([e.value_and_grad(x, math.nan, its) for e, its in zip(self.energies, level, strict=True)])

    def _summed(self, pairs: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        return (torch.stack([a * v for a, (v, _) in zip(self.weights, pairs, strict=True)]).sum(0),
                torch.stack([a * g for a, (_, g) in zip(self.weights, pairs, strict=True)]).sum(0))

    def _grad(self, x: Tensor, t: float) -> Tensor:
        return torch.stack([a * e.grad(x, t) for a, e in zip(self.weights, self.energies, strict=True)]).sum(0)

    def _grad_at(self, x: Tensor, level: tuple[Any, ...]) -> Tensor:
        grads = (e.grad(x, math.nan, its) for e, its in zip(self.energies, level, strict=True))
        return torch.stack([a * g for a, g in zip(self.weights, grads, strict=True)]).sum(0)
