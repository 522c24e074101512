"""What the parts of a run on a GPU share: rows that are written as they are made, and cases in children of their own."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # or asking whether there is a GPU starts CUDA, and no child can
import torch

DEVICE = os.environ.get("GPU_RUN_DEVICE", "cuda")  # "cpu" for a trial of the scripts alone
ON_GPU = DEVICE == "cuda"
IN_CHILDREN = os.environ.get("GPU_RUN_INLINE") != "1"
OUT = Path(os.environ.get("OUT", "gpu_report"))
BEGAN = time.time()

Job = Callable[[], object]


def emit(kind: str, **row: Any) -> None:
    """Print a row, and append it to rows.jsonl."""
    row = {"kind": kind, "at": round(time.time() - BEGAN, 1), **row}
    OUT.mkdir(parents=True, exist_ok=True)
    with (OUT / "rows.jsonl").open("a") as file:
        file.write(json.dumps(row, default=str) + "\n")
    print(" ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()), flush=True)


def attempt(name: str, job: Job) -> None:
    """Run it; what it raises becomes a row."""
    try:
        job()
    except BaseException as error:
        places = [line.strip() for line in traceback.format_exc().splitlines() if line.strip().startswith("File")]
        emit("FAILED", case=name, error=f"{type(error).__name__}: {str(error)[:300]}", where=" | ".join(places)[-300:])


def in_children(jobs: Iterable[tuple[str, Job]], limit: int, at_once: int = 1) -> None:
    """Each job in a child that has `limit` seconds: an illegal address, a hang or a failed capture costs this job alone.

    Several at once are for what is right, never for times. Nothing may have started CUDA here.
    """
    running: dict[int, str] = {}
    if IN_CHILDREN:
        torch.testing.assert_close(torch.zeros(1), torch.zeros(1))  # its imports take a second, here but once

    def reap() -> None:
        pid, status = os.wait()
        name = running.pop(pid)
        if os.WIFSIGNALED(status):
            emit("KILLED", case=name, signal=os.WTERMSIG(status), limit=limit)

    for name, job in jobs:
        while len(running) >= at_once:
            reap()
        sys.stdout.flush()
        if not IN_CHILDREN:
            attempt(name, job)
        elif (pid := os.fork()) == 0:
            signal.alarm(limit)
            attempt(name, job)
            sys.stdout.flush()
            os._exit(0)
        else:
            running[pid] = name
    while running:
        reap()
