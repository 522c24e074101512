"""The command line: help, the demo and a reconstruction from end to end, and every kind of bad input."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from alps_fast import data, energies, io, map_estimate, operators
from alps_fast.cli import COMMANDS, main
from alps_fast.cli.distill import _teacher
from alps_fast.ops import _dispatch
from alps_fast.posterior import Posterior

METRICS = {"task", "psnr_least_squares", "psnr_mmse", "psnr_mmse_limit", "psnr_map", "ssim_mmse", "coverage90",
           "error_std_correlation", "levels", "steps", "chains", "seconds", "seconds_per_gradient"}
TINY = ["--levels", "3", "--steps", "1", "--chains", "2", "--draws", "3", "--no-progress"]


def call(*args: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in args])


@pytest.fixture
def prior(tmp_path: Path) -> Path:
    path = tmp_path / "prior.safetensors"
    energies.save(energies.GaussianEnergy(0.0, 0.5), path)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    levels = (data.photograph()[0, 40:64, 60:90] + 1) * 127.5
    Image.fromarray(levels.round().byte().numpy()).save(path)
    return path


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    path = tmp_path / "mask.png"
    Image.fromarray((data.pixel_mask(24, 30)[0] * 255).byte().numpy()).save(path)
    return path


def kspace(tmp_path: Path, **changes: Any) -> Path:
    """16 x 20, three coils, every other column; `changes` replace or, with None, remove arrays."""
    from alps_fast.operators import CartesianMRI

    maps, columns = data.coil_maps(3, 16, 20), (torch.arange(20) % 2 == 0).expand(16, 20)
    op = CartesianMRI(columns, maps=maps, noise_std=0.01)
    y = data.measure(op, data.brain()[:, 80:96, 60:80], columns)
    arrays = {"kspace": y.numpy(), "maps": maps.numpy(), "mask": columns.numpy()} | changes
    path = tmp_path / "scan.npz"
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


def assert_refused(result: Result, *words: str) -> None:
    """Exit code 2, nothing on stdout, one line on stderr that names the argument."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(command: str) -> None:
    result = call(command, "--help")
    assert result.exit_code == 0
    assert f"alps-fast {command}" in result.stdout
    assert "--json" in result.stdout


def test_info() -> None:
    found = json.loads(call("info", "--json").stdout)
    assert [row["backend"] for row in found["backends"]] == ["cuda", "triton", "cpu", "torch"]
    assert all(row["usable"] == (row["why_not"] is None) for row in found["backends"])
    assert set(found["energies"]) == set(energies.names())
    for row in found["ops"]:
        usable = [b for b in found["backends"] if b["usable"] and b["backend"] in row["have"]]
        here = row["device"] == "cpu" or found["machine"]["gpus"]
        assert row["have"][-1] == "torch" and row["runs"] == (usable[0]["backend"] if here else None)
    text = call("info").stdout
    assert all(b["why"] in text for b in found["backends"]) and "langevin_pixel     on a CPU: " in text


@pytest.mark.parametrize(("named", "runs", "said"), [
    ("torch", "torch", "torch"), ("abacus", None, "none: ALPS_FAST_BACKEND: got 'abacus'"),
    ("cuda", None, "none: ALPS_FAST_BACKEND: backend 'cuda' cannot run here")])
def test_info_says_what_stands_for_auto(monkeypatch: pytest.MonkeyPatch, named: str, runs: str | None, said: str) -> None:
    monkeypatch.setitem(_dispatch._reasons, "cuda", "no")
    monkeypatch.setenv("ALPS_FAST_BACKEND", named)
    found = json.loads(call("info", "--json").stdout)
    assert {row["runs"] for row in found["ops"] if row["device"] == "cpu"} == {runs}
    assert found["machine"]["auto"].startswith(said) and f'backend="auto" stands for: {said}' in call("info").stdout


