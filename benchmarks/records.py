"""Results as they are found, a line of JSON each: a run that is cut off goes on where it was."""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from alps_fast.errors import check
from alps_fast.io.files import check_is_file, reading

Record = dict[str, Any]
WANTED = "a file that this benchmark wrote"


def read(path: Path, name: str = "FILE") -> list[Record]:
    """Those of a file, without lines that were cut off; none where there is no file.

    Raises:
        ArgumentError: naming `name`, an argument; the file holds something else, which nothing is to be written behind.
    """
    if not path.exists():
        return []
    check_is_file(path, name)
    with reading(path, name, WANTED):
        lines = path.read_text().splitlines()
    found = []
    for number, line in enumerate(lines, 1):
        check(line.startswith("{"), name, f"{path}, whose line {number} is no record", WANTED)
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
    """One more line. What is no number, as of chains that are lost, is null, as JSON has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rounded = {name: v if not isinstance(v, float) else round(v, 5) if math.isfinite(v) else None for name, v in record.items()}
    cut = path.exists() and not path.read_bytes().endswith(b"\n") and path.stat().st_size > 0  # a run that was killed
    with path.open("a") as file:
        file.write(("\n" if cut else "") + json.dumps(rounded) + "\n")
