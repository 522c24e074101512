"""k-space with its maps and mask from npz or HDF5."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import check
from .files import check_finite, check_is_file, load_arrays
from .hdf5 import read_hdf5

NEAR = 16  # frequency zero is looked for within the n/16 samples around a place
FAR_MORE = 10  # times the energy around the middle that another place may have
HDF5 = (".h5", ".hdf5", ".hdf")


class KSpace(NamedTuple):
    """kspace (coils, H, W) complex64, maps (coils, H, W) complex64 or None for one coil, mask (H, W) float32."""

    kspace: Tensor
    maps: Tensor | None
    mask: Tensor


def read_kspace(path: str | Path, name: str = "input") -> KSpace:
    """k-space from an .npz or HDF5 file with the arrays `kspace`, `maps` and `mask`.

    kspace: (coils, H, W) or (H, W), complex, zero frequency in the middle. maps: as kspace; may be missing for one
    coil. mask: (H, W), (W,) or (1, W) for whole columns, (H, 1) for whole rows; where it is missing, what is not zero in
    kspace was measured. Files that contradict themselves are refused: a mask of 1 where all coils are exactly 0, or a
    frequency zero that is not in the middle.

    Raises:
        ArgumentError: naming `name`, the file and the array.
    """
    path = Path(path)
    check_is_file(path, name)
    suffix = path.suffix.lower()
    check(suffix == ".npz" or suffix in HDF5, name, path, "k-space in an .npz or HDF5 file")
    arrays = load_arrays(path, name) if suffix == ".npz" else read_hdf5(path, name, ("kspace", "maps", "mask"))
    check("kspace" in arrays, name, f"{path} with {', '.join(arrays) or 'no arrays'}", "an array called 'kspace'")
    kspace = _complex(arrays["kspace"], "kspace", path)
    maps = _complex(arrays["maps"], "maps", path) if "maps" in arrays else None
    coils = kspace.shape[0]
    check(maps is not None or coils == 1, "maps", f"none in {path}", f"coil maps for {coils} coils")
    check(maps is None or maps.shape == kspace.shape, "maps", f"shape {tuple(maps.shape) if maps is not None else ()}",
          f"the shape of kspace, {tuple(kspace.shape)}")
    mask = _mask(arrays.get("mask"), kspace, path)
    check_consistent(kspace, mask, f" in {path}")
    return KSpace(kspace, maps, mask)


def _complex(array: np.ndarray, name: str, path: Path) -> Tensor:
    array = array[None] if array.ndim == 2 else array
    check(array.ndim == 3 and array.size > 0, name, f"shape {array.shape} in {path}", "(coils, H, W) or (H, W)")
    check(array.dtype.kind == "c", name, f"dtype {array.dtype} in {path}", "complex numbers")
    check_finite(array, name, path)
    return torch.from_numpy(array.astype(np.complex64))


def _mask(array: np.ndarray | None, kspace: Tensor, path: Path) -> Tensor:
    if array is None:
        return (kspace != 0).any(0).float()
    height, width = kspace.shape[1:]
    check(array.dtype.kind in "biuf", "mask", f"dtype {array.dtype}", "real numbers")
    check_finite(array, "mask", path)
    shapes = ((height, width), (width,), (1, width), (height, 1))
    check(array.shape in shapes, "mask", f"shape {array.shape}", " or ".join(map(str, shapes)))
    check(bool((array != 0).any()), "mask", "zero everywhere", "at least one measured sample")
    mask = torch.from_numpy((array != 0).astype(np.float32))
    whole, zero = mask.expand(height, width).clone(), (kspace == 0).all(0)
    if mask.ndim == 1 and height == width:
        rows = bool((zero == (mask == 0)[:, None]).all()) and bool((zero & (whole > 0)).any())
        check(not rows, "mask", f"({width},) in {path}, which names columns, where rows were measured", f"it as ({height}, 1)")
        if not bool(zero.any()) and not bool((mask > 0).all()):
            warnings.warn(f"mask: ({width},) of square k-space in {path} is taken to name columns; for rows store it as "
                          f"({height}, 1)", stacklevel=4)
    return whole


def check_consistent(kspace: Tensor, mask: Tensor, where: str = "") -> None:
    """A sample that the mask (H, W) counts is not exactly 0 in all coils, and frequency zero is in the middle, (H // 2, W // 2).

    where: words for an error, of what holds kspace (coils, H, W).
    """
    empty = int(((kspace == 0).all(0) & (mask > 0)).sum())
    check(empty == 0, "mask", f"1 at {empty} of {int(mask.sum())} samples where every coil of kspace is exactly 0{where}",
          "0 where nothing was measured, or no mask, which then is where kspace is not 0")
    power = (kspace * mask).abs().double().square().sum(0)  # of an image most is around frequency zero
    height, width = power.shape
    near = [max(1, n // NEAR) for n in (height, width)]

    def around(y: int, x: int) -> float:
        rows, columns = ((torch.arange(-r, r + 1) + at) % n for r, at, n in zip(near, (y, x), (height, width), strict=True))
        return float(power[rows.unique()][:, columns.unique()].sum())

    middle = around(height // 2, width // 2)
    for y, x, axes in ((0, 0, "both axes"), (0, width // 2, "the first axis"), (height // 2, 0, "the second axis")):
        check(around(y, x) <= FAR_MORE * middle, "kspace", f"most of its energy around ({y}, {x}){where}",
              f"frequency zero in the middle, ({height // 2}, {width // 2}): np.fft.fftshift along {axes}, of the mask too")