def test_demo(tmp_path: Path, prior: Path) -> None:
    out = tmp_path / "out"
    result = call("demo", "--energy", prior, "--out", out, "--json", *TINY)
    assert result.exit_code == 0, result.output
    entries = json.loads(result.stdout)
    assert [e["task"] for e in entries] == ["mri_r4", "mri_r8", "inpaint", "deblur"]
    assert entries == json.loads((out / "metrics.json").read_text())
    for e in entries:
        first = {"psnr_zero_filled"} if e["task"].startswith("mri") else {"psnr_measurement"}
        assert set(e) >= METRICS | first
        assert e["levels"] == 3
        with Image.open(out / f"{e['task']}.png") as image:
            assert min(image.size) > 500
        with np.load(out / f"{e['task']}.npz") as arrays:
            assert arrays["mmse"].shape == arrays["truth"].shape == arrays["std"].shape
    assert {p.suffix for p in out.iterdir()} == {".png", ".npz", ".json"}
    assert len(list(out.iterdir())) == 9


@pytest.mark.parametrize("pairs", [False, True])
def test_demo_says_how_good_the_mean_of_endlessly_many_chains_is(pairs: bool) -> None:
    """b = .1 and noise of .2 a chain, over 40,000 pixels; the two of a pair are the same, so that it counts once."""
    from alps_fast.cli import demo
    from alps_fast.metrics import psnr

    def limit(chains: int) -> float | None:
        noise = torch.randn(chains, 1, 200, 200, generator=torch.Generator().manual_seed(0))
        noise = noise[::2].repeat_interleave(2, 0) if pairs else noise
        means = 0.1 + 0.2 * noise
        return demo.endless(SimpleNamespace(chain_means=means, pairs=pairs),  # type: ignore[arg-type]
                            lambda image: psnr(image.numpy(), np.zeros((1, 200, 200)), 2.0))

    assert limit(2 if pairs else 1) is None
    found = limit(8)
    assert found is not None and found == pytest.approx(20 * math.log10(2.0 / 0.1), abs=0.2)


def test_demo_keeps_what_other_tasks_left(tmp_path: Path, prior: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alps_fast.cli import demo

    assert call("demo", "--task", "inpaint", "--energy", prior, "--out", tmp_path, *TINY).exit_code == 0
    before = (tmp_path / "inpaint.npz").read_bytes()
    monkeypatch.setattr(demo, "build", lambda name, setting: 1 / 0)
    assert_refused(call("demo", "--task", "all", "--energy", prior, "--out", tmp_path, *TINY), "out", "inpaint.npz", "--force")
    result = call("demo", "--task", "all", "--energy", prior, "--out", tmp_path, "--force", *TINY)
    assert result.exit_code == 1
    assert result.stderr.count("failed: ZeroDivisionError") == 4
    assert (tmp_path / "inpaint.npz").read_bytes() == before
    assert [e["task"] for e in json.loads((tmp_path / "metrics.json").read_text())] == ["inpaint"]


def test_demo_is_reproducible(tmp_path: Path, prior: Path) -> None:
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        result = call("demo", "--task", "inpaint", "--energy", prior, "--out", tmp_path / folder, "--seed", seed, *TINY)
        assert result.exit_code == 0
    samples = [np.load(tmp_path / folder / "inpaint.npz")["samples"] for folder in "abc"]
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])


def test_reconstruct_image_and_mask(tmp_path: Path, prior: Path, picture: Path, mask: Path) -> None:
    result = call("reconstruct", picture, "--operator", "inpaint", "--mask", mask, "--energy", prior, "--noise-std", 0.05,
                  "--json", "--out", tmp_path / "result", *TINY)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["files"] == [str(tmp_path / "result.npz"), str(tmp_path / "result.png")]
    assert found["draws"] == 6
    posterior = Posterior.load(tmp_path / "result.npz")
    observed = io.read_mask(mask) == 1
    assert posterior.mean.shape == (1, 24, 30)
    assert (posterior.mean - io.read_image(picture))[observed].abs().max() < 0.1
    assert posterior.std[observed].mean() < 0.5 * posterior.std[~observed].mean()
    with Image.open(tmp_path / "result.png") as image:
        assert image.size[0] > 300


