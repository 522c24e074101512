"""`alps-fast bench`: its cases, rows and tables, with a stopwatch of few rounds; nothing is asserted of speed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from alps_fast.bench import common, scaling
from alps_fast.bench.common import Case, Measure, Work, parametrize
from alps_fast.cli import main
from alps_fast.energies import GaussianEnergy, load

COLUMNS = {"case", "device", "backend", "isa", "seconds", "baseline", "baseline_seconds", "ratio", "bytes", "flops",
           "roofline_fraction", "roofline", "captured", "threads", "commit"}
ROOT = Path(__file__).parents[1]


@parametrize("size", [8, 16])
@parametrize("a, b", [(1, 2), (3, 4)], ids=["low", "high"])
def adding(measure: Measure, a: int, b: int, size: int) -> None:
    x = torch.ones(size)
    measure(f"adding {a} + {b}, {size}", "torch", lambda: x * a + b, {"plain": lambda: x * a + b, "tuned": lambda: x.add(b)},
            Work(8 * size, 2 * size), rounds=2)


def products(measure: Measure) -> None:
    x = torch.ones(64, 64)
    measure("products", "torch", lambda: x @ x, {"plain": lambda: x @ x}, Work(3 * 4 * 64**2, 2 * 64**3), rounds=2,
            gemm=torch.float32)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two functions in place of the real ones, and small matrices."""
    monkeypatch.setattr(common, "cases", lambda: [*common._cases_of("adding", adding), *common._cases_of("products", products)])
    monkeypatch.setattr(common, "GEMM", 64)
    monkeypatch.setattr(common, "speeds", lambda device: {"copy": 1e9, "gemm_float32": 1e9, "gemm_bfloat16": 1e9})


def bench(*args: str) -> str:
    result = CliRunner().invoke(main, ["bench", "--no-progress", *args])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_every_benchmark_is_a_case() -> None:
    names = {case.name.split("[")[0] for case in common.cases()}
    for path in (ROOT / "benchmarks").glob("bench_*.py"):
        assert any(name.startswith(path.stem.removeprefix("bench_")) for name in names), path.name
        assert "pytest" not in path.read_text(), f"{path.name}: must run where pytest is not installed"


def test_cases_are_all_combinations_in_the_order_of_their_values() -> None:
    found = list(common._cases_of("adding", adding))
    assert [case.name for case in found] == ["adding[low-8]", "adding[low-16]", "adding[high-8]", "adding[high-16]"]
    measure = Measure()
    found[2].run(measure)
    assert [row["case"] for row in measure.rows] == ["adding 3 + 4, 8"] * 2


def test_rows(few: None) -> None:
    document = json.loads(bench("--json", "-"))
    assert {"machine", "threads", "commit", "copy", "gemm_float32", "gemm_bfloat16", "levels", "quick"} <= set(document)
    rows = document["rows"]
    assert len(rows) == 4 * 2 + 1
    for row in rows:
        assert set(row) == COLUMNS
        assert row["ratio"] == pytest.approx(row["baseline_seconds"] / row["seconds"])
        assert math.isfinite(row["roofline_fraction"]) and row["roofline_fraction"] > 0
    assert {row["roofline"] for row in rows if row["case"] == "products"} == {"gemm"}


def test_quick_takes_the_first_of_each_and_says_so(few: None) -> None:
    text = bench("--quick")
    assert "adding 1 + 2, 8" in text and "adding 3 + 4" not in text and "+ 2, 16" not in text
    assert "--quick" in text.splitlines()[2] and "products" in text
    assert bench("--quick", "--list").split() == ["adding[low-8]", "products"]


