"""One call of a sampler: it sets up what is sampled from, goes through the levels, and keeps what it finds."""

from __future__ import annotations

import math
import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..errors import check
from ..io.files import check_writable
from ..layout import from_state
from ..limits import check_memory
from ..ops._cg import applications, warn_of_graphs
from ..ops._reused_memory import reused_memory
from ..ops.philox_normal import MEASUREMENTS
from ..pairs import ids
from ..posterior import Posterior
from ..schedule import Schedule
from .alps import Course, Plan, anneal, start
from .chains import Ensemble, Record, traced
from .checkpoint import Keeper, identity_of, load_checkpoint
from .chosen import chosen, warn_of_start
from .graphs import silent
from .inputs import image_state, measured, warn_of_axes, warn_of_size
from .leaps import Leaps, teams_of
from .mala import first_log_tau
from .outcome import posterior_of, warn_of_chi2
from .rows import Rows, Stepped, joined, part
from .runaway import causes, limits
from .targets import Targets, centred

if TYPE_CHECKING:
    from .sampler import Sampler


class Progress(NamedTuple):
    """What `callback` is given at the end of every level, and of every draw after the last level.

    A callback that raises StopIteration stops the run there: as on Ctrl-C what there is is returned, with `interrupted` set, and
    kept where there is a checkpoint.
    """

    level: int
    levels: int
    t: float
    eta: float  # noise level of the measurement; ∞ where it is not looked at
    state: Tensor  # (B·chains, H, W, C'), not a copy
    projection: Tensor  # the same of m(x), the noise-free part of the last step
    is_complex: bool

    @property
    def images(self) -> Tensor:
        """(B·chains, C, H, W) the states as images, measurement by measurement."""
        return from_state(self.state, self.is_complex)

    @property
    def means(self) -> Tensor:
        """(B·chains, C, H, W) m(x) of the last step as images: the states without its noise, for pictures on the way."""
        return from_state(self.projection, self.is_complex)


