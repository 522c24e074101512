"""A prior that is asked at half the size while its level is too large for fine detail to matter."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..adapters import check_ours
from ..errors import check, check_positive
from ..ops._dispatch import slower
from .base import Energy


class CoarseFirst(Energy):
    """E of images of half the size while t is above `above`, of images as they are from there down:

        E_c(x, t) = 4 E(D x, t/2) + ½ ‖x − U D x‖²,     D the mean of 2 × 2 pixels, U each of these in four places

    So p_t(x) is p_{t/2}(D x), as the noise of D x has half the standard deviation, beside N(0, t²) for all detail within four
    pixels: what detail has, which is little beside t, is left to the levels below `above`, where it is found anew. An evaluation
    above costs a quarter. What has to hold is that images of half the size are images that E knows; photographs are.
    docs/exactness.md §16 has what it leaves of posteriors.

    Args:
        energy: E, of any size of images. With an odd side it is asked as it is at every t, and a run says so.
        above: the t above which it is asked at half the size, in image units; .3 suits images of range 1.

    Raises:
        ArgumentError: naming the argument.
    """

    def __init__(self, energy: Energy, above: float = 0.3):
        check_ours("energy", energy, Energy, "an alps_fast energy")
        self.energy, self.above = energy, check_positive("above", above)
        low = 0.0 if energy.t_range is None else energy.t_range[0]
        check(self.above >= 2.0 * low, "above", above, f"at least {2.0 * low:g}, as the energy is asked at half of it")
        self.channels, self.channelwise = energy.channels, energy.channelwise
        self.unit, self.spread, self.finest = energy.unit, energy.spread, energy.finest
        self.t_range, self.floor, self.stride = energy.t_range, energy.floor, energy.stride

    @property
    def has_value(self) -> bool:
        return self.energy.has_value

    def revision(self) -> Hashable:
        return self.energy.revision()

    def begin(self) -> None:
        self.energy.begin()

    def check_channels(self, name: str, count: int) -> None:
        self.energy.check_channels(name, count)

    def curvature(self, t: float) -> float | None:
        """That of E at t, or above the larger of that at t/2 and 1."""
        if t <= self.above:
            return self.energy.curvature(t)
        whole, half = self.energy.curvature(t), self.energy.curvature(0.5 * t)
        return None if whole is None or half is None else max(whole, half, 1.0)  # whole: of images with an odd side

    def prepare(self, t: float, x: Tensor) -> Any:
        return self.energy.prepare(0.5 * t, halved(x)) if self._coarse(t, x) else self.energy.prepare(t, x)

    def _workspace(self, shape: tuple[int, int, int, int], device: torch.device) -> int:
        return self.energy.workspace(shape, device)

    def _coarse(self, t: float, x: Tensor) -> bool:
        if t <= self.above:
            return False
        if odd := bool(x.shape[2] % 2 or x.shape[3] % 2):
            slower(f"CoarseFirst: images of {x.shape[2]} x {x.shape[3]} have no half; the prior is asked at full size at every t")
        return not odd

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        if not self._coarse(t, x):
            return self.energy.value_and_grad(x, t)
        low = halved(x)
        value, grad = self.energy.value_and_grad(low, 0.5 * t)
        detail = x - doubled(low)
        return 4.0 * value + 0.5 * detail.square().flatten(1).sum(1), detail.add_(doubled(grad))

    def _grad(self, x: Tensor, t: float) -> Tensor:
        if not self._coarse(t, x):
            return self.energy.grad(x, t)
        low = halved(x)
        return x - doubled(low - self.energy.grad(low, 0.5 * t))


def halved(x: Tensor) -> Tensor:
    """D x for x (N, C, H, W), H and W even."""
    return functional.avg_pool2d(x, 2)


def doubled(x: Tensor) -> Tensor:
    """U x for x (N, C, H, W)."""
    return torch.repeat_interleave(torch.repeat_interleave(x, 2, 2), 2, 3)