@pytest.mark.parametrize(("options", "shape"), [
    (["denoise"], (1, 24, 30)),
    (["deblur", "--blur-std", "1.5"], (1, 24, 30)),
    (["deblur", "--motion", "5", "30"], (1, 24, 30)),
    (["superres", "--factor", "3", "--blur-std", "0.7"], (1, 72, 90)),
    (["superres"], (1, 48, 60)),
    (["denoise", "--method", "alps", "--noise", "independent", "--draws", "1"], (1, 24, 30)),
    (["denoise", "--correction", "mala"], (1, 24, 30)),
])
def test_reconstruct_operators(tmp_path: Path, prior: Path, picture: Path, options: list[str], shape: tuple[int, ...]) -> None:
    result = call("reconstruct", picture, "--energy", prior, *TINY, "--operator", *options)
    assert result.exit_code == 0, result.output
    assert Posterior.load(tmp_path / "picture_posterior.npz").mean.shape == shape


def test_reconstruct_looks_for_the_map_near_the_mean_unless_levels_are_given(tmp_path: Path, prior: Path, picture: Path) -> None:
    """The posterior of a Gaussian prior has its mode where its mean is, so that both ways lead there."""
    args = ["reconstruct", picture, "--energy", prior, "--operator", "denoise", "--noise-std", 0.1, "--map", "--no-progress"]
    for name, options in (("near", ["--chains", 4, "--draws", 1]), ("far", TINY)):
        assert call(*args, "--out", tmp_path / f"{name}.npz", *options).exit_code == 0
    with np.load(tmp_path / "near.npz") as near, np.load(tmp_path / "far.npz") as far:
        assert np.abs(near["map"] - near["mean"]).max() < 1e-4 and np.abs(far["map"] - near["map"]).max() < 1e-3
        energy = energies.GaussianEnergy(0.0, 0.5)
        y = io.read_image(picture)
        schedule = Posterior.load(tmp_path / "near.npz").schedule
        want = map_estimate(y, operators.Denoising(0.1), energy, start=torch.from_numpy(near["mean"]), progress=False)
        assert schedule.sigma_max > 0.9 and np.array_equal(near["map"], want.image.numpy())


def test_reconstruct_kspace_in_any_units(tmp_path: Path, prior: Path) -> None:
    path = kspace(tmp_path)
    args = ["reconstruct", path, "--operator", "mri", "--energy", prior, *TINY]
    result = call(*args, "--scale", 1.0, "--noise-std", 0.01, "--out", tmp_path / "one")
    assert result.exit_code == 0, result.output
    one = Posterior.load(tmp_path / "one.npz")
    assert one.mean.is_complex()
    assert one.mean.shape == (1, 16, 20)
    with np.load(path) as arrays:
        kspace(tmp_path, kspace=arrays["kspace"] * 1000)
    assert call(*args, "--scale", 1000.0, "--noise-std", 10.0, "--out", tmp_path / "thousand").exit_code == 0
    torch.testing.assert_close(Posterior.load(tmp_path / "thousand.npz").mean, 1000 * one.mean, rtol=1e-3, atol=1e-2)
    scale = json.loads(call(*args, "--json").stdout)["scale"]
    assert 300 < scale < 1500


def test_reconstruct_takes_what_a_warning_of_conjugate_gradients_names(tmp_path: Path, prior: Path) -> None:
    with np.load(kspace(tmp_path)) as arrays:
        mask = arrays["mask"] * (np.random.default_rng(0).random(arrays["mask"].shape) < 0.6)
        mask[8, 10] = 1
        path = kspace(tmp_path, kspace=arrays["kspace"] * mask, mask=mask)
    args = ["reconstruct", path, "--operator", "mri", "--energy", prior, "--noise-std", 0.01, *TINY]
    assert_refused(call(*args, "--tol", 0), "tol", "0.0")
    assert_refused(call(*args, "--max-iter", 0), "max_iter", "0")
    result = call(*args, "--max-iter", 1)
    assert isinstance(result.exception, UserWarning) and "raise max_iter or tol" in str(result.exception)  # an error in tests
    assert call(*args, "--tol", 0.02, "--max-iter", 2000, "--force").exit_code == 0


