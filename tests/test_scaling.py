"""k-space from files to what priors know: maps however normalised, any units, noise estimated, contradictions refused."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from alps_fast import data, energies, io
from alps_fast.cli import main
from alps_fast.errors import ArgumentError
from alps_fast.operators import CartesianMRI, Denoising
from alps_fast.posterior import Posterior
from alps_fast.samplers import Schedule, map_estimate, sample

ETA = 0.02
REAL = Path(__file__).parents[2] / "shared" / "data" / "brain_8coil_poisson.npy"  # beside the checkout, where somebody has put it


def scan(lines: bool = True, eta: float = ETA, seed: int = 1) -> io.KSpace:
    """A brain of 96 × 80 pixels, four coils: every third column or a third of the plane, and the middle."""
    maps, g = data.coil_maps(4, 96, 80), torch.Generator().manual_seed(seed)
    mask = (torch.arange(80) % 3 == 0).expand(96, 80).clone() if lines else torch.rand(96, 80, generator=g) < 0.35
    mask[40:56, 32:48] = True
    mask = mask.any(0).expand(96, 80).clone() if lines else mask
    clean = CartesianMRI(mask, maps, noise_std=eta).forward(data.brain()[:, 48:144, 40:120])
    noise = torch.complex(*torch.randn(2, *clean.shape, generator=g))
    return io.KSpace((clean + eta * noise) * mask, maps, mask.float())


@pytest.mark.parametrize("lines", [True, False], ids=["lines", "plane"])
def test_maps_may_be_normalised_anyhow(lines: bool) -> None:
    """A constant factor, and one that varies as prewhitening makes it: y, A, scale and noise are the same."""
    kspace, maps, mask = scan(lines)
    assert maps is not None
    want = io.scaled_kspace(io.KSpace(kspace, maps, mask))
    assert 0.7 < want.scale < 1.3
    assert want.noise_from == "estimated"
    assert want.operator.noise_std == pytest.approx(want.noise_std / want.scale)
    for factor in (0.1, 30.0, torch.linspace(0.5, 3, 80).expand(96, 80)):
        found = io.scaled_kspace(io.KSpace(kspace, maps * factor, mask))
        assert found.scale == pytest.approx(want.scale, rel=1e-4)
        assert found.noise_std == want.noise_std
        torch.testing.assert_close(found.operator.maps, want.operator.maps)
        torch.testing.assert_close(found.y * found.scale, kspace)


@pytest.mark.parametrize("units", [1e-20, 1e-5, 1e4, 1e20])
def test_units_may_be_any(units: float) -> None:
    kspace, maps, mask = scan()
    want, found = io.scaled_kspace(io.KSpace(kspace, maps, mask)), io.scaled_kspace(io.KSpace(kspace * units, maps, mask))
    assert found.scale == pytest.approx(units * want.scale, rel=1e-3)
    assert found.noise_std == pytest.approx(units * want.noise_std, rel=1e-3)
    torch.testing.assert_close(found.y, want.y, rtol=1e-3, atol=1e-5)


def test_maps_zero_outside_the_body_stay_zero_there() -> None:
    maps = data.coil_maps(3, 12, 10) * (torch.arange(10) > 3)
    found = io.normalised_maps(maps)
    torch.testing.assert_close(found.abs().square().sum(0), (torch.arange(10) > 3).float().expand(12, 10))
    assert bool((found[..., :4] == 0).all())


@pytest.mark.parametrize("eta", [0.02, 0.1])
def test_the_noise_is_estimated(eta: float) -> None:
    """Within 15 %, of which the median of 250 samples has 6."""
    kspace, _, mask = scan(eta=eta)
    assert io.kspace_noise(kspace, mask) == pytest.approx(eta, rel=0.15)


def test_the_noise_is_not_estimated_from_signal() -> None:
    kspace, maps, mask = scan()
    middle = torch.zeros(96, 80)
    middle[36:60, 28:52] = 1
    assert io.kspace_noise(kspace * middle, mask * middle) is None  # a scan of so low a resolution holds signal at its edge too
    found = io.scaled_kspace(io.KSpace(kspace * middle, maps, mask * middle))
    assert found.noise_from == "assumed"
    assert found.noise_std == pytest.approx(0.02 * found.scale)
    quiet, maps, mask = scan(eta=0.001)
    found = io.scaled_kspace(io.KSpace(quiet, maps, mask))  # signal to the edge, but little: less than what would be assumed
    assert found.noise_from == "estimated"
    assert 0.001 < found.noise_std < 0.01
    given = io.scaled_kspace(io.KSpace(kspace, maps, mask), noise_std=0.03, scale=2.0)
    assert (given.scale, given.noise_std, given.noise_from, given.operator.noise_std) == (2.0, 0.03, "given", 0.015)
    with pytest.raises(ArgumentError, match="^noise_std: got 0"):
        io.scaled_kspace(io.KSpace(kspace, maps, mask), noise_std=0.0)


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_noise_of_images(sigma: float) -> None:
    g = torch.Generator().manual_seed(0)
    photograph = data.photograph()
    assert io.image_noise(photograph + sigma * torch.randn(photograph.shape, generator=g)) == pytest.approx(sigma, rel=0.2)
    assert io.image_noise(sigma * torch.randn(3, 96, 80, generator=g)) == pytest.approx(sigma, rel=0.05)
    noise = torch.complex(*(sigma * torch.randn(2, 1, 96, 80, generator=g)))
    assert io.image_noise(noise) == pytest.approx(sigma, rel=0.05)
    assert io.image_noise(torch.zeros(1, 96, 80)) is None
    assert io.image_noise(torch.randn(1, 15, 200)) is None


def stored(path: Path, **changes: Any) -> Path:
    kspace, maps, mask = scan()
    assert maps is not None
    arrays = {"kspace": kspace.numpy(), "maps": maps.numpy(), "mask": mask.numpy()} | changes
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


def test_a_mask_that_claims_what_was_not_measured(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"^mask: got 1 at \d+ of 7680 samples where every coil of kspace is exactly 0"):
        io.read_kspace(stored(tmp_path / "k.npz", mask=np.ones((96, 80))))
    kspace, maps, _ = scan()
    with pytest.raises(ArgumentError, match=r"^mask: got 1 at \d+ of 7680 samples where every coil of kspace is exactly 0; "):
        io.scaled_kspace(io.KSpace(kspace, maps, torch.ones(96, 80)))


@pytest.mark.parametrize(("axes", "place"), [((1, 2), r"\(0, 0\)"), ((1,), r"\(0, 40\)"), ((2,), r"\(48, 0\)")])
def test_frequency_zero_at_an_edge(tmp_path: Path, axes: tuple[int, ...], place: str) -> None:
    kspace, _, mask = scan(lines=False)
    arrays = {"kspace": np.fft.ifftshift(kspace.numpy(), axes), "mask": np.fft.ifftshift(mask.numpy(), [a - 1 for a in axes])}
    with pytest.raises(ArgumentError, match=rf"^kspace: got most of its energy around {place} in .*np.fft.fftshift along"):
        io.read_kspace(stored(tmp_path / "k.npz", **arrays))
    data = io.KSpace(torch.from_numpy(arrays["kspace"]), None, torch.from_numpy(arrays["mask"]))
    with pytest.raises(ArgumentError, match=rf"^kspace: got most of its energy around {place}; wanted .*np.fft.fftshift along"):
        io.scaled_kspace(data)


def test_a_mask_of_rows_on_square_kspace(tmp_path: Path) -> None:
    full = np.random.default_rng(0).normal(size=(2, 16, 16)) + 1j
    rows = np.arange(16) % 2 == 0
    arrays = {"kspace": (full * rows[:, None]).astype(np.complex64), "maps": np.ones((2, 16, 16), np.complex64)}
    with pytest.raises(ArgumentError, match=r"^mask: got \(16,\) .* columns, where rows were measured; wanted it as \(16, 1\)"):
        io.read_kspace(stored(tmp_path / "k.npz", **arrays, mask=rows))
    found = io.read_kspace(stored(tmp_path / "k.npz", **arrays, mask=rows[:, None]))
    assert found.mask.tolist() == [[float(r)] * 16 for r in rows]
    arrays["kspace"] = full.astype(np.complex64)
    with pytest.warns(UserWarning, match=r"mask: \(16,\) of square k-space .* is taken to name columns"):
        found = io.read_kspace(stored(tmp_path / "k.npz", **arrays, mask=rows))
    assert found.mask.tolist() == [[float(r) for r in rows]] * 16
    arrays["kspace"] = (full * rows).astype(np.complex64)
    assert io.read_kspace(stored(tmp_path / "k.npz", **arrays, mask=rows)).mask.tolist() == [[float(r) for r in rows]] * 16


TINY = ["--levels", "3", "--steps", "2", "--chains", "2", "--draws", "2", "--no-progress"]


@pytest.mark.parametrize("factor", [1.0, 0.1])
def test_the_command_says_where_the_noise_is_from(tmp_path: Path, factor: float) -> None:
    energies.save(energies.GaussianEnergy(0.0, 0.5), tmp_path / "prior.safetensors")
    _, maps, _ = scan()
    assert maps is not None
    path = stored(tmp_path / "k.npz", maps=(maps * factor).numpy())
    args = ["reconstruct", str(path), "--operator", "mri", "--energy", str(tmp_path / "prior.safetensors"), *TINY]
    result = CliRunner().invoke(main, [*args, "--json", "--out", str(tmp_path / "a")])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["noise_from"] == "estimated"
    assert found["noise_std"] == pytest.approx(ETA, rel=0.15)
    assert found["chi2"] == pytest.approx(1, abs=0.5)
    assert float(Posterior.load(tmp_path / "a.npz").chi2) == pytest.approx(found["chi2"])
    text = CliRunner().invoke(main, [*args, "--noise-std", "0.02", "--out", str(tmp_path / "b")]).stdout
    assert "noise_std 0.02, given" in text
    assert "chi-squared a datum of the samples: " in text


def test_the_command_says_that_the_noise_is_assumed(tmp_path: Path) -> None:
    energies.save(energies.GaussianEnergy(0.0, 0.5), tmp_path / "prior.safetensors")
    np.save(tmp_path / "x.npy", torch.rand(12, 10).numpy())
    args = ["reconstruct", tmp_path / "x.npy", "--operator", "superres", "--energy", tmp_path / "prior.safetensors", *TINY]
    result = CliRunner().invoke(main, list(map(str, args)))
    assert result.exit_code == 0, result.output
    assert "noise_std: 0.02 is assumed" in result.stderr
    assert "noise_std 0.02, assumed" in result.stdout


@pytest.mark.skipif(not REAL.exists(), reason="real k-space lies outside the repository")
def test_real_kspace() -> None:
    """Poisson-disc, eight coils, noise level unknown: the outer tenth is as flat as noise, and the scale is of the magnitude."""
    kspace = torch.from_numpy(np.load(REAL))
    mask = (kspace != 0).any(0).float()
    sigma = io.kspace_noise(kspace, mask)
    assert sigma is not None
    assert 0.011 < sigma < 0.013
    window = torch.zeros(mask.shape)
    window[103:127, 78:102] = torch.outer(torch.hann_window(24), torch.hann_window(24))
    low = torch.fft.fftshift(torch.fft.ifft2(torch.fft.ifftshift(kspace * window, (-2, -1))), (-2, -1))
    found = io.scaled_kspace(io.KSpace(kspace, low, mask))
    assert found.noise_from == "estimated"
    assert 0.5 < found.scale < 2


FEW = Schedule(10.0, 0.1, 2, 1)


class Unit(energies.GaussianEnergy):
    """Stands for a network, which knows images that reach about 1."""

    unit = True


@pytest.mark.parametrize("lines", [True, False], ids=["lines", "plane"])
def test_kspace_far_from_what_the_prior_knows_is_told(lines: bool) -> None:
    """As it comes from a file, × 1e-5 or 1e-4, without a word before: −46 dB. (c of a line mask reaches .3 there, of noise.)"""
    prior, (kspace, maps, mask) = Unit(0.0, 0.5), scan(lines)
    for factor, size in ((1e-5, "e-05"), (1e-4, "0[.]0001"), (1e4, "e[+]04")):
        op = CartesianMRI(mask, maps, noise_std=ETA * factor)
        for solve in (sample, map_estimate):
            with pytest.warns(UserWarning, match=f"y: the image behind it reaches .*{size}.*, .*scaled_kspace"):
                solve(kspace * factor, op, prior, schedule=FEW, progress=False, **({"chains": 1} if solve is sample else {}))
    op = CartesianMRI(mask, maps, noise_std=ETA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "chi-squared")  # two steps fit nothing
        sample(kspace, op, prior, chains=1, schedule=FEW, progress=False)
        sample(kspace * 1e-5, CartesianMRI(mask, maps, noise_std=ETA * 1e-5), energies.GaussianEnergy(0.0, 1e-5), chains=1,
               schedule=Schedule(1e-5, 1e-6, 2, 1), progress=False)  # whose scale is whoever made it's


def test_what_the_prior_knows_is_what_it_says_it_spans() -> None:
    """An image of 8 bits under a prior whose images are such, and one of [0, 1] under it."""
    prior = energies.DiffusionPrior(lambda x, sigma: x, 1, image_range=(0.0, 255.0), probe=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "chi-squared")
        sample((data.photograph()[:, :8, :8] + 1) * 127.5, Denoising(2.0), prior, chains=1, schedule=FEW, progress=False)
    with pytest.warns(UserWarning, match="reaches .*, and the energy knows images that reach about 128; divide"):
        sample(data.photograph()[:, :8, :8], Denoising(0.02), prior, chains=1, schedule=FEW, progress=False)


def test_grey_levels_far_from_what_the_prior_knows_are_told() -> None:
    prior, y = Unit(0.0, 0.5), data.photograph()[:, :32, :32]
    assert all(energies.load(name).unit for name in ("brain-ridge", "natural-denoiser"))
    for levels, noise_std in (((y + 1) * 127.5, 2.0), (y * 1e-4, 1e-6)):
        with pytest.warns(UserWarning, match="y: the image behind it reaches"):
            sample(levels, Denoising(noise_std), prior, chains=1, schedule=FEW, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "chi-squared")
        sample(y, Denoising(0.1), energies.SumEnergy([prior, energies.GaussianEnergy()]), chains=1, schedule=FEW, progress=False)
        sample(40 * torch.randn(1, 32, 32), Denoising(40.0), prior, chains=1, schedule=FEW, progress=False)
    assert energies.SumEnergy([prior]).unit
    assert not energies.SumEnergy([energies.GaussianEnergy()]).unit
