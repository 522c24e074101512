"""The schedule of a run that was given none: where it starts and ends, and how many levels lie between (docs/exactness.md §3)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ..schedule import FOLDED, Schedule
from .excess import moments, published

if TYPE_CHECKING:
    from ..energies.base import Energy
    from ..operators.base import Operator

WANTED = 0.02  # excess of variance, in the worst direction
GRADIENTS = 250  # at most, as many as published
FEWEST = 10  # levels, for what is not Gaussian
TIED = 1.5  # times as many of a prior in closed form: what A ties to what it does not see lags behind, by 1/levels
STEPS, RHO = 4, 7.0  # fewest gradients for what is wanted of 1 … 5 steps and ρ = 3, 5, 7, whatever σ_max/σ_min from 10 to 4,000
FOLDED_FEWEST, FOLDED_STEPS, FOLDED_RHO = 20, 2, 5.0  # of steps that are longer, with a predictor for nothing
FIRST = 2.0  # σ_max over the widest standard deviation that is left to find: then STEPS steps forget where they began
FAR = 3.0  # a direction that is so much wider than σ_max comes out too narrow by more than 10 %
WAVES = 6  # cosines a side that the smooth part of an image is made of
PART = 1 << 18  # numbers of them seen through A at a time: less than a run works in
RATIO, GROWTH = 20.0, 1.25  # t/η at most where steps are solved by iteration, and by how much more at a time if need be
LAG = 0.005  # excess of variance, in the worst direction, that this may add
UNSEEN = 1e-3  # share of all directions of which the measurement says nothing that is told
UNSEEN_SEED = 0x756E7365656E  # of the noise that finds it: none that a mask is likely to be drawn by, which would choose among it


def chosen(operator: Operator, energy: Energy, y: Tensor, measured: bool, alone: bool = True, longer: bool = False) -> Schedule:
    """A schedule with a predictor for a prior and a checked measurement y; `measured`: whether annealing sees y, `alone`: and
    nothing else, so that η may be annealed too; `longer`: whether steps may be as long as the energy's `stride`.

    sigma_max: FIRST times the energy's `spread`; of images of range 1 (`Energy.unit`) the spread, or FIRST times the standard
    deviation that the measurement leaves the smoothest images, if that is more. sigma_min: η, the smallest where several are
    given, within half the energy's `finest` and the whole. levels: as few as leave WANTED excess in every direction, by
    `excess.moments`, and TIED times as many for a prior in closed form, GRADIENTS allowing. eta_ratio: None, but where steps
    are solved by iteration (`Operator.iterative`) the smallest that adds at most LAG to that.
    """
    if energy.unit:
        left = unmeasured_std(operator, y, energy.spread) if measured else smooth_stds(operator, y, energy.spread).max()
        high = rounded_up(max(energy.spread, FIRST * left))
    else:
        high = FIRST * energy.spread
    low = max(min(energy.finest, max(operator.noise_std, 0.5 * energy.finest)), energy.floor)
    if energy.t_range is not None:
        low, high = max(low, energy.t_range[0]), min(high, energy.t_range[1])
    high = max(high, low)
    ts = np.geomspace(low, high, 64) if high > low else np.array([low, low * (1.0 + 1e-9)])
    known = (energy.curvature(float(t)) for t in ts)
    bounds = tuple(1.0 if bound is None else bound for bound in known)
    tied = 1.0 if energy.unit else TIED
    eta = operator.noise_std if operator.iterative and measured and alone else None
    stride = energy.stride if longer else 1.0
    return planned(float(low), float(high), 10.0 * energy.finest, tuple(np.log(ts)), bounds, energy.floor, tied, eta, stride)


@lru_cache(maxsize=64)
def planned(low: float, high: float, narrowest: float, logs: tuple[float, ...], bounds: tuple[float, ...],
            floor: float, tied: float, eta: float | None, stride: float) -> Schedule:
    """`ladder` for a curvature bound that is interpolated between ln t."""
    flat = bounds.count(1.0) == len(bounds)
    curvature = published if flat else lambda t: float(np.interp(math.log(t), logs, bounds))
    return ladder(low, high, narrowest, curvature, floor, tied, eta, stride)


def ladder(low: float, high: float, narrowest: float, curvature: Callable[[float], float], floor: float,
           tied: float = TIED, eta: float | None = None, stride: float = 1.0) -> Schedule:
    """`tied` times the fewest levels from high to low that leave WANTED excess, between prior standard deviations `narrowest` and
    high/FIRST and for measurements of all strengths, by `moments`; FEWEST at least, and no more than GRADIENTS allow.

    With an `eta` that is annealed beside the prior from as low a t/η as adds no more than LAG, the measurement's noise level.
    With a `stride` above 1, levels of FOLDED_STEPS such steps whose last leads on to the next level, FOLDED_FEWEST at least.
    """
    widest = high / FIRST
    stds = np.geomspace(min(narrowest, widest), widest, 25)[:, None]
    data = np.concatenate([[0.0], np.geomspace(1e-2 / widest**2, 1e2 / low**2, 16)])[None]

    def at(levels: int, ratio: float | None = None) -> Schedule:
        if stride > 1.0:
            return Schedule(high, low, levels, FOLDED_STEPS, FOLDED_RHO, predictor=FOLDED, eta_ratio=ratio, stride=stride)
        return Schedule(high, low, levels, STEPS, RHO, predictor=True, eta_ratio=ratio)

    few, most = (FOLDED_FEWEST, GRADIENTS // FOLDED_STEPS) if stride > 1.0 else (FEWEST, (GRADIENTS + 1) // (STEPS + 1))
    many = most
    while few < many:
        middle = (few + many) // 2
        left = moments(at(middle), stds, data, curvature, floor).variance
        few, many = (few, middle) if float(np.abs(left - 1.0).max()) <= WANTED else (middle + 1, many)
    many = min(math.ceil(tied * many), most)
    if eta is None:
        return at(many)
    ratio, own = RATIO, moments(at(many), stds, data, curvature, floor).variance
    while ratio * eta < high:
        if float((moments(at(many, ratio), stds, data, curvature, floor, eta).variance - own).max()) <= LAG:
            return at(many, ratio)
        ratio *= GROWTH
    return at(many)


def rounded_up(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 5, 7, 10, 15 …: rounding in float32 elsewhere does not move it."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * digit for digit in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0, 10.0) if power * digit >= value * (1.0 - 1e-3))


def cosines(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Orthonormal cosines along each side, at most WAVES, float64: products of the two are the smooth images."""
    def waves(size: int) -> Tensor:
        k = torch.arange(min(WAVES, size), dtype=torch.float64, device="cpu")
        wave = torch.cos(math.pi * k[:, None] * (torch.arange(size, dtype=torch.float64, device="cpu") + 0.5) / size)
        return wave / wave.norm(dim=1, keepdim=True)

    return waves(height), waves(width)


