"""`alps-fast profile` of a run, its trace, the roofline, and the step that Nsight Compute is pointed at; as a user calls them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch.autograd import profiler

from alps_fast import energies
from alps_fast.bench import common, roofline
from alps_fast.bench.common import Measure, Work
from alps_fast.cli import main
from alps_fast.ops.philox_normal import philox_normal
from alps_fast.profile import sampling
from alps_fast.profile.work import GPUS
from alps_fast.samplers import alps

TINY = ["--chains", "2", "--side", "16", "--levels", "2", "--steps", "3"]


def call(*args: object) -> Result:
    return CliRunner().invoke(main, ["profile", *map(str, args)])


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    path = tmp_path / "prior.safetensors"
    energies.save(energies.GaussianEnergy(0.0, 0.5), path)
    return path


@pytest.mark.parametrize(("task", "op"), [("inpaint", "pixel"), ("deblur", "fourier"), ("mri", "sense")])
def test_a_run_by_shares(task: str, op: str, prior: Path, tmp_path: Path) -> None:
    trace = tmp_path / "new" / "run.json"
    result = call("--task", task, "--energy", prior, *TINY, "--trace", trace, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["steps"] == 6 and found["seconds"] > 0 and not found["on_gpu"] and found["workload"]["task"] == task
    rows = {row["op"]: row for row in found["ops"]}
    calls = rows[f"alps_fast::langevin_{op}"]["calls"]
    assert calls == 7 if op == "pixel" else calls > 7  # the start, then a step each; else solved for what these are around, too
    assert rows["alps_fast::moments"]["calls"] == (2 + 5 if op == "sense" else 1 + 3)  # of the draw, and over chains
    assert sum(row["share"] for row in rows.values()) + found["outside"] == pytest.approx(1)
    assert all(0 <= row["share"] < 1 for row in rows.values()) and 0 < found["outside"] < 1
    assert any(event["name"] == f"alps_fast::langevin_{op}" for event in json.loads(trace.read_text())["traceEvents"])


def test_shares_as_a_table(prior: Path) -> None:
    lines = call("--energy", prior, *TINY).stdout.splitlines()
    assert lines[0].startswith("6 steps in ") and "on cpu" in lines[0]
    assert any(line.startswith("alps_fast::langevin_pixel ") and line.endswith("%") for line in lines)
    assert lines[-2].startswith("Python, between ops") and lines[-1].startswith("a step here: 1 langevin_pixel and ")


def event(cat: str, name: str, ts: float, dur: float, tid: int = 1, **args: Any) -> dict[str, Any]:
    return {"ph": "X", "cat": cat, "name": name, "ts": ts, "dur": dur, "tid": tid, "args": args}


def test_kernels_belong_to_the_op_that_launched_them() -> None:
    """A trace as CUPTI gives it: two launches inside an op of ours, one by torch, one from autograd's own thread."""
    found = sampling.shares({"traceEvents": [
        event("user_annotation", sampling.RUN, 0, 1000),
        event("gpu_user_annotation", sampling.RUN, 0, 900, 7),
        event("cpu_op", "aten::to", 10, 100),
        event("user_annotation", "alps_fast::ridge_grad", 20, 50),  # within another, and its own all the same
        event("cuda_driver", "cuLaunchKernelEx", 30, 5, correlation=1),
        event("cuda_runtime", "cudaLaunchKernel", 40, 5, correlation=2),
        event("cpu_op", "aten::add", 200, 30),
        event("cpu_op", "aten::inner", 205, 10),
        event("cuda_runtime", "cudaLaunchKernel", 206, 5, correlation=3),
        event("cpu_op", "autograd::engine", 300, 400, 2),
        event("cuda_runtime", "cudaLaunchKernel", 310, 5, 2, correlation=4),
        event("kernel", "k1", 50, 100, 7, correlation=1),
        event("kernel", "k2", 150, 200, 7, correlation=2),
        event("kernel", "k3", 350, 50, 7, correlation=3),
        event("gpu_memset", "Memset", 400, 10, 7, correlation=4),
        event("cpu_op", "aten::earlier", -50, 20),
    ]})
    rows = {row["op"]: (row["calls"], row["host_seconds"], row["gpu_seconds"], row["gpu_kernels"], row["share"])
            for row in found["ops"]}
    micro = 1e-6
    assert rows == {"alps_fast::ridge_grad": pytest.approx((1, 50 * micro, 300 * micro, 2, 0.3)),
                    "aten::add": pytest.approx((1, 30 * micro, 50 * micro, 1, 0.05)),
                    "autograd::engine": pytest.approx((1, 0, 10 * micro, 1, 0.01)),
                    "aten::to": pytest.approx((1, 50 * micro, 0, 0, 0))}
    assert next(iter(rows)) == "alps_fast::ridge_grad" and found["on_gpu"] and found["outside"] == pytest.approx(0.64)


def test_ops_are_ranges_while_somebody_profiles_and_nothing_else() -> None:
    with profiler.profile(acc_events=True) as seen:
        philox_normal(torch.arange(2), 4, 0, 0)
    assert [e.name for e in seen.function_events if "alps_fast" in e.name] == ["alps_fast::philox_normal"]
    assert not profiler._is_profiler_enabled


# --- the roofline --------------------------------------------------------------------------------------------------

