"""Every op on each of its GPU backends against float64 on the CPU: error over law, a row alone, repeats, a captured graph.

python smoke.py [op ...]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from common import DEVICE, ON_GPU, emit, in_children

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import test_gpu
import torch

from alps_fast.ops import _dispatch


def check(call: str, backend: str) -> None:
    """A row of what `test_gpu` asserts."""
    if test_gpu.is_left(call, backend):
        return
    began = time.time()
    arguments, rows, law = test_gpu.CALLS[call]()
    run = test_gpu.runner(call, backend, arguments, DEVICE)
    kernel = _dispatch.implementations(test_gpu.op_of(call), backend, torch.device(DEVICE))[0]
    placed = {k: test_gpu.moved(v, DEVICE) for k, v in arguments.items() if k != "backend"}
    took = kernel(**placed) is not NotImplemented
    got = run()
    precise = test_gpu.in_double(arguments) | ({"tol": 1e-10} if "tol" in arguments else {})
    exact = test_gpu.runner(call, "torch", precise, "cpu")()
    error = max(float((g.cpu().double() - e.double()).norm() / e.double().norm()) for g, e in zip(got, exact, strict=True))
    alone = all(test_gpu.equal(test_gpu.runner(call, backend, arguments | {k: arguments[k][n:n + 1] for k in rows}, DEVICE)(),
                               tuple(g[n:n + 1] for g in got)) for n in range(len(got[0]))) if rows else True
    again = all(test_gpu.equal(run(), got) for _ in range(5))
    in_graph = not ON_GPU or test_gpu.equal(test_gpu.replayed(run), got)
    emit("smoke", ok=error <= law and alone and again and in_graph and took, case=call, backend=backend, own_kernel=took,
         error=error, law=law, alone=alone, again=again, graph=in_graph, seconds=round(time.time() - began, 1))


if __name__ == "__main__":
    only = sys.argv[1:]
    runs = test_gpu.RUNS if ON_GPU else [(call, "cpu") for call in test_gpu.CALLS]
    jobs = [(f"{call} {backend}", lambda call=call, backend=backend: check(call, backend))
            for call, backend in runs if not only or test_gpu.op_of(call) in only]
    in_children(jobs, 90, 1 if only else 6)
