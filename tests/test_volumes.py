"""`alps-fast reconstruct` from scanner files to results: volumes, slices that fail, every format that is written, and units."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from scans import Scan, bart, scan, write_bart, write_fastmri, write_ismrmrd

from alps_fast import energies, io
from alps_fast.cli import main, runs
from alps_fast.cli.prepare import named_steps, steps_for
from alps_fast.cli.scans import chosen_slices
from alps_fast.errors import ArgumentError
from alps_fast.io.bart import read_cfl
from alps_fast.operators.sense import centred_fft
from alps_fast.posterior import Posterior
from alps_fast.samplers import run

TINY = ["--levels", "2", "--steps", "1", "--chains", "4", "--draws", "4", "--no-progress"]
SCAN = scan(slices=3)


def call(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture
def mri(tmp_path: Path) -> list[object]:
    energies.save(energies.GaussianEnergy(0.0, 0.5), tmp_path / "prior.safetensors")
    return ["reconstruct", "--operator", "mri", "--energy", tmp_path / "prior.safetensors", *TINY]


def stored(path: Path, **changes: Any) -> Path:
    np.savez(path, **{"kspace": SCAN.kspace, "maps": SCAN.maps, "mask": SCAN.mask} | changes)
    return path


def test_every_format_of_results(tmp_path: Path, mri: list[object]) -> None:
    nibabel, pydicom, h5py = (pytest.importorskip(name) for name in ("nibabel", "pydicom", "h5py"))
    units = 1e-4
    stored(tmp_path / "k.npz", kspace=units * SCAN.kspace)
    outs = [arg for suffix in (".npz", ".h5", ".nii.gz", ".dcm", ".cfl", ".png") for arg in ("--out", tmp_path / f"x{suffix}")]
    result = call(*mri, tmp_path / "k.npz", "--map", *outs, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [s["label"] for s in told["slices"]] == ["slice 0", "slice 1", "slice 2"] and told["failed"] == []
    assert all(Path(file).stat().st_size > 0 for file in told["files"]) and len(told["files"]) == 2 + 3 + 3 + 8 + 1
    with np.load(tmp_path / "x.npz") as arrays:
        found = {name: arrays[name] for name in arrays}
    mean = found["mean"][:, 0]
    assert mean.shape == (3, 24, 20) and found["samples"].shape == (3, 4, 1, 24, 20) and found["slices"].tolist() == [0, 1, 2]
    error = np.abs(mean / units - SCAN.images).mean() / np.abs(SCAN.images).mean()
    assert error < 0.25 and 0.3 * units < found["scale"][0] < 2 * units  # in units of the input
    assert found["rhat"].shape[0] == 3 and found["chain_means"].shape == (3, 4, 1, 24, 20)
    assert found["noise_std"][1] == pytest.approx(told["slices"][1]["noise_std"])
    facts = json.loads(str(found["provenance"]))
    assert facts["seed"] == 0 and facts["slices"][2]["schedule"]["levels"] == 2 and "torch" in facts["versions"]
    with h5py.File(tmp_path / "x.h5") as file:
        assert all(np.array_equal(file[name][()], array) for name, array in found.items() if name != "provenance")
        assert json.loads(file["provenance"].asstr()[()]) == facts
    for kind, want in (("", np.abs(mean)), ("_std", found["magnitude_std"][:, 0]), ("_map", np.abs(found["map"][:, 0]))):
        nifti = nibabel.load(tmp_path / f"x{kind}.nii.gz")
        assert np.allclose(nifti.get_fdata(), want.transpose(1, 2, 0), rtol=1e-6)
        dicom = pydicom.dcmread(tmp_path / f"x{kind}.dcm")
        values = dicom.pixel_array * float(dicom.RescaleSlope) + float(dicom.RescaleIntercept)
        assert np.abs(values - want).max() <= 0.51 * np.ptp(want) / 65535 and dicom.NumberOfFrames == 3
    samples = read_cfl(tmp_path / "x_samples.cfl", "x")
    assert samples.shape == (24, 20, *[1] * 11, 3, 1, 4)
    assert np.array_equal(samples[:, :, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 3], found["samples"][2, 3, 0])
    assert (tmp_path / "x.png").read_bytes()[:4] == b"\x89PNG"


def test_a_slice_that_fails_is_named_and_the_rest_kept(tmp_path: Path, mri: list[object]) -> None:
    kspace = SCAN.kspace.copy()
    kspace[1] = 0
    stored(tmp_path / "k.npz", kspace=kspace)
    result = call(*mri, tmp_path / "k.npz", "--out", tmp_path / "x.npz")
    assert result.exit_code == 1 and "k.npz, slice 1 failed: kspace: got all zero in" in result.stderr
    with np.load(tmp_path / "x.npz") as found:
        assert found["slices"].tolist() == [0, 2] and found["mean"].shape == (2, 1, 24, 20)
        whole = found["mean"][1]
    stored(tmp_path / "none.npz", maps=0 * SCAN.maps)
    result = call(*mri, tmp_path / "none.npz", "--out", tmp_path / "y.npz")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "none of 3 slices can be had; slice 0: maps: got all zero in" in result.stderr
    result = call(*mri, tmp_path / "k.npz", "--out", tmp_path / "y.npz", "--slices", 1)
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and "k.npz[kspace], slice 1" in result.stderr
    result = call(*mri, tmp_path / "k.npz", "--out", tmp_path / "y.npz", "--slices", "2:")
    assert result.exit_code == 0
    with np.load(tmp_path / "y.npz") as found:
        assert np.array_equal(found["mean"][0], whole)  # a slice does not hang on those beside it


def test_slices_of_one_operator_run_together_and_are_what_they_are_alone(tmp_path: Path, mri: list[object],
                                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    found = runs._found
    monkeypatch.setattr(runs, "_found", lambda group, *rest: sizes.append(len(group)) or found(group, *rest))
    stored(tmp_path / "k.npz")
    known = ["--noise-std", 0.01, "--scale", 1]
    assert call(*mri, tmp_path / "k.npz", *known, "--map", "--out", tmp_path / "all.npz").exit_code == 0
    assert call(*mri, tmp_path / "k.npz", *known, "--map", "--slices", 1, "--out", tmp_path / "one.npz").exit_code == 0
    assert sizes == [3, 1]
    with np.load(tmp_path / "all.npz") as whole, np.load(tmp_path / "one.npz") as one:
        for name in ("mean", "std", "samples", "chi2", "magnitude_std"):
            assert np.array_equal(whole[name][1], one[name][0]), name
        np.testing.assert_allclose(whole["map"][1], one["map"][0], atol=1e-5)


def test_ctrl_c_keeps_the_slices_that_are_done_and_a_folder_goes_on_from_there(tmp_path: Path, mri: list[object],
                                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices that are done are read, not sampled again, and the volume is what it would have been."""
    found, read = runs._found, list[Path]()

    def stopped(group: list[runs.Piece], *rest: Any) -> list[runs.Found]:
        if group[0].number == 2:
            raise KeyboardInterrupt
        return found(group, *rest)

    stored(tmp_path / "k.npz")
    options = [*mri, tmp_path / "k.npz", "--noise-std", 0.01]
    with monkeypatch.context() as patched:
        patched.setattr(runs, "_found", stopped)
        result = call(*options, "--checkpoint", tmp_path / "c", "--out", tmp_path / "x.npz")
    assert result.exit_code == 1 and "interrupted: 1 of 3 slices" in result.stderr
    assert "the same command with --force goes on from" in result.stderr
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["slices"].tolist() == [0, 1]
    assert len(list((tmp_path / "c").iterdir())) == 2
    loaded = run.load_checkpoint
    monkeypatch.setattr(run, "load_checkpoint", lambda path, *rest: read.append(path) or loaded(path, *rest))
    assert call(*options, "--checkpoint", tmp_path / "c", "--out", tmp_path / "x.npz", "--force").exit_code == 0
    assert len(read) == 2 and call(*options, "--out", tmp_path / "y.npz").exit_code == 0
    with np.load(tmp_path / "x.npz") as one, np.load(tmp_path / "y.npz") as other:
        assert all(np.array_equal(one[name], other[name]) for name in ("mean", "std", "samples", "chain_means", "slices"))