class Run:
    """A measurement and its chains."""

    def __init__(self, sampler: Sampler, y: Tensor):
        self.sampler, operator = sampler, sampler.operator
        self.y = measured(operator, y)
        self.batched = y.ndim >= self.y.ndim  # more axes where an operator takes complex numbers as two real ones
        self.image = operator.image_shape(self.y)
        warn_of_axes(self.image)
        numbers = math.prod(self.image) * (2 if operator.is_complex else 1)
        check_memory("y", f"an image {self.image}", 8 * 4 * numbers * len(self.y), self.y.device)
        sampler._check_memory(len(self.y), numbers, self.y.device)
        self.adjoint = operator.adjoint_state(self.y)
        sampler.energy.check_channels("energy", self.adjoint.shape[-1])
        sampler.energy.begin()
        self.schedule = self._schedule()
        self.support = operator.support(self.adjoint)
        self.traced = traced(self.adjoint, self.support)
        warm = image_state("warm_start", sampler.warm_start, self.image, operator.is_complex, self.adjoint, sampler.energy)
        check(len(self.y) <= MEASUREMENTS - sampler.first_measurement, "y", f"{len(self.y)} measurements",
              f"at most {MEASUREMENTS - sampler.first_measurement} from first_measurement = {sampler.first_measurement} on")
        indices = torch.arange(sampler.chains, device=self.adjoint.device) + sampler.first_chain
        measurements = torch.arange(len(self.y), device=self.adjoint.device) + sampler.first_measurement
        self.ids = ids(indices.repeat(len(self.y)), measurements.repeat_interleave(sampler.chains), sampler.paired)
        self.targets = Targets(operator, sampler.energy, self.y, self.adjoint, self.ids, warm, sampler.warm_std, sampler.seed,
                               sampler.backend, self.schedule.stride)
        annealed, levels = sampler.planned(self.schedule)
        self.course = Course(self.targets, levels, annealed, sampler.noise, sampler.correction, self.schedule.predictor,
                             in_memory=self.adjoint.device.type == sampler._graphs.device)
        self.leaps: Leaps | None = None
        if sampler.moves == "leap":
            teams = teams_of(len(self.y), sampler.chains, sampler.paired, self.adjoint.device)
            self.leaps = Leaps(self.targets, levels, annealed, teams)
        self.interrupted = False
        self.most = min(sampler.max_chains or len(self.ids), len(self.ids))  # rows whose steps run at a time
        self.began = time.perf_counter()
        self.ensemble, self.record = self._start()
        self.limits: Tensor | None = None
        if sampler.energy.unit:  # closed forms may know images of any size, and do not run away
            centre = self.targets.centre(operator.noise_std**-2) if centred(operator, self.adjoint) else self.adjoint
            warn_of_size(operator, sampler.energy, self.adjoint)
            self.limits = limits(self.ensemble.x, centre, max(sampler.energy.spread, levels[0].t))
        self.keeper: Keeper | None = None
        if sampler.checkpoint is not None:
            path = Path(sampler.checkpoint)
            folder = bool(path.name) and os.path.isdir(path)
            check_writable(path / "one" if folder else path, "checkpoint")
            identity = identity_of(self)
            self.keeper = Keeper(path / f"{identity.facts[:16]}.safetensors" if folder else path, identity)
        if self.keeper is not None and self.keeper.path.exists():
            self.ensemble, self.record = load_checkpoint(self.keeper.path, self.keeper.identity, self.adjoint.device)

    def _schedule(self) -> Schedule:
        """The one that was given, or that prior and measurement choose."""
        sampler, sees = self.sampler, self.sampler.method == "alps"
        key = self.image, self.y.device, sampler.operator.noise_std  # all that is read of y, and what of A can be set
        if key not in sampler._schedules:
            if sampler.schedule is not None and sampler.warm_start is None:
                warn_of_start(sampler.schedule, sampler.operator, sampler.energy, self.y, sees)
            alone, plain = sampler.warm_start is None, sampler.correction is None and sampler.moves is None
            sampler._schedules[key] = sampler.schedule or chosen(sampler.operator, sampler.energy, self.y, sees, alone,
                                                                 longer=sees and alone and plain)
        return sampler._schedules[key]

    def _start(self) -> tuple[Ensemble, Record]:
        """The chains at the first level's start, and nothing gathered yet."""
        rows, device, course = len(self.ids), self.adjoint.device, self.course
        noise_shape = (rows, *self.adjoint.shape[1:]) if self.sampler.method == "measurement" else (0,)
        data_noise = self.adjoint.new_zeros(noise_shape)
        target = self.targets.at(course.levels[0], data_noise)
        ensemble = Ensemble(
            x=start(target, tuple(self.adjoint.shape[1:]), self.ids), data_noise=data_noise,
            log_tau=first_log_tau(self.ids, self.adjoint[0].numel()),
            alive=torch.ones(rows, dtype=torch.bool, device=device),
            broken=torch.full((rows, 2), -1, dtype=torch.int64, device=device))
        return ensemble, Record.empty(ensemble.x, self.sampler.operator.is_complex, self.sampler.draws, len(course.levels),
                                    len(self.traced))

    def planned(self, i: int) -> tuple[Plan, Rows]:
        """The steps of level i and the chains as they come to it."""
        return self.course.planned(i, self.ensemble)

    def finish(self) -> Posterior:
        """Run all levels that are left."""
        ensemble, levels = self.ensemble, self.course.levels
        try:
            with reused_memory(), self.keeper.on_sigterm() if self.keeper else nullcontext(), tqdm(
                    total=sum(level.steps for level in levels), initial=sum(s.steps for s in levels[:ensemble.level]),
                    desc="sampling", unit="step", file=sys.stderr, disable=not self.sampler.progress) as bar:
                for plan, done in anneal(self.course, ensemble, lambda plan, rows: self._in_parts(plan, rows, bar), self._moved):
                    if self.limits is not None:
                        ensemble.lose_beyond(self.limits, plan.level, len(plan.scalars) - 1)
                    self._gather(plan, done)
                    ensemble.level = plan.level + 1
                    self._level_end(done.mean)
                    if self.interrupted:
                        self._keep()
                        break
        except KeyboardInterrupt:
            self.interrupted = True
            self._keep()
        except FloatingPointError:  # nothing is left to go on with
            raise
        except BaseException:
            self._keep()
            raise
        posterior = posterior_of(self)
        warn_of_graphs(self.adjoint.device)
        annealed = ensemble.level >= self.course.annealed
        if annealed and self.sampler.noise == "averaged":  # conditional means, by the other rule, fit too well
            warn_of_chi2(posterior.chi2, self.sampler.operator.data_counts(self.y))
        return posterior

    def _moved(self, i: int, ensemble: Ensemble) -> None:
        """What chains do before level i beside steps."""
        if self.leaps is not None:
            self.leaps.before(i, ensemble, self.most)

    def _gather(self, plan: Plan, done: Stepped) -> None:
        """What a level did goes into the record. A draw is the state after its last step."""
        ensemble, record, i = self.ensemble, self.record, plan.level
        record.energy[i] = done.value / plan.target.t**2
        if self.sampler.correction:
            record.acceptance[i], record.tau[i] = done.acceptance, ensemble.log_tau.exp()
        if self.course.levels[i].draw:
            record.draw(i - self.course.annealed + 1, ensemble.x, done.mean, ensemble.alive, self.traced, self.sampler.backend)

    def _in_parts(self, plan: Plan, rows: Rows, bar: tqdm[Any]) -> Stepped:
        """The level of all rows, `most` at a time, and of fewer once memory runs out."""
        sampler = self.sampler
        graphs, ended = sampler.graphs and rows.x.device.type == sampler._graphs.device, bar.n + len(plan.scalars)
        with applications() as counted:
            parts = self._parts(plan, rows, bar, graphs)
        bar.update(ended - bar.n)
        if counted.total is not None:
            self.record.applications[plan.level] = counted.total / (len(rows.x) * len(plan.scalars))
        return joined(parts)

    def _parts(self, plan: Plan, rows: Rows, bar: tqdm[Any], graphs: bool) -> list[Stepped]:
        """What each of them comes to."""
        sampler, parts, first = self.sampler, list[Stepped](), 0
        while first < len(rows.x):
            some, last = part(rows, sampler.chains, first, self.most)
            here = plan.of(first // sampler.chains, -(-last // sampler.chains))
            tick = bar.update if last - first == len(rows.x) else silent
            try:
                parts.append(sampler._graphs.run(here, some, tick) if graphs else here.run(some, tick))
                first = last
            except torch.OutOfMemoryError:
                if last - first == 1:
                    raise
                self.most = (last - first) // 2
                sampler._graphs.clear()
                torch.cuda.empty_cache()
        return parts

    def _level_end(self, projection: Tensor) -> None:
        """Once a level: stop if no chain is left, keep a checkpoint, tell the callback.

        A GPU is asked for its chains once, when it has annealed them all, so that it never waits for Python between levels.
        """
        sampler, ensemble, levels, annealed = self.sampler, self.ensemble, self.course.levels, self.course.annealed
        done = ensemble.level
        asked = done == annealed if ensemble.x.is_cuda else done <= annealed
        if asked and not bool(ensemble.alive.any()):
            level, step = ensemble.broken[0].tolist()
            raise FloatingPointError(f"every chain turned non-finite or ran away; chain {sampler.first_chain} at level {level} "
                                     f"(t = {levels[level].t:.4g}), step {step}{causes(sampler.energy, sampler.schedule)}")
        if self.keeper is not None:
            self.keeper.note(ensemble, self.record, done == len(levels))
        if sampler.callback:
            level = levels[done - 1]
            try:
                sampler.callback(Progress(done - 1, len(levels), level.t, level.eta, ensemble.x, projection,
                                          sampler.operator.is_complex))
            except StopIteration:
                self.interrupted = done < len(levels)

    def _keep(self) -> None:
        if self.keeper is not None:
            self.keeper.write()
