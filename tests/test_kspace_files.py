"""k-space from files as other libraries write them: the same slices from each, and what is said of files that are wrong."""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scans import Scan, bart, scan, write_bart, write_fastmri, write_ismrmrd, write_matlab73

from alps_fast import io, limits
from alps_fast.errors import ArgumentError
from alps_fast.io.axes import guessed_axes
from alps_fast.io.children import COPIES
from alps_fast.io.sources import open_source

SCAN = scan()
MATLAB = {"kspace": SCAN.kspace.transpose(2, 3, 1, 0), "maps": SCAN.maps.transpose(1, 2, 0), "mask": SCAN.mask[:1]}


def _npz(path: Path) -> Path:
    np.savez(path.with_suffix(".npz"), kspace=SCAN.kspace, maps=SCAN.maps, mask=SCAN.mask)
    return path.with_suffix(".npz")


def _v5(path: Path) -> Path:
    from scipy.io import savemat

    savemat(path.with_suffix(".mat"), MATLAB, do_compression=True)
    return path.with_suffix(".mat")


def _hdf5(path: Path) -> Path:
    import h5py

    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["scan/ksp"] = np.stack([SCAN.kspace.real, SCAN.kspace.imag], -1)
        file["scan/sens_maps"] = np.stack([SCAN.maps.real, SCAN.maps.imag], -1)
        file["scan/mask"] = SCAN.mask[None, None, :1]
    return path.with_suffix(".h5")


def _maps(folder: Path) -> Path:
    np.save(folder / "maps.npy", SCAN.maps)
    return folder / "maps.npy"


FORMATS: dict[str, tuple[Callable[[Path], Path], list[str], bool]] = {  # writer, modules needed, whether maps lie beside
    "npz": (_npz, [], False),
    "npy": (lambda path: np.save(path.with_suffix(".npy"), SCAN.kspace) or path.with_suffix(".npy"), [], True),
    "HDF5": (_hdf5, ["h5py"], False),
    "fastMRI": (lambda path: write_fastmri(path.with_suffix(".h5"), SCAN), ["h5py"], True),
    "ISMRMRD": (lambda path: write_ismrmrd(path.with_suffix(".h5"), SCAN), ["h5py", "ismrmrd"], True),
    "MATLAB 7.3": (lambda path: write_matlab73(path.with_suffix(".mat"), **MATLAB), ["h5py"], False),
    "MATLAB 5": (_v5, ["scipy"], False),
    "BART": (lambda path: write_bart(path, bart(SCAN.kspace)), [], True),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_slices(tmp_path: Path, kind: str) -> None:
    write, needed, beside = FORMATS[kind]
    for module in needed:
        pytest.importorskip(module)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "kspace: .* taken for", UserWarning)
        slices = io.open_kspace(write(tmp_path / "scan"), maps=_maps(tmp_path) if beside else None)
        assert len(slices) == 2
        for i in (1, 0):
            found = slices[i]
            assert found.maps is not None and found.kspace.dtype == torch.complex64
            assert np.array_equal(found.kspace, SCAN.kspace[i]) and np.allclose(found.maps, SCAN.maps)
            assert np.array_equal(found.mask, SCAN.mask)
    assert "slice 1" in slices[1].source and slices.path.name in slices[1].source
    with pytest.raises(IndexError):
        slices[2]
    assert len(slices[:]) == 2


def test_a_volume_is_not_one_slice(tmp_path: Path) -> None:
    path = _npz(tmp_path / "k")
    with pytest.raises(ArgumentError, match=r"^kspace: got shape \(2, 3, 24, 20\) in .*k.npz, 2 slices; wanted one"):
        io.read_kspace(path)
    assert np.array_equal(io.read_kspace(path, slice=1).kspace, SCAN.kspace[1])
    with pytest.raises(ArgumentError, match=r"^slice: got 2; wanted an integer in \[0, 2\)"):
        io.read_kspace(path, slice=2)


