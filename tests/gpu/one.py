"""One case of timing.py, three calls and nothing else, for ncu and compute-sanitizer: python one.py INDEX [backend]"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import torch
from common import DEVICE, ON_GPU
from timing import FIRST, MORE, Timed

from alps_fast.bench import common as bench


class Three(Timed):
    """Calls the case's kernel."""

    def __call__(self, case: str, backend: str, run: Callable[[], object], *_: object, **__: object) -> list[bench.Row]:
        for _call in range(3):
            run()
        if ON_GPU:
            torch.cuda.synchronize()
        return []


os.environ["ALPS_FAST_BACKEND"] = sys.argv[2] if len(sys.argv) > 2 else "cuda" if ON_GPU else "cpu"
(FIRST + MORE)[int(sys.argv[1])].run(Three(device=torch.device(DEVICE)))
