"""The ALPS sampler ([ALPS], docs/design.md §3 and 4): anneal the prior, one preconditioned Langevin step after another.

    x = P Aᴴy/η² + P^{1/2} R₀                                                            `start`
    for every level t from σ_max to σ_min, P = (AᴴA/η² + L/t²)⁻¹:                        `anneal`, `targets.Targets`
        K times:  x <- m(x) + P^{1/2} ξ,   m(x) = P (Aᴴy/η² + (L x − ∇E(x, t))/t²)       `Plan`, `steps`
        x <- where the next level finds such a state                                     `predict`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout import network_view
from ..ops._scalars import StepScalars
from ..ops._step import table
from ..ops.philox_normal import AVERAGED, INDEPENDENT, NO_NOISE
from ..schedule import FOLDED, Level, Schedule
from .chains import Ensemble
from .mala import mala_step, point, tuned
from .rows import Rows, Scalars, Stepped
from .targets import Target, Targets


def alps_levels(schedule: Schedule, eta: float) -> list[Level]:
    """Prior levels t_i, every one with the whole measurement, whose noise `Schedule.eta_ratio` may enlarge."""
    return [Level(t, e, schedule.steps) for t, e in zip(schedule.t().tolist(), schedule.beside(eta).tolist(), strict=True)]


def start(target: Target, shape: tuple[int, ...], ids: Tensor) -> Tensor:
    """x = P b + P^{1/2} R₀ of the first level. The chain goes on from step 1, so R₀ is used here alone."""
    nothing = target.b.new_zeros(len(ids), *shape)
    return target.langevin(nothing, nothing, ids, replace(target.scalars, noise=INDEPENDENT, step=0))[0]


def steps(target: Target, x: Tensor, ids: Tensor, s: StepScalars, most: int, looks: bool) -> tuple[Tensor, Tensor, int]:
    """x -> m(x) + P^{1/2} ξ, `most` times from the step of s on if one op takes them, else once: x⁺, m, and how many.

    looks: whether m matters; where it does not it may be x⁺.
    """
    fused = target.fused(x, ids, s, most)
    return (*fused, most) if fused is not None else (*stepped(target, x, target.grad(x), ids, s, looks), 1)


def stepped(target: Target, x: Tensor, grad: Tensor, ids: Tensor, s: StepScalars, looks: bool) -> tuple[Tensor, Tensor]:
    """x⁺ and, if one `looks` at it, m."""
    if looks:
        return target.langevin(x, grad, ids, s)
    after = target.advance(x, grad, ids, s)
    return after, after


def anneal(course: Course, ensemble: Ensemble, through: Callable[[Plan, Rows], Stepped],
           moves: Callable[[int, Ensemble], object] | None = None) -> Iterator[tuple[Plan, Stepped]]:
    """From the level where the chains stand to the last, each `through` the steps of its plan; yields what every level did.

    moves: what else chains do before a level, such as leaps, by its number. Whoever takes what is yielded sets `ensemble.level`
    on: so a level that is interrupted is gone on from at its start.
    """
    for i in range(ensemble.level, len(course.levels)):
        if moves is not None:
            moves(i, ensemble)
        plan, rows = course.planned(i, ensemble)  # P, its data, and the noise of every step at this t
        done = through(plan, rows)              # K times x <- m(x) + P^{1/2} ξ, and what the predictor makes of x
        ensemble.stepped(done, len(plan.scalars), plan.gradients(rows))
        yield plan, done


@dataclass
class Course:
    """The levels of a run, the first `annealed` of which anneal, while in the others draws alone remain; and by which rules.

    in_memory: whether steps read what tells levels apart from the memory of the state's device, as far as their operator and
    energy do: so that one graph serves all levels. Without, numbers are arguments of ops.
    """

    targets: Targets
    levels: list[Level]
    annealed: int
    noise: str
    correction: str | None
    predictor: bool | str
    in_memory: bool
    _target: Target | None = field(default=None, init=False)  # of the last level that was planned
    _scalars_of: list[Scalars] | None = field(default=None, init=False)  # every level's
    _asked: bool = field(default=False, init=False)  # the energy, for every level

    def planned(self, i: int, ensemble: Ensemble) -> tuple[Plan, Rows]:
        """The steps of level i and the chains as they come to it, the noise on an annealed measurement taken on to it."""
        levels, level = self.levels, self.levels[i]
        changed = i == 0 or level[:2] != levels[i - 1][:2]
        if changed or self._target is None:
            ensemble.data_noise = self.targets.bridged(levels, i, ensemble.data_noise)
            self._target = self.targets.at(level, ensemble.data_noise)
        target = self._target
        tunes = level.steps - level.draw if i < self.annealed else 0  # a draw's last step leaves its τ alone
        plan = Plan(i, target, self._steps(i, ensemble.step), tunes if self.correction else None, i < self.annealed,
                    level.draw or not target.operator.iterative, self._between(i))
        number = torch.full((1,), i, device=ensemble.x.device)  # on a GPU a kernel, where torch.tensor would wait
        in_memory = self.in_memory and not self.correction  # which takes its own numbers from the host
        scalars = self._scalars(ensemble.x)[i] if in_memory and target.operator.takes_rows else None
        prior = self._prior(level.t, ensemble.x) if in_memory else None
        return plan, Rows(ensemble.x, ensemble.log_tau, ensemble.alive, ensemble.broken, number, self.targets.ids, target.b,
                          None if changed else ensemble.point, scalars, prior)

    def _prior(self, t: float, x: Tensor) -> tuple[Any, ...] | None:
        """`Energy.level`; asked for every level before the first, as an energy may wait for the device once for each."""
        if not self._asked:
            self._asked = True
            for each in self.levels:
                self._prior(each.t, x)
        return self.targets.energy.level(t, network_view(x))

    def _scalars(self, x: Tensor) -> list[Scalars]:
        """Of every level, for states like x: one table and one copy a run, as a GPU is waited for where numbers go there."""
        if self._scalars_of is None:
            steps = [self._steps(i, 0) for i in range(len(self.levels))]
            between = [self._between(i) for i in range(len(self.levels))]
            rows = [s.numbers() for its, p in zip(steps, between, strict=True) for s in (*its, p.scalars if p else its[-1])]
            keeps = torch.tensor([p.keep if p else 0.0 for p in between], dtype=torch.float64, device="cpu").to(x.device, x.dtype)
            tables = table(rows, x).split([len(its) + 1 for its in steps])
            self._scalars_of = [Scalars(*its) for its in zip(tables, keeps, strict=True)]
        return self._scalars_of

    def _steps(self, i: int, first: int) -> tuple[StepScalars, ...]:
        """The scalars of every step of level i: averaged noise, or by the published rule the next level's at its end."""
        scalars = self.targets.scalars(self.levels[i])
        *steps, last = (replace(scalars, step=first + k) for k in range(self.levels[i].steps))
        if self.noise == "averaged":
            return *steps, self._folded(i, last)
        if i + 1 < len(self.levels):
            last = replace(last, noise=INDEPENDENT, noise_lam=self.targets.noise_lam(self.levels[i + 1]))
        else:
            last = replace(last, noise=NO_NOISE)
        return *(replace(s, noise=INDEPENDENT) for s in steps), last

    def _folded(self, i: int, last: StepScalars) -> StepScalars:
        """The last step of level i, which by a folded predictor is also the way to the next, where the prior changes there."""
        onward = self._onward(i)
        return folded(last, *onward) if self.predictor == FOLDED and onward is not None else last

    def _between(self, i: int) -> Predictor | None:
        """What takes the states of level i on to the next, where the prior changes there."""
        onward = self._onward(i)
        if self.predictor is not True or onward is None:
            return None
        s = replace(self.targets.scalars(self.levels[i]), noise=INDEPENDENT if self.correction else AVERAGED)
        return predictor(s, *onward)

    def _onward(self, i: int) -> tuple[float, float, float, float] | None:
        """t of level i and of the next, L/t² there, and the t below which the prior stays as it is; None where it does here."""
        here, after = self.levels[i], self.levels[min(i + 1, len(self.levels) - 1)]
        if after.t == here.t:
            return None
        return here.t, after.t, self.targets.lin(after.t), self.targets.energy.floor


