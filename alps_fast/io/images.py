"""Images, masks and blur kernels from PNG, JPEG, TIFF, npy and npz.

Integers are grey levels and map to [-1, 1], the range the `natural` energies were trained on: 8 bit by
x = v/127.5 − 1, 16 bit by x = v/32767.5 − 1. Floats and complex numbers are taken as they are. Other whole numbers, and bool,
whose scale nobody can know, are refused; masks may be of any real kind.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import check
from .files import check_finite, check_is_file, load_arrays, quiet_libraries, reading
from .pictures import pixels

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
ARRAYS = (".npy", ".npz")
SMOOTHEST = 0.881  # 10 % quantile of √(χ²/n) for n = 64
FEWEST = 10  # patches to tell the noise from
WANTED = "a " + ", ".join(s[1:] for s in PICTURES + ARRAYS) + " file"


def read_image(path: str | Path, name: str = "input") -> Tensor:
    """The image of a file as (C, H, W), float32 or complex64.

    Pictures are grey (C = 1) or RGB (C = 3; transparency is dropped). Arrays are (H, W) or (C, H, W), C at most 4;
    an .npz holds one array or one called `image`.

    Raises:
        ArgumentError: naming `name` and the file, where it is missing, no image, of a wrong shape, or not finite.
    """
    path = Path(path)
    array = _read(path, name, "image")
    check_finite(array, name, path)
    image = torch.from_numpy(array.astype(np.complex64 if array.dtype.kind == "c" else np.float32))
    if array.dtype.kind in "uib":
        check(array.dtype in (np.uint8, np.uint16), name, f"{path} of dtype {array.dtype}", "uint8, uint16 or floats")
        image = image / (np.iinfo(array.dtype).max / 2) - 1
    return image


def read_mask(path: str | Path, name: str = "mask") -> Tensor:
    """The mask of a file as (C, H, W) float32 of 0 and 1; 1 = observed. Of a picture, levels above the middle are 1."""
    path = Path(path)
    array = _read(path, name, "mask")
    check(array.dtype.kind != "c", name, f"{path} of dtype {array.dtype}", "real numbers")
    check_finite(array, name, path)
    middle = np.iinfo(array.dtype).max // 2 if path.suffix.lower() in PICTURES and array.dtype.kind == "u" else 0
    mask = torch.from_numpy((array > middle).astype(np.float32))
    check(bool(mask.any()), name, f"{path}, zero everywhere", "at least one observed pixel")
    if mask.shape[0] == 3 and bool((mask == mask[:1]).all()):  # a black-and-white picture saved in colour
        mask = mask[:1]
    return mask


def read_psf(path: str | Path, name: str = "psf") -> Tensor:
    """The blur kernel of a file as (h, w) float64, its centre at pixel (h // 2, w // 2); a picture's levels are made to sum to 1.

    Raises:
        ArgumentError: naming `name` and the file.
    """
    path = Path(path)
    array = _read(path, name, "psf")
    check(array.shape[0] == 1 and array.dtype.kind != "c", name, f"{path}, {array.dtype} of shape {array.shape}",
          "real numbers (h, w), or a grey picture")
    check_finite(array, name, path)
    psf = torch.from_numpy(array[0].astype(np.float64))
    check(bool((psf != 0).any()), name, f"{path}, zero everywhere", "a kernel that is not zero")
    return psf / psf.sum() if path.suffix.lower() in PICTURES else psf


def image_noise(image: Tensor) -> float | None:
    """Standard deviation of white noise on an image (C, H, W), in every real component; None where it cannot be told.

        d = (x₀₀ − x₀₁ − x₁₀ + x₁₁)/2 over squares of 2 × 2 pixels,   σ = the 10 % quantile of √(mean d²) over patches of 8 × 8 d

    over 0.881, what that quantile is of noise of standard deviation one. For images some of whose patches are smooth, as most
    of those of blurred ones; where all have texture that is counted as noise. Patches of one value alone, cut off, do not count.

    Source: the finest diagonal detail, as in Donoho & Johnstone, "Ideal spatial adaptation by wavelet shrinkage", 1994.
    """
    real = torch.view_as_real(image).movedim(-1, 0).flatten(0, 1) if image.is_complex() else image
    height, width = (n // 16 for n in real.shape[-2:])
    if height * width == 0:
        return None
    detail = real.diff(dim=1)[:, :16 * height:2].diff(dim=2)[..., :16 * width:2] / 2
    rms = detail.double().unflatten(1, (-1, 8)).unflatten(3, (-1, 8)).square().mean((2, 4)).sqrt().flatten()
    rms = rms[rms > 0].sort().values
    return float(rms[len(rms) // 10]) / SMOOTHEST if len(rms) >= FEWEST else None


def _read(path: Path, name: str, key: str) -> np.ndarray:
    check_is_file(path, name)
    suffix = path.suffix.lower()
    check(suffix in PICTURES + ARRAYS, name, path, WANTED)
    if suffix in PICTURES:
        return _read_picture(path, name)
    arrays = load_arrays(path, name)
    if len(arrays) > 1:
        check(key in arrays, name, f"{path} with {', '.join(arrays)}", f"one array, or one called {key!r}")
        arrays = {key: arrays[key]}
    check(bool(arrays), name, f"{path} with no arrays", "one array")
    array = next(iter(arrays.values()))
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    array = array[None] if array.ndim == 2 else array
    check(array.ndim == 3 and array.shape[0] <= 4 and array.size > 0, name, f"{path} of shape {array.shape}",
          "(H, W), or (C, H, W) with at most four channels")
    return array


def _read_picture(path: Path, name: str) -> np.ndarray:
    from PIL import Image

    with reading(path, name, WANTED), quiet_libraries(), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)  # a small file that says it is a very large picture
        with path.open("rb") as file, Image.open(file) as picture:  # by its name Pillow 13 scrambles a TIFF that lies on its side
            array = pixels(picture, name, path)
    return array[None] if array.ndim == 2 else np.ascontiguousarray(np.moveaxis(array, -1, 0))