def test_outputs_are_not_written_over_the_input(tmp_path: Path, prior: Path) -> None:
    path = kspace(tmp_path)
    before = path.read_bytes()
    assert_refused(call("reconstruct", path, "--operator", "mri", "--energy", prior, "--out", tmp_path / "scan", *TINY), "out")
    assert path.read_bytes() == before


BAD_IMAGES = {
    "text": (b"hello", "input"),
    "nan": (np.full((4, 5), np.nan), "input"),
    "objects": (np.array([{}], dtype=object), "input"),
    "words": (np.array([["a"]]), "input"),
    "five axes": (np.ones((1, 1, 1, 4, 5)), "input"),
}


@pytest.mark.parametrize("case", BAD_IMAGES)
def test_bad_image(tmp_path: Path, prior: Path, case: str) -> None:
    content, word = BAD_IMAGES[case]
    path, out = tmp_path / "bad.npy", tmp_path / "out.npz"
    out.write_text("precious")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    assert_refused(call("reconstruct", path, "--operator", "denoise", "--energy", prior, "--out", out, *TINY), word, "bad.npy")
    assert out.read_text() == "precious"


@pytest.mark.parametrize(("options", "words"), [
    (["denoise", "--noise-std", "0"], ["noise_std", "0"]),
    (["denoise", "--noise-std", "-1"], ["noise_std", "-1"]),
    (["denoise", "--noise-std", "nan"], ["noise_std", "nan"]),
    (["inpaint"], ["mask"]),
    (["inpaint", "--mask", "nowhere.png"], ["mask", "nowhere.png"]),
    (["deblur"], ["blur_std"]),
    (["deblur", "--blur-std", "0"], ["blur_std", "0"]),
    (["deblur", "--motion", "0", "10"], ["motion", "0.0"]),
    (["deblur", "--motion", "nan", "10"], ["motion", "nan"]),
    (["deblur", "--motion", "3"], ["motion"]),
    (["deblur", "--motion", "3", "10", "--blur-std", "1"], ["blur_std and motion"]),
    (["deblur", "--psf", "nowhere.npy"], ["psf", "nowhere.npy"]),
    (["denoise", "--mask", "mask.png"], ["mask", "denoise", "inpaint"]),
    (["inpaint", "--blur-std", "1"], ["blur_std", "inpaint", "deblur or superres"]),
    (["mri", "--motion", "3", "10"], ["motion", "mri"]),
    (["denoise", "--psf", "k.npy"], ["psf", "denoise"]),
    (["deblur", "--blur-std", "1", "--factor", "2"], ["factor", "deblur", "superres"]),
    (["denoise", "--scale", "1"], ["scale", "denoise", "mri"]),
    (["denoise", "--tol", "0.1"], ["tol", "denoise", "mri"]),
    (["denoise", "--max-iter", "9"], ["max_iter", "denoise", "mri"]),
    (["denoise", "--thin", "2", "--draws", "1"], ["thin", "2"]),
    (["denoise", "--thin", "2", "--noise", "independent"], ["thin", "2"]),
    (["superres", "--factor", "0"], ["factor", "0"]),
    (["denoise", "--chains", "0"], ["chains", "0"]),
    (["denoise", "--draws", "0"], ["draws", "0"]),
    (["denoise", "--levels", "0"], ["levels", "0"]),
    (["denoise", "--sigma-min", "0"], ["sigma_min", "0"]),
    (["denoise", "--sigma-max", "0.001"], ["sigma_max", "0.001"]),
    (["denoise", "--noise", "independent", "--draws", "5"], ["draws", "5"]),
    (["denoise", "--energy", "no-such"], ["energy", "no-such"]),
    (["denoise", "--backend", "fpga"], ["backend", "fpga"]),
    (["denoise", "--seed", "-3"], ["seed", "-3"]),
    (["denoise", "--frobnicate"], ["--frobnicate"]),
    (["mri"], ["input"]),
    (["x-ray"], ["operator", "x-ray"]),
])
def test_bad_option(tmp_path: Path, prior: Path, picture: Path, options: list[str], words: list[str]) -> None:
    files = set(tmp_path.iterdir())
    assert_refused(call("reconstruct", picture, "--energy", prior, "--no-progress", "--operator", *options), *words)
    assert set(tmp_path.iterdir()) == files