def test_steps_by_option(tmp_path: Path, mri: list[object]) -> None:
    pytest.importorskip("sigpy")
    of = scan(slices=1, coils=4, height=24, width=40, middle=16)
    np.savez(tmp_path / "k.npz", kspace=of.kspace[0], mask=of.mask)
    steps = "recentre,compress=3,maps=2,normalise"
    result = call(*mri, tmp_path / "k.npz", "--prepare", steps, "--out", tmp_path / "x.npz", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [words[:5] for words in told["steps_before"]] == ["echo ", "coils", "maps:", "maps:"] and told["image"] == [2, 24, 40]
    assert "two sets" in told["steps_before"][2]
    result = call(*mri, tmp_path / "k.npz", "--prepare", "none", "--out", tmp_path / "x.npz", "--force")
    assert result.exit_code == 2 and "maps: got none in" in result.stderr


@pytest.mark.parametrize(("text", "says"), [
    ("whiten", "'whiten'; wanted none, or some of prewhiten, oversampling"),
    ("recentre=2", "'recentre=2'; wanted recentre alone"),
    ("maps=two", "'maps=two'; wanted a number"), ("maps=1.5", "'maps=1.5'; wanted maps= and a whole number"),
    ("prewhiten", "prewhiten, and no noise in k.npz; wanted a file with a noise scan")])
def test_steps_that_are_none(text: str, says: str) -> None:
    data = io.KSpace(*(torch.from_numpy(v) for v in (SCAN.kspace[0], SCAN.maps, SCAN.mask)), source="k.npz")
    with pytest.raises(ArgumentError, match=f"^prepare: got {says}"):
        steps_for(data, named_steps(text), None)


def test_several_inputs(tmp_path: Path, mri: list[object]) -> None:
    one = stored(tmp_path / "a.npz", kspace=SCAN.kspace[0])
    two = write_bart(tmp_path / "b", bart(SCAN.kspace[:1]))
    np.save(tmp_path / "maps.npy", SCAN.maps)
    result = call(*mri, one, two, "--maps", tmp_path / "maps.npy", "--out", tmp_path / "{}_x.npz", "--json")
    assert result.exit_code == 0, result.output
    assert [found["files"] for found in json.loads(result.stdout)] == [[str(tmp_path / f"{n}_x.npz")] for n in "ab"]
    posteriors = [Posterior.load(tmp_path / f"{n}_x.npz") for n in "ab"]
    assert torch.equal(posteriors[0].mean, posteriors[1].mean)
    result = call(*mri, one, two, "--out", tmp_path / "x.npz")
    assert result.exit_code == 2 and "out: got" in result.stderr and "{}" in result.stderr
    result = call(*mri, two, "--maps", tmp_path / "maps.npy", "--out", tmp_path / "b.cfl", "--force")
    assert result.exit_code == 2 and "another file than INPUT" in result.stderr


def test_posteriors_in_hdf5(tmp_path: Path, mri: list[object]) -> None:
    pytest.importorskip("h5py")
    stored(tmp_path / "k.npz", kspace=SCAN.kspace[0])
    assert call(*mri, tmp_path / "k.npz", "--out", tmp_path / "x.npz", "--out", tmp_path / "x.h5").exit_code == 0
    one, two = Posterior.load(tmp_path / "x.npz"), Posterior.load(tmp_path / "x.h5")
    assert torch.equal(one.samples, two.samples) and torch.equal(one.std, two.std) and one.schedule == two.schedule
    with np.load(tmp_path / "x.npz") as arrays:
        assert np.array_equal(arrays["std"], one.std) and np.array_equal(arrays["phase_std"], one.phase_std)


def body() -> Scan:
    """Four coils that see a body in the middle half of the readout, which is oversampled; sixteen columns in the middle."""
    of = scan(slices=1, coils=4, height=64, width=40, middle=16)
    images = of.images * (np.abs(np.arange(64) - 32) < 14)[:, None] * (np.abs(np.arange(40) - 20) < 17)
    rng = np.random.default_rng(3)
    noise = 0.005 * (rng.normal(size=of.kspace.shape) + 1j * rng.normal(size=of.kspace.shape))
    clean = centred_fft(torch.from_numpy(images)[:, None] * torch.from_numpy(of.maps)).numpy()
    return of._replace(images=images, kspace=((clean + noise) * of.mask).astype(np.complex64))


@pytest.mark.parametrize("kind", ["fastMRI", "ISMRMRD"])
def test_scanner_files_without_maps(tmp_path: Path, mri: list[object], kind: str) -> None:
    for module in ("h5py", "sigpy", *(["ismrmrd"] if kind == "ISMRMRD" else [])):
        pytest.importorskip(module)
    of, path = body(), tmp_path / "k.h5"
    if kind == "fastMRI":
        write_fastmri(path, of)
    else:
        write_ismrmrd(path, of, noise=0.005 * (0.8 * 2) ** 0.5)  # its dwell time is half as long
    result = call(*mri, path, "--chains", 4, "--out", tmp_path / "x.h5", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    words = " ".join(told["steps_before"])
    assert "cut from 64 to 32" in words and "ESPIRiT" in words and ("prewhitened" in words) == (kind == "ISMRMRD")
    if kind == "ISMRMRD":
        assert told["noise_from"] == "measured" and told["noise_std"] == pytest.approx(0.005, rel=0.05)
    found = Posterior.load(tmp_path / "x.h5").mean[0].abs().numpy()
    truth = np.abs(of.images[0, 16:48])
    assert found.shape == (32, 40)
    assert np.corrcoef(found.ravel(), truth.ravel())[0, 1] > 0.97
    assert np.linalg.norm(found - truth) / np.linalg.norm(truth) < 0.25  # in units of the file


@pytest.mark.parametrize(("text", "wanted"), [(None, [0, 1, 2, 3]), ("2", [2]), ("1:3", [1, 2]), (":2", [0, 1]), ("2:", [2, 3]),
                                              ("0:4:2", [0, 2]), ("-1:", [3])])
def test_slices_by_option(text: str | None, wanted: list[int]) -> None:
    assert chosen_slices(text, 4, Path("k.h5")) == wanted


@pytest.mark.parametrize("text", ["4", "", "x", "1:x", "3:1", "0:4:0", "1:2:3:4", "-1"])
def test_slices_that_are_none(text: str) -> None:
    with pytest.raises(ArgumentError, match=f"^slices: got '{text}'"):
        chosen_slices(text, 4, Path("k.h5"))


@pytest.mark.parametrize(("options", "word"), [(["--checkpoint", "{}/k.npz"], "checkpoint"), (["--slices", "7"], "slices"),
                                               (["--axes", "shw"], "axes"), (["--dataset", "x"], "dataset"),
                                               (["--maps", "none.npy"], "maps")])
def test_options_that_do_not_fit(tmp_path: Path, mri: list[object], options: list[str], word: str) -> None:
    stored(tmp_path / "k.npz")
    result = call(*mri, tmp_path / "k.npz", *(option.format(tmp_path) for option in options))
    assert result.exit_code == 2 and result.stderr.count("\n") == 1 and f"{word}: got" in result.stderr
