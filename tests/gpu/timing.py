"""Device times of the benchmarks' cases, by each backend: calls in a CUDA graph, beside calls asked for one after another
(which is what a user sees without graphs), baselines the same way, and the floor from ceilings measured in the same run.

python timing.py first|more|compiled|OP ...
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from common import DEVICE, ON_GPU, OUT, emit, in_children

from alps_fast.bench import common as bench
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT

ROUNDS, EAGER_ROUNDS = 11, 5
WARM_SECONDS = 1.0


def microseconds(run: Callable[[], object]) -> tuple[float, bool, float]:
    """Of one call as `bench.contender` takes it, whether that is a graph, and of calls asked for one after another."""
    device = torch.device(DEVICE)
    timed = bench.contender(run, device)
    eager = bench.Contender(lambda: [run() for _ in range(timed.calls)], timed.calls)
    took = [statistics.median(bench.seconds_of(one, device) for _ in range(rounds if ON_GPU else 1))
            for one, rounds in ((timed, ROUNDS), (eager, EAGER_ROUNDS))]
    return 1e6 * took[0], timed.captured, 1e6 * took[1]


def ceilings() -> dict[str, float]:
    """Bytes a second of a copy, operations a second of torch's products."""
    if not ON_GPU:
        return {"copy": 1e10, "bf16": 1e12, "tf32": 5e11, "fp32": 1e11}  # for a trial: any
    warm, until = torch.randn(8192, 8192, device=DEVICE), time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < until:  # an idle GPU's clock takes a while to rise
        warm @ warm
        torch.cuda.synchronize()

    def best(run: Callable[[], object]) -> float:  # a graph copies by other means than a call does, and more slowly
        captured, _, eager = microseconds(run)
        return min(captured, eager)

    top = {"copy": 1e6 * (1 << 32) / best(bench.copier(1 << 32, torch.device(DEVICE)))}
    for name, dtype, tf32 in (("bf16", torch.bfloat16, False), ("tf32", torch.float32, True), ("fp32", torch.float32, False)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = torch.randn(2, 8192, 8192, device=DEVICE).to(dtype)
        top[name] = 2e6 * 8192**3 / best(lambda a=a, b=b: a @ b)
    torch.backends.cuda.matmul.allow_tf32 = False
    return top


@dataclass
class Timed(bench.Measure):
    """In the place of `Measure`: rows of device times against floors."""

    top: dict[str, float] = field(default_factory=dict)
    rate: str = "fp32"  # of `top`, that bounds the case's operations
    with_baselines: bool = True
    compiled: bool = False

    def __call__(self, case: str, backend: str, run: Callable[[], object], baselines: dict[str, Callable[[], object]],
                 work: bench.Work, rounds: int = 31, gemm: torch.dtype | None = None,
                 peak: float | None = None) -> list[bench.Row]:
        us, captured, eager = microseconds(run)
        floor = max(work.bytes / self.top["copy"], work.flops / self.top[self.rate]) * 1e6
        emit("time", case=case, backend=backend, us=us, captured=captured, eager_us=eager, floor_us=floor, of_floor=floor / us,
             GBs=work.bytes / us / 1e3, TFs=work.flops / us / 1e6)
        for name, baseline in (baselines if self.with_baselines else {}).items():
            theirs, captured, eager = microseconds(baseline)
            emit("base", case=case, backend=backend, baseline=name, us=theirs, captured=captured, eager_us=eager,
                 ratio=theirs / us)
        return []

    def compile(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return torch.compile(function) if self.compiled else function


class Timing(NamedTuple):
    """A function of bench_<module>.py with its arguments, and what bounds its operations; without a function its first case."""

    module: str
    rate: str
    options: dict[str, Any] | None

    def run(self, measure: Timed) -> None:
        torch.manual_seed(0)
        if self.options is None:
            bench.select((self.module + "[",), True)[0].run(measure)
            return
        module = importlib.import_module(f"alps_fast.bench.bench_{self.module}")
        getattr(module, f"test_{self.module}")(measure, **self.options)


def conv(images: int, size: int, precision: str = "fast") -> Timing:
    return Timing("conv_grad", "bf16" if precision == "fast" else "tf32",
                  {"images": images if ON_GPU else 1, "size": size if ON_GPU else 16, "precision": precision})


def ridge(name: str, *shape: int) -> Timing:
    return Timing("ridge_langevin", "fp32", {"name": name, "shape": shape if ON_GPU else (1, 16, 16, shape[3])})


def sense(chains: int, size: int, coils: int) -> Timing:
    return Timing("langevin_sense", "tf32", {"chains": chains if ON_GPU else 1, "size": size if ON_GPU else 32, "coils": coils,
                                             "noise": AVERAGED})


def sense_cg(chains: int, size: int, coils: int) -> Timing:
    return Timing("langevin_sense_cg", "fp32", {"chains": chains if ON_GPU else 1, "size": size if ON_GPU else 32,
                                                "coils": coils})


def pixel(chains: int, size: int, noise: int) -> Timing:
    return Timing("langevin_pixel", "fp32", {"chains": chains if ON_GPU else 2, "size": size if ON_GPU else 16, "noise": noise})


def philox(chains: int, n: int) -> Timing:
    return Timing("philox_normal", "fp32", {"chains": chains if ON_GPU else 1, "n": n if ON_GPU else 256})


FIRST = (  # most informative first
    conv(192, 64, "high"), conv(192, 64), conv(16, 64), ridge("natural-ridge", 64, 64, 64, 3), sense(16, 128, 8),
    pixel(64, 256, AVERAGED), Timing("langevin_fourier", "fp32", None), sense_cg(16, 128, 8),
    ridge("brain-ridge", 16, 128, 128, 2), conv(48, 256), conv(16, 320),
)
MORE = (
    pixel(64, 64, AVERAGED), pixel(64, 256, INDEPENDENT), sense(1, 128, 8), sense(64, 128, 8), sense(16, 320, 12),
    sense_cg(1, 320, 12), conv(4, 64), conv(16, 320, "high"), conv(16, 64, "high"), ridge("natural-ridge", 16, 256, 256, 3),
    ridge("natural-ridge", 1, 256, 256, 3), philox(64, 3 * 256**2),
    *(Timing(op, "fp32", None) for op in ("philox_normal", "moments", "ridge_grad")),
)
COMPILED = tuple(case for case in FIRST if case.module in ("conv_grad", "ridge_langevin"))
PARTS = {"first": FIRST, "more": MORE, "compiled": COMPILED}


def job(case: Timing, backend: str, top: dict[str, float], with_baselines: bool, compiled: bool) -> None:
    os.environ["ALPS_FAST_BACKEND"] = backend
    measure = Timed(device=torch.device(DEVICE), top=top, rate=case.rate, with_baselines=with_baselines, compiled=compiled)
    case.run(measure)


if __name__ == "__main__":
    part, ops = sys.argv[1], sys.argv[1:]
    kept = OUT / "ceilings.json"
    if not kept.exists():
        OUT.mkdir(parents=True, exist_ok=True)
        in_children([("ceilings", lambda: kept.write_text(json.dumps(ceilings())))], 60)
    top = json.loads(kept.read_text())
    emit("ceilings", **top)
    jobs, backends = [], os.environ.get("GPU_RUN_BACKENDS", "cuda triton").split() if ON_GPU else ["cpu"]
    for case in PARTS.get(part, [case for case in FIRST + MORE if case.module in ops]):
        has_triton = case.module not in ("langevin_fourier", "langevin_sense_cg") and part != "compiled"
        for backend in backends:
            if backend == "triton" and not has_triton:
                continue
            first = backend == backends[0]
            jobs.append((f"{case} {backend}", lambda case=case, backend=backend, first=first: job(
                case, backend, top, first, part == "compiled")))
    in_children(jobs, 120 if part == "compiled" else 45)
