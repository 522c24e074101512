"""How the cost of a chain grows with chains, and that of a pixel with the side of the image: whole Langevin steps, and memory."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

import alps_fast as af
from alps_fast.bench.common import Row, commit, fastest, isa, machine

CHAINS = (1, 4, 16, 64, 256, 1024)
SIDES = (32, 64, 128, 256, 512, 1024)
SIDE = 64  # of the image whose chains are counted
ENERGIES = {"natural-ridge": "ridge_grad", "natural-denoiser": "conv_grad"}  # and the op of their gradient
BUDGET, QUICK_BUDGET = 20.0, 2.0  # seconds for a point
STEPS = (2, 15)  # fewest and most that are timed, after one that is not
LEVELS, STEPS_OF_A_LEVEL, REPLAYS = 10, 5, 3  # on a GPU
WORTH = 1.0  # seconds that a point is given where it is quick
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Point(NamedTuple):
    """So many chains of an image of this side, in one of the two series of an energy."""

    series: str
    energy: str
    chains: int
    side: int


def points() -> list[Point]:
    """All points, series by series."""
    return [point for energy in ENERGIES for point in (*(Point("chains", energy, n, SIDE) for n in CHAINS),
                                                       *(Point("sides", energy, 1, side) for side in SIDES))]


def measure(quick: bool, before: Callable[[Point], object], device: torch.device) -> dict[str, Any]:
    """Rows of all points, and a sentence for every series that stopped early; `before` is told each point that is measured."""
    budget = QUICK_BUDGET if quick else BUDGET
    energies = {name: af.energies.load(name, precision="fast") for name in ENERGIES}
    rows: list[Row] = []
    stopped: dict[tuple[str, str], str] = {}
    for point in points():
        series = [row for row in rows if (row["series"], row["energy"]) == point[:2]]
        step = 0.0
        if series:
            last = series[-1]
            step = last["seconds_per_step"] * (point.chains / last["chains"]) * (point.side / last["side"]) ** 2
        if point[:2] in stopped:
            continue
        if (needed := (STEPS[0] + 1) * step) > budget:
            stopped[point[:2]] = (f"{point.energy}, {point.series}: stopped before {point.chains} chains of "
                                  f"{point.side}x{point.side}, which would take {needed:.0f} s, more than {budget:.0f} s")
            continue
        before(point)
        steps = min(max(STEPS[0], int(WORTH / step)), STEPS[1]) if step else STEPS[1]
        energy = energies[point.energy]
        rows.append(one(point, energy, steps) if device.type == "cpu" else one_on_gpu(point, energy, device))
    return {"machine": machine(device), "threads": torch.get_num_threads(), "commit": commit(),
            "isa": isa(fastest("langevin_pixel", device)), "quick": quick, "budget_seconds": budget, "rows": rows,
            "stopped": list(stopped.values())}


def problem(point: Point) -> tuple[af.operators.Operator, torch.Tensor]:
    """Inpainting of an image of that side: the operator and a measurement."""
    shape = (1, point.side, point.side)
    g = torch.Generator().manual_seed(0)
    operator = af.operators.Inpainting((torch.rand(shape, generator=g) < 0.5).float(), noise_std=0.05)
    return operator, operator.forward(torch.rand(shape, generator=g))


def one(point: Point, energy: af.energies.Energy, steps: int) -> Row:
    """Median seconds of a level of one step, its constants and E(x) with it, and the memory that the run takes at its peak."""
    operator, y = problem(point)
    ends: list[float] = []
    sampler = af.Sampler(operator, energy, chains=point.chains, schedule=af.Schedule(100.0, 10.0, levels=steps + 1, steps=1),
                         progress=False, callback=lambda _: ends.append(time.perf_counter()))
    start = _memory_before()
    sampler(y)
    peak = _memory("VmHWM") if start is not None else None
    step = statistics.median(after - before for before, after in itertools.pairwise(ends))
    return row(point, y.device, steps, step, sampler.memory(y), None if start is None or peak is None else max(peak - start, 0))


def one_on_gpu(point: Point, energy: af.energies.Energy, device: torch.device) -> Row:
    """Seconds of a step in a run that replays its graphs, all else of the run shared among its steps; and what torch reserved."""
    operator, y = problem(point)
    schedule, y = af.Schedule(levels=LEVELS, steps=STEPS_OF_A_LEVEL), y.to(device)
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    start = torch.cuda.memory_reserved(device)
    torch.cuda.reset_peak_memory_stats(device)
    sampler = af.Sampler(operator, energy, chains=point.chains, schedule=schedule, progress=False)
    sampler(y)
    seconds = list[float]()
    for _ in range(REPLAYS):
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        sampler(y)
        torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - began)
    steps = LEVELS * STEPS_OF_A_LEVEL
    return row(point, device, steps, statistics.median(seconds) / steps, sampler.memory(y),
               torch.cuda.max_memory_reserved(device) - start)


def row(point: Point, device: torch.device, steps: int, step: float, known: int, peak: int | None) -> Row:
    """What is kept of a point: `step` in seconds, memory in bytes."""
    return {**point._asdict(), "backend": fastest(ENERGIES[point.energy], device), "steps": steps, "seconds_per_step": step,
            "seconds_per_chain": step / point.chains, "seconds_per_pixel": step / (point.chains * point.side**2),
            "known_bytes": known, "peak_bytes": peak}


def _memory_before() -> int | None:
    """Bytes resident, once what is free was handed back and the peak forgotten; None where the system cannot tell."""
    with contextlib.suppress(OSError, AttributeError):  # another C library keeps what is free, and the peak rises by less
        ctypes.CDLL(None).malloc_trim(0)
    try:
        CLEAR.write_text("5")
    except OSError:
        return None
    return _memory("VmRSS")


def _memory(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


def table(found: dict[str, Any]) -> list[str]:
    """Lines of a table."""
    lines = [f"{found['machine']}, {found['threads']} threads {found['isa']}, alps_fast {found['commit']}", "",
             f"{'energy':<17} {'chains':>6} {'side':>5} {'ms a step':>10} {'ms a chain':>11} {'ns a pixel':>11} {'peak MB':>8} "
             f"{'known MB':>9}"]
    for r in found["rows"]:
        peak = "?" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 1e6:.1f}"
        lines.append(f"{r['energy']:<17} {r['chains']:>6} {r['side']:>5} {1e3 * r['seconds_per_step']:>10.2f} "
                     f"{1e3 * r['seconds_per_chain']:>11.3f} {1e9 * r['seconds_per_pixel']:>11.1f} {peak:>8} "
                     f"{r['known_bytes'] / 1e6:>9.1f}")
    return lines + found["stopped"]


def plot(found: dict[str, Any], path: Path) -> None:
    """Milliseconds a chain over chains and nanoseconds a pixel over sides."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(9, 3.8), layout="constrained")
    panels = (("chains", "chains", "seconds_per_chain", 1e3, f"ms a chain and step, {SIDE}x{SIDE}"),
              ("sides", "side", "seconds_per_pixel", 1e9, "ns a pixel and step, one chain"))
    for axes, (series, across, cost, unit, label) in zip(figure.subplots(1, 2), panels, strict=True):
        for energy in ENERGIES:
            rows = [r for r in found["rows"] if (r["series"], r["energy"]) == (series, energy)]
            axes.loglog([r[across] for r in rows], [unit * r[cost] for r in rows], "o-", label=energy)
        ticks = CHAINS if series == "chains" else SIDES
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
        axes.set_xlabel(across)
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0.5 * min(unit * r[cost] for r in found["rows"] if r["series"] == series))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=150)
