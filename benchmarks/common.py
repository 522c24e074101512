"""How every benchmark measures: contenders side by side in one process, and rows that say what was measured where."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from alps_fast.ops import _dispatch

ROOT = Path(__file__).parents[1]


class Work(NamedTuple):
    """What one call must move and compute at least, from a formula."""

    bytes: int
    flops: int


def copier(size: int) -> Callable[[], object]:
    """A copy that moves `size` bytes in all, half of them read and half written: the machine's own speed on as much memory."""
    source = torch.ones(size // 8)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def isa(backend: str) -> str:
    """The instruction set of a kernel on the CPU."""
    if backend != "cpu":
        return ""
    from alps_fast import _cpu

    return _cpu.isa()


def commit() -> str:
    """The commit measured; a + says that the files differ from it."""
    result = subprocess.run(["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip() or "unknown"


def machine() -> str:
    """Hardware and versions, one line."""
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return f"{names[0] if names else platform.machine()}, {len(names)} CPUs, torch {torch.__version__}"


def compare(benchmark: Any, case: str, backend: str, run: Callable[[], object], baselines: dict[str, Callable[[], object]],
            work: Work, rounds: int = 31, peak: float | None = None) -> list[dict[str, Any]]:
    """Time `run`, before each of its rounds every baseline and a copy of the same bytes once; medians, one row a baseline.

    ratio = baseline / run; roofline_fraction = copy / run, the share of copy bandwidth that is reached, or where `peak`,
    operations a second, is what bounds the work, the share of that.
    """
    contenders = baselines | {"copy": copier(work.bytes)}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}

    def others() -> None:
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            seconds[name].append(time.perf_counter() - began)

    benchmark.pedantic(run, setup=others, rounds=rounds, warmup_rounds=3)
    ours = benchmark.stats.stats.median
    medians = {name: statistics.median(values[3:]) for name, values in seconds.items()}
    copy = medians.pop("copy")
    shared = {"case": case, "backend": backend, "isa": isa(backend), "seconds": ours, **work._asdict(),
              "roofline_fraction": work.flops / peak / ours if peak else copy / ours, "roofline": "peak" if peak else "copy",
              "threads": torch.get_num_threads(), "commit": commit()}
    rows = [shared | {"baseline": name, "baseline_seconds": median, "ratio": median / ours} for name, median in medians.items()]
    benchmark.extra_info["rows"] = rows
    return rows


def fastest(op: str) -> str:
    """The name of the backend that "auto" picks for `op` on this machine's CPU."""
    chosen = _dispatch.implementation(op, "auto", torch.device("cpu"))
    return next(name for (known, name), function in _dispatch._implementations.items() if known == op and function is chosen)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a table."""
    lines = [f"{'case':<44} {'backend':<12} {'ms':>8} {'baseline':<9} {'ms':>8} {'ratio':>7} "
             f"{'GB/s':>6} {'Gflop/s':>8} {'roofline':>13}"]
    for r in rows:
        lines.append(f"{r['case']:<44} {r['backend'] + ' ' + r['isa']:<12} {r['seconds'] * 1e3:8.3f} {r['baseline']:<9} "
                     f"{r['baseline_seconds'] * 1e3:8.3f} {r['ratio']:6.1f}x {r['bytes'] / r['seconds'] / 1e9:6.1f} "
                     f"{r['flops'] / r['seconds'] / 1e9:8.1f} {r['roofline_fraction']:5.0%} of {r['roofline']}")
    return lines
