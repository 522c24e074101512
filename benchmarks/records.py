"""Results as they are found, a line of JSON each: a run that is cut off goes on where it was."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """Those of a file, without a last line that was cut off."""
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `work` returns, and its seconds: by the clock, and of all processors, its children's too."""
    began, spent = time.perf_counter(), cpu_seconds()
    found = work()
    return found, {"wall": round(time.perf_counter() - began, 3), "cpu": round(cpu_seconds() - spent, 3)}


def cpu_seconds() -> float:
    """Of this process and those it waited for."""
    import resource

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def processor() -> str:
    """As Linux names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def machine() -> str:
    """The processor, and threads."""
    return f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def append(path: Path, record: Record) -> None:
    """One more line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {name: round(v, 5) if isinstance(v, float) else v for name, v in record.items()}
    cut = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0  # a run that was killed
    with path.open("a") as file:
        file.write(("\n" if cut else "") + json.dumps(rounded) + "\n")