def test_nothing_is_made_for_arguments_that_are_refused(tmp_path: Path, prior: Path, picture: Path) -> None:
    out = tmp_path / "new" / "folder" / "result"
    args = ["reconstruct", picture, "--operator", "denoise", "--energy", prior, "--out", out, *TINY]
    assert_refused(call(*args, "--chains", 0), "chains")
    assert_refused(call(*args, "--noise", "independent"), "draws")
    assert not (tmp_path / "new").exists()
    assert call(*args).exit_code == 0
    assert out.with_suffix(".npz").exists()


def test_reconstruct_with_a_kernel_from_a_file(tmp_path: Path, prior: Path, picture: Path) -> None:
    from alps_fast.operators.fourier import motion_psf

    np.save(tmp_path / "psf.npy", motion_psf(5, 30).numpy())
    args = ["reconstruct", picture, "--energy", prior, *TINY, "--operator", "deblur", "--out", tmp_path / "out"]
    means = []
    for options in (["--psf", tmp_path / "psf.npy"], ["--motion", 5, 30]):
        assert call(*args, *options, "--force").exit_code == 0
        means.append(Posterior.load(tmp_path / "out.npz").mean)
    assert torch.equal(*means)
    np.save(tmp_path / "psf.npy", np.ones((3, 4, 4)))
    assert_refused(call(*args, "--psf", tmp_path / "psf.npy"), "psf", "(3, 4, 4)")


def test_bad_mask(tmp_path: Path, prior: Path, picture: Path) -> None:
    for wrong in (np.zeros((24, 30)), np.ones((24, 29)), np.ones((2, 24, 30))):
        np.save(tmp_path / "mask.npy", wrong)
        result = call("reconstruct", picture, "--operator", "inpaint", "--mask", tmp_path / "mask.npy", "--energy", prior)
        assert_refused(result, "mask")


@pytest.mark.parametrize(("changes", "words"), [
    ({"kspace": None}, ["kspace"]),
    ({"kspace": np.ones((3, 16, 20), np.float32)}, ["kspace", "float32"]),
    ({"kspace": np.ones((2, 2, 2, 16, 20), np.complex64)}, ["kspace", "(2, 2, 2, 16, 20)"]),
    ({"kspace": np.full((3, 16, 20), np.nan, np.complex64)}, ["kspace", "NaN"]),
    ({"maps": None}, ["maps", "3 coils"]),
    ({"maps": np.ones((3, 16, 21), np.complex64)}, ["maps", "(3, 16, 21)"]),
    ({"maps": np.ones((4, 16, 20), np.complex64)}, ["maps", "(4, 16, 20)"]),
    ({"mask": np.zeros((16, 20))}, ["mask", "zero"]),
    ({"mask": np.ones((16, 21))}, ["mask", "(16, 21)"]),
    ({"mask": np.array([["a"]])}, ["mask"]),
])
def test_bad_kspace(tmp_path: Path, prior: Path, changes: dict[str, Any], words: list[str]) -> None:
    path = kspace(tmp_path, **changes)
    files = set(tmp_path.iterdir())
    assert_refused(call("reconstruct", path, "--operator", "mri", "--energy", prior, *TINY), *words)
    assert set(tmp_path.iterdir()) == files


@pytest.mark.parametrize("damage", ["cut short", "not safetensors", "of something else", "empty"])
def test_bad_weights(tmp_path: Path, prior: Path, picture: Path, damage: str) -> None:
    if damage == "cut short":
        prior.write_bytes(prior.read_bytes()[:-3])
    elif damage == "not safetensors":
        prior.write_bytes(picture.read_bytes())
    elif damage == "of something else":
        from safetensors.torch import save_file

        save_file({"a": torch.ones(2)}, prior)
    else:
        prior.write_bytes(b"")
    for command in (["reconstruct", picture, "--operator", "denoise"], ["demo", "--task", "inpaint", "--out", tmp_path / "out"]):
        assert_refused(call(*command, "--energy", prior, *TINY), "energy", prior.name)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "picture_posterior.npz").exists()


