"""The most probable image: ALPS with ξ = 0 throughout, which is majorise–minimise; from an image nearby with momentum."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..adapters import check_ours
from ..energies.base import Energy
from ..errors import check, check_choice
from ..layout import from_state
from ..limits import check_memory
from ..operators.base import Operator
from ..ops._dispatch import NAMES, telling
from ..ops._modes import settled
from ..ops.philox_normal import NO_NOISE
from ..schedule import Level, Schedule
from .alps import alps_levels
from .chosen import FEWEST, chosen
from .inputs import image_state, measured, warn_of_axes, warn_of_size
from .run import Progress
from .runaway import causes, limits, sizes
from .targets import Target, Targets, centred

NEAR, NEAR_LEVELS, NEAR_STEPS = 5.0, 6, 3  # from an image nearby: σ_max over σ_min, and how far it is from there


@dataclass(frozen=True)
class MapEstimate:
    """A MAP estimate. A batch of measurements puts B in front of every shape.

    image: (C, H, W) real or complex.
    energy: () U(x) = E(x, t)/t² + ‖Ax − y‖²/(2η²) at t = σ_min.
    trace: (levels, steps) U at the level's t and η before each of its steps, with momentum where it carried to; it never rises
        along a row, nor from the last of all to `energy`, if the energy's curvature is a true bound, up to the rounding of U in
        float32.

    energy and trace are NaN for a prior without a value, such as a `DiffusionPrior`: the image is the point that the same steps
    lead to, where the denoiser's residual and the data balance.
    """

    image: Tensor
    energy: Tensor
    trace: Tensor

    def __repr__(self) -> str:
        """What it is of, in three lines."""
        batch = f"{len(self.image)} measurements, " if self.image.ndim == 4 else ""
        kind = "complex" if self.image.is_complex() else "real"
        energies = ", ".join(f"{v:.6g}" for v in self.energy.flatten().tolist()[:4]) + (", …" if self.energy.numel() > 4 else "")
        return (f"MapEstimate of {batch}{kind} images {tuple(self.image.shape[-3:])}\n"
                f"  energy {energies} after {self.trace.shape[-2]} levels\n  image, energy, trace")


@telling()
@settled()
def map_estimate(y: Tensor, operator: Operator, energy: Energy, *, schedule: Schedule | None = None, start: Tensor | None = None,
                 backend: str = "auto", progress: bool = True,
                 callback: Callable[[Progress], None] | None = None) -> MapEstimate:
    """argmax of exp(−E(x, t)/t² − ‖Ax − y‖²/(2η²)) at t = σ_min, followed down from σ_max; deterministic.

        x <- (AᴴA/η² + L/t²)⁻¹ (Aᴴy/η² + (L x − ∇E(x, t))/t²)

    With ∇²E ≼ L every step minimises a quadratic that touches U at x and lies above it, so U never rises within a level. From a
    `start` they are taken from z = x + (k − 1)/(k + 2) (x − x before), after k steps, the levels' together; where U is larger at
    z than at the z before it at that level the step is not taken, U stays in the trace, and k is 0 again. An energy without a
    value tells no U, and has no momentum.

    Args:
        y: a measurement, or a batch (B, ...). operator, energy: A with its noise_std η, and the prior.
        schedule: levels and steps, its predictor left out; None: chosen as for sampling, with half the levels, and from a start
            the last of its levels alone: 6 levels of 3 steps from 5 σ_min, for which a mean is near enough.
        start: an image nearby, or one for each measurement, such as `Posterior.mean`, to begin from in place of the data's
            solution: a fifth to a half of the gradients, for an energy no higher in what was tried of those that have a value
            (docs/performance.md).
        backend: see `alps_fast.ops`. progress: a bar on stderr.
        callback: is called with a `Progress` at level ends; by raising StopIteration it makes the level there the last.

    Raises:
        ArgumentError: naming the argument.
        FloatingPointError: every image turned non-finite or ran away, as a chain may. One of several is NaN, with a warning.

    Sources: [ALPS]; for momentum Nesterov, "A method of solving a convex programming problem with convergence rate O(1/k²)",
    1983, and for its restarts O'Donoghue & Candès, "Adaptive restart for accelerated gradient schemes", 2015.
    """
    for name, given, kind in (("operator", operator, Operator), ("energy", energy, Energy)):
        check_ours(name, given, kind, f"an alps_fast {name}")
    check(schedule is None or isinstance(schedule, Schedule), "schedule", type(schedule).__name__, "None or a Schedule")
    check_choice("backend", backend, NAMES)
    check(callback is None or callable(callback), "callback", repr(callback), "None or a function")
    checked = measured(operator, y)
    image = operator.image_shape(checked)
    warn_of_axes(image)
    check_memory("y", f"an image {image}", 8 * 4 * len(checked) * math.prod(image) * (1 + operator.is_complex), checked.device)
    adjoint = operator.adjoint_state(checked)
    rows, nothing = torch.arange(len(adjoint), device=adjoint.device), adjoint.new_empty(0)
    targets = Targets(operator, energy, checked, adjoint, rows, None, None, 0, backend)
    warn_of_size(operator, energy, adjoint)
    energy.check_channels("energy", adjoint.shape[-1])
    energy.begin()
    near = image_state("start", start, image, operator.is_complex, adjoint, energy)
    own, schedule = schedule, schedule or for_mode(chosen(operator, energy, checked, measured=True), near is not None)
    x, trace = torch.zeros_like(adjoint) if near is None else near, []
    momentum = Momentum.none(x) if near is not None and energy.has_value else None
    kept = torch.ones(len(x), dtype=torch.bool, device=x.device)
    with tqdm(total=schedule.levels * schedule.steps, desc="MAP", unit="step", file=sys.stderr, disable=not progress) as bar:
        for i, level in enumerate(alps_levels(schedule, operator.noise_std)):
            target = targets.at(level, nothing)
            s = replace(target.scalars, noise=NO_NOISE)
            if i == 0:
                x = target.langevin(x, torch.zeros_like(x), rows, s)[1] if near is None else x
                behind = targets.centre(operator.noise_std**-2) if centred(operator, adjoint) else adjoint
                most = limits(x, behind, max(energy.spread, level.t)) if energy.unit else x.new_full((len(x),), torch.inf)
            if momentum is not None:
                momentum = momentum._replace(energy=torch.full_like(momentum.energy, math.inf))  # of another U
            for _ in range(level.steps):
                at = x if momentum is None else momentum.at
                value, grad = evaluated(target, at)
                u = posterior_energy(value, level, operator, at, checked)
                stepped = target.langevin(at, grad, rows, s)[1]
                if momentum is None:
                    x = stepped
                else:
                    x, u, momentum = momentum.carried(x, stepped, u)
                trace.append(u)
                bar.update()
            kept &= (sizes(x) <= most) & x.isfinite().flatten(1).all(1)
            try:
                if callback is not None:
                    callback(Progress(i, schedule.levels, level.t, level.eta, x, x, operator.is_complex))
            except StopIteration:
                break
    if not bool(kept.all()):
        lost = (~kept).nonzero().flatten().tolist()
        if len(lost) == len(x):
            raise FloatingPointError(f"every image turned non-finite or ran away{causes(energy, own)}")
        warnings.warn(f"y: of measurements {', '.join(map(str, lost))} the image turned non-finite or ran away, and is NaN"
                      f"{causes(energy, own)}", stacklevel=4)
        x = x.masked_fill(~kept.view(-1, 1, 1, 1), torch.nan)
    last = posterior_energy(evaluated(target, x)[0] if energy.has_value else unknown(x), level, operator, x, checked)
    found = MapEstimate(from_state(x, operator.is_complex), last, torch.stack(trace, 1).unflatten(1, (i + 1, -1)))
    return found if y.ndim >= checked.ndim else MapEstimate(found.image[0], found.energy[0], found.trace[0])


class Momentum(NamedTuple):
    """Of each of B images: where the next step is taken from, U there before it, and how many steps carried it on."""

    at: Tensor  # (B, H, W, C')
    energy: Tensor  # (B,) float64, ∞ before the first step of a level
    steps: Tensor  # (B,)

    @staticmethod
    def none(x: Tensor) -> Momentum:
        """Of states that stand still."""
        return Momentum(x, x.new_full((len(x),), math.inf, dtype=torch.float64), x.new_zeros(len(x)))

    def carried(self, x: Tensor, stepped: Tensor, energy: Tensor) -> tuple[Tensor, Tensor, Momentum]:
        """x⁺, the U that it began from, and what carries it on: after a step to `stepped` from `at`, where U is `energy`.

        Where that is more than before at this level, or momentum led to where there is none, the step is not taken, and the next
        is from x.
        """
        climbs = (energy > self.energy) | (energy.isnan() & (self.steps > 1))
        steps = torch.where(climbs, 0.0, self.steps + 1.0)
        share = ((steps - 1.0) / (steps + 2.0)).clamp_min(0.0)
        here, on = climbs.view(-1, 1, 1, 1), share.view(-1, 1, 1, 1)
        after = torch.where(here, x, stepped)
        return (after, torch.where(climbs, self.energy, energy),
                Momentum(after + on * (after - x), torch.where(climbs, math.inf, energy), steps))


def for_mode(schedule: Schedule, near: bool = False) -> Schedule:
    """A schedule chosen for sampling, with half its levels, but FEWEST: a mode has no variance for which these were so many.

    Of MRI, R = 4 and 8, `brain-ridge` and `brain-denoiser`, PSNR is what all levels give, or .1 dB more, and U .2 % higher.
    From an image that is near already its last levels alone.
    """
    if near:
        return replace(schedule, sigma_max=min(schedule.sigma_max, NEAR * schedule.sigma_min), levels=NEAR_LEVELS,
                       steps=NEAR_STEPS)
    return replace(schedule, levels=min(schedule.levels, max(FEWEST, math.ceil(schedule.levels / 2))))


def evaluated(target: Target, x: Tensor) -> tuple[Tensor, Tensor]:
    """E, NaN where the energy has no value, and ∇E."""
    return target.value_and_grad(x) if target.energy.has_value else (unknown(x), target.grad(x))


def unknown(x: Tensor) -> Tensor:
    """NaN for every image."""
    return x.new_full((len(x),), torch.nan)


def posterior_energy(value: Tensor, level: Level, operator: Operator, x: Tensor, y: Tensor) -> Tensor:
    """U = E/t² + ‖Ax − y‖²/(2η²) of a level, (B,) float64."""
    residual = operator.misfit(from_state(x, operator.is_complex), y)
    squares = (residual.abs() if residual.is_complex() else residual).double().square().flatten(1).sum(1)
    return value.double() / level.t**2 + squares / (2 * level.eta**2)
