"""Every op on a roofline: as measured on this CPU, as modelled for GPUs, and as measured on a GPU where there is one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from alps_fast.bench import common
from alps_fast.profile.cases import CASES, OP_CASES, Case
from alps_fast.profile.work import GPUS, modelled_us

ROUNDS = 20  # of a kernel on a GPU


class Point(NamedTuple):
    """An op's configuration: where, and whether measured or modelled; least bytes and operations, and seconds."""

    op: str
    case: str
    where: str
    kind: str
    bytes: int
    operations: int
    seconds: float


class Alone(common.Measure):
    """Times a case's kernel and no baseline, which a roofline has no use for."""

    def __call__(self, case: str, backend: str, run: Callable[[], object], baselines: dict[str, Callable[[], object]],
                 work: common.Work, rounds: int = 31, gemm: torch.dtype | None = None,
                 peak: float | None = None) -> list[common.Row]:
        timed = common.contender(run, self.device)
        seconds = self.timer(timed, lambda: None, min(rounds, common.QUICK_ROUNDS), 2, self.device)
        row = {"case": case, "backend": backend, "seconds": seconds, **work._asdict()}
        self.rows.append(row)
        return [row]


def on_cpu(before: Callable[[str], object]) -> list[Point]:
    """The first case of every op of `alps-fast bench`; `before` is told each op that is measured."""
    points = []
    for case in cpu_cases():
        op = op_of(case)
        before(op)
        measure = Alone(quick=True)
        case.run(measure)
        row = measure.rows[0]
        points.append(Point(op, row["case"], "CPU", "measured", row["bytes"], row["flops"], row["seconds"]))
    return points


def cpu_cases() -> list[common.Case]:
    """The first case of every op; whole runs are none."""
    first = {op_of(case): case for case in reversed(common.select((), quick=True))}
    return [case for op, case in reversed(first.items()) if not op.startswith("alps_")]


def op_of(case: common.Case) -> str:
    """The op that a benchmark is named after; decimation has one of its own."""
    return case.name.split("[")[0].removesuffix("_decimated")


def gpu_cases() -> list[Case]:
    """A configuration of every op that has GPU kernels: with averaged noise, where a noise is in its name, else the first.

    Of the op where it has no Triton kernel.
    """
    cases = CASES + OP_CASES
    ops = dict.fromkeys(case.op for case in cases)
    return [min((case for case in cases if case.op == op), key=lambda case: "averaged" not in case.name) for op in ops]


def modelled() -> list[Point]:
    """By formula, for the GPUs of the data sheets: never measured."""
    points = []
    for case in gpu_cases():
        work = case.work(case.chains)
        points += [Point(case.op, case.name, gpu.name, "modelled", work.bytes, work.operations,
                         1e-6 * modelled_us(work, gpu)) for gpu in GPUS]
    return points


def on_gpu() -> list[Point]:
    """Those configurations on the current CUDA device, as graphs where they can be captured: medians."""
    points, name, device = [], torch.cuda.get_device_name(), torch.device("cuda")
    for case in gpu_cases():
        timed = common.contender(_on_device(case, device), device)
        seconds, work = common.stopwatch(timed, lambda: None, ROUNDS, 3, device), case.work(case.chains)
        points.append(Point(case.op, case.name, name, "measured", work.bytes, work.operations, seconds))
    return points


def _on_device(case: Case, device: torch.device) -> Callable[[], object]:
    """The case's Triton launches, or a call of its op, with all tensors on the device."""
    def moved(arguments: dict[str, Any]) -> dict[str, Any]:
        return {key: a.to(device) if isinstance(a, torch.Tensor) else a for key, a in arguments.items()}

    if case.arguments is not None:
        op, arguments = getattr(torch.ops.alps_fast, case.op), moved(case.arguments(case.chains))
        return lambda: op(**arguments)

    from alps_fast.kernels.launch import Launch, launch, observed

    launches: list[Launch] = []
    with observed(launches.append):  # none runs
        case.run(case.chains)
    there = [(one, moved(one.arguments)) for one in launches]
    return lambda: [launch(one.kernel, one.grid, one.num_warps, **arguments) for one, arguments in there]


