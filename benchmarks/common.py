"""How every benchmark measures: contenders side by side in one process, and rows that say what was measured where."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import itertools
import math
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from alps_fast.ops import _dispatch
from alps_fast.samplers.graphs import waits

from .records import processor

HERE = Path(__file__).parent
GEMM = 2048  # side of the square matrices whose product is the machine's own rate
QUICK_ROUNDS, QUICK_SECONDS = 5, 1.5
MOST_CALLS, ENOUGH_SECONDS = 50, 0.02  # of what is timed as one on a GPU
BASELINES = ("plain", "tuned", *(["deepinv"] if importlib.util.find_spec("deepinv") else []))
CPU = torch.device("cpu")
LEVEL: dict[str, Any] = {"lam": 4.0, "lin": 4.0, "w": 4.0, "inv_eta2": 400.0, "noise_lam": 4.0}  # of every step that is timed

Row = dict[str, Any]
Timer = Callable[["Contender", Callable[[], None], int, int, torch.device], float]


class Work(NamedTuple):
    """What one call must move and compute at least, from a formula."""

    bytes: int
    flops: int


# --- what a case is ------------------------------------------------------------------------------------------------

def parametrize(names: str, values: Sequence[Any], ids: Sequence[str] | None = None) -> Callable[[Any], Any]:
    """`pytest.mark.parametrize` for cases, which run without pytest too; the first value of each is the case of --quick."""
    def decorate(function: Any) -> Any:
        function.parameters = [*getattr(function, "parameters", ()), (names, values, ids)]
        return function
    return decorate


class Case(NamedTuple):
    """A benchmark function with its arguments."""

    name: str
    run: Callable[[Measure], None]


def default_device() -> torch.device:
    """A GPU where torch sees one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cases() -> Iterator[Case]:
    """Every case of the bench_*.py beside this file."""
    for path in sorted(HERE.glob("bench_*.py")):
        module = importlib.import_module(f"{__package__}.{path.stem}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("test_"):
                yield from _cases_of(name.removeprefix("test_"), function)


def select(wanted: Sequence[str], quick: bool) -> list[Case]:
    """Cases with one of these texts in their name, all without any; `quick`: of each function the first such."""
    chosen = [case for case in cases() if not wanted or any(text in case.name for text in wanted)]
    if quick:
        first = {case.name.split("[")[0]: case for case in reversed(chosen)}
        chosen = [case for case in chosen if first[case.name.split("[")[0]] is case]
    return chosen


def _cases_of(name: str, function: Callable[..., None]) -> Iterator[Case]:
    choices = []
    for names, values, ids in getattr(function, "parameters", ()):
        keys = [key.strip() for key in names.split(",")]
        labels = ids or ["-".join(map(str, v if len(keys) > 1 else (v,))) for v in values]
        choices.append([(label, dict(zip(keys, v if len(keys) > 1 else (v,), strict=True)))
                        for label, v in zip(labels, values, strict=True)])
    for picked in itertools.product(*choices):
        options = {key: value for _, given in picked for key, value in given.items()}
        labels = "-".join(label for label, _ in picked)

        def run(measure: Measure, options: dict[str, Any] = options) -> None:
            torch.manual_seed(0)
            function(measure, **options)

        yield Case(f"{name}[{labels}]" if labels else name, run)


# --- how it is measured --------------------------------------------------------------------------------------------

class Contender(NamedTuple):
    """What is timed: `calls` calls at a time, on a GPU as a CUDA graph where they are short and can be captured.

    A call between two events on an idle GPU would measure Python: a kernel of 5 µs takes 50 to be asked for.
    """

    run: Callable[[], object]
    calls: int = 1
    captured: bool = False


def contender(run: Callable[[], object], device: torch.device) -> Contender:
    """`run`, warmed up and captured where the device is a GPU."""
    if device.type == "cpu":
        return Contender(run)
    for _ in range(2):
        run()
    with waits() as told:  # a capture that fails leaves torch's random numbers and memory in disorder
        seconds = seconds_of(Contender(run), device)
    calls = min(MOST_CALLS, int(ENOUGH_SECONDS / seconds))
    if calls < 1:  # whole runs, which are to be timed as they are
        return Contender(run)

    def again() -> None:
        for _ in range(calls):
            run()

    if told:
        return Contender(again, calls)
    graph, kept = torch.cuda.CUDAGraph(), []
    try:
        with torch.cuda.graph(graph):
            kept += [run() for _ in range(calls)]  # results held, for one call not to write where another's go
    except RuntimeError:  # as torch.compile's own graphs
        return Contender(again, calls)

    def replay() -> object:
        graph.replay()
        return kept

    return Contender(replay, calls, True)


def seconds_of(timed: Contender, device: torch.device) -> float:
    """Of one call: by the clock on a CPU, by events on a GPU, with which it waits for all that was asked before and now."""
    if device.type == "cpu":
        clock = time.perf_counter()
        timed.run()
        return (time.perf_counter() - clock) / timed.calls
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    began.record()
    timed.run()
    ended.record()
    ended.synchronize()
    return 1e-3 * began.elapsed_time(ended) / timed.calls


@contextmanager
def full_float32() -> Iterator[None]:
    """Convolutions as float32 asks, where torch would round their factors to TF32 on a GPU."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def stopwatch(timed: Contender, before: Callable[[], None], rounds: int, warmup: int, device: torch.device,
              enough: float = math.inf) -> float:
    """Median seconds of a call of `timed`, `before` called ahead of each round; after `enough` seconds no other round begins."""
    seconds: list[float] = []
    began = time.perf_counter()
    while len(seconds) < warmup + rounds and (not seconds or time.perf_counter() - began < enough):
        before()
        seconds.append(seconds_of(timed, device))
    return median_of(seconds, warmup)


def median_of(seconds: Sequence[float], warmup: int) -> float:
    """Of those after `warmup`, or of the last if there is no other."""
    return statistics.median(seconds[min(warmup, len(seconds) - 1):])


glance = functools.partial(stopwatch, enough=QUICK_SECONDS)


@dataclass
class Measure:
    """What a case is handed: it measures, keeps the rows, and says how much of it is wanted.

    quick: at most QUICK_ROUNDS rounds and no compiled baselines. levels: of the published 50, in whole runs. device: where a
    case puts its tensors.
    """

    quick: bool = False
    levels: int = 50
    device: torch.device = CPU
    timer: Timer = stopwatch
    rows: list[Row] = field(default_factory=list)

    def __call__(self, case: str, backend: str, run: Callable[[], object], baselines: dict[str, Callable[[], object]], work: Work,
                 rounds: int = 31, gemm: torch.dtype | None = None, peak: float | None = None) -> list[Row]:
        """`compare`, its rows kept."""
        rounds = min(rounds, QUICK_ROUNDS) if self.quick else rounds
        rows = compare(self.timer, self.device, case, backend, run, baselines, work, rounds, gemm, peak)
        self.rows += rows
        return rows

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """torch.compile, where there is a C++ compiler, and time for it."""
        return function if self.quick or not any(map(shutil.which, ("c++", "g++", "clang++"))) else torch.compile(function)


def compare(timer: Timer, device: torch.device, case: str, backend: str, run: Callable[[], object],
            baselines: dict[str, Callable[[], object]], work: Work, rounds: int, gemm: torch.dtype | None,
            peak: float | None) -> list[Row]:
    """Time `run`, before each of its rounds every baseline and the machine itself once; medians, one row a baseline.

    ratio = baseline / run; roofline_fraction: the share that is reached of copy bandwidth or, where `gemm` names a
    dtype, of the rate of torch's matrix product in it, or of `peak` operations a second.
    """
    runs = baselines | {"machine": copier(work.bytes, device) if gemm is None else multiplier(gemm, device)}
    timed, contenders = contender(run, device), {name: contender(other, device) for name, other in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    warmup = min(3, rounds // 2)

    def others() -> None:
        for name, other in contenders.items():
            seconds[name].append(seconds_of(other, device))

    ours = timer(timed, others, rounds, warmup, device)
    medians = {name: median_of(values, warmup) for name, values in seconds.items()}
    ideal = medians.pop("machine") * (1 if gemm is None else work.flops / (2 * GEMM**3))
    if peak is not None:
        ideal = work.flops / peak
    shared = {"case": case, "device": device.type, "backend": backend, "isa": isa(backend), "seconds": ours, **work._asdict(),
              "roofline_fraction": ideal / ours, "roofline": "peak" if peak else "copy" if gemm is None else "gemm",
              "captured": timed.captured, "threads": torch.get_num_threads(), "commit": commit()}
    return [shared | {"baseline": name, "baseline_seconds": median, "ratio": median / ours} for name, median in medians.items()]


# --- the machine ---------------------------------------------------------------------------------------------------

def copier(size: int, device: torch.device) -> Callable[[], object]:
    """A copy that moves `size` bytes in all, half of them read and half written: the machine's own speed on as much memory."""
    source = torch.ones(max(size // 8, 1), device=device)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def multiplier(dtype: torch.dtype, device: torch.device) -> Callable[[], object]:
    """torch's product of two square matrices: the machine's own speed at multiplying."""
    a, b = torch.randn(2, GEMM, GEMM, device=device).to(dtype)
    return lambda: a @ b


def speeds(device: torch.device) -> dict[str, float]:
    """Copy bandwidth out of cache in bytes a second, and torch's matrix products in operations a second."""
    size = 1 << 28

    def seconds(run: Callable[[], object], rounds: int) -> float:
        return stopwatch(contender(run, device), lambda: None, rounds, 1, device)

    products = {f"gemm_{str(dtype).removeprefix('torch.')}": 2 * GEMM**3 / seconds(multiplier(dtype, device), 3)
                for dtype in (torch.float32, torch.bfloat16)}
    return {"copy": size / seconds(copier(size, device), 5), **products}


def isa(backend: str) -> str:
    """The instruction set of a kernel on the CPU."""
    if backend != "cpu":
        return ""
    from alps_fast import _cpu

    return _cpu.isa()


def commit() -> str:
    """The commit measured, a + if files differ from it; the version where it was installed."""
    from alps_fast import __version__

    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        result = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return __version__
    return result.stdout.strip()


def machine(device: torch.device = CPU) -> str:
    """Hardware and versions, one line."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, torch {torch.__version__}"
    return f"{processor()}, {os.cpu_count() or '?'} CPUs, torch {torch.__version__}"


def fastest(op: str, device: torch.device = CPU) -> str:
    """The name of the backend that "auto" picks for `op` on this machine's CPU or GPU."""
    chosen = _dispatch.implementations(op, "auto", device)[0]
    return next(name for (known, name), function in _dispatch._implementations.items() if known == op and function is chosen)


# --- how it is shown -----------------------------------------------------------------------------------------------

def table(rows: list[Row], head: bool = True) -> list[str]:
    """Lines of a table, the first of them its head."""
    lines = [f"{'case':<44} {'backend':<12} {'ms':>8} {'baseline':<9} {'ms':>8} {'ratio':>7} "
             f"{'GB/s':>6} {'Gflop/s':>8} {'of machine':>10}"] * head
    for r in rows:
        lines.append(f"{r['case']:<44} {r['backend'] + ' ' + r['isa']:<12} {r['seconds'] * 1e3:8.3f} {r['baseline']:<9} "
                     f"{r['baseline_seconds'] * 1e3:8.3f} {r['ratio']:6.1f}x {r['bytes'] / r['seconds'] / 1e9:6.1f} "
                     f"{r['flops'] / r['seconds'] / 1e9:8.1f} {r['roofline_fraction']:5.0%} {r['roofline']}")
    return lines


def markdown(rows: list[Row], head: bool = True) -> list[str]:
    """The same for a README: one line a case, its baselines side by side."""
    lines = ["| case | backend | ms | " + " | ".join(f"over *{name}*" for name in BASELINES) + " | of the machine |",
             "|---|---|--:|" + "--:|" * (len(BASELINES) + 1)] * head
    for case, group in itertools.groupby(rows, lambda r: r["case"]):
        found = {r["baseline"]: r for r in group}
        r = next(iter(found.values()))
        ratios = (f"{found[name]['ratio']:.1f}×" if name in found else "" for name in BASELINES)
        lines.append(f"| {case} | {r['backend']} {r['isa']} | {r['seconds'] * 1e3:.3g} | " + " | ".join(ratios)
                     + f" | {r['roofline_fraction']:.0%} {r['roofline']} |")
    return lines