def test_chosen_cases_and_tables(few: None, tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.json"
    text = bench("--case", "high", "--markdown", "--json", str(file))
    assert {row["case"] for row in json.loads(file.read_text())["rows"]} == {"adding 3 + 4, 8", "adding 3 + 4, 16"}
    table = text.split("\n\n")[1].strip().splitlines()
    assert table[0] == "| case | backend | ms | over *plain* | over *tuned* | of the machine |"
    assert len(table) == 4 and len({line.count("|") for line in table}) == 1
    wrong = CliRunner().invoke(main, ["bench", "--case", "nonsense"])
    assert wrong.exit_code == 2 and "case" in wrong.stderr and wrong.stderr.count("\n") == 1


def test_a_case_that_fails_is_named_and_the_others_run(few: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(measure: Measure) -> None:
        raise AssertionError("computes something else")

    monkeypatch.setattr(common, "cases", lambda: [*common._cases_of("wrong", wrong), *common._cases_of("products", products)])
    file = tmp_path / "rows.json"
    result = CliRunner().invoke(main, ["bench", "--json", str(file), "--no-progress"])
    assert result.exit_code == 1 and "products" in result.stdout
    assert "computes something else" in result.stderr and result.stderr.endswith("failed: wrong\n")
    assert json.loads(file.read_text())["failed"] == ["wrong"]


def test_what_is_stopped_leaves_the_rows_so_far(few: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def stop(measure: Measure) -> None:
        raise KeyboardInterrupt

    cases = [*list(common.cases())[:2], Case("stop", stop)]
    monkeypatch.setattr(common, "cases", lambda: cases)
    file = tmp_path / "rows.json"
    result = CliRunner().invoke(main, ["bench", "--json", str(file), "--no-progress"])
    assert result.exit_code == 1
    assert [row["case"] for row in json.loads(file.read_text())["rows"]] == 2 * ["adding 1 + 2, 8"] + 2 * ["adding 1 + 2, 16"]
    assert result.stdout.count("adding 1 + 2") == 4 and result.stdout.count("baseline") == 1


def test_a_gpu_is_timed_by_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in's events: nothing is under way when the first is recorded; the last is waited for before the time is read."""
    done: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self) -> None:
            done.append("record")

        def synchronize(self) -> None:
            done.append("wait")

        def elapsed_time(self, other: Event) -> float:
            done.append("read")
            return 20.0 if self is not other else 0.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: done.append("idle"))
    gpu = torch.device("cuda")
    timed = common.Contender(lambda: done.append("run"), 4, True)
    assert common.seconds_of(timed, gpu) == pytest.approx(0.005)  # of a call
    assert done == ["idle", "record", "run", "record", "wait", "read"]
    done.clear()
    median = common.stopwatch(timed, lambda: done.append("before"), 2, 1, gpu)
    assert median == pytest.approx(0.005) and done == ["before", "idle", "record", "run", "record", "wait", "read"] * 3


@pytest.mark.gpu
def test_what_can_be_captured_is_timed_as_a_graph() -> None:
    gpu, x = torch.device("cuda"), torch.ones(1000, device="cuda")
    kernel, looks = (common.contender(run, gpu) for run in (lambda: x * 2, lambda: float(x.sum())))
    assert kernel.captured and kernel.calls > 1 and not looks.captured
    assert all(common.stopwatch(timed, lambda: None, 3, 1, gpu) > 0 for timed in (kernel, looks))
    assert torch.randn(3, device="cuda").isfinite().all()


def test_a_glance_ends_when_it_has_seen_enough() -> None:
    calls: list[int] = []
    timed = common.contender(lambda: calls.append(1), common.CPU)
    assert common.stopwatch(timed, lambda: None, 5, 2, common.CPU, enough=0.0) >= 0 and len(calls) == 1
    common.stopwatch(timed, lambda: None, 5, 2, common.CPU)
    assert len(calls) == 8


def test_a_device_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("torch sees a CUDA device")
    wrong = CliRunner().invoke(main, ["bench", "--device", "cuda", "--case", "philox"])
    assert wrong.exit_code == 2 and "device" in wrong.stderr and wrong.stderr.count("\n") == 1


def test_whole_runs_are_checked_against_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loops that ours are compared to compute the same; the cheapest case, one step, timed once."""
    from alps_fast.bench import bench_alps

    monkeypatch.setattr(bench_alps, "STEPS", 1)
    monkeypatch.setattr(common, "GEMM", 64)
    monkeypatch.setattr(common, "QUICK_ROUNDS", 1)
    case: Case = next(case for case in common.cases() if case.name == "alps_mri_ridge[1-128-8]")
    measure = Measure(quick=True, levels=1)
    case.run(measure)
    assert [row["baseline"] for row in measure.rows] == ["plain", "tuned"]
    assert measure.rows[0]["case"] == "MRI 128², 8 coils, 1 chain, brain-ridge, 1 of 50 levels"


# --- scaling -------------------------------------------------------------------------------------------------------

@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chains and sides at most."""
    monkeypatch.setattr(scaling, "CHAINS", (1, 2))
    monkeypatch.setattr(scaling, "SIDES", (8, 16))
    monkeypatch.setattr(scaling, "SIDE", 8)
    monkeypatch.setattr(scaling, "STEPS", (2, 3))


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_scaling(tiny: None, device: str, tmp_path: Path) -> None:
    text = bench("--scaling", str(tmp_path / "new"), "--device", device)
    found = json.loads((tmp_path / "new" / "scaling.json").read_text())
    assert {"machine", "threads", "commit", "isa"} <= set(found) and found["stopped"] == []
    assert [(r["series"], r["energy"], r["chains"], r["side"]) for r in found["rows"]] == list(scaling.points())
    for r in found["rows"]:
        assert 2 <= r["steps"] <= (3 if device == "cpu" else 50)
        assert r["seconds_per_step"] == pytest.approx(r["chains"] * r["seconds_per_chain"])
        assert r["seconds_per_chain"] == pytest.approx(r["side"] ** 2 * r["seconds_per_pixel"]) and r["seconds_per_step"] > 0
        assert r["known_bytes"] >= r["chains"] * 4 * 5 * r["side"] ** 2  # five states of one channel
        assert f"{1e3 * r['seconds_per_step']:.2f}" in text
    with Image.open(tmp_path / "new" / "scaling.png") as image:
        assert min(image.size) > 500


def test_scaling_knows_its_peak_memory() -> None:
    """64 chains of 256²: 5 states of 16.8 MB each; no smaller than two of them, which any step holds at once."""
    if not scaling.CLEAR.exists():
        pytest.skip("this system does not tell a peak")
    row = scaling.one(scaling.Point("chains", "natural-ridge", 64, 256), GaussianEnergy(0.0, 0.5), 2)
    assert row["peak_bytes"] > 0.4 * row["known_bytes"]


@pytest.mark.gpu
@pytest.mark.parametrize("energy", scaling.ENERGIES)
def test_scaling_knows_what_a_gpu_keeps(energy: str) -> None:
    """256 chains of 128²: torch reserves what is told, by the half and twice that."""
    point = scaling.Point("chains", energy, 256, 128)
    row = scaling.one_on_gpu(point, load(energy, precision="fast"), torch.device("cuda"))
    assert 0.5 < row["peak_bytes"] / row["known_bytes"] < 2


def test_scaling_stops_a_series_that_would_take_too_long(tiny: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scaling, "QUICK_BUDGET", 1e-9)
    text = bench("--quick", "--scaling", str(tmp_path))
    found = json.loads((tmp_path / "scaling.json").read_text())
    assert [(r["energy"], r["series"]) for r in found["rows"]] == [(e, s) for e in scaling.ENERGIES for s in ("chains", "sides")]
    assert len(found["stopped"]) == 4
    assert all(sentence in text for sentence in found["stopped"])
    assert "stopped before 2 chains of 8x8" in found["stopped"][0]


def test_scaling_is_asked_alone() -> None:
    wrong = CliRunner().invoke(main, ["bench", "--scaling", "somewhere", "--markdown"])
    assert wrong.exit_code == 2 and "scaling" in wrong.stderr and "--markdown" in wrong.stderr and wrong.stderr.count("\n") == 1
