"""What a denoiser's posterior costs a careful torch user, and here, where both are as good.

    python -m benchmarks.equal [mri_r4] [mri_r8] [inpaint] [--rounds 3]

The problems are the demo's. *tuned* is `bench_alps.tuned_loop`, compiled, by the published schedule and by shorter ones from
where annealing starts here too; *default* is `alps_fast.Sampler` as it is, *demo* the demo's settings. All have the same
weights and precision, as many chains, and end at the demo's σ_min with that level's noise. Rounds are interleaved; seconds
are medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

import alps_fast as af
from alps_fast.cli.demo import SETTINGS, Problem, Setting, build, components, view
from alps_fast.cli.options import chosen_precision
from alps_fast.metrics import coverage, psnr
from alps_fast.operators import CartesianMRI, Inpainting
from alps_fast.samplers.chosen import chosen

from .bench_alps import STEPS, TunedMRI, TunedPixels, as_pair, tuned_gradient, tuned_loop
from .common import Measure
from .quality.figures import interval
from .records import machine

ENTRIES = ("mri_r4", "mri_r8", "inpaint")
PUBLISHED = 50
SHORTER = (28, 14)  # levels


class Result(NamedTuple):
    """An estimate (1, H, W), the ends of a 90 % interval, and gradients a chain."""

    mean: Tensor
    low: Tensor
    high: Tensor
    gradients: int


def tuned(problem: Problem, energy: Any, chains: int, schedule: af.Schedule, measure: Measure) -> Callable[[], Result]:
    """Set up once; a call is a run. Chains are independent, so intervals are Student's. measure: how its gradient is compiled."""
    op = problem.operator
    mri, b = op.is_complex, op.adjoint(op.check_measurement(problem.y)) / op.noise_std**2
    b = as_pair(b[:, 0]) if mri else b
    assert isinstance(op, CartesianMRI | Inpainting)
    a = TunedMRI(op, b.device) if isinstance(op, CartesianMRI) else TunedPixels(op, b.device)
    slope, levels = tuned_gradient(energy, energy.precision, measure), schedule.t().tolist()
    tuned_loop(a, slope, energy.curvature, b, chains, levels[-1:], 1)  # compiles

    def run() -> Result:
        x = tuned_loop(a, slope, energy.curvature, b, chains, levels, STEPS)
        mean, low, high = (torch.complex(*image[:, None]) if mri else image for image in (x.mean(0), *interval(x, 0.9)))
        return Result(mean, low, high, STEPS * len(levels))

    return run


def ours(problem: Problem, energy: Any, chains: int, draws: int, schedule: af.Schedule) -> Result:
    """Chains come in pairs."""
    found = af.sample(problem.y, problem.operator, energy, chains=chains, draws=draws, schedule=schedule, progress=False)
    low, high = found.interval(0.9)
    return Result(found.mean, low, high, found.gradients)


def contenders(problem: Problem, setting: Setting, measure: Measure) -> dict[str, Callable[[], Result]]:
    """By name."""
    op, chains = problem.operator, setting.chains
    energy = af.energies.load(setting.energy, precision=chosen_precision(None))
    default = replace(chosen(op, energy, op.check_measurement(problem.y), measured=True, longer=True),
                      sigma_min=setting.sigma_min)
    published = af.Schedule(levels=PUBLISHED, steps=STEPS, sigma_min=setting.sigma_min)
    short = [replace(published, sigma_max=default.sigma_max, levels=levels, rho=7.0) for levels in SHORTER]
    return {**{f"tuned, {s.levels} x {STEPS} from {s.sigma_max:g}": tuned(problem, energy, chains, s, measure)
               for s in (published, *short)},
            f"default, {default.levels} x {default.steps}": partial(ours, problem, energy, chains, 1, default),
            f"demo, {setting.levels} x {setting.steps}": partial(
                ours, problem, af.energies.CoarseFirst(energy, setting.above), chains, setting.draws, setting.schedule)}


def row(problem: Problem, found: Result) -> tuple[float, float]:
    """PSNR of the mean, and what 90 % intervals cover, as the demo has both."""
    truth, where = problem.truth, problem.where
    peak = float(truth.abs().max()) if truth.is_complex() else 2.0
    low, high, true = (components(v, where) for v in (found.low, found.high, truth))
    return psnr(view(found.mean), view(truth), peak), coverage(low, high, true)


def main() -> None:
    """A table an entry."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.equal", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help="all, or of " + ", ".join(ENTRIES))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    if args.rounds < 1 or not set(args.entries) <= set(ENTRIES):
        parser.error(f"got {' '.join(args.entries)} --rounds {args.rounds}; wanted of {', '.join(ENTRIES)}, and 1 round or more")
    warnings.simplefilter("ignore")  # of schedules that start late
    print(f"{machine()}, precision {chosen_precision(None)!r}")
    for name in args.entries or ENTRIES:
        problem = build(name, SETTINGS[name])
        runs = contenders(problem, SETTINGS[name], Measure())
        seconds: dict[str, list[float]] = {key: [] for key in runs}
        found: dict[str, Result] = {}
        for _ in range(args.rounds):
            for key, run in runs.items():
                began = time.perf_counter()
                found[key] = run()
                seconds[key].append(time.perf_counter() - began)
        base = statistics.median(next(iter(seconds.values())))
        print(f"\n| {name} | gradients | PSNR of the mean, dB | 90 % covers | s | tuned, published / this |",
              "|---|--:|--:|--:|--:|--:|", sep="\n")
        for key, result in found.items():
            decibel, covers = row(problem, result)
            took = statistics.median(seconds[key])
            print(f"| {key} | {result.gradients} | {decibel:.2f} | {covers:.3f} | {took:.2f} | {base / took:.1f} |", flush=True)


if __name__ == "__main__":
    main()
