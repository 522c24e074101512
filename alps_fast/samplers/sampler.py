"""`Sampler`: plans a run from its options, then takes measurements to posteriors."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..adapters import check_ours
from ..energies.base import Energy
from ..errors import PlannedError, check, check_choice, check_std, whole
from ..limits import check_memory
from ..operators.base import Operator
from ..ops._dispatch import NAMES, asked, telling
from ..ops._modes import settled
from ..ops.philox_normal import MEASUREMENTS
from ..pairs import LEAST
from ..posterior import Posterior
from ..schedule import FOLDED, MOST, PUBLISHED, Level, Schedule, with_draws
from .alps import alps_levels
from .chains import TRACED
from .chosen import GRADIENTS
from .graphs import CudaGraphs, Graphs
from .leaps import team_of
from .measurement import measurement_levels
from .run import Progress, Run

FREE = ("progress", "checkpoint", "callback")  # what may be set on a sampler that is planned


@dataclass
class Sampler:
    """Draws posterior samples of images by annealed Langevin dynamics; planned once, called with measurements.

        P = (AᴴA/η² + L/t²)⁻¹,  m(x) = P (Aᴴy/η² + (L x − ∇E(x, t))/t²),  x⁺ = m(x) + P^{1/2} ξ

    A chain's result depends on (seed, its measurement's index, its own, its y, `pairs`) alone, but for `moves`: not on the chains
    and measurements beside it, nor on a restart; to the bit as far as the energy and operator compute each image by itself:
    torch's convolutions, of denoiser and ridge energies, may round otherwise in another batch.

    Args:
        operator, energy: A with its noise_std η, and the prior.
        chains: chains a measurement. They never touch each other but by leaps.
        pairs: chain 2k + 1 takes minus the noise of chain 2k. The mean of a Gaussian posterior then has no Monte Carlo error,
            that of others less. Two chains of a pair tell less of the variance than two that are independent, and it takes two
            pairs, four chains, to tell any (`Posterior.interval`). False: all chains are independent. None: pairs where there are
            four chains or more and no leaps; whoever continues an ensemble with fewer says which.
        draws, thin: draws a chain at σ_min, thin steps apart; the first ends the last level. mean, std are over all.
        seed: in [0, 2⁶³). first_chain: index of the first chain, to continue an ensemble: chains 16…31 after 0…15.
        first_measurement: index of the first measurement, to continue a series: chains of measurements of other indices have
            other noise, so images of a batch are independent, and images sampled one by one where each has an index of its own.
        schedule: levels and steps. None: chosen from prior and measurement, see docs/exactness.md §3: with a predictor, at most
            250 gradients to anneal, and at most 2 % excess of variance in any direction of a Gaussian if that suffices, with
            denoisers by longer steps; the published ones with noise="independent". `Posterior.schedule` says which.
        method: "alps" anneals the prior ([ALPS]); "measurement" the noise on y at t = σ_min ([XGP]), after the
            prior has been annealed without data: modes that lie apart then keep the weights of the prior, whatever y says of
            them (docs/exactness.md §9), unless moves="leap".
        noise: "averaged" ([LM]): exact variance for Gaussian posteriors. "independent": the published rule, in which
            the last step of a level adds the noise of the next one and the last of all none, so that "samples" are
            conditional means and std is too small; draws must be 1.
        correction: "mala" adds accept/reject with a step tuned a chain at a time while annealing, one AᴴA more a step: the target
            of a level is then exact, which is not to say that a few steps reach it; with few, use a predictor too.
        backend: see `alps_fast.ops`. progress: a bar on stderr.
        checkpoint: a file that is written at the first level end after every minute, on Ctrl-C, SIGTERM and exceptions (as of
            the last level end), and when all is done; and gone on from, bit for bit, where it exists. One that is damaged or of
            another run is refused; a disk that is full is warned of. A folder that exists: in it a file for every measurement, or
            batch, that the sampler is called with, named by it and by the options, so that each finds its own.
        callback: is called with a `Progress` at level ends: `images`, `means`, t. By raising StopIteration it stops the run,
            which then returns what there is, with `interrupted` set.
        max_chains: chains, of all measurements together, whose steps run at a time; None: all, and where the device's
            memory does not suffice half as many, until it does. Results are the same.
        graphs: on a GPU, run by a CUDA graph what ran twice, from the third level on: levels of as many steps share one, with
            energies and operators of ours; with another energy, or MALA, each has its own, from the third call on. Not where
            torch's conjugate gradients look when to stop, as for a `LinearOperator`.
        warm_start, warm_std: another method's image x₀ ≈ x + N(0, σ²I), taken as one more measurement. With
            method="measurement" it stands for most of the prior's annealing too.
        moves: "leap": at σ_min chains also leap from mode to mode, by how two modes differ that others of 32 are in, which gives
            modes the weights that the posterior has ([Tawn], docs/exactness.md §9): where these differ by a translation, all of
            it or block by block; `Posterior.leap_acceptance` says whether they do. A chain's result then hangs on its group of 32
            too, 32k … 32k + 31, of 64 with pairs=True; chains and first_chain are multiples of that. For 20 % of the gradients,
            or 13 if that is more.

    Without a correction what annealing leaves is biased where the prior is far from Gaussian; modes far apart keep
    the weights they froze with, with a correction too (one dimension, modes ±1 of std 0.15: 0.81 where 0.89 is
    exact; method="measurement" keeps the prior's own: 0.50 where 0.74 is exact), unless moves="leap". `Posterior.diagnostics`
    shows it as R-hat well above 1 with draws >= 4. A schedule without a predictor leaves Gaussians too wide where nothing is
    observed: by 8 % in variance with L = 1, 50 levels of 5 steps and a prior of std 0.5, where one with a predictor leaves 0.1 %.

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
    pairs: bool | None = None
    moves: str | None = None
    _graphs: Graphs = field(init=False, repr=False, compare=False)
    _schedules: dict[tuple[object, ...], Schedule] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_ours("operator", self.operator, Operator, "an alps_fast operator")
        check_ours("energy", self.energy, Energy, "an alps_fast energy")
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
        check(self.pairs is None or isinstance(self.pairs, bool), "pairs", repr(self.pairs), "True, False or None")
        check_choice("method", self.method, ("alps", "measurement"))
        check_choice("noise", self.noise, ("averaged", "independent"))
        check(self.correction in (None, "mala"), "correction", repr(self.correction), "None or 'mala'")
        check(self.correction is None or self.energy.has_value, "correction", repr(self.correction),
              f"None with a {type(self.energy).__name__}, an energy without a value to accept or reject by")
        self._check_moves()
        check_choice("backend", self.backend, NAMES)
        check(isinstance(self.checkpoint, str | os.PathLike | None), "checkpoint", repr(self.checkpoint), "None or a path")
        check(self.callback is None or callable(self.callback), "callback", repr(self.callback), "None or a function")
        folds = self.schedule is not None and self.schedule.predictor == FOLDED
        check(not folds or self.correction is None, "schedule", "one with a folded predictor",
              "predictor=True with a correction, whose proposals it is no part of")
        strides = self.schedule is not None and self.schedule.stride != 1.0
        check(not strides or (self.correction is None and self.noise == "averaged"), "schedule", "one with a stride",
              "stride=1 with a correction, which finds its own, or independent noise, which has no exact variance with another")
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

    @property
    def paired(self) -> bool:
        """Whether chains 2k and 2k + 1 have opposite noise."""
        return self.chains >= LEAST and self.moves is None if self.pairs is None else self.pairs

    def _check_moves(self) -> None:
        """Leaps need an energy's value, states that are samples, and whole groups of chains."""
        check(self.moves in (None, "leap"), "moves", repr(self.moves), "None or 'leap'")
        if self.moves is None:
            return
        check(self.energy.has_value, "moves", repr(self.moves),
              f"None with a {type(self.energy).__name__}, an energy without a value to accept or reject by")
        check(self.noise == "averaged", "moves", repr(self.moves),
              'None with noise="independent", whose states between levels are no samples')
        group = team_of(self.paired)
        given = 'moves="leap" and pairs=True' if self.paired else 'moves="leap"'
        for name in ("chains", "first_chain"):
            check(getattr(self, name) % group == 0, name, getattr(self, name),
                  f"a multiple of {group} with {given}, as so many leap together")

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

        Ctrl-C, or a callback's StopIteration, returns what there is, with `interrupted` set: the statistics of the draws so far,
        or of the states as they stand if there are none yet.

        Raises:
            ArgumentError: y does not fit the operator, is not finite, or `checkpoint` is of another run.
            FloatingPointError: every chain turned non-finite or ran away.
        """
        with settled(), telling():
            return Run(self, y).finish()

    def memory(self, y: Tensor) -> int:
        """Bytes that a run takes at its peak on the device of y: all chains' states, statistics, what the operator keeps, and
        what our gradients work in.

        The last is on the CPU so much a thread, however many chains there are. On a GPU states and gradients count twice: what a
        graph works in stays its own, and torch keeps what the steps before it had. Networks of others come on top, as do our
        own's tables and weights (50 MB) and what conjugate gradients work in: k-space of all chains' coils, at most 0.3 GB.
        """
        measurements = len(self.operator.check_measurement(y))
        channels, height, width = self._real_image(y)
        images = 32 if self.operator.is_complex else 16  # y, Aᴴy, b; how mean and squares spread over chains, in float64
        statistics = images * 4 * channels * height * width
        rows = measurements * self.chains
        with asked(self.backend):
            workspace = self.energy.workspace((rows, channels, height, width), y.device)
        times = 2 if y.is_cuda and self.graphs else 1
        return times * (rows * self.memory_per_chain(y) + workspace) + measurements * statistics + self.operator.kept()

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
        leaping = 16 if self.moves else 0  # x, new x, the teams' x; of a half x, e, x', ∇E, and what their sums are of
        return 4 * ((kept + max(stepping, taking, leaping)) * image + 2 * measured)

    def _real_image(self, y: Tensor) -> tuple[int, int, int]:
        """(C', H, W) of a state."""
        channels, height, width = self.operator.image_shape(self.operator.check_measurement(y))
        return channels * (2 if self.operator.is_complex else 1), height, width


def sample(
    y: Tensor, operator: Operator, energy: Energy, *, chains: int = 16, draws: int = 1, thin: int = 1, seed: int = 0,
    schedule: Schedule | None = None, method: str = "alps", noise: str = "averaged", correction: str | None = None,
    backend: str = "auto", progress: bool = True, checkpoint: str | Path | None = None,
    callback: Callable[[Progress], None] | None = None, first_chain: int = 0, first_measurement: int = 0,
    max_chains: int | None = None, graphs: bool = True, warm_start: Tensor | None = None, warm_std: float | None = None,
    pairs: bool | None = None, moves: str | None = None,
) -> Posterior:
    """Posterior samples of the image behind y, their mean and standard deviation: `Sampler(operator, energy, …)(y)`.

    Args:
        y: a measurement in the shape its operator documents, or a batch (B, ...).
        operator, energy: A with its noise_std η, and the prior.

    Returns:
        A `Posterior`: mean and std (C, H, W), samples (chains, C, H, W); with B in front for a batch.

    Raises:
        ArgumentError: naming the argument. FloatingPointError: every chain turned non-finite or ran away.

    Sources: [ALPS], [XGP], [LM].
    """
    return Sampler(operator, energy, chains=chains, draws=draws, thin=thin, seed=seed, schedule=schedule, method=method,
                   noise=noise, correction=correction, backend=backend, progress=progress, checkpoint=checkpoint,
                   callback=callback, first_chain=first_chain, first_measurement=first_measurement, max_chains=max_chains,
                   graphs=graphs, warm_start=warm_start, warm_std=warm_std, pairs=pairs, moves=moves)(y)


def _explained(text: str, options: str) -> str:
    """A docstring with the options that another explains, from its chains on, after the prior."""
    options = inspect.cleandoc(options)
    options = options[options.index("    chains: "):options.index("Without a correction")].rstrip()
    return inspect.cleandoc(text).replace("and the prior.\n", f"and the prior.\n{options}\n", 1)


if Sampler.__doc__ and sample.__doc__:  # which python -OO leaves out
    sample.__doc__ = _explained(sample.__doc__, Sampler.__doc__)