@dataclass(frozen=True)
class Plan:
    """The steps of a level, each with its scalars. tunes: how many of MALA's steps, from the first, tune τ; None without MALA.

    predictor: what takes the states on to the next level, if anything does.
    """

    level: int
    target: Target  # whose b is that of all chains; its rows are in `Rows`
    scalars: tuple[StepScalars, ...]
    tunes: int | None
    records: bool  # whether E before the last step is wanted, where there is one; else NaN
    draws: bool  # whether m after the last step is wanted, as that of a draw is, or comes with the state anyway
    predictor: Predictor | None = None

    def of(self, first: int, last: int) -> Plan:
        """The same for measurements first … last − 1 alone, where the operator differs from one to another."""
        operator = self.target.operator.of(first, last)
        return self if operator is self.target.operator else replace(self, target=replace(self.target, operator=operator))

    def gradients(self, rows: Rows) -> int:
        """Evaluations of ∇E that it takes a chain."""
        return len(self.scalars) + (self.tunes is not None and rows.at is None) + (self.predictor is not None)

    def run(self, rows: Rows, tick: Callable[[int], object]) -> Stepped:
        """All steps; `tick` is told how many were done. Nothing here waits for the device."""
        target = replace(self.target, b=rows.b)
        if rows.prior is not None:
            target = replace(target, t=math.nan, prior=rows.prior)
        done = self._langevin(target, rows, tick) if self.tunes is None else self._mala(target, rows, self.tunes, tick)
        if self.predictor is None:
            return done
        by = self.predictor if rows.scalars is None else Predictor(
            rows.scalars.keep, self.predictor.scalars.from_row(rows.scalars.table[-1]))
        return done._replace(x=predict(target, done.x, rows.ids, by), at=None)

    def _langevin(self, target: Target, rows: Rows, tick: Callable[[int], object]) -> Stepped:
        x, mean, alive, broken, done = rows.x, rows.x, rows.alive, rows.broken, 0
        value, scalars = torch.full_like(rows.log_tau, torch.nan), self.scalars
        if rows.scalars is not None:
            scalars = tuple(s.from_row(row) for s, row in zip(scalars, rows.scalars.table, strict=False))
        while done < len(scalars):
            s, rest = scalars[done], len(scalars) - done
            if rest == 1 and self.records and target.energy.has_value:
                value, grad = target.value_and_grad(x)
                x, mean = stepped(target, x, grad, rows.ids, s, self.draws)
                count = 1
            else:
                x, mean, count = steps(target, x, rows.ids, s, max(rest - 1, 1), self.draws and rest == 1)
            done += count
            if count == 1:  # steps taken together need no look of their own: what broke in them is still so after the last
                alive, broken = guarded(x, alive, broken, rows.level, done - 1)
            tick(count)
        return Stepped(x, rows.log_tau, alive, broken, mean, value, torch.zeros_like(rows.log_tau), None)

    def _mala(self, target: Target, rows: Rows, tunes: int, tick: Callable[[int], object]) -> Stepped:
        at = point(target, rows.x, rows.ids, self.scalars[0].step) if rows.at is None else rows.at
        log_tau, alive, broken, acceptance = rows.log_tau, rows.alive, rows.broken, torch.zeros_like(rows.log_tau)
        for k, s in enumerate(self.scalars):
            at, probability = mala_step(target, at, log_tau, rows.ids, s.step)
            if k < tunes:
                log_tau = tuned(log_tau, probability, s.step)
            acceptance = acceptance + probability / len(self.scalars)
            alive, broken = guarded(at.x, alive, broken, rows.level, k)
            tick(1)
        return Stepped(at.x, log_tau, alive, broken, at.mean, at.value, acceptance, at)


