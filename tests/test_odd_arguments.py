"""Arguments and files that nobody means: each is refused in one line with exit code 2, before memory or files are touched."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

import alps_fast as af
from alps_fast import energies, io, limits
from alps_fast.cli import main
from alps_fast.errors import ArgumentError
from alps_fast.io import children

TINY = ["--levels", "3", "--steps", "1", "--no-progress"]


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    energies.save(energies.GaussianEnergy(0.0, 0.5), tmp_path / "prior.safetensors")
    Image.fromarray(np.arange(180, dtype=np.uint8).reshape(12, 15)).save(tmp_path / "p.png")
    return tmp_path / "p.png", tmp_path / "prior.safetensors"


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2 and result.stdout == "" and result.stderr.count("\n") == 1, result.output
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize(("options", "word"), [
    (["denoise", "--out", "."], "out: got '.'"),
    (["denoise", "--out", ""], "out: got '.'"),
    (["denoise", "--out", ".."], "out: got '..'"),
    (["denoise", "--out", "/"], "out: got '/'"),
    (["denoise", "--out", "x" * 300], "out: got"),
    (["denoise", "--energy", ""], "energy: got ''"),
    (["denoise", "--energy", "x" * 300], "energy: got"),
    (["denoise", "--checkpoint", ""], "checkpoint: got"),
    (["denoise", "--checkpoint", "/dev/null"], "checkpoint: got /dev/null"),
    (["denoise", "--noise-std", "1e-300"], "noise_std: got 1e-300"),
    (["denoise", "--noise-std", "1e300"], "noise_std: got 1e+300"),
    (["denoise", "--chains", "999999999"], "chains × draws: got 999999999 × 20"),
    (["denoise", "--chains", "99999999999999999999"], "chains: got"),
    (["denoise", "--draws", "1000000000"], "chains × draws: got 8 × 1000000000"),
    (["denoise", "--thin", "1000000000"], "thin: got 1000000000"),
    (["denoise", "--levels", "1000000000"], "levels: got 1000000000"),
    (["denoise", "--steps", "1000000000"], "steps: got 1000000000"),
    (["denoise", "--sigma-min", "1e-200"], "sigma_min: got 1e-200"),
    (["denoise", "--sigma-max", "1e200"], "sigma_max: got 1e+200"),
    (["deblur", "--blur-std", "1e9"], "blur_std: got 1000000000.0"),
    (["deblur", "--motion", "1e9", "0"], "motion: got 1000000000.0"),
    (["superres", "--factor", "1000000000"], "y: got an image"),
    (["superres", "--factor", "100000"], "y: got an image"),
    (["inpaint", "--mask", ""], "mask: got"),
])
def test_odd_options_of_reconstruct(tmp_path: Path, files: tuple[Path, Path], options: list[str], word: str) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    picture, prior = files
    given = [] if "--energy" in options else ["--energy", str(prior)]
    began = time.monotonic()
    refused(CliRunner().invoke(main, ["reconstruct", str(picture), *given, *TINY, "--operator", *options]), word)
    assert time.monotonic() - began < 20 and {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_instruction_set_that_is_none_is_refused(tmp_path: Path, files: tuple[Path, Path]) -> None:
    pytest.importorskip("alps_fast._cpu")
    picture, prior = files
    args = ["reconstruct", picture, "--operator", "denoise", "--energy", prior, *TINY]
    done = subprocess.run([sys.executable, "-c", "from alps_fast.cli import main; main()", *args], capture_output=True, text=True,
                          env=os.environ | {"ALPS_FAST_ISA": "bogus"})
    assert done.returncode == 2 and done.stderr.startswith("Error: ALPS_FAST_ISA: got 'bogus'") and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*_posterior*"))


@pytest.mark.parametrize("of", [torch.tensor, np.array, np.float32])
def test_numbers_without_axes_are_numbers(of: Any) -> None:
    op = af.operators.Denoising(of(0.25))
    assert op.noise_std == 0.25 and isinstance(op.noise_std, float)
    assert af.Schedule(sigma_max=of(2.0), levels=of(3).astype(int) if of is np.float32 else of(3)) == af.Schedule(2.0, levels=3)
    assert torch.equal(af.operators.fourier.gaussian_psf(of(1.5)), af.operators.fourier.gaussian_psf(1.5))
    for wrong in (torch.tensor([0.1, -0.1]), torch.tensor([]), torch.tensor(0.1j), torch.tensor(-0.1), torch.tensor(torch.nan)):
        with pytest.raises(ArgumentError, match="^noise_std: got"):
            af.operators.Denoising(wrong)


@pytest.mark.parametrize("options", [{"sigma_min": 1e-200}, {"sigma_max": 1e200}, {"rho": 1e-9}, {"rho": 1e9}, {"levels": 10**9},
                                     {"steps": 10**9}, {"eta_steps": 10**9}, {"eta_max": 1e300}])
def test_schedules_whose_numbers_no_float_holds(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"^{next(iter(options))}: got"):
        af.Schedule(**options)


def test_a_schedule_below_float32_is_refused() -> None:
    for given in ((1e-200, 1e-201), (1e-200,)):
        with pytest.raises(ArgumentError, match="^sigma_m(in|ax): got 1e-20"):
            af.Schedule(*given)


def test_what_does_not_fit_in_memory_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory_of", lambda device: 1 << 20)
    y, energy = torch.zeros(1, 64, 64), energies.GaussianEnergy()
    with pytest.raises(ArgumentError, match="^chains × draws: got 64 × 1, which takes .* GB; wanted what fits"):
        af.sample(y, af.operators.Denoising(0.1), energy, chains=64, progress=False)
    with pytest.raises(ArgumentError, match="^y: got an image"):
        af.map_estimate(y, af.operators.SuperResolution(8, 0.1), energy, progress=False)


CHILDREN = {"crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "never ends": """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
while True: pass
""", "answers nonsense": "print('what?')", "answers nothing": "",
    "stops in the middle": "import json; print(json.dumps({'arrays': {'kspace': 1}}))"}


@pytest.mark.parametrize(("library", "script", "name"), [("h5py", "_hdf5_child.py", "k.h5"), ("scipy", "_mat_child.py", "k.mat")])
@pytest.mark.parametrize("what", CHILDREN)
def test_whatever_becomes_of_the_process_that_reads_a_file(what: str, library: str, script: str, name: str, tmp_path: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library)
    (tmp_path / script).write_text(CHILDREN[what])
    (tmp_path / name).write_bytes(b"x" * 200)
    monkeypatch.setattr(children, "__file__", str(tmp_path / "children.py"))  # beside which its scripts are
    with pytest.raises(ArgumentError, match=f"^input: got .*{name}, which cannot be read") as caught:
        io.read_kspace(tmp_path / name)
    assert "\n" not in str(caught.value)
    if what == "crashes":
        assert "signal 11" in str(caught.value)


@pytest.mark.parametrize("case", ["no file of it", "a group", "text"])
def test_hdf5_that_is_no_kspace(tmp_path: Path, case: str) -> None:
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "k.h5"
    if case == "no file of it":
        path.write_bytes(b"hello")
    else:
        with h5py.File(path, "w") as file:
            if case == "a group":
                file.create_group("kspace")
            else:
                file["kspace"] = "text"
    with pytest.raises(ArgumentError, match="^input: got .*k.h5") as caught:
        io.read_kspace(path)
    assert "\n" not in str(caught.value)


def test_a_small_file_of_a_large_archive_or_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez_compressed(tmp_path / "bomb.npz", image=np.zeros((1200, 1200)))
    monkeypatch.setattr(limits, "memory_of", lambda device: 1 << 20)
    with pytest.raises(ArgumentError, match="^input: got .*bomb.npz, which takes"):
        io.read_image(tmp_path / "bomb.npz")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    for side in (12, 40):  # Pillow warns of the one and refuses the other
        Image.new("L", (side, side)).save(tmp_path / "bomb.png")
        with pytest.raises(ArgumentError, match="^input: got .*bomb.png"):
            io.read_image(tmp_path / "bomb.png")


def test_damaged_pictures_leave_no_second_line_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (9, 7)).astype(np.uint8)
    Image.fromarray(levels).save(tmp_path / "x.tif", compression="tiff_lzw")
    good = (tmp_path / "x.tif").read_bytes()
    refusals = 0
    for i in range(8, 60):
        (tmp_path / "x.tif").write_bytes(good[:i] + bytes([good[i] ^ 0xFF]) + good[i + 1:])
        try:
            io.read_image(tmp_path / "x.tif")
        except ArgumentError:
            refusals += 1
    assert refusals and capfd.readouterr().err == ""


def test_headers_that_claim_what_a_file_has_not(tmp_path: Path) -> None:
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "e.safetensors"
    energies.save(energies.DenoiserEnergy(energies.CompactNet(1, 8, (1, 1, 1))), path)
    with safe_open(path, "pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["energy"])
    for change in ({"width": 1 << 40}, {"width": "8"}, {"blocks": [10**9, 1, 1]}, {"blocks": None}, {"blocks": [1, 1]},
                   {"channels": -1}, {"sigma_data": float("nan")}, {"sigma_data": None}, {"more": 1}):
        config = header["config"] | change
        save_file(tensors, path, {"format": metadata["format"], "energy": json.dumps(header | {"config": config})})
        with pytest.raises(ArgumentError, match="^energy: got .*e.safetensors, which does not fit its own header"):
            energies.load(path)
    tensors["tail.bias"] = torch.full_like(tensors["tail.bias"], torch.nan)
    save_file(tensors, path, {"format": metadata["format"], "energy": json.dumps(header)})
    with pytest.raises(ArgumentError, match="^energy: got .*NaN or infinity in tail.bias"):
        energies.load(path)
