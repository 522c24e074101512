"""Where a call's time goes, kernel by kernel: the cases of timing.py under torch's profiler. python kernels.py first|more"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import torch
from common import DEVICE, ON_GPU, emit, in_children
from timing import PARTS, Timed, Timing
from torch.profiler import ProfilerActivity, profile

from alps_fast.bench import common as bench

CALLS, SHOWN = 10, 8


class Kernels(Timed):
    """A row a kernel: microseconds and launches of a call."""

    def __call__(self, case: str, backend: str, run: Callable[[], object], *_: object, **__: object) -> list[bench.Row]:
        run()
        with profile(activities=[ProfilerActivity.CUDA if ON_GPU else ProfilerActivity.CPU], acc_events=True) as seen:
            for _call in range(CALLS):
                run()
            if ON_GPU:
                torch.cuda.synchronize()
        of = "self_device_time_total" if ON_GPU else "self_cpu_time_total"
        events = sorted(seen.key_averages(), key=lambda event: -getattr(event, of))
        for event in events[:SHOWN]:
            emit("kernel", case=case, backend=backend, kernel=event.key[:100], us=getattr(event, of) / CALLS,
                 launches=event.count / CALLS)
        return []


def job(case: Timing) -> None:
    os.environ["ALPS_FAST_BACKEND"] = "cuda" if ON_GPU else "cpu"
    case.run(Kernels(device=torch.device(DEVICE)))


if __name__ == "__main__":
    in_children([(str(case), lambda case=case: job(case)) for case in PARTS[sys.argv[1]]], 30)