def test_fastmri(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    write_fastmri(tmp_path / "one.h5", SCAN, single=True)
    slices = io.open_kspace(tmp_path / "one.h5")
    assert len(slices) == 2 and slices[1].kspace.shape == (1, 24, 20) and slices[1].maps is None
    found = slices[0]
    assert found.size == (12, 20) and found.attributes["acquisition"] == "AXT1" and found.attributes["max"] == 0.5
    assert found.geometry is not None and not found.geometry.located
    assert found.geometry.spacing == pytest.approx((2, 3, 5))
    padded = SCAN._replace(kspace=SCAN.kspace * (np.arange(20) >= 4))  # what the scanner padded is in the mask, and zero
    write_fastmri(tmp_path / "padded.h5", padded, padding_left=4, padding_right=20)
    assert np.array_equal(io.open_kspace(tmp_path / "padded.h5")[0].mask, SCAN.mask * (np.arange(20) >= 4))


def test_ismrmrd(tmp_path: Path) -> None:
    pytest.importorskip("ismrmrd")
    of = scan(slices=3)
    slices = io.open_kspace(write_ismrmrd(tmp_path / "k.h5", of, cut=5))
    found = slices[2]
    assert len(slices) == 3 and slices.label(2) == "slice 2"
    measured = of.mask * (np.arange(24) >= 5)[:, None]
    assert np.array_equal(found.mask, measured) and np.array_equal(found.kspace, of.kspace[2] * measured)
    assert found.size == (12, 20) and found.attributes["protocolName"] == "T1"
    assert found.noise is not None and found.noise.shape == (3, 256)
    want = 0.01 * (5.0 / 10.0 / 0.8) ** 0.5  # twice the dwell time, half the noise power, and what the filter takes
    assert float(found.noise.abs().square().mean() / 2) ** 0.5 == pytest.approx(want, rel=4 / np.sqrt(2 * 3 * 256))
    geometry = found.geometry
    assert geometry is not None and geometry.located and geometry.spacing == pytest.approx((2, 3, 5))
    affine = geometry.affine(24, 20)
    assert np.allclose(affine @ [12, 10, 0, 1], [1, 2, 20, 1]) and np.allclose(affine @ [13, 11, 1, 1], [3, 5, 25, 1])


def test_averages_are_averaged_where_all_lines_have_as_many(tmp_path: Path) -> None:
    pytest.importorskip("ismrmrd")
    of = scan(coils=2, height=12, width=8)
    found = io.open_kspace(write_ismrmrd(tmp_path / "k.h5", of, averages=2))[1]
    assert np.allclose(found.kspace, of.kspace[1], atol=1e-6) and found.noise is not None
    once = io.open_kspace(write_ismrmrd(tmp_path / "once.h5", of))[1].noise
    torch.testing.assert_close(found.noise * 2**0.5, once)
    slices = io.open_kspace(write_ismrmrd(tmp_path / "fewer.h5", of, averages=2, drop=3))
    with pytest.raises(ArgumentError, match="^kspace: got samples acquired 1 to 2 times in .*fewer.h5.*slice 0; wanted all"):
        slices[0]
    assert np.allclose(slices[1].kspace, of.kspace[1], atol=1e-6)


@pytest.mark.parametrize(("changes", "says"), [
    ({"trajectory": "radial"}, "radial trajectory"), ({"z": 4}, "3-D scan"), ({"x": 0}, "XML header"),
    ({"x": "many"}, "XML header"), ({"x": 22}, "an acquisition of 24 samples"), ({"centre": 30}, "for column -")])
def test_ismrmrd_of_another_kind(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    pytest.importorskip("ismrmrd")
    path = write_ismrmrd(tmp_path / "k.h5", scan(slices=1, coils=1, width=8), **changes)
    with pytest.raises(ArgumentError, match=f"^(input|kspace): got .*{says}.*wanted"):
        io.open_kspace(path)[0]


@pytest.mark.parametrize(("shape", "options", "wanted"), [
    ((8, 230, 180), {}, "chw"), ((230, 180, 8), {}, "hwc"), ((230, 180, 8), {"matlab": True}, "hwc"),
    ((16, 4, 640, 368), {}, "schw"), ((320, 320, 12, 30), {}, "hwcs"), ((320, 320, 30, 12), {"coils": 12}, "hwsc"),
    ((12, 320, 320, 30), {"coils": 12}, "chws"),
    ((30, 320, 320), {"one_coil": True}, "shw"), ((36, 34, 32, 32), {}, "schw"), ((3, 16, 20, 2), {"is_complex": False}, "chwr"),
    ((1, 1, 3, 16, 20), {}, "_schw"), ((64, 64), {}, "hw"), ((8, 230, 180), {"matlab": True}, "chw")])
def test_guessed_axes(shape: tuple[int, ...], options: dict[str, Any], wanted: str) -> None:
    usual = {"is_complex": True, "matlab": False, "coils": None, "one_coil": False}
    assert guessed_axes(shape, **usual | options, where="f") == wanted


def test_axes_and_datasets_by_option_and_by_guess(tmp_path: Path) -> None:
    turned = SCAN.kspace.transpose(0, 2, 3, 1)  # shwc
    path = tmp_path / "k.npz"
    np.savez(path, one=turned, two=np.ones((4, 4), np.complex64), sens=SCAN.maps.transpose(1, 2, 0))
    slices = io.open_kspace(path, dataset="one", axes="shwc")
    found = slices[1]
    assert np.array_equal(found.kspace, SCAN.kspace[1]) and np.array_equal(found.maps, SCAN.maps)
    with pytest.warns(UserWarning, match=r"axes of shape \(2, 24, 20, 3\) in .*k.npz\[one\] are taken for shwc"):
        assert np.array_equal(io.open_kspace(path, dataset="one")[1].kspace, SCAN.kspace[1])
    with pytest.raises(ArgumentError, match=r"^input: got .*k.npz with one \(2, 24, 20, 3\) complex, two .*--dataset"):
        io.open_kspace(path)
    with pytest.raises(ArgumentError, match="^dataset: got 'three' in .*k.npz with one"):
        io.open_kspace(path, dataset="three")
    for axes in ("shw", "shwq", "schwc", "shwr", "_hwc", "hhwc"):
        with pytest.raises(ArgumentError, match=f"^axes: got '{axes}'"):
            io.open_kspace(path, dataset="one", axes=axes)
    np.savez(path, stuff=turned)
    with pytest.warns(UserWarning, match="kspace: stuff in .*k.npz is taken for it"):
        assert len(io.open_kspace(path, axes="shwc")) == 2


@pytest.mark.parametrize("shape", [(24, 20), (20,), (1, 20), (1, 1, 1, 20), (2, 1, 24, 20), (2, 3, 24, 20), (2, 24, 20),
                                   (2, 1, 20)])
def test_a_mask_of_any_shape_that_broadcasts(tmp_path: Path, shape: tuple[int, ...]) -> None:
    whole = np.broadcast_to(SCAN.mask, (2, 3, 24, 20))
    mask = SCAN.mask[0] if shape == (20,) else whole[tuple(slice(n) for n in shape)] if len(shape) == 4 else (
        whole[:shape[0], 0, :shape[1]] if len(shape) == 3 else SCAN.mask[:shape[0]])
    assert mask.shape == shape
    np.savez(tmp_path / "k.npz", kspace=SCAN.kspace, maps=SCAN.maps, mask=mask)
    assert np.array_equal(io.open_kspace(tmp_path / "k.npz")[1].mask, SCAN.mask)


def test_nan_is_nothing_measured(tmp_path: Path) -> None:
    kspace = np.where(SCAN.mask > 0, SCAN.kspace, np.nan)
    np.savez(tmp_path / "k.npz", kspace=kspace, maps=SCAN.maps)
    found = io.open_kspace(tmp_path / "k.npz")[0]
    assert np.array_equal(found.mask, SCAN.mask) and np.array_equal(found.kspace, SCAN.kspace[0])
    kspace[0, 1, 3, 0] = np.nan  # of one coil alone
    np.savez(tmp_path / "k.npz", kspace=kspace, maps=SCAN.maps)
    with pytest.raises(ArgumentError, match=r"^kspace: got 1 values that are NaN.*k.npz\[kspace\], slice 0"):
        io.open_kspace(tmp_path / "k.npz")[0]


def _changed(**changes: Any) -> dict[str, np.ndarray]:
    return {"kspace": SCAN.kspace[0], "maps": SCAN.maps, "mask": SCAN.mask} | changes


INF = SCAN.kspace[0].copy()
INF[0, 3, 0] = np.inf
BAD: dict[str, tuple[dict[str, np.ndarray], str]] = {
    "all zero": (_changed(kspace=0 * SCAN.kspace[0]), r"kspace: got all zero in .*k.npz\[kspace\]; wanted"),
    "zero where measured": (_changed(kspace=SCAN.kspace[0] * (1 - SCAN.mask) + (1 - SCAN.mask)), r"kspace: got all zero in .*k."),
    "zero maps": (_changed(maps=0 * SCAN.maps), r"maps: got all zero in .*k.npz\[maps\]"),
    "Inf": (_changed(kspace=INF), r"kspace: got 1 values that are NaN, infinite .* in .*k.npz\[kspace\]"),
    "maps of another size": (_changed(maps=SCAN.maps[:, :-1]), r"maps: got shape \(3, 23, 20\) in .*k.npz\[maps\]"),
    "six axes": (_changed(kspace=np.ones((2,) * 6, np.complex64)), r"kspace: got shape \(2, 2, 2, 2, 2, 2\) in .*k.npz"),
    "one axis": (_changed(kspace=np.ones(5, np.complex64)), r"kspace: got shape \(5,\) in .*k.npz"),
    "real": (_changed(kspace=SCAN.mask), r"kspace: got dtype float32 of shape \(24, 20\) in .*k.npz"),
    "empty": (_changed(kspace=SCAN.kspace[:0]), r"kspace: got .*k.npz"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_said_of_bad_arrays(tmp_path: Path, case: str) -> None:
    arrays, says = BAD[case]
    np.savez(tmp_path / "k.npz", **arrays)
    with pytest.raises(ArgumentError, match="^" + says) as caught:
        io.open_kspace(tmp_path / "k.npz")[0]
    assert "\n" not in str(caught.value)


def test_an_hdf5_file_that_declares_terabytes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file.create_dataset("kspace", (10, 100, 40000, 40000), np.complex64, chunks=(1, 1, 100, 100))
    with pytest.raises(ArgumentError, match=r"^kspace: got shape .* in .*k.h5\[kspace\], a slice of, which takes .* GB; wanted"):
        io.open_kspace(tmp_path / "k.h5")
    with h5py.File(tmp_path / "k.h5", "w") as file:
        file["kspace"] = SCAN.kspace
        file.create_dataset("maps", (100, 100000, 100000), np.complex64, chunks=(1, 100, 100))
    with pytest.raises(ArgumentError, match=r"^(input|maps): got .*k.h5.* \(100, 100000, 100000\)"):
        io.open_kspace(tmp_path / "k.h5")[0]


@pytest.mark.parametrize("kind", [kind for kind in FORMATS if kind not in ("npz", "npy")])
@pytest.mark.parametrize("share", [0, 0.3, 0.97])
def test_truncated_files(tmp_path: Path, kind: str, share: float) -> None:
    write, needed, _ = FORMATS[kind]
    for module in needed:
        pytest.importorskip(module)
    path = write(tmp_path / "scan")
    path.write_bytes(path.read_bytes()[:int(share * path.stat().st_size)])
    with warnings.catch_warnings(), pytest.raises(ArgumentError, match=f"got .*{path.name}") as caught:
        warnings.simplefilter("ignore")
        for one in io.open_kspace(path):
            assert one.kspace.shape == (3, 24, 20)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("header", "says"), [
    ("# Dimensions\n24 20 1 3", "23040 bytes; wanted the 11520"), ("24 20", "without '# Dimensions'"),
    ("# Dimensions\nx", "cannot be read"),
    ("# Dimensions\n24 -20 1 3", "dimensions"), ("# Dimensions\n6 2 2 120", "two dimensions"),
    ("# Dimensions\n24 20 1 3 2", "several sets of maps")])
def test_bad_headers_of_bart(tmp_path: Path, header: str, says: str) -> None:
    path = write_bart(tmp_path / "k", bart(SCAN.kspace))
    path.with_suffix(".hdr").write_text(header)
    with pytest.raises(ArgumentError, match=f"^(input|kspace): got .*{says}"):
        io.open_kspace(path)[0]


def test_slices_of_hdf5_are_read_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("h5py")
    path = write_fastmri(tmp_path / "k.h5", SCAN)
    monkeypatch.setattr(limits, "memory_of", lambda device: COPIES * 8 * 3 * 24 * 20)  # what one slice takes
    monkeypatch.setattr("alps_fast.io.children.memory_of", limits.memory_of)
    assert np.array_equal(io.open_kspace(path)[1].kspace, SCAN.kspace[1])


def test_the_first_of_two_sets_of_maps(tmp_path: Path) -> None:
    sets = np.stack([SCAN.maps, 0 * SCAN.maps]).transpose(2, 3, 1, 0)[:, :, None]
    np.save(tmp_path / "k.npy", SCAN.kspace)
    with pytest.warns(UserWarning, match="maps: the first of 2 sets in .*maps.cfl"):
        found = io.open_kspace(tmp_path / "k.npy", maps=write_bart(tmp_path / "maps", sets))[0]
    assert np.array_equal(found.maps, SCAN.maps)


def test_noise_and_covariance_beside_kspace(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(size=(3, 40)) + 0j
    np.savez(tmp_path / "k.npz", kspace=SCAN.kspace, maps=SCAN.maps, noise=noise, noise_cov=np.eye(3) + 0j)
    found = io.open_kspace(tmp_path / "k.npz")[0]
    assert found.noise is not None and np.allclose(found.noise, noise)
    assert found.covariance is not None and torch.equal(found.covariance, torch.eye(3) / 2 + 0j)


def test_scan_is_what_the_operator_measures() -> None:
    of: Scan = scan(noise=0.0)
    op = __import__("alps_fast").operators.CartesianMRI(torch.from_numpy(of.mask), torch.from_numpy(of.maps), noise_std=1.0)
    torch.testing.assert_close(op.forward(torch.from_numpy(of.images)[:, None]), torch.from_numpy(of.kspace))


def test_a_matlab_file_on_which_scipy_crashes_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy_io = pytest.importorskip("scipy.io")
    scipy_io.savemat(tmp_path / "k.mat", {"kspace": np.ones((2, 4, 4), np.complex64)})
    crashed = subprocess.CompletedProcess([], -11, stderr=b"")
    monkeypatch.setattr("alps_fast.io.children.subprocess.run", lambda *_, **__: crashed)
    with pytest.raises(ArgumentError, match=r"^input: got .*k\.mat, which cannot be read \(SciPy died of signal 11\)"):
        open_source(tmp_path / "k.mat", "input")
