"""`python -m benchmarks.mri`: all methods on a small slice, gone on from, and shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from alps_fast import ArgumentError, data
from benchmarks.mri import __main__ as command
from benchmarks.mri import peers, real, show
from benchmarks.mri.figures import Estimate, figures
from benchmarks.mri.images import Truth, placed
from benchmarks.mri.methods import METHODS, QUICK
from benchmarks.mri.problems import CELLS, Cell, problem
from benchmarks.records import append, read

X = data.brain()[:, 60:92, 60:100]
TRUTH = Truth("small", "held out", X / X.abs().max())


def test_a_table(tmp_path: Path) -> None:
    """Every method but those whose packages are missing, which say so; a second run has nothing left to do."""
    pytest.importorskip("arviz")
    pytest.importorskip("skimage")
    out, cells = tmp_path / "x.jsonl", [Cell("2-D", 4, 20)]
    for _ in range(2):
        command.run(out, command.tasks([TRUTH], METHODS, cells), QUICK, float("inf"))
        found = {record["method"]: record for record in read(out)}
        assert len(out.read_text().splitlines()) == len(METHODS) == len(found)
    for name, record in found.items():
        assert ("missing" in record) == (peers.missing(name) is not None)
        assert "missing" in record or (10 < record["psnr"] < 40 and record["cpu"] >= 0)
    ours = found["ours, MMSE, brain-ridge"]
    assert 0.3 < ours["cover 50"] < ours["cover 90"] <= 1 and ours["psnr"] > found["zero-filled"]["psnr"]
    lines = list(show.markdown(read(out), "held out"))
    assert len([line for line in lines if line.startswith("| ")]) == 1 + len(METHODS) and "2-D R = 4, SNR 20" in lines[0]


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    append(out, {"image": "a", "cell": "b", "method": "c", "psnr": 1.0})
    with out.open("a") as file:
        file.write('{"image": "a", "ce')
    append(out, {"image": "d", "cell": "b", "method": "c", "psnr": 2.0})
    assert [record["image"] for record in read(out)] == ["a", "d"]


OTHERS = {"empty": b"", "a picture": b"\x89PNG\r\n\x1a\n\x00\xff", "prose": b"# A page\n\nof text\n", "numbers": b"3\n[1, 2]\n",
          "nothing": b"null\n", "of others": b'{"a": 1}\n', "a beginning": b'{"image": "a", "ce'}


@pytest.mark.parametrize("of", [*OTHERS, "a folder", "not there"])
@pytest.mark.parametrize("options", [["--show"], ["--images", "1"]], ids=" ".join)
def test_what_is_no_file_of_records_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                               monkeypatch: pytest.MonkeyPatch, of: str, options: list[str]) -> None:
    """And left alone."""
    path = tmp_path / "x"
    if of == "a folder":
        path.mkdir()
    elif of in OTHERS:
        path.write_bytes(OTHERS[of])
    monkeypatch.setattr(command, "held_out", lambda: iter([TRUTH]))
    if options != ["--show"] and of in ("empty", "a beginning", "not there"):
        command.main(["--out", str(path), *options, "--methods", "zero-filled", "--cells", "1"])
        assert [record["method"] for record in read(path)] == ["zero-filled"]
        command.main(["--out", str(path), "--show"])
        assert "| zero-filled | 1 |" in capsys.readouterr().out
        return
    with pytest.raises(SystemExit) as ended:
        command.main(["--out", str(path), *options])
    assert ended.value.code == 2 and f"error: --out: got {path}" in capsys.readouterr().err
    assert of not in OTHERS or path.read_bytes() == OTHERS[of]


@pytest.mark.parametrize("arguments, word", [
    (["--images", "-3"], "--images"), (["--cells", "0"], "--cells"), (["--chains", "1"], "--chains"), (["--show"], "--out"),
    (["--minutes", "nan"], "--minutes"), ([], "--out"), (["--real", "none.npy"], "none.npy"),
    (["--out", f"{__file__}/x"], "--out")])
def test_wrong_arguments_are_named(capsys: pytest.CaptureFixture[str], arguments: list[str], word: str) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(arguments)
    assert ended.value.code == 2 and word in capsys.readouterr().err.splitlines()[-1]


def test_runs_of_other_chains_are_not_averaged(tmp_path: Path) -> None:
    out = tmp_path / "x.jsonl"
    append(out, {"image": "a", "kind": "held out", "cell": "b", "method": "c", "psnr": 1.0, "chains": 16})
    with pytest.raises(ArgumentError, match="--out: .* a run of 4 chains; it has 16"):
        command.run(out, iter([]), QUICK, float("inf"))


@pytest.mark.parametrize("cell", CELLS[:4], ids=str)
def test_a_cell_measures_what_it_says(cell: Cell) -> None:
    truth = TRUTH if cell.pattern == "2-D" else Truth("wide", "held out", data.brain())
    of = problem(truth, cell)
    assert abs(float(of.mask.mean()) * cell.acceleration - 1) < 0.02
    noise = (of.y - of.operator.forward(truth.x))[:, of.mask > 0]
    eta = float(truth.x[0].abs()[truth.inside].mean()) / cell.snr
    assert of.operator.noise_std == pytest.approx(eta)
    assert float(noise.abs().square().mean() / 2) ** 0.5 == pytest.approx(eta, rel=0.1)  # of 160 samples of eight coils at least
    same = problem(truth, cell)
    assert torch.equal(same.y, of.y) and torch.equal(same.mask, of.mask) and of.judge(truth.x) == 0


def test_figures_of_what_is_known() -> None:
    """An error of .1 in every real and imaginary part; ends that hold it, and ends that do not."""
    off = torch.full_like(TRUTH.x, 0.1 + 0.1j)
    ends = {0.5: (TRUTH.x - 0.01 - 0.01j, TRUTH.x + 0.01 + 0.01j), 0.9: (TRUTH.x + off, TRUTH.x + 2 * off)}
    told = figures(Estimate(TRUTH.x + off, intervals=ends), TRUTH)
    assert told["psnr"] == pytest.approx(10 * np.log10(1 / 0.02), abs=1e-3) and told["cover 50"] == 1 and told["cover 90"] == 0
    assert told["nrmse"] == pytest.approx(float(off.norm() / TRUTH.x.norm()), rel=1e-5)
    assert float(placed("x", np.eye(40, dtype=np.float32) + 0.5, 1.0).abs().max()) == pytest.approx(1.0)


def test_a_scan_without_a_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sigpy")
    maps = data.coil_maps(4, 48, 40)
    x = data.brain()[:, 60:108, 60:100]
    mask = torch.zeros(48, 40)
    mask[::2], mask[12:36, 8:32] = 1, 1
    kspace = real.CartesianMRI(mask, maps, noise_std=1.0).forward(x)
    noise = 0.02 * torch.randn(kspace.shape, generator=torch.Generator().manual_seed(0), dtype=torch.complex64)
    np.save(tmp_path / "scan.npy", ((kspace + noise) * mask).numpy())
    command.on_scan(tmp_path / "scan.npy", tmp_path / "x.jsonl", QUICK, ["zero-filled", "ours, MMSE, brain-ridge"])
    printed, records = capsys.readouterr().out, read(tmp_path / "x.jsonl")
    assert "ESPIRiT" in printed and json.dumps(records[1])
    assert records[1]["chi2 held"] < records[0]["chi2 held"] and 0.5 < records[1]["held-out cover 90"] <= 1