def gather(before: Callable[[str], object]) -> dict[str, Any]:
    """The machine's own speeds and every point, as JSON takes them."""
    before("machine")
    speeds = common.speeds(common.CPU)
    points = on_cpu(before) + modelled() + (on_gpu() if torch.cuda.is_available() else [])
    return {"machine": common.machine(), "threads": torch.get_num_threads(), **speeds,
            "points": [point._asdict() for point in points]}


def plot(found: dict[str, Any], path: Path) -> None:
    """CPU and GPUs side by side: operations a second over operations a byte, under what bandwidth and arithmetic allow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5.2), layout="constrained")
    cpu, gpu = figure.subplots(1, 2)
    rates = [("float32 products", found["gemm_float32"]), ("bfloat16 products", found["gemm_bfloat16"])]
    _roof(cpu, "black", "copies", found["copy"], rates)
    _points(cpu, [p for p in found["points"] if p["where"] == "CPU"], "o", "tab:red", None)
    cpu.set_title(f"CPU, measured: {found['machine']}, {found['threads']} threads", fontsize=8)
    for one, colour in zip(GPUS, ("tab:blue", "tab:orange", "tab:purple", "tab:green"), strict=True):
        _roof(gpu, colour, one.name, one.bandwidth, [("float32", one.float32), ("TF32", one.tf32), ("bfloat16", one.bf16)])
        _points(gpu, [p for p in found["points"] if p["where"] == one.name and p["kind"] == "modelled"], "o", colour,
                f"{one.name}, modelled")
    measured = [p for p in found["points"] if p["where"] != "CPU" and p["kind"] == "measured"]
    for name in dict.fromkeys(p["where"] for p in measured):
        _points(gpu, [p for p in measured if p["where"] == name], "*", "black", f"{name}, measured")
    gpu.set_title("GPU, modelled from data sheets" + (", and measured" if measured else ", not measured"), fontsize=8)
    gpu.legend(fontsize=7, loc="lower right")
    for axes in (cpu, gpu):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("operations a byte")
        axes.set_ylabel("operations a second")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


INTENSITIES = (0.1, 1e5)  # operations a byte, from and to


def _roof(axes: Any, colour: str, name: str, bandwidth: float, rates: list[tuple[str, float]]) -> None:
    top = max(rate for _, rate in rates)
    low, high = INTENSITIES
    axes.plot([low, top / bandwidth], [low * bandwidth, top], color=colour, lw=1)
    axes.text(low, low * bandwidth, f" {name} {bandwidth / 1e9:,.0f} GB/s", color=colour, fontsize=6, va="top")
    for label, rate in rates:
        axes.plot([rate / bandwidth, high], [rate, rate], color=colour, lw=1, ls="-" if rate == top else "--")
        axes.text(high, rate, f"{label} {rate / 1e12:,.3g} T/s", color=colour, fontsize=6, ha="right", va="bottom")


def _points(axes: Any, points: list[dict[str, Any]], marker: str, colour: str, label: str | None) -> None:
    inside = "none" if points[0]["kind"] == "modelled" else colour
    axes.scatter([p["operations"] / p["bytes"] for p in points], [p["operations"] / p["seconds"] for p in points], marker=marker,
                 s=28, edgecolors=colour, facecolors=inside, label=label)
    for i, p in enumerate(sorted(points, key=lambda p: p["operations"] / p["bytes"])):  # names of neighbours above and below
        axes.annotate(p["op"], (p["operations"] / p["bytes"], p["operations"] / p["seconds"]), fontsize=6, color=colour,
                      xytext=(4, -8 if i % 2 else 3), textcoords="offset points")
