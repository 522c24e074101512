"""A run on disk: who it is, when it is written, and how it is gone on from."""

from __future__ import annotations

import json
import math
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..energies.base import Energy
from ..energies.coarse import CoarseFirst
from ..errors import ArgumentError, check
from ..io.files import first_line, reading
from ..io.tensors import DIGEST, digest_of, read_tensors, write_tensors
from ..layout import network_view
from ..ops._dispatch import resolved
from .chains import Ensemble, Record
from .mala import Point

if TYPE_CHECKING:
    from .run import Run

CHECKPOINT_SECONDS = 60.0  # between checkpoints, at level ends
PROBES = 8  # inner products of everything that tells one run from another
OPERATOR_TOLERANCE, ENERGY_TOLERANCE = 1e-4, 1e-3  # of them, relative: rounding in float32, and of networks in bfloat16
OPTIONS = ("chains", "draws", "thin", "seed", "method", "noise", "correction", "first_chain", "first_measurement", "pairs",
           "warm_std", "moves")
COUNTERS = ("level", "step", "gradients")
WANTED = "a file that this sampler wrote"


class Keeper:
    """Holds the last level's end of a run, and writes it to the run's file: after a minute, at the end, and when it is asked."""

    def __init__(self, path: Path, identity: Identity):
        self.path, self.identity = path, identity
        self.kept: tuple[Ensemble, Record] | None = None  # where it is not on the disk yet
        self.kept_at, self.keeping, self.terminated = time.monotonic(), False, False

    def note(self, ensemble: Ensemble, record: Record, last: bool) -> None:
        """A level's end, the last of all or not."""
        self.kept = replace(ensemble), replace(record)  # whose tensors are replaced from now on, or written in new rows
        if last or time.monotonic() - self.kept_at >= CHECKPOINT_SECONDS:
            self.write()

    def write(self) -> None:
        """Write the last level's end, if it is not on the disk yet."""
        if self.kept is None:
            return
        self.keeping = True
        try:
            save_checkpoint(self.path, *self.kept, self.identity)
        finally:
            self.keeping = False
        self.kept, self.kept_at = None, time.monotonic()
        if self.terminated:
            os.kill(os.getpid(), signal.SIGTERM)

    @contextmanager
    def on_sigterm(self) -> Iterator[None]:
        """Within it SIGTERM writes a checkpoint, then does what it did before: by default it ends the process.

        Signals can be caught in the main thread alone; in others SIGTERM is what it was.
        """
        before = signal.getsignal(signal.SIGTERM)
        if threading.current_thread() is not threading.main_thread() or before in (None, signal.SIG_IGN):
            yield
            return

        def keep(number: int, frame: FrameType | None) -> None:
            if self.keeping:  # a checkpoint is being written: when it is, the signal comes again
                self.terminated = True
                return
            self.terminated = False
            self.write()
            if callable(before):
                before(number, frame)
            else:
                signal.signal(signal.SIGTERM, before)
                os.kill(os.getpid(), signal.SIGTERM)

        signal.signal(signal.SIGTERM, keep)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


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


def identity_of(run: Run) -> Identity:
    """All that decides the result: options, backend, precision and measurement, and what operator and energy do to noise."""
    sampler, operator, device = run.sampler, run.sampler.operator, run.adjoint.device
    options = {name: getattr(sampler, name) for name in OPTIONS} | {
        "schedule": asdict(run.schedule), "operator": type(operator).__name__, "eta": operator.noise_std,
        "solved to": [getattr(operator, name, None) for name in ("tol", "max_iter")], "image": run.image,
        "backend": resolved(sampler.backend, device), "energy": _described(sampler.energy, device)}
    given = {"y": run.y} if run.targets.warm is None else {"y": run.y, "warm_start": run.targets.warm}
    here = {name: v.resolve_conj().cpu().contiguous() for name, v in given.items()}
    return Identity(digest_of(here, {"options": json.dumps(options, sort_keys=True)}), *_probes(run))


