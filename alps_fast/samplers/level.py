"""The steps of one level as a function of tensors alone: so they run in parts that fit a device's memory, or as a graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .alps import Target, steps
from .mala import Point, mala_step, point, tuned
from .schedule import Predictor, StepScalars


class Rows(NamedTuple):
    """Chains at the start of a level: all that its steps read and that is not constant. b: (B, H, W, C'), B dividing N.

    level: its number, (1,). chains: (N, 2), as `ops.philox_normal` takes them; a replayed graph counts its steps on in the high
    bits of their indices.
    """

    x: Tensor
    log_tau: Tensor
    alive: Tensor
    broken: Tensor
    level: Tensor
    chains: Tensor
    b: Tensor
    at: Point | None  # MALA's evaluation at x, where the target is that of the level before


class Stepped(NamedTuple):
    """The same chains at its end: m of the last step, E before it (with MALA after it), the mean probability of acceptance."""

    x: Tensor
    log_tau: Tensor
    alive: Tensor
    broken: Tensor
    mean: Tensor
    value: Tensor
    acceptance: Tensor
    at: Point | None


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
    predictor: Predictor | None = None

    def run(self, rows: Rows, tick: Callable[[int], object]) -> Stepped:
        """All steps; `tick` is told how many were done. Nothing here waits for the device."""
        target = replace(self.target, b=rows.b)
        done = self._langevin(target, rows, tick) if self.tunes is None else self._mala(target, rows, self.tunes, tick)
        return done if self.predictor is None else done._replace(x=target.predict(done.x, rows.chains, self.predictor), at=None)

    def _langevin(self, target: Target, rows: Rows, tick: Callable[[int], object]) -> Stepped:
        x, mean, alive, broken, done = rows.x, rows.x, rows.alive, rows.broken, 0
        value = torch.full_like(rows.log_tau, torch.nan)
        while done < len(self.scalars):
            s, rest = self.scalars[done], len(self.scalars) - done
            if rest == 1 and self.records and target.energy.has_value:
                value, grad = target.value_and_grad(x)
                x, mean = target.langevin(x, grad, rows.chains, s)
                count = 1
            else:
                x, mean, count = steps(target, x, rows.chains, s, max(rest - 1, 1))
            done += count
            if count == 1:  # steps taken together need no look of their own: what broke in them is still so after the last
                alive, broken = guarded(x, alive, broken, rows.level, done - 1)
            tick(count)
        return Stepped(x, rows.log_tau, alive, broken, mean, value, torch.zeros_like(rows.log_tau), None)

    def _mala(self, target: Target, rows: Rows, tunes: int, tick: Callable[[int], object]) -> Stepped:
        at = point(target, rows.x, rows.chains, self.scalars[0].step) if rows.at is None else rows.at
        log_tau, alive, broken, acceptance = rows.log_tau, rows.alive, rows.broken, torch.zeros_like(rows.log_tau)
        for k, s in enumerate(self.scalars):
            at, probability = mala_step(target, at, log_tau, rows.chains, s.step)
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


def part(rows: Rows, each: int, first: int, most: int) -> tuple[Rows, int]:
    """The rows from `first` on, at most `most` of them and such that those of a measurement's b are whole; and the next one.

    each: chains of a measurement. b has a row a measurement, or a row a chain.
    """
    total = len(rows.x)
    if len(rows.b) == total:
        last = min(first + most, total)
        b = rows.b[first:last]
    elif first % each == 0 and most >= each:
        last = min(first + most // each * each, total)
        b = rows.b[first // each:last // each]
    else:
        last = min(first + most, (first // each + 1) * each)
        b = rows.b[first // each:first // each + 1]
    some = slice(first, last)
    at = None if rows.at is None else Point(*(v[some] for v in rows.at))
    return Rows(rows.x[some], rows.log_tau[some], rows.alive[some], rows.broken[some], rows.level, rows.chains[some], b, at), last


def joined(parts: list[Stepped]) -> Stepped:
    """Parts as one."""
    if len(parts) == 1:
        return parts[0]
    ats = [p.at for p in parts if p.at is not None]
    at = Point(*map(torch.cat, zip(*ats, strict=True))) if ats else None
    columns: Any = list(zip(*parts, strict=True))[:-1]
    return Stepped._make([*map(torch.cat, columns), at])
