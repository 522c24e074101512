"""What the steps of a level read and leave, as tensors alone, and parts of it that fit a device's memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from .mala import Point


class Scalars(NamedTuple):
    """What the steps of a level read of it beside chains, where they lie in memory; nothing of a level is a number then.

    table: (steps + 1, 5), a row of `ops._step.table` a step and one for the predictor. keep: its factor, ().
    """

    table: Tensor
    keep: Tensor


class Rows(NamedTuple):
    """Chains at the start of a level: all that its steps read and that is not constant. b: (B, H, W, C'), B dividing N.

    level: its number, (1,). ids: (N, 2) of chains and measurements, as `ops.philox_normal` takes them; a replayed graph counts
    its steps on in the high bits of the former. scalars: None where steps read numbers. prior: `Energy.level`; None: they read t.
    """

    x: Tensor
    log_tau: Tensor
    alive: Tensor
    broken: Tensor
    level: Tensor
    ids: Tensor
    b: Tensor
    at: Point | None  # MALA's evaluation at x, where the target is that of the level before
    scalars: Scalars | None
    prior: tuple[Any, ...] | None


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


def part(rows: Rows, each: int, first: int, most: int) -> tuple[Rows, int]:
    """The rows from `first` on, at most `most` of them, of whole measurements or of a single one; and the next one.

    each: chains of a measurement. b has a row a measurement, or a row a chain.
    """
    total = len(rows.x)
    if first % each == 0 and most >= each:
        last = min(first + most // each * each, total)
    else:
        last = min(first + most, (first // each + 1) * each)
    b = rows.b[first:last] if len(rows.b) == total else rows.b[first // each:-(-last // each)]
    some = slice(first, last)
    at = None if rows.at is None else Point(*(v[some] for v in rows.at))
    return rows._replace(x=rows.x[some], log_tau=rows.log_tau[some], alive=rows.alive[some], broken=rows.broken[some],
                         ids=rows.ids[some], b=b, at=at), last


def joined(parts: list[Stepped]) -> Stepped:
    """Parts as one."""
    if len(parts) == 1:
        return parts[0]
    ats = [p.at for p in parts if p.at is not None]
    at = Point(*map(torch.cat, zip(*ats, strict=True))) if ats else None
    columns: Any = list(zip(*parts, strict=True))[:-1]
    return Stepped._make([*map(torch.cat, columns), at])