def test_roofline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def adding(measure: Measure) -> None:
        x = torch.ones(64)
        never = {"plain": lambda: pytest.fail("a roofline needs no baseline")}
        measure("adding, 64", "torch", lambda: x + 1, never, Work(512, 64))

    monkeypatch.setattr(common, "cases", lambda: [*common._cases_of("adding", adding), *common._cases_of("alps_all", adding)])
    monkeypatch.setattr(common, "speeds", lambda device: {"copy": 1e10, "gemm_float32": 1e11, "gemm_bfloat16": 1e12})
    file = tmp_path / "roof.png"
    result = call("--roofline", file, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    cpu = [p for p in found["points"] if p["where"] == "CPU"]
    assert len(cpu) == 1 and cpu[0].pop("seconds") > 0
    assert list(cpu[0].values()) == ["adding", "adding, 64", "CPU", "measured", 512, 64]
    modelled = [p for p in found["points"] if p["kind"] == "modelled"]
    assert {p["where"] for p in modelled} == {gpu.name for gpu in GPUS}
    assert {"langevin_pixel", "ridge_grad", "langevin_fourier", "langevin_sense_cg"} <= {p["op"] for p in modelled}
    for p in modelled:
        bandwidth = next(gpu.bandwidth for gpu in GPUS if gpu.name == p["where"])
        assert p["bytes"] / p["seconds"] <= 1.0001 * bandwidth
    with Image.open(file) as image:
        assert min(image.size) > 500 and len(image.convert("RGB").getcolors(1 << 24)) > 100


def test_every_op_with_a_benchmark_has_a_point() -> None:
    names = [roofline.op_of(case) for case in roofline.cpu_cases()]
    assert {"philox_normal", "langevin_pixel", "langevin_fourier", "langevin_sense", "langevin_sense_cg", "ridge_grad",
            "ridge_langevin", "conv_grad", "moments"} == set(names) and len(names) == len(set(names))


@pytest.mark.gpu
def test_gpu_points_are_measured() -> None:
    points = roofline.on_gpu()
    assert {p.op for p in points} == {case.op for case in roofline.gpu_cases()}
    for p in points:
        assert p.kind == "measured" and p.seconds > 0


# --- one step ------------------------------------------------------------------------------------------------------

def test_nsight_compute_is_pointed_at_one_step(prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(call("--ncu", "--energy", prior, *TINY).stdout)
    assert words[0] == "ncu" and words[words.index("--profile-from-start") + 1] == "off"
    command = words[words.index("alps-fast"):]
    assert command[:3] == ["alps-fast", "profile", "--one-step"] and command[3:] == ["--energy", str(prior), *TINY]
    seen = []
    steps = alps.steps
    monkeypatch.setattr(alps, "steps", lambda *args, **how: seen.append(args) or steps(*args, **how))
    result = CliRunner().invoke(main, command[1:])
    assert result.exit_code == 0, result.output
    assert len(seen) == 2  # one to warm up


@pytest.mark.gpu
def test_the_step_is_between_start_and_stop_with_its_ops_as_ranges(prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVTX ranges themselves are seen by Nsight alone; that they are on is torch's flag, which names ops."""
    seen: list[Any] = []
    monkeypatch.setattr(torch.cuda.profiler, "start", lambda: seen.append("start"))
    monkeypatch.setattr(torch.cuda.profiler, "stop", lambda: seen.append("stop"))
    steps = alps.steps
    monkeypatch.setattr(alps, "steps", lambda *args, **how: seen.append(profiler._is_profiler_enabled) or steps(*args, **how))
    assert call("--one-step", "--energy", prior, *TINY).exit_code == 0
    assert seen == [False, "start", True, "stop"]


@pytest.mark.parametrize(("arguments", "named"), [
    (["--roofline", "x.png", "--ncu"], "profile: got --roofline and --ncu"),
    (["--one-step", "--op", "moments"], "profile: got --one-step and --op"),
    (["--emulate", "--op", "moments", "--chains", "3"], "chains: got it with --emulate"),
    (["--static", "--levels", "9"], "levels: got it with --static"),
    (["--roofline", "x.png", "--task", "mri"], "task: got it with --roofline"),
    (["--update", "--arch", "sm_80"], "update: got it with --arch sm_80"),
    (["--update", "--check"], "update: got it with --check"),
    (["--emulate", "--arch", "sm_80"], "arch: got sm_80 with --emulate"),
    (["--ncu", "--trace", "x"], "trace: got it with --ncu"),
    (["--roofline", "x.pdf"], "roofline: got x.pdf"),
    (["--energy", "nonsense"], "energy: got 'nonsense'"),
    (["--side", "8"], "--side"),
])
def test_wrong_arguments_are_named(arguments: list[str], named: str) -> None:
    result = call(*arguments)
    assert result.exit_code == 2 and named in result.stderr and result.stderr.count("\n") == 1


def test_what_needs_the_repository_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alps_fast.cli.profile.CHECKOUT", tmp_path)
    for option in ("--static", "--emulate", "--check"):
        result = call(option)
        assert result.exit_code == 1 and f"{option} needs the repository, with lab/ and csrc/" in result.stderr
        assert result.stderr.count("\n") == 1


def test_the_package_imports_no_benchmark_and_no_laboratory() -> None:
    """Commands do, when they are called."""
    package = Path(sampling.__file__).parents[1]
    for path in package.rglob("*.py"):
        imported = re.findall(r"^ *(?:from|import) +((?:\.+|alps_fast\.)?bench\b|lab\b)", path.read_text(), re.M)
        assert not imported or (path.parent.name == "cli" and "\nfrom ..bench" not in path.read_text()), path
