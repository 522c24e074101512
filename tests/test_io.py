"""Images, masks and k-space in and out, and what is said of files that do not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alps_fast import data, io
from alps_fast.errors import ArgumentError
from alps_fast.operators import CartesianMRI, Inpainting
from benchmarks.mri.problems import scattered


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures(tmp_path: Path, suffix: str, channels: int) -> None:
    levels = torch.arange(channels * 35, dtype=torch.float32).reshape(channels, 5, 7) * 2 + 3
    path = tmp_path / f"x{suffix}"
    pixels = levels.byte().movedim(0, -1).numpy()
    Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(path)
    torch.testing.assert_close(io.read_image(path), levels / 127.5 - 1)


def test_grey_levels_span_minus_one_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255]], np.uint8)).save(tmp_path / "x.png")
    assert io.read_image(tmp_path / "x.png").tolist() == [[[-1.0, 1.0]]]
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "x.tiff")
    assert io.read_image(tmp_path / "x.tiff").tolist() == [[[-1.0, 1.0]]]
    np.save(tmp_path / "x.npy", np.array([[0, 255]], np.uint8))
    assert io.read_image(tmp_path / "x.npy").tolist() == [[[-1.0, 1.0]]]


def test_jpeg_and_transparency(tmp_path: Path) -> None:
    Image.new("RGB", (9, 6), (255, 0, 128)).save(tmp_path / "x.jpg")
    assert io.read_image(tmp_path / "x.jpg").shape == (3, 6, 9)
    Image.new("RGBA", (9, 6), (255, 255, 255, 7)).save(tmp_path / "x.png")
    assert torch.equal(io.read_image(tmp_path / "x.png"), torch.ones(3, 6, 9))


def test_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    real, complex_ = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    np.save(tmp_path / "x.npy", real[0])
    assert torch.equal(io.read_image(tmp_path / "x.npy"), torch.from_numpy(real[:1]).float())
    np.savez(tmp_path / "x.npz", other=real, image=real + 1j * complex_)
    assert torch.equal(io.read_image(tmp_path / "x.npz"), torch.from_numpy(real + 1j * complex_).to(torch.complex64))


def test_masks(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 100, 200, 255]], np.uint8)).convert("RGB").save(tmp_path / "m.png")
    assert io.read_mask(tmp_path / "m.png").tolist() == [[[0, 0, 1, 1]]]
    np.save(tmp_path / "m.npy", np.array([[0, 1], [True, False]]))
    assert io.read_mask(tmp_path / "m.npy").tolist() == [[[0, 1], [1, 0]]]


def test_blur_kernels(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 50], [100, 50]], np.uint8)).save(tmp_path / "k.png")
    assert io.read_psf(tmp_path / "k.png").tolist() == [[0, 0.25], [0.5, 0.25]]
    np.save(tmp_path / "k.npy", np.array([[-1.0, 3.0]]))
    assert io.read_psf(tmp_path / "k.npy").tolist() == [[-1.0, 3.0]]
    for wrong in (np.zeros((2, 2)), np.ones((2, 2), np.complex64), np.full((2, 2), np.nan), np.ones((3, 2, 2))):
        np.save(tmp_path / "k.npy", wrong)
        with pytest.raises(ArgumentError, match="^psf: got .*k.npy"):
            io.read_psf(tmp_path / "k.npy")


def brain_kspace() -> dict[str, np.ndarray]:
    kspace = torch.randn(3, 6, 8, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    return {"kspace": kspace.numpy(), "maps": data.coil_maps(3, 6, 8).numpy(), "mask": np.arange(8) % 2 == 0}


@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_kspace_round_trip(tmp_path: Path, suffix: str) -> None:
    arrays = brain_kspace()
    path = tmp_path / f"k{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        h5py = pytest.importorskip("h5py")
        with h5py.File(path, "w") as file:
            for key, value in arrays.items():
                file[key] = value
    kspace, maps, mask = io.read_kspace(path)
    assert maps is not None
    assert np.array_equal(kspace, arrays["kspace"])
    assert np.array_equal(maps, arrays["maps"])
    assert mask.tolist() == [[1, 0] * 4] * 6


def test_mask_is_where_kspace_is_not_zero(tmp_path: Path) -> None:
    kspace = np.ones((5, 4), np.complex64) * (np.arange(4) > 1)
    np.savez(tmp_path / "k.npz", kspace=kspace)
    found = io.read_kspace(tmp_path / "k.npz")
    assert found.maps is None
    assert found.kspace.shape == (1, 5, 4)
    assert found.mask.tolist() == [[0, 0, 1, 1]] * 5


@pytest.mark.parametrize(("change", "says"), [
    ({"kspace": None}, "kspace"),
    ({"kspace": np.ones((3, 6, 8), np.float32)}, "kspace.*complex"),
    ({"kspace": np.ones((2, 3, 6, 8), np.complex64)}, "kspace.*shape"),
    ({"kspace": np.full((3, 6, 8), np.nan + 0j)}, "kspace.*NaN"),
    ({"maps": None}, "maps"),
    ({"maps": np.ones((3, 6, 7), np.complex64)}, r"maps.*\(3, 6, 7\)"),
    ({"maps": np.ones((2, 6, 8), np.complex64)}, r"maps.*\(2, 6, 8\)"),
    ({"mask": np.zeros(8)}, "mask.*zero"),
    ({"mask": np.ones((6, 7))}, r"mask.*\(6, 7\)"),
])
def test_wrong_kspace_names_the_array(tmp_path: Path, change: dict[str, np.ndarray | None], says: str) -> None:
    arrays = {k: v for k, v in {**brain_kspace(), **change}.items() if v is not None}
    np.savez(tmp_path / "k.npz", **arrays)
    with pytest.raises(ArgumentError, match=says):
        io.read_kspace(tmp_path / "k.npz")


@pytest.mark.parametrize("name", ["none.png", "x.bmp", "empty.png", "cut.npz", "pickle.npy", "text.npy", "four.npy", "nan.npy",
                                  "two.npz"])
def test_wrong_images_name_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "x.bmp":
        path.write_bytes(b"BM")
    elif name == "empty.png":
        path.write_bytes(b"")
    elif name == "cut.npz":
        np.savez(path, image=np.ones((20, 20)))
        path.write_bytes(path.read_bytes()[:300])
    elif name == "pickle.npy":
        np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif name == "text.npy":
        np.save(path, np.array([["a", "b"]]))
    elif name == "four.npy":
        np.save(path, np.ones((1, 2, 3, 4)))
    elif name == "nan.npy":
        np.save(path, np.array([[1.0, np.nan]]))
    elif name == "two.npz":
        np.savez(path, a=np.ones((2, 2)), b=np.ones((2, 2)))
    with pytest.raises(ArgumentError, match=f"input: .*{name}.*wanted") as caught:
        io.read_image(path)
    assert "\n" not in str(caught.value)


def test_replacing_keeps_the_old_file_on_failure(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), io.replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    with io.replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_shipped_images() -> None:
    brain, photograph = data.brain(), data.photograph()
    assert brain.shape == (1, 192, 160)
    assert brain.dtype == torch.complex64
    assert brain.abs().max() == pytest.approx(1)
    assert photograph.shape == (1, 192, 192)
    assert photograph.min() >= -1
    assert photograph.max() <= 1


def test_coil_maps_add_up_to_one() -> None:
    maps = data.coil_maps(8, 48, 40)
    torch.testing.assert_close(maps.abs().square().sum(0), torch.ones(48, 40))


MASKED = {
    "pixels": lambda seed: (data.pixel_mask(192, 160, seed=seed), Inpainting(torch.ones(1, 192, 160), noise_std=0.02)),
    "lines": lambda seed: (data.line_mask(192, 160, 4, seed=seed), CartesianMRI(torch.ones(192, 160), noise_std=0.02)),
    "scattered": lambda seed: (scattered(192, 160, 6, seed), CartesianMRI(torch.ones(192, 160), noise_std=0.02)),
}
NOISES = {
    "measure": lambda op, clean, seed: data.measure(op, clean, seed=seed) / 0.02,
    "torch": lambda op, clean, seed: torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)),
    "NumPy": lambda op, clean, seed: torch.from_numpy(np.random.default_rng(seed).standard_normal(clean.shape)),
}


@pytest.mark.parametrize(("kind", "noise"), [(kind, noise) for kind in MASKED for noise in NOISES
                                             if noise == "measure" or kind == "pixels"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_mask_chooses_none_of_the_noise_of_the_same_seed(kind: str, noise: str, seed: int) -> None:
    """Mean 0 and std 1 of what is seen and of what is not, within four standard errors (as measured: within 2.6); masks drawn
    as torch draws noise left seen pixels a mean of .35, forty of them, and a std of .57."""
    mask, op = MASKED[kind](seed)
    clean = torch.zeros(1, 192, 160, dtype=torch.complex64 if op.is_complex else torch.float32)
    drawn = NOISES[noise](op, clean, seed)
    parts = torch.view_as_real(drawn).movedim(-1, 0) if drawn.is_complex() else drawn
    for seen in (True, False):
        of = parts[(mask.bool() == seen).expand(parts.shape)].double()
        error = len(of) ** -0.5
        assert abs(float(of.mean())) < 4 * error
        assert abs(float(of.std()) - 1) < 4 * error / 2**0.5


def test_masks_refuse_a_seed_that_is_none() -> None:
    for draw in (lambda: data.pixel_mask(8, 8, seed=-1), lambda: data.line_mask(8, 8, 2, centre=2, seed=-1)):
        with pytest.raises(ArgumentError, match="seed: got -1; wanted an integer >= 0"):
            draw()


@pytest.mark.parametrize(("acceleration", "centre"), [(4, 16), (8, 10)])
def test_line_mask(acceleration: int, centre: int) -> None:
    mask = data.line_mask(7, 160, acceleration, centre)
    assert (mask == mask[:1]).all()
    assert mask[0].sum() == 160 / acceleration
    assert mask[0, 80 - centre // 2:80 + centre // 2].all()
