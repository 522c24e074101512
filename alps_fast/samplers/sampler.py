"""`Sampler`: plans a run from its options, then takes measurements to posteriors."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..energies.base import Energy
from ..errors import PlannedError, check, check_choice, check_std, whole
from ..io.files import check_writable
from ..io.tensors import digest_of
from ..layout import from_state, network_view, to_state
from ..limits import check_memory
from ..operators.base import Operator
from ..ops._cg import warn_of_graphs
from ..ops._dispatch import NAMES, asked, resolved, telling
from ..ops._memory import reused_memory
from ..ops._modes import ordinary, settled
from ..ops.philox_normal import MEASUREMENTS
from ..posterior import BrokenChain, Posterior
from .alps import Target, alps_levels, centred, in_single, start, warn_of_size
from .chains import TRACED, Chains, Identity, Record, load_checkpoint, save_checkpoint, traced
from .chosen import GRADIENTS, chosen, warn_of_start
from .graphs import CudaGraphs, Graphs, silent
from .level import Plan, Rows, Stepped, joined, part
from .mala import first_log_tau
from .measurement import bridge, measurement_levels
from .schedule import (
    AVERAGED,
    INDEPENDENT,
    MOST,
    NO_NOISE,
    PUBLISHED,
    Level,
    Predictor,
    Schedule,
    StepScalars,
    predictor,
    with_draws,
)

CHI2_FAR = 0.25  # χ² a datum may be so far from 1: good data gave 0.98, and the slightest of wrong ones that were tried 1.33
CHI2_ABOVE = ("noise_std is too small, or maps, mask or kernel are not those of the data, signal lies where all maps are zero, "
              "frequency zero is not in the middle, or data and prior differ in scale")
CHI2_BELOW = "noise_std is too large, or the mask counts as measured what was not"
CHI2_ROWS = 16  # images whose misfit is formed at a time
CHECKPOINT_SECONDS = 60.0  # between checkpoints, at level ends
PROBES = 8  # inner products of everything that tells one run from another
OPERATOR_TOLERANCE, ENERGY_TOLERANCE = 1e-4, 1e-3  # of them, relative: rounding in float32, and of networks in bfloat16
FREE = ("progress", "checkpoint", "callback")  # what may be set on a sampler that is planned


class Progress(NamedTuple):
    """What `callback` is given at the end of every level, and of every draw after the last level."""

    level: int
    levels: int
    t: float
    eta: float  # noise level of the measurement; ∞ where it is not looked at
    state: Tensor  # (B·chains, H, W, C'), not a copy; alps_fast.layout.from_state makes images of it


@dataclass
class Sampler:
    """Draws posterior samples of images by annealed Langevin dynamics; planned once, called with measurements.

        P = (AᴴA/η² + L/t²)⁻¹,  m(x) = P (Aᴴy/η² + (L x − ∇E(x, t))/t²),  x⁺ = m(x) + P^{1/2} ξ

    A chain's result depends on (seed, its measurement's index, its own, its y) alone: not on the chains and measurements
    beside it, nor on a restart; to the bit as far as the energy and operator compute each image by itself: torch's
    convolutions, of denoiser and ridge energies, may round otherwise in another batch.

    Args:
        operator, energy: A with its noise_std η, and the prior.
        chains: chains a measurement. They never touch each other.
        draws, thin: draws a chain at σ_min, thin steps apart; the first ends the last level. mean, std are over all.
        seed: in [0, 2⁶³). first_chain: index of the first chain, to continue an ensemble: chains 16…31 after 0…15.
        first_measurement: index of the first measurement, to continue a series: chains of measurements of other indices have
            other noise, so images of a batch are independent, and images sampled one by one where each has an index of its own.
        schedule: levels and steps. None: chosen from prior and measurement, see docs/exactness.md §3: with a predictor, at most
            250 gradients to anneal, and at most 2 % excess of variance in any direction of a Gaussian if that suffices; the
            published ones with noise="independent". `Posterior.schedule` says which.
        method: "alps" anneals the prior ([ALPS]); "measurement" the noise on y at t = σ_min ([XGP]), after the
            prior has been annealed without data.
        noise: "averaged" ([LM]): exact variance for Gaussian posteriors. "independent": the published rule, in which
            the last step of a level adds the noise of the next one and the last of all none, so that "samples" are
            conditional means and std is too small; draws must be 1.
        correction: "mala" adds accept/reject with a step tuned a chain at a time while annealing, one AᴴA more a step: the target
            of a level is then exact, which is not to say that a few steps reach it; with few, use a predictor too.
        backend: see `alps_fast.ops`. progress: a bar on stderr.
        checkpoint: a file that is written at the first level end after every minute, on Ctrl-C, SIGTERM and exceptions (as of
            the last level end), and when all is done; and gone on from, bit for bit, where it exists. One that is damaged or of
            another run is refused; a disk that is full is warned of.
        callback: is called with a `Progress` at level ends.
        max_chains: chains, of all measurements together, whose steps run at a time; None: all, and where the device's
            memory does not suffice half as many, until it does. Results are the same.
        graphs: on a GPU, run by CUDA graphs what ran before: draws from the third on, and all in later calls; not where torch's
            conjugate gradients look when to stop, as for a `LinearOperator`.
        warm_start, warm_std: another method's image x₀ ≈ x + N(0, σ²I), taken as one more measurement. With
            method="measurement" it stands for most of the prior's annealing too.

    Without a correction what annealing leaves is biased where the prior is far from Gaussian; modes far apart keep
    the weights they froze with, with a correction too (one dimension, modes ±1 of std 0.15: 0.81 where 0.89 is
    exact; method="measurement" keeps the prior's own: 0.50 where 0.74 is exact). `Posterior.diagnostics` shows it as
    R-hat well above 1 with draws >= 4. A schedule without a predictor leaves Gaussians too wide where nothing is observed: by
    8 % in variance with L = 1, 50 levels of 5 steps and a prior of std 0.5, where one with a predictor leaves 0.1 %.

    Raises:
        ArgumentError: naming the argument.

    Sources: [ALPS], [XGP], [LM].
    """

    operator: Operator
    energy: Energy
    _: KW_ONLY
    chains: int = 16
    draws: int = 1
    thin: int = 1
    seed: int = 0
    schedule: Schedule | None = None
    method: str = "alps"
    noise: str = "averaged"
    correction: str | None = None
    backend: str = "auto"
    progress: bool = True
    checkpoint: str | Path | None = None
    callback: Callable[[Progress], None] | None = None
    first_chain: int = 0
    first_measurement: int = 0
    max_chains: int | None = None
    graphs: bool = True
    warm_start: Tensor | None = None
    warm_std: float | None = None
    _graphs: Graphs = field(init=False, repr=False, compare=False)
    _schedules: dict[tuple[object, ...], Schedule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check(isinstance(self.operator, Operator), "operator", type(self.operator).__name__, "an alps_fast operator")
        check(isinstance(self.energy, Energy), "energy", type(self.energy).__name__, "an alps_fast energy")
        check(self.schedule is None or isinstance(self.schedule, Schedule), "schedule", type(self.schedule).__name__,
              "None or a Schedule")
        self.chains = whole("chains", self.chains, 1, 1 << 32)
        self.draws, self.thin = whole("draws", self.draws, 1), whole("thin", self.thin, 1, MOST)
        if self.max_chains is not None:
            self.max_chains = whole("max_chains", self.max_chains, 1)
        self._graphs, self._schedules = Graphs(CudaGraphs(), "cuda"), {}
        self.seed = whole("seed", self.seed, 0, 1 << 63)
        self.first_chain = whole("first_chain", self.first_chain, 0, (1 << 32) - self.chains + 1)
        self.first_measurement = whole("first_measurement", self.first_measurement, 0, MEASUREMENTS)
        check_choice("method", self.method, ("alps", "measurement"))
        check_choice("noise", self.noise, ("averaged", "independent"))
        check(self.correction in (None, "mala"), "correction", repr(self.correction), "None or 'mala'")
        check(self.correction is None or self.energy.has_value, "correction", repr(self.correction),
              f"None with a {type(self.energy).__name__}, an energy without a value to accept or reject by")
        check_choice("backend", self.backend, NAMES)
        check(self.callback is None or callable(self.callback), "callback", repr(self.callback), "None or a function")
        if self.noise == "independent":
            self.schedule = PUBLISHED if self.schedule is None else self.schedule
            check(not self.schedule.predictor, "schedule", "one with a predictor",
                  'one without, as the published rule has none, with noise="independent"')
            check(self.draws == 1, "draws", self.draws, '1 with noise="independent", whose last step is a conditional mean')
            check(self.correction is None and self.method == "alps", "noise", repr(self.noise),
                  "'averaged' with a correction or method=\"measurement\"")
        check((self.warm_start is None) == (self.warm_std is None), "warm_std", self.warm_std, "warm_start and warm_std together")
        if self.warm_std is not None:
            self.warm_std = check_std("warm_std", self.warm_std)
        if isinstance(self.warm_start, Tensor):
            self.warm_start = self.warm_start.detach().clone()
        self._check_memory(1, 1, torch.device("cpu"))
        if self.schedule is not None:
            self.annealing, self.levels = self.planned(self.schedule)
        self._planned = True

    def __setattr__(self, name: str, value: object) -> None:
        """A sampler is planned when it is made: what it was planned by stays.

        Raises:
            PlannedError: naming the attribute.
        """
        if "_planned" in vars(self) and not name.startswith("_") and name not in FREE:
            raise PlannedError(f"{name}: got a new value for a sampler that is planned; wanted a new sampler: "
                               f"dataclasses.replace(sampler, {name}=...)")
        super().__setattr__(name, value)

    def planned(self, schedule: Schedule) -> tuple[int, list[Level]]:
        """How many levels there are before draws alone remain, and all of them."""
        eta = self.operator.noise_std
        annealed = alps_levels(schedule, eta) if self.method == "alps" else measurement_levels(schedule, eta, self.warm_std)
        steps = sum(level.steps for level in annealed) + (self.draws - 1) * self.thin
        check(steps < 1 << 32, "schedule, draws and thin", f"{steps} steps", "fewer than 2^32, as the noise counts them")
        return len(annealed), with_draws(annealed, self.draws, self.thin)

    def _check_memory(self, measurements: int, numbers: int, device: torch.device) -> None:
        """States of so many real numbers and what is kept of every draw and level must fit in the device's memory."""
        levels = (GRADIENTS if self.schedule is None else self.schedule.levels) + self.draws
        a_chain = 8 * numbers + 4 * min(TRACED, numbers) * self.draws + 12 * levels
        needed = measurements * self.chains * a_chain + 8 * levels
        check_memory("chains × draws", f"{self.chains} × {self.draws}", needed, device)

    def __call__(self, y: Tensor) -> Posterior:
        """The posterior of a measurement y, or of each of a batch (B, ...).

        Ctrl-C returns what there is, with `interrupted` set: the statistics of the draws so far, or of the
        states as they stand if there are none yet.

        Raises:
            ArgumentError: y does not fit the operator, is not finite, or `checkpoint` is of another run.
            FloatingPointError: every chain turned non-finite.
        """
        with settled(), telling():
            return Run(self, y).finish()

    def memory(self, y: Tensor) -> int:
        """Bytes that a run on y takes on the CPU at its peak: all chains' states, statistics, and what our gradients work in.

        The last is so much a thread, however many chains there are. Networks of others come on top, as do an operator's own
        factors and solves.
        """
        measurements = len(self.operator.check_measurement(y))
        channels, height, width = self._real_image(y)
        images = 32 if self.operator.is_complex else 16  # y, Aᴴy, b; how mean and squares spread over chains, in float64
        statistics = images * 4 * channels * height * width
        rows = measurements * self.chains
        with asked(self.backend):
            workspace = self.energy.workspace((rows, channels, height, width))
        return rows * self.memory_per_chain(y) + measurements * statistics + workspace

    def memory_per_chain(self, y: Tensor) -> int:
        """Bytes of state that each chain of measurement y takes at its peak, the energy's and operator's own work aside."""
        y = self.operator.check_measurement(y)
        image = math.prod(self._real_image(y))
        kept = 6 if self.operator.is_complex else 3  # projections; mean and squares, of `polar` too
        # x at the level's start, x, m, ∇E, x⁺, m⁺; two points, proposal, δ, AᴴAδ, and sums of their products in float64
        stepping = 6 + (18 if self.correction else 0)
        measured = 0
        if self.method == "measurement":
            stepping += 2  # Aᴴw and its update, and y-sized noise
            measured = y[0].numel() * (2 if y.is_complex() else 1)
        taking = 4 + kept + (2 if self.operator.is_complex else 0) + (4 if self.correction else 0)  # x, m, the mean's new terms
        return 4 * ((kept + max(stepping, taking)) * image + 2 * measured)

    def _real_image(self, y: Tensor) -> tuple[int, int, int]:
        """(C', H, W) of a state."""
        channels, height, width = self.operator.image_shape(self.operator.check_measurement(y))
        return channels * (2 if self.operator.is_complex else 1), height, width


class Run:
    """One call of a sampler: a measurement and its chains."""

    def __init__(self, sampler: Sampler, y: Tensor):
        self.sampler, operator = sampler, sampler.operator
        self.y = in_single(ordinary(operator.check_measurement(y)).detach())
        self.batched = y.ndim == self.y.ndim
        self.image = operator.image_shape(self.y)
        numbers = math.prod(self.image) * (2 if operator.is_complex else 1)
        check_memory("y", f"an image {self.image}", 8 * 4 * numbers * len(self.y), self.y.device)
        sampler._check_memory(len(self.y), numbers, self.y.device)
        self.adjoint = operator.adjoint_state(self.y)
        sampler.energy.check_channels("energy", self.adjoint.shape[-1])
        sampler.energy.begin()
        self.schedule = self._schedule()
        self.annealing, self.levels = sampler.planned(self.schedule)
        self.support = operator.support(self.adjoint)
        self.traced = traced(self.adjoint, self.support)
        self.warm = self._warm_state()
        self.centre, self.centre_of = self.adjoint, math.nan  # the measurement's part of c, and the 1/η² that it is of
        check(len(self.y) <= MEASUREMENTS - sampler.first_measurement, "y", f"{len(self.y)} measurements",
              f"at most {MEASUREMENTS - sampler.first_measurement} from first_measurement = {sampler.first_measurement} on")
        of_measurement = torch.arange(sampler.chains, device=self.adjoint.device) + sampler.first_chain
        measurements = torch.arange(len(self.y), device=self.adjoint.device) + sampler.first_measurement
        self.index = torch.stack([of_measurement.repeat(len(self.y)), measurements.repeat_interleave(sampler.chains)], 1)
        self.interrupted = False
        self.most = min(sampler.max_chains or len(self.index), len(self.index))  # rows whose steps run at a time
        self.target: Target | None = None
        self.began = time.perf_counter()
        if sampler.energy.unit:
            centre = self._centre(operator.noise_std**-2, False) if centred(operator, self.adjoint) else self.adjoint
            warn_of_size(operator, sampler.energy, self.adjoint, centre)
        self.path = None if sampler.checkpoint is None else Path(sampler.checkpoint)
        self.kept: tuple[Chains, Record] | None = None  # the last level's end, where it is not on the disk yet
        self.kept_at, self.keeping, self.terminated = time.monotonic(), False, False
        if self.path is not None:
            check_writable(self.path, "checkpoint")
            self.identity = self._identity()
        if self.path is not None and self.path.exists():
            self.chains, self.record = load_checkpoint(self.path, self.identity, self.adjoint.device)
        else:
            self.chains, self.record = self._start()

    def _schedule(self) -> Schedule:
        """The one that was given, or that prior and measurement choose."""
        sampler, measured = self.sampler, self.sampler.method == "alps"
        key = self.image, self.y.device, sampler.operator.noise_std  # all that is read of y, and what of A can be set
        if key not in sampler._schedules:
            if sampler.schedule is not None and sampler.warm_start is None:
                warn_of_start(sampler.schedule, sampler.operator, sampler.energy, self.y, measured)
            sampler._schedules[key] = sampler.schedule or chosen(sampler.operator, sampler.energy, self.y, measured)
        return sampler._schedules[key]

    def finish(self) -> Posterior:
        """Run all levels that are left."""
        levels = self.levels
        try:
            with reused_memory(), self._kept_on_sigterm(), tqdm(
                    total=sum(level.steps for level in levels), initial=sum(s.steps for s in levels[:self.chains.level]),
                    desc="sampling", unit="step", file=sys.stderr, disable=not self.sampler.progress) as bar:
                while self.chains.level < len(levels):
                    self._level(self.chains.level, bar)
                    self._level_end()
        except KeyboardInterrupt:
            self.interrupted = True
            self._keep()
        except FloatingPointError:  # nothing is left to go on with
            raise
        except BaseException:
            self._keep()
            raise
        posterior = self._posterior()
        warn_of_graphs(self.adjoint.device)
        annealed = self.chains.level >= self.annealing
        if annealed and self.sampler.noise == "averaged":  # conditional means, by the other rule, fit too well
            warn_of_chi2(posterior.chi2, self.sampler.operator.data_count(self.y))
        return posterior

    def _level(self, i: int, bar: tqdm[Any]) -> None:
        """The steps of one level. A draw is the state after the last one."""
        sampler, chains, level = self.sampler, self.chains, self.levels[i]
        plan, rows = self._planned(i)
        ended = bar.n + level.steps
        done = self._in_parts(plan, rows, bar)
        bar.update(ended - bar.n)
        chains.x, chains.log_tau, chains.point = done.x, done.log_tau, done.at
        chains.alive, chains.broken = done.alive, done.broken
        chains.step += level.steps
        chains.gradients += level.steps + (sampler.correction is not None and rows.at is None) + (plan.predictor is not None)
        self.record.energy[i] = done.value / level.t**2
        if sampler.correction:
            self.record.acceptance[i], self.record.tau[i] = done.acceptance, chains.log_tau.exp()
        if level.draw:
            self.record.draw(i - self.annealing + 1, chains.x, done.mean, chains.alive, self.traced, sampler.backend)
        chains.level = i + 1

    def _planned(self, i: int) -> tuple[Plan, Rows]:
        """The steps of level i and the chains as they come to it."""
        sampler, chains, levels = self.sampler, self.chains, self.levels
        level = levels[i]
        changed = i == 0 or level[:2] != levels[i - 1][:2]
        if changed or self.target is None:
            self.target = self._target(i)
        scalars = tuple(self._scalars(self.target, i, k) for k in range(level.steps))
        tunes = level.steps - level.draw if i < self.annealing else 0  # a draw's last step leaves its τ alone
        plan = Plan(i, self.target, scalars, tunes if sampler.correction else None, i < self.annealing, self._predictor(i))
        at = None if changed else chains.point
        number = torch.full((1,), i, device=chains.x.device)  # on a GPU a kernel, where torch.tensor would wait
        return plan, Rows(chains.x, chains.log_tau, chains.alive, chains.broken, number, self.index, self.target.b, at)

    def _in_parts(self, plan: Plan, rows: Rows, bar: tqdm[Any]) -> Stepped:
        """The level of all rows, `most` at a time, and of fewer once memory runs out."""
        sampler, parts, first = self.sampler, list[Stepped](), 0
        graphs = sampler.graphs and rows.x.device.type == sampler._graphs.device
        while first < len(rows.x):
            some, last = part(rows, sampler.chains, first, self.most)
            tick = bar.update if last - first == len(rows.x) else silent
            try:
                parts.append(sampler._graphs.run(plan, some, tick) if graphs else plan.run(some, tick))
                first = last
            except torch.OutOfMemoryError:
                if last - first == 1:
                    raise
                self.most = (last - first) // 2
                sampler._graphs.clear()
                torch.cuda.empty_cache()
        return joined(parts)

    def _level_end(self) -> None:
        """Once a level: stop if no chain is left, keep a checkpoint, tell the callback.

        A GPU is asked for its chains once, when it has annealed them all, so that it never waits for Python between levels.
        """
        sampler, chains = self.sampler, self.chains
        done = chains.level
        drawing = done > self.annealing
        asked = done == self.annealing if chains.x.is_cuda else not drawing
        if asked and not bool(chains.alive.any()):
            level, step = chains.broken[0].tolist()
            raise FloatingPointError(f"every chain turned non-finite; chain {int(self.index[0, 0])} at level {level} "
                                     f"(t = {self.levels[level].t:.4g}), step {step}")
        if self.path is not None:
            self.kept = replace(chains), replace(self.record)  # whose tensors are replaced from now on, or written in new rows
            if done == len(self.levels) or time.monotonic() - self.kept_at >= CHECKPOINT_SECONDS:
                self._keep()
        if sampler.callback:
            level = self.levels[done - 1]
            sampler.callback(Progress(done - 1, len(self.levels), level.t, level.eta, chains.x))

    def _keep(self) -> None:
        """Write a checkpoint of the last level's end, if that is not on the disk yet."""
        if self.path is None or self.kept is None:
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
    def _kept_on_sigterm(self) -> Iterator[None]:
        """Within it SIGTERM writes a checkpoint, then does what it did before: by default it ends the process.

        Signals can be caught in the main thread alone; in others SIGTERM is what it was.
        """
        before = signal.getsignal(signal.SIGTERM)
        in_main = threading.current_thread() is threading.main_thread()
        if self.path is None or not in_main or before in (None, signal.SIG_IGN):
            yield
            return

        def keep(number: int, frame: FrameType | None) -> None:
            if self.keeping:  # a checkpoint is being written: when it is, the signal comes again
                self.terminated = True
                return
            self.terminated = False
            self._keep()
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

    def _start(self) -> tuple[Chains, Record]:
        rows, device = len(self.index), self.adjoint.device
        noise_shape = (rows, *self.adjoint.shape[1:]) if self.sampler.method == "measurement" else (0,)
        self.chains = Chains(
            x=torch.empty(0), data_noise=self.adjoint.new_zeros(noise_shape),
            log_tau=first_log_tau(self.index, self.adjoint[0].numel()),
            alive=torch.ones(rows, dtype=torch.bool, device=device),
            broken=torch.full((rows, 2), -1, dtype=torch.int64, device=device))
        self.chains.x = start(self._target(0), tuple(self.adjoint.shape[1:]), self.index)
        draws, levels = self.sampler.draws, len(self.levels)
        return self.chains, Record.empty(self.chains.x, self.sampler.operator.is_complex, draws, levels, len(self.traced))

    def _target(self, i: int) -> Target:
        """What level i samples from; the noise on an annealed measurement goes on to this level's."""
        sampler, levels = self.sampler, self.levels
        level, inv_eta2 = levels[i], levels[i].eta**-2
        noisy = sampler.method == "measurement" and math.isfinite(level.eta)
        if noisy:
            self._anneal_measurement(i)
        b = self._centre(inv_eta2, noisy) if centred(sampler.operator, self.adjoint) else self._data(inv_eta2, noisy)
        lin = self._lin(level)
        lam = lin + self._warm_lam()
        scalars = StepScalars(lam=lam, lin=lin, w=level.t**-2, inv_eta2=inv_eta2, noise_lam=lam, noise=AVERAGED,
                              seed=sampler.seed, step=self.chains.step)
        return Target(sampler.operator, sampler.energy, level.t, b, scalars, sampler.backend)

    def _data(self, inv_eta2: float, noisy: bool) -> Tensor:
        """b = Aᴴy/η² + x₀/σ², of every chain where its measurement is noisy."""
        b = self.adjoint * inv_eta2
        if noisy:
            b = (self.adjoint.repeat_interleave(self.sampler.chains, 0) + self.chains.data_noise) * inv_eta2
        if self.warm is not None:
            warm = self.warm * self._warm_lam()
            b = b + (warm.repeat_interleave(len(b) // len(warm), 0) if len(b) > len(warm) else warm)
        return b

    def _centre(self, inv_eta2: float, noisy: bool) -> Tensor:
        """c of `Target`; the measurement's part is kept from level to level, as it hangs on η alone."""
        operator, lam = self.sampler.operator, 1.0 + self._warm_lam()
        if inv_eta2 != self.centre_of:
            self.centre_of, self.centre = inv_eta2, operator.centre(self.y, inv_eta2, lam) if inv_eta2 else self.adjoint * 0.0
        c = self.centre
        if noisy:
            noise = operator.solve_state(self.chains.data_noise * inv_eta2, inv_eta2, lam)
            c = c.repeat_interleave(self.sampler.chains, 0) + noise
        if self.warm is not None:
            warm = operator.solve_state(self.warm * self._warm_lam(), inv_eta2, lam)
            c = c + (warm.repeat_interleave(len(c) // len(warm), 0) if len(c) > len(warm) else warm)
        return c

    def _scalars(self, target: Target, i: int, k: int) -> StepScalars:
        """Those of step k of level i: averaged noise, or by the published rule the next level's at the end of a level."""
        s, level = replace(target.scalars, step=self.chains.step + k), self.levels[i]
        if self.sampler.noise == "averaged":
            return s
        if k < level.steps - 1:
            return replace(s, noise=INDEPENDENT)
        if i + 1 == len(self.levels):
            return replace(s, noise=NO_NOISE)
        return replace(s, noise=INDEPENDENT, noise_lam=self._lin(self.levels[i + 1]) + self._warm_lam())

    def _predictor(self, i: int) -> Predictor | None:
        """What takes the states of level i on to the next, where the prior changes there."""
        sampler, levels = self.sampler, self.levels
        if not self.schedule.predictor or i + 1 == len(levels) or levels[i + 1].t == levels[i].t:
            return None
        assert self.target is not None
        s = replace(self.target.scalars, noise=INDEPENDENT if sampler.correction else AVERAGED, step=0)
        return predictor(s, levels[i].t, levels[i + 1].t, self._lin(levels[i + 1]), sampler.energy.floor)

    def _lin(self, level: Level) -> float:
        """L/t²; L = 1, as published, where the energy knows no bound."""
        bound = self.sampler.energy.curvature(level.t)
        return (1.0 if bound is None else bound) / level.t**2

    def _warm_lam(self) -> float:
        return 0.0 if self.sampler.warm_std is None else self.sampler.warm_std**-2

    def _anneal_measurement(self, i: int) -> None:
        sampler, levels = self.sampler, self.levels
        eta2 = sampler.operator.noise_std**2
        before, after = (max(levels[j].eta**2 - eta2, 0.0) if j >= 0 else math.inf for j in (i - 1, i))
        if after != before:
            self.chains.data_noise = bridge(self.chains.data_noise, before, after, sampler.operator, self.y, self.index,
                                            sampler.seed, i, sampler.backend)

    def _warm_state(self) -> Tensor | None:
        """x₀ (B, H, W, C')."""
        warm = self.sampler.warm_start
        if warm is None:
            return None
        check(isinstance(warm, Tensor), "warm_start", type(warm).__name__, "a torch tensor")
        images = {self.image, (1, *self.image), (len(self.y), *self.image)}
        check(tuple(warm.shape) in images and warm.is_complex() == self.sampler.operator.is_complex, "warm_start",
              f"{warm.dtype} of shape {tuple(warm.shape)}",
              f"a {'complex' if self.sampler.operator.is_complex else 'real'} image {self.image}, or one a measurement")
        check(bool(warm.isfinite().all()), "warm_start", "NaN or infinity in it", "finite numbers")
        warm = ordinary(warm).detach().view(-1, *self.image).to(self.adjoint.device).expand(len(self.y), *self.image)
        return to_state(warm).float()

    def _identity(self) -> Identity:
        """All that decides the result: options, backend, precision and measurement, and what operator and energy do to noise."""
        sampler, device = self.sampler, self.adjoint.device
        names = ("chains", "draws", "thin", "seed", "method", "noise", "correction", "first_chain", "first_measurement",
                 "warm_std")
        options = {name: getattr(sampler, name) for name in names} | {
            "schedule": asdict(self.schedule), "operator": type(sampler.operator).__name__, "eta": sampler.operator.noise_std,
            "solved to": [getattr(sampler.operator, name, None) for name in ("tol", "max_iter")], "image": self.image,
            "backend": resolved(sampler.backend, device), "energy": _described(sampler.energy, device)}
        given = {"y": self.y} if self.warm is None else {"y": self.y, "warm_start": self.warm}
        here = {name: v.resolve_conj().cpu().contiguous() for name, v in given.items()}
        return Identity(digest_of(here, {"options": json.dumps(options, sort_keys=True)}), *self._probes())

    def _probes(self) -> tuple[Tensor, Tensor]:
        """⟨w_k, v⟩, w_k fixed noise, for v = Aᴴy of every measurement, AᴴA z and ∇E(z √(t² + 1/4), t) at the first, the middle
        and the last t, z fixed noise: (groups, PROBES); and what each may differ by, (groups,). Both on the CPU, in float64."""
        sampler, device = self.sampler, self.adjoint.device
        noise = torch.randn(PROBES + 1, *self.adjoint.shape[1:], generator=torch.Generator().manual_seed(0)).to(device)
        z, against = noise[:1], noise[1:]
        answers = [*self.adjoint, *sampler.operator.normal_state(z)]
        tolerances = [OPERATOR_TOLERANCE] * len(answers)
        ts = self.schedule.t()
        for t in (ts[0], ts[len(ts) // 2], ts[-1]):
            grad = sampler.energy.grad(network_view(z * math.hypot(t, 0.5)), float(t))
            answers.append(grad[0].movedim(0, -1))
            tolerances.append(ENERGY_TOLERANCE)
        products = torch.stack([(v.double() * against).flatten(1).sum(1) for v in answers])
        norms = torch.stack([v.double().norm() for v in answers])
        return products.cpu(), norms.cpu() * torch.tensor(tolerances, dtype=torch.float64)

    def _chi2(self) -> Tensor:
        """χ² a datum of the states, (B,) float64: the mean of ‖A x − y‖²/(η² n) over chains that are whole, n real data each."""
        chains, operator, each = self.chains, self.sampler.operator, self.sampler.chains
        sums = torch.zeros(len(self.index), dtype=torch.float64, device=chains.x.device)
        for first in range(0, len(sums), CHI2_ROWS):
            rows = slice(first, first + CHI2_ROWS)
            images = from_state(chains.x[rows], operator.is_complex)
            residual = operator.forward(images) - self.y[torch.arange(len(sums), device=sums.device)[rows] // each]
            sums[rows] = (torch.view_as_real(residual) if residual.is_complex() else residual).double().square().flatten(1).sum(1)
        sums = torch.where(chains.alive, sums, torch.nan).view(len(self.y), each)
        return sums.nanmean(1) / (operator.noise_std**2 * operator.data_count(self.y))

    def _posterior(self) -> Posterior:
        sampler, chains, record = self.sampler, self.chains, self.record
        if not bool(record.count.any()):  # stopped before the first draw: the states as they stand
            record.take(chains.x, chains.x, chains.alive, sampler.backend)
        rows = (len(self.y), sampler.chains)
        found = record.pooled(chains.alive, len(self.y), sampler.first_chain, sampler.backend)
        complex_image = sampler.operator.is_complex
        samples = from_state(chains.x, complex_image).unflatten(0, rows)
        whole = chains.alive.view(-1, 1, 1, 1)
        means = from_state(torch.where(whole, record.mean, torch.nan), complex_image).unflatten(0, rows)
        drawn = max(chains.level - self.annealing + 1, 0)
        trace = record.trace[:drawn].unflatten(1, rows).permute(1, 2, 0, 3).contiguous()
        lost = [BrokenChain(row // sampler.chains, int(self.index[row, 0]), *chains.broken[row].tolist())
                for row in (~chains.alive).nonzero().flatten().tolist()]
        shown = self.annealing
        by_level = {
            "t": [level.t for level in self.levels[:shown]], "eta": [level.eta for level in self.levels[:shown]],
            **{name: _mean_over(getattr(record, name)[:shown], chains.alive) for name in ("energy", "acceptance", "tau")}}

        def one(v: Tensor) -> Tensor:
            return v if self.batched else v[0]

        polar_means = polar_std = None
        if found.polar_variance is not None:
            polar_means = one(from_state(torch.where(whole, record.polar_mean, torch.nan), False).unflatten(0, rows))
            polar_std = one(from_state(found.polar_variance.sqrt(), False))
        return Posterior(
            mean=one(from_state(found.mean, complex_image)), channel_std=one(from_state(found.variance.sqrt(), False)),
            samples=one(samples), count=one(found.draws), trace=one(trace), chain_means=one(means), polar_means=polar_means,
            polar_std=polar_std, by_level=by_level,
            acceptance=_acceptance(record.acceptance[shown - 1:], chains.alive), interrupted=self.interrupted, broken=lost,
            seed=sampler.seed, schedule=self.schedule, seconds=time.perf_counter() - self.began, gradients=chains.gradients,
            chi2=one(self._chi2()), support=None if self.support is None else self.support[0, ..., 0] > 0)


def warn_of_chi2(chi2: Tensor, count: int) -> None:
    """Warn where χ² a datum is far from 1, as it is for samples of the posterior of what was measured, within √(2/count)."""
    for i, value in enumerate(chi2.flatten().tolist()):
        if abs(value - 1) > CHI2_FAR + 5 * math.sqrt(2 / count):
            which = f" of measurement {i}" if chi2.ndim else ""
            why = CHI2_ABOVE if value > 1 else CHI2_BELOW
            warnings.warn(f"chi-squared a datum{which} is {value:.3g} for these samples, about 1 expected: {why}", stacklevel=4)


def _described(energy: Energy, device: torch.device) -> list[object]:
    """What an energy is computed by and, of a sum, what its terms are."""
    backend = getattr(energy, "backend", None)
    return [type(energy).__name__, getattr(energy, "precision", None), None if backend is None else resolved(backend, device),
            [_described(term, device) for term in getattr(energy, "energies", ())]]


def _mean_over(values: Tensor, alive: Tensor) -> list[float]:
    """Mean over chains that are whole, level by level."""
    return values[:, alive].double().mean(1).tolist()


def _acceptance(values: Tensor, alive: Tensor) -> float | None:
    """Mean acceptance at the last level and in the draws; None without MALA."""
    seen = values[:, alive]
    seen = seen[seen.isfinite()]
    return float(seen.mean()) if seen.numel() else None


def sample(
    y: Tensor, operator: Operator, energy: Energy, *, chains: int = 16, draws: int = 1, thin: int = 1, seed: int = 0,
    schedule: Schedule | None = None, method: str = "alps", noise: str = "averaged", correction: str | None = None,
    backend: str = "auto", progress: bool = True, checkpoint: str | Path | None = None,
    callback: Callable[[Progress], None] | None = None, first_chain: int = 0, first_measurement: int = 0,
    max_chains: int | None = None, graphs: bool = True, warm_start: Tensor | None = None, warm_std: float | None = None,
) -> Posterior:
    """Posterior samples of the image behind y, their mean and standard deviation: `Sampler(operator, energy, …)(y)`.

    Args:
        y: a measurement in the shape its operator documents, or a batch (B, ...).
        operator, energy: A with its noise_std η, and the prior.
        The others are `Sampler`'s, which says what they do.

    Returns:
        A `Posterior`: mean and std (C, H, W), samples (chains, C, H, W); with B in front for a batch.

    Raises:
        ArgumentError: naming the argument. FloatingPointError: every chain turned non-finite.

    Sources: [ALPS], [XGP], [LM].
    """
    return Sampler(operator, energy, chains=chains, draws=draws, thin=thin, seed=seed, schedule=schedule, method=method,
                   noise=noise, correction=correction, backend=backend, progress=progress, checkpoint=checkpoint,
                   callback=callback, first_chain=first_chain, first_measurement=first_measurement, max_chains=max_chains,
                   graphs=graphs, warm_start=warm_start, warm_std=warm_std)(y)