def _described(energy: Energy, device: torch.device) -> list[object]:
    """What an energy is computed by and, of a sum or one asked at half the size, what is in it.

    From which t on is said too: no probe need lie between that of one run and another's.
    """
    backend = getattr(energy, "backend", None)
    within, above = getattr(energy, "energies", ()), list[object]()
    if isinstance(energy, CoarseFirst):
        within, above = (energy.energy,), [energy.above]
    return [type(energy).__name__, getattr(energy, "precision", None), None if backend is None else resolved(backend, device),
            [_described(term, device) for term in within], *above]


def _probes(run: Run) -> tuple[Tensor, Tensor]:
    """⟨w_k, v⟩, w_k fixed noise, for v = Aᴴy of every measurement, AᴴA z and ∇E(z √(t² + 1/4), t) at the first, the middle
    and the last t, z fixed noise: (groups, PROBES); and what each may differ by, (groups,). Both on the CPU, in float64."""
    device = run.adjoint.device
    shape, generator = (PROBES + 1, *run.adjoint.shape[1:]), torch.Generator().manual_seed(0)
    noise = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu").to(device)
    z, against = noise[:1], noise[1:]
    answers = [*run.adjoint, *run.sampler.operator.normal_state(z.repeat(run.sampler.operator.measurements or 1, 1, 1, 1))]
    tolerances = [OPERATOR_TOLERANCE] * len(answers)
    ts = run.schedule.t()
    for t in (ts[0], ts[len(ts) // 2], ts[-1]):
        grad = run.sampler.energy.grad(network_view(z * math.hypot(t, 0.5)), float(t))
        answers.append(grad[0].movedim(0, -1))
        tolerances.append(ENERGY_TOLERANCE)
    products = torch.stack([(v.double() * against).flatten(1).sum(1) for v in answers])
    norms = torch.stack([v.double().norm() for v in answers])
    return products.cpu(), norms.cpu() * torch.tensor(tolerances, dtype=torch.float64, device="cpu")


def save_checkpoint(path: Path, ensemble: Ensemble, record: Record, identity: Identity) -> None:
    """Write everything to `path` at once: a reader finds the old file or the new one. A disk that is full costs the run nothing
    but this checkpoint, with a warning."""
    of_chains = {f.name: getattr(ensemble, f.name) for f in fields(ensemble)}
    tensors = {f"chains.{name}": value for name, value in of_chains.items() if isinstance(value, Tensor)}
    tensors |= {f"record.{f.name}": getattr(record, f.name) for f in fields(record)}
    if ensemble.point is not None:
        tensors |= {f"point.{name}": value for name, value in ensemble.point._asdict().items() if name != "x"}
    tensors["identity.probes"] = identity.probes
    metadata = {"identity": identity.facts} | {name: str(getattr(ensemble, name)) for name in COUNTERS}
    try:
        write_tensors(path, tensors, metadata)
    except (OSError, SafetensorError, ArgumentError) as error:  # the last where the folder is gone or closed to us
        warnings.warn(f"checkpoint: {path} could not be written ({first_line(error)}); the run goes on", stacklevel=2)


def load_checkpoint(path: Path, identity: Identity, device: torch.device) -> tuple[Ensemble, Record]:
    """Read what `save_checkpoint` wrote; ArgumentError if it is damaged or of another run."""
    tensors, metadata = read_tensors(path, "checkpoint", WANTED)
    check(DIGEST in metadata and "identity.probes" in tensors, "checkpoint", f"{path}, which is something else", WANTED)
    if identity.differs(metadata.get("identity", ""), tensors.pop("identity.probes")):
        raise ArgumentError(f"checkpoint: {path} belongs to another run; wanted one of the same measurement, operator, energy, "
                            "backend and options, a path where there is no file, or a folder, which holds one for every "
                            "measurement")
    groups: dict[str, dict[str, Any]] = {"chains": {}, "record": {}, "point": {}}
    with reading(path, "checkpoint", WANTED):
        for name, value in tensors.items():
            group, field = name.split(".")
            groups[group][field] = value.to(device)
        ensemble = Ensemble(**groups["chains"])
        ensemble.level, ensemble.step, ensemble.gradients = (int(metadata[name]) for name in COUNTERS)
        ensemble.point = Point(x=ensemble.x, **groups["point"]) if groups["point"] else None
        return ensemble, Record(**groups["record"])