@pytest.mark.filterwarnings("always:std. NaN")
def test_a_warning_is_told_once_a_command(prior: Path, picture: Path) -> None:
    """Facts and picture ask one chain for its standard deviation, each by itself."""
    for more in ([], ["--json"]):
        result = call("reconstruct", picture, "--operator", "denoise", "--energy", prior, "--noise-std", 0.1, "--force", *more,
                      *TINY, "--chains", 1)
        assert result.exit_code == 0, result.output
        assert result.stderr.count("warning: std: NaN, as one chain does not tell how far it is from others") == 1


def test_prior_of_other_channels(tmp_path: Path, picture: Path) -> None:
    two = energies.GaussianEnergy(torch.zeros(2, 1, 1), torch.ones(2, 1, 1))
    energies.save(two, tmp_path / "two.safetensors")
    path = tmp_path / "not-there" / "x"
    result = call("distill", tmp_path / "two.safetensors", "--domain", "brain", "--kind", "ridge", "--out", path)
    assert_refused(result, "teacher")


def test_output_that_cannot_be_written_is_said_first(tmp_path: Path, prior: Path, picture: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, not a folder")
    assert_refused(call("demo", "--energy", prior, "--out", blocked / "x", *TINY), "out", "blocked")
    assert_refused(call("reconstruct", picture, "--operator", "denoise", "--energy", prior, "--out", blocked / "x", *TINY), "out")
    assert blocked.read_text() == "a file, not a folder"


def test_demo_refuses_bad_numbers(tmp_path: Path, prior: Path) -> None:
    for option, value in (("--levels", 0), ("--chains", 0), ("--steps", -1), ("--draws", 0), ("--task", "paint")):
        assert_refused(call("demo", "--energy", prior, "--out", tmp_path / "out", option, value), option[2:])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["denoiser", "ridge"])
def test_distill_takes_the_batch_of_its_kind(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from alps_fast.distill import matching

    calls: list[dict[str, Any]] = []

    def distilled(teacher: object, domain: str, out: Path, **options: Any) -> energies.Energy:
        calls.append(options)
        out.mkdir(exist_ok=True)
        return energies.GaussianEnergy(0.0, 0.5)

    monkeypatch.setattr(matching, f"distill_{kind}", distilled)
    args = ["distill", "brain-teacher", "--domain", "brain", "--kind", kind, "--out", tmp_path / "out"]
    assert call(*args).exit_code == call(*args, "--batch", 3, "--force").exit_code == 0
    assert_refused(call(*args), "out", "energy.safetensors")
    assert "batch" not in calls[0]
    assert calls[1]["batch"] == 3


def test_distill_takes_a_function_of_a_module_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A teacher written in this folder, RGB pictures of one's own; the table is told, and what is wrong in a line."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        levels = (127.5 + 100 * np.sin(np.mgrid[:16, :20].sum(0)[..., None] / (4 + i) + np.arange(3))).astype(np.uint8)
        Image.fromarray(levels).save(folder / f"{i}.png")
    (tmp_path / "of_mine.py").write_text(
        "from alps_fast.energies import CompactNet\ndef network():\n    return CompactNet(3, 8, (1, 1, 1))\nmade = network()\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(_teacher("of_mine:made"), energies.CompactNet)
    quick = "--steps", 2, "--batch", 2, "--size", 16, "--no-compile", "--no-progress"
    options = "--images", folder, "--kind", "denoiser", *quick
    result = call("distill", "--teacher", "of_mine:network", *options, "--out", tmp_path / "run")
    assert result.exit_code == 0 and "| t | noisy | teacher | energy |" in result.output
    assert energies.load(tmp_path / "run/energy.safetensors").channels == 3
    for name, wrong in (("teacher", ("of_mine:nothing",)), ("teacher", ("nowhere:network",)), ("teacher", ()),
                        ("images", ("of_mine:network", "--domain", "brain"))):
        assert_refused(call("distill", *wrong, *options, "--out", tmp_path / "x"), name)