def smooth_stds(operator: Operator, y: Tensor, spread: float) -> np.ndarray:
    """Standard deviations along products of `cosines`, of images whose pixels have half of `spread`, their power falling as
    1/frequency²."""
    _, height, width = operator.image_shape(y)
    across = np.arange(width) ** 2.0
    power = [1.0 / np.maximum(k**2.0 + across, 1.0) for k in range(min(WAVES, height))]
    whole = sum(float((1.0 / np.maximum(k**2.0 + across, 1.0)).sum()) for k in range(height))  # in the memory of a row
    return (0.5 * spread) * np.sqrt(np.stack(power)[:, :WAVES] * (height * width / whole)).ravel()


def unmeasured_std(operator: Operator, y: Tensor, spread: float) -> float:
    """The largest posterior standard deviation of the smoothest images, Gaussian with `smooth_stds`: √λ_max (C⁻¹ + BᵀAᴴAB/η²)⁻¹.

    Pixels outside the operator's support count as known. Where the operator differs from measurement to measurement, of the one
    that leaves most.
    """
    if operator.measurements is not None and len(y) > 1:
        return max(unmeasured_std(operator.of(i, i + 1), y[i:i + 1], spread) for i in range(len(y)))
    channels, height, width = operator.image_shape(y)
    numbers = channels * (2 if operator.is_complex else 1)
    down, across = (waves.to(y.device) for waves in cosines(height, width))
    count, each = len(down) * len(across), max(PART // (height * width * numbers), 1)
    states = torch.zeros(min(each, count), height, width, numbers, device=y.device, dtype=torch.float32)
    of_channel = torch.empty(states.shape[:3], device=y.device, dtype=torch.float64)
    support = operator.support(states[:1])
    products = torch.empty(count, len(down), len(across), device=y.device, dtype=torch.float64)
    for first in range(0, count, each):
        some = torch.arange(first, min(first + each, count), device=y.device)
        part, wave = states[:len(some)], of_channel[:len(some)]
        part[..., 0] = torch.mul(down[some // len(across), :, None], across[some % len(across), None], out=wave)
        seen = operator.normal_state(part)
        if support is not None:
            seen = seen * support + part * (1.0 - support)
        products[some] = down @ wave.copy_(seen[..., 0]) @ across.T
    information = products.flatten(1).cpu().numpy() / operator.noise_std**2
    information = 0.5 * (information + information.T) + np.diag(smooth_stds(operator, y, spread) ** -2.0)
    return float(np.linalg.eigvalsh(information)[0]) ** -0.5


def warn_of_start(schedule: Schedule, operator: Operator, energy: Energy, y: Tensor, measured: bool) -> None:
    """Warn of a sigma_max far below the spread of what the measurement leaves open: it comes out too narrow."""
    widest = float(smooth_stds(operator, y, energy.spread).max()) if energy.unit else energy.spread
    if schedule.sigma_max >= widest / FAR:
        return
    if measured and energy.unit:
        widest = unmeasured_std(operator, y, energy.spread)
    elif measured and unseen(operator, y, energy.spread) < UNSEEN:
        return
    if schedule.sigma_max < widest / FAR:
        warnings.warn(f"schedule: sigma_max = {schedule.sigma_max:.3g} is far below the standard deviation, about {widest:.2g}, "
                      "of what the measurement leaves open, which comes out too narrow; schedule=None chooses one", stacklevel=6)


def unseen(operator: Operator, y: Tensor, spread: float) -> float:
    """About the share of all directions of N(0, spread²) of which the measurement says nothing: zᵀ(1 + spread² AᴴA/η²)⁻¹z/n."""
    if operator.measurements is not None and len(y) > 1:
        return max(unseen(operator.of(i, i + 1), y[i:i + 1], spread) for i in range(len(y)))
    channels, height, width = operator.image_shape(y)
    numbers = channels * (2 if operator.is_complex else 1)
    generator = torch.Generator().manual_seed(UNSEEN_SEED)
    z = torch.randn(1, height, width, numbers, generator=generator, dtype=torch.float32, device="cpu").to(y.device)
    support = operator.support(z)
    z = z if support is None else z * support
    left = operator.solve_state(z, operator.noise_std**-2, spread**-2) / spread**2
    return float((z * left).sum() / (z * z).sum())
