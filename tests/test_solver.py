"""How P_t of a Cartesian scan is found: the choice between lines and conjugate gradients, and factors kept on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from alps_fast import data, energies
from alps_fast.errors import ArgumentError
from alps_fast.operators import CartesianMRI, factor_cache
from alps_fast.operators.solver import MOST, cheaper, costs
from alps_fast.samplers import Schedule, sample

CPU = torch.device("cpu")
LINES, PLANE = data.line_mask(48, 40, 2), (torch.rand(48, 40, generator=torch.Generator().manual_seed(0)) < 0.5).float()
MAPS = data.coil_maps(3, 48, 40)


def test_lines_are_chosen_where_the_mask_has_them_and_they_fit() -> None:
    assert CartesianMRI(LINES, MAPS, noise_std=0.1).solver == "lines"
    assert CartesianMRI(PLANE, MAPS, noise_std=0.1).solver == "cg"
    assert CartesianMRI(PLANE, noise_std=0.1).solver == "fft"
    for size, coils in ((32, 1), (128, 1), (320, 1), (320, 12), (640, 16)):  # what was so before there was a choice stays
        assert cheaper(costs(coils, size, size, 1)) == "lines"
    found = costs(16, 1024, 1024, 1)
    assert found["lines"].bytes > MOST and cheaper(found) == "cg"
    assert cheaper(costs(1, 640, 640, 0)) == "cg"  # 229 s of a core, and lines 516


def test_the_choice_is_shown_and_can_be_overridden() -> None:
    told = repr(CartesianMRI(LINES, MAPS, noise_std=0.1))
    assert "48 x 40, 3 coils" in told and "solver='lines'" in told and "cg: 0 s" in told and "MB first" in told
    assert "solver='cg')" in repr(CartesianMRI(PLANE, MAPS, noise_std=0.1))
    truth = data.brain()[:, 60:108, 60:100]
    prior, schedule = energies.GaussianEnergy(0.2, 0.5), Schedule(1.0, 0.1, 2, 2)
    exact, other = (CartesianMRI(LINES, MAPS, noise_std=0.1, solver=solver) for solver in ("lines", "cg"))
    assert other.solver == "cg" and other.line_axis is None
    y = data.measure(exact, truth, LINES)
    found, wanted = (sample(y, op, prior, chains=4, schedule=schedule, progress=False).mean for op in (other, exact))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.02)  # 0.03 posterior standard deviations of at most 0.5
    for solver, mask, maps, message in (("lines", PLANE, MAPS, "solver: got 'lines' with a mask that varies along both"),
                                        ("cg", PLANE, None, "solver: got 'cg'"), ("fast", LINES, MAPS, "solver: got 'fast'")):
        with pytest.raises(ArgumentError) as error:
            CartesianMRI(mask, maps, noise_std=0.1, solver=solver)
        assert str(error.value).startswith(message)


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which factors of any size are kept."""
    monkeypatch.setenv("ALPS_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(factor_cache, "WORTH", 0)
    return tmp_path / "cache"


def factors(maps: torch.Tensor = MAPS, **options: bool) -> tuple[torch.Tensor, torch.Tensor]:
    return CartesianMRI(LINES, maps, noise_std=0.1, **options).factors(torch.complex64, CPU)


def test_factors_are_kept_and_read_to_the_bit_on_any_number_of_threads(kept: Path, threads) -> None:
    threads(1)
    made = factors()
    [file] = kept.iterdir()
    threads(2)
    inode = os.stat(file).st_ino
    read, anew = factors(), factors(cache=False)
    assert os.stat(file).st_ino == inode
    for u, v, w in zip(made, read, anew, strict=True):
        assert torch.equal(u, v) and torch.equal(u, w) and u.dtype == v.dtype
    factors(MAPS.conj())
    assert len(list(kept.iterdir())) == 2  # other maps have other factors


@pytest.mark.parametrize("damage", ["flipped", "cut", "nonsense"])
def test_a_damaged_file_is_computed_again(kept: Path, damage: str) -> None:
    made = factors()
    [file] = kept.iterdir()
    whole = file.read_bytes()
    flipped = whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:]
    file.write_bytes({"flipped": flipped, "cut": whole[:1000], "nonsense": b"x" * 100}[damage])
    assert all(torch.equal(u, v) for u, v in zip(made, factors(), strict=True))
    assert [f.read_bytes() == whole for f in kept.iterdir()] == [True]


def test_files_are_bounded_and_those_read_last_stay(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    factors()
    [first] = kept.iterdir()
    monkeypatch.setattr(factor_cache, "LIMIT", int(2.5 * first.stat().st_size))
    factors(2 * MAPS)
    for age, file in enumerate(sorted(kept.iterdir(), key=lambda f: f == first)):
        os.utime(file, (1000 - age, 1000 - age))
    factors()  # read: the newest now
    factors(3 * MAPS)
    assert len(list(kept.iterdir())) == 2 and first.exists()
    monkeypatch.setattr(factor_cache, "LIMIT", 1000)
    factors(4 * MAPS)
    assert len(list(kept.iterdir())) == 2


def test_where_files_are_and_are_not(kept: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    factors(cache=False)
    monkeypatch.setenv("ALPS_FAST_CACHE", "off")
    factors()
    assert not kept.exists()
    monkeypatch.delenv("ALPS_FAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert factor_cache.folder() == tmp_path / "xdg" / "alps_fast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert factor_cache.folder() == Path.home() / ".cache" / "alps_fast"
    monkeypatch.setenv("ALPS_FAST_CACHE", str(Path("/proc/nowhere")))  # where nothing can be written
    factors()
