"""What a run carries from level to level, what it gathers on the way, and how both go to disk and come back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import ArgumentError, check
from ..io.files import first_line, reading
from ..io.tensors import DIGEST, read_tensors, write_tensors
from ..ops.moments import moments
from .mala import Point

TRACED = 256  # at most so many numbers of an image are kept of every draw


@dataclass
class Chains:
    """The chains, rows measurement by measurement (N = B · chains)."""

    x: Tensor  # (N, H, W, C') states
    data_noise: Tensor  # (N, H, W, C') Aᴴ of the noise on every chain's own y_i; empty where y is not annealed
    log_tau: Tensor  # (N,) MALA's step
    alive: Tensor  # (N,) bool: finite so far
    broken: Tensor  # (N, 2) level and step within it where a chain was seen to be non-finite, else −1
    point: Point | None = None  # MALA's evaluation at x, which is its x
    level: int = 0  # the level to go on with
    step: int = 1  # Philox step index to go on with
    gradients: int = 0  # evaluations a chain so far


@dataclass
class Record:
    """What a run gathers: streaming moments of the draws, and figures by level."""

    count: Tensor  # (B,) draws
    mean: Tensor  # (B, H, W, C') of the samples x⁺
    m2: Tensor  # (B, H, W, C') sum of squared deviations of the samples
    projected_count: Tensor  # (B,) draws
    projected: Tensor  # (B, H, W, C') mean of the noise-free projections m(x): the MMSE estimate
    trace: Tensor  # (draws, N, <= 256) fixed numbers of the state of every draw
    energy: Tensor  # (levels, N) E(x, t)/t² before the last step of a level; NaN in the draws after the first
    acceptance: Tensor  # (levels, N) mean probability of acceptance; NaN without MALA
    tau: Tensor  # (levels, N) MALA's step at the end of a level; NaN without MALA

    @classmethod
    def empty(cls, measurements: int, x: Tensor, draws: int, levels: int, traced: int) -> Record:
        """Nothing gathered yet, for states shaped like x, of which `traced` numbers are kept."""
        rows, image = len(x), x.shape[1:]
        images = [x.new_zeros(measurements, *image) for _ in range(3)]
        counts = [torch.zeros(measurements, dtype=torch.int64, device=x.device) for _ in range(2)]
        by_level = [x.new_full((levels, rows), torch.nan) for _ in range(3)]
        trace = x.new_zeros(draws, rows, traced)
        return cls(counts[0], images[0], images[1], counts[1], images[2], trace, *by_level)

    def draw(self, index: int, x: Tensor, mean: Tensor, alive: Tensor, kept: Tensor, backend: str) -> None:
        """Take the samples x and their projections into the statistics, broken chains left out; trace the numbers `kept`."""
        self.take(x, mean, alive, backend)
        self.trace[index] = x.flatten(1)[:, kept]

    def take(self, x: Tensor, mean: Tensor, alive: Tensor, backend: str) -> None:
        """The moments alone; all of them or, where Ctrl-C comes in between, none."""
        samples = moments(self.count, self.mean, self.m2, x, alive, backend)
        unread = torch.zeros_like(self.projected)
        projections = moments(self.projected_count, self.projected, unread, mean, alive, backend)
        self.count, self.mean, self.m2, self.projected_count, self.projected = *samples, *projections[:2]


def traced(x: Tensor, support: Tensor | None) -> Tensor:
    """Which numbers of states like x are traced: evenly spaced ones of those in the support."""
    inside = torch.arange(x[0].numel(), device=x.device)
    if support is not None:
        inside = inside[support.expand(1, *x.shape[1:]).flatten() > 0]
    count = min(TRACED, len(inside))
    return inside[torch.arange(count, device=x.device) * len(inside) // count]


COUNTERS = ("level", "step", "gradients")
WANTED = "a file that this sampler wrote"


class Identity(NamedTuple):
    """What a run's result hangs on. facts: options and digests, to be met exactly. probes: inner products (groups, n) that say
    what operator and energy do, to be met within `tolerances` (groups,): another number of threads may round otherwise."""

    facts: str
    probes: Tensor
    tolerances: Tensor

    def differs(self, facts: str, probes: Tensor) -> bool:
        """Whether these are another run's."""
        return facts != self.facts or probes.shape != self.probes.shape or bool(
            ((probes - self.probes).abs() > self.tolerances[:, None]).any() or (probes.isnan() != self.probes.isnan()).any())


def save_checkpoint(path: Path, chains: Chains, record: Record, identity: Identity) -> None:
    """Write everything to `path` at once: a reader finds the old file or the new one. A disk that is full costs the run nothing
    but this checkpoint, with a warning."""
    tensors = {f"chains.{f.name}": getattr(chains, f.name) for f in fields(chains) if isinstance(getattr(chains, f.name), Tensor)}
    tensors |= {f"record.{f.name}": getattr(record, f.name) for f in fields(record)}
    if chains.point is not None:
        tensors |= {f"point.{name}": value for name, value in chains.point._asdict().items() if name != "x"}
    tensors["identity.probes"] = identity.probes
    metadata = {"identity": identity.facts} | {name: str(getattr(chains, name)) for name in COUNTERS}
    try:
        write_tensors(path, tensors, metadata)
    except (OSError, SafetensorError, ArgumentError) as error:  # the last where the folder is gone or closed to us
        warnings.warn(f"checkpoint: {path} could not be written ({first_line(error)}); the run goes on", stacklevel=2)


def load_checkpoint(path: Path, identity: Identity, device: torch.device) -> tuple[Chains, Record]:
    """Read what `save_checkpoint` wrote; ArgumentError if it is damaged or of another run."""
    tensors, metadata = read_tensors(path, "checkpoint", WANTED)
    check(DIGEST in metadata and "identity.probes" in tensors, "checkpoint", f"{path}, which is something else", WANTED)
    if identity.differs(metadata.get("identity", ""), tensors.pop("identity.probes")):
        raise ArgumentError(f"checkpoint: {path} belongs to another run; wanted one of the same measurement, operator, energy, "
                            "backend and options, or a path where there is no file")
    groups: dict[str, dict[str, Any]] = {"chains": {}, "record": {}, "point": {}}
    with reading(path, "checkpoint", WANTED):
        for name, value in tensors.items():
            group, field = name.split(".")
            groups[group][field] = value.to(device)
        chains = Chains(**groups["chains"])
        chains.level, chains.step, chains.gradients = (int(metadata[name]) for name in COUNTERS)
        chains.point = Point(x=chains.x, **groups["point"]) if groups["point"] else None
        return chains, Record(**groups["record"])
