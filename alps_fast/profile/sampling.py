"""A sampling run under torch's profiler, and which op takes which share of it; and one step alone, for Nsight Compute."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.profiler import emit_nvtx
from torch.profiler import ProfilerActivity, profile, record_function

from .. import data, energies, operators
from ..limits import check_memory
from ..samplers import Sampler, alps
from ..samplers.run import Run
from ..schedule import Schedule
from . import launches

TASKS = ("inpaint", "deblur", "mri")
RUN = "alps_fast run"
OURS = "alps_fast::"
LAUNCHES = ("cuda_runtime", "cuda_driver")
ON_GPU = ("kernel", "gpu_memcpy", "gpu_memset")


@dataclass(frozen=True)
class Workload:
    """What is run: `chains` of a square image of this side, of noise, as what an image shows costs nothing."""

    task: str = "inpaint"
    energy: str | None = None  # a name or file; None: the best for the task
    chains: int = 16
    side: int = 64
    levels: int = 4
    steps: int = 5
    backend: str = "auto"
    precision: str = "high"

    def prepare(self, device: torch.device) -> tuple[Sampler, Tensor]:
        """The sampler, and a measurement on the device."""
        mri, side, g = self.task == "mri", self.side, torch.Generator().manual_seed(0)
        check_memory("side", side, 64 * side**2, device)
        name = ("brain" if mri else "natural") if self.energy is None else self.energy
        energy = energies.load(name, precision=self.precision, backend=self.backend)
        operator: operators.Operator
        if mri:
            mask = data.line_mask(side, side, 4, centre=side // 16)
            operator = operators.CartesianMRI(mask, maps=data.coil_maps(8, side, side), noise_std=0.05)
        elif self.task == "deblur":
            operator = operators.CircularBlur.gaussian(2.0, 0.05)
        else:
            operator = operators.Inpainting(data.pixel_mask(side, side, keep=0.4), noise_std=0.05)
        y = operator.forward(torch.randn(1, side, side, generator=g, dtype=torch.complex64 if mri else torch.float32))
        schedule = Schedule(sigma_max=100.0, sigma_min=10.0, levels=self.levels, steps=self.steps)  # few levels, so near ones
        sampler = Sampler(operator, energy, chains=self.chains, schedule=schedule, backend=self.backend, progress=False)
        return sampler, y.to(device)


def default_device() -> torch.device:
    """The GPU if torch sees one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_shares(workload: Workload, device: torch.device, plain: Callable[[Sampler, Tensor], dict[str, Any] | None],
               trace: Path | None = None) -> dict[str, Any]:
    """`shares` of a run, after a level that is not looked at; the Chrome trace goes to `trace`.

    plain: counts a step of what ours is held against.
    """
    sampler, y = workload.prepare(device)
    replace(sampler, schedule=Schedule(levels=1, steps=sampler.levels[0].steps))(y)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with profile(activities=activities, acc_events=True) as profiler, record_function(RUN):
        sampler(y)
        finish(device)
    with tempfile.TemporaryDirectory() as directory:
        path = trace or Path(directory, "trace.json")
        profiler.export_chrome_trace(str(path))
        found = shares(json.loads(path.read_text()))
    where = y if device.type == "cpu" else y.cpu()  # operators are counted, which every device runs alike
    step = {"plain": plain(sampler, where), "ours": launches.ours(sampler, y)}
    return {"device": str(device), "steps": sum(level.steps for level in sampler.levels), "a_step": step, **found}


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def shares(trace: dict[str, Any]) -> dict[str, Any]:
    """Wall seconds of the run in a Chrome trace of torch's, and of what op: calls, seconds on the host and on the GPU, share.

    Time inside an op of ours is that op's, and so are the kernels launched there; other time is that of the outermost torch op.
    The share is of GPU time where there are kernels, else of host time; both are of the run's wall time, so what no op takes
    is left over: Python, and on a GPU what it waits for.
    """
    events = [e for e in trace["traceEvents"] if e.get("ph") == "X"]
    run = next(e for e in events if e["name"] == RUN and e["cat"] == "user_annotation")
    host: dict[str, float] = defaultdict(float)
    gpu: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    kernels: dict[str, int] = defaultdict(int)
    launched: dict[int, str] = {}
    threads: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event["cat"] in ("cpu_op", "user_annotation", *LAUNCHES) and event is not run and _inside(event, run):
            threads[event["tid"]].append(event)
    for tid, some in threads.items():
        open_ops: list[tuple[float, str]] = []  # end and owner of the events around
        for event in sorted(some, key=lambda e: (e["ts"], -e["dur"])):
            while open_ops and open_ops[-1][0] <= event["ts"]:
                open_ops.pop()
            around = open_ops[-1][1] if open_ops else None
            if event["cat"] in LAUNCHES:
                launched[event["args"].get("correlation", -1)] = around or event["name"]
                continue
            owner = around
            if around is None or (event["name"].startswith(OURS) and not around.startswith(OURS)):
                owner = event["name"]
                calls[owner] += 1
                if tid == run["tid"]:  # of other threads the run's own one only waits, or goes on meanwhile
                    host[owner] += event["dur"]
                    if around is not None:
                        host[around] -= event["dur"]
            assert owner is not None
            open_ops.append((event["ts"] + event["dur"], owner))
    for event in events:
        if event["cat"] in ON_GPU:
            owner = launched.get(event["args"].get("correlation", -1), event["name"])
            gpu[owner] += event["dur"]
            kernels[owner] += 1
    on_gpu, counted = bool(gpu), gpu or host
    rows = [{"op": op, "calls": calls[op], "host_seconds": 1e-6 * host[op], "gpu_seconds": 1e-6 * gpu[op],
             "gpu_kernels": kernels[op], "share": counted.get(op, 0.0) / run["dur"]} for op in {**host, **gpu}]
    return {"seconds": 1e-6 * run["dur"], "ops": sorted(rows, key=lambda row: -row["share"]),
            "outside": 1 - sum(row["share"] for row in rows), "on_gpu": on_gpu}


def _inside(event: dict[str, Any], run: dict[str, Any]) -> bool:
    return run["ts"] <= event["ts"] <= run["ts"] + run["dur"]


def step_of(workload: Workload, device: torch.device) -> Callable[[], object]:
    """One Langevin step of the first level, to be called over and over."""
    sampler, y = workload.prepare(device)
    plan, rows = Run(sampler, y).planned(0)
    return lambda: alps.steps(plan.target, rows.x, rows.ids, plan.scalars[0], 1, looks=False)


def one_step(workload: Workload, device: torch.device) -> None:
    """A step to warm up, then one between cudaProfilerStart and -Stop, its ops as NVTX ranges; on a CPU just the steps."""
    step = step_of(workload, device)
    step()
    finish(device)
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(emit_nvtx())
            stack.enter_context(torch.cuda.profiler.profile())
        step()
        finish(device)