def guarded(x: Tensor, alive: Tensor, broken: Tensor, level: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Flag chains that are no longer finite, on the device: alive (N,), and level and step (N, 2) of those that broke."""
    finite = x.flatten(1).sum(1).isfinite()
    lost = (alive > finite)[:, None]
    return alive & finite, torch.where(lost, torch.cat([level, torch.full_like(level, k)]), broken)


def predict(target: Target, x: Tensor, ids: Tensor, p: Predictor) -> Tensor:
    """x − keep (x − m(x)) − flow (L/t²) P ∇E(x, t), where the next level finds a state: one gradient, one projection."""
    around = target.around(x)
    data = target.b * (p.keep * target.share)
    projected = target.operator.advance(around, target.grad(x), data, ids, p.scalars, backend=target.backend)
    if isinstance(p.keep, Tensor):
        return target.back(projected.add_(around * (1.0 - p.keep)))
    return target.back(projected.add_(around, alpha=1.0 - p.keep))


class Predictor(NamedTuple):
    """What `predict` takes a state from one level to the next by: x − keep (x − m(x)) − flow (L/t²) P ∇E.

    scalars: of the one projection that gives both, keep and flow in them.
    """

    keep: float | Tensor
    scalars: StepScalars


def predictor(s: StepScalars, t: float, after: float, lin_after: float, floor: float) -> Predictor:
    """Between the levels t and t′ = `after`, s the scalars of a step at t and lin_after = L/t′² (docs/exactness.md §2):

        flow = (1 − (t′/t)²)/2           the probability flow ([EDM] eq. 1) of what is wider than t, with the data projected out
        keep = R (1 − R)/2,  R² = (L/t²)/(L/t′²)

    Averaged steps leave a state correlated with the noise that the next step shares, by √½ of this level's P^{1/2}; on the next
    level, where P is R² as large, that would add R (1 − R) P to the variance, which `keep` takes away. Without shared noise, as
    under a Metropolis correction, keep is 0. `floor` is the t below which p_t stays as it is.
    """
    ratio = max(after, floor) / max(t, floor)
    flow = 0.5 * (1.0 - ratio**2)
    shrink = math.sqrt(s.lin / lin_after)
    keep = 0.5 * shrink * (1.0 - shrink) if s.noise == AVERAGED else 0.0
    return Predictor(keep, replace(s, lin=keep * s.lin, w=flow * s.lin + keep * s.w, noise=NO_NOISE))


SHRUNK, AHEAD = 0.15, 0.3  # of `folded`: what leaves least over all directions with two steps a level (docs/exactness.md §15)


def folded(s: StepScalars, t: float, after: float, lin_after: float, floor: float) -> StepScalars:
    """The last step of a level t that also leads to the next, t′ = `after` (docs/exactness.md §15), s being that of any other:

        x⁺ = P ((L x − ω ∇E)/t² + Aᴴy/η²) + P_c^{1/2} (R_k + R_{k+1})/√2,       P_c = (AᴴA/η² + L/(c t)²)⁻¹

        ω = (c + c² + c R − R² + L (1 − (t′/t)²))/2 + 0.3 (1 − R)²,   c = R^{0.15},   R² = (L/t²)/(L/t′²)

    The first term of ω gives the variance of what is wider than t its change to that at t′, what the next step adds by the noise
    that both share included: noise gives (c + c² + R (c − R)) P, ∇E takes 2 ω P, and t² − t′² is to be missing. The second and c
    decide what becomes of what is as wide as t. `floor` is the t below which p_t stays as it is.
    """
    r = math.sqrt(s.lin / lin_after)
    c = r**SHRUNK
    moved = s.lin * (max(t, floor) ** 2 - max(after, floor) ** 2)
    omega = 0.5 * (c + c * c + c * r - r * r + moved) + AHEAD * (1.0 - r) ** 2
    return replace(s, w=omega * s.w, noise_lam=s.noise_lam + s.lin * (c**-2 - 1.0))
