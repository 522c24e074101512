"""k-space with its maps and mask from npz or HDF5."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import check
from .files import check_finite, check_is_file, load_arrays
from .hdf5 import read_hdf5

HDF5 = (".h5", ".hdf5", ".hdf")


class KSpace(NamedTuple):
    """kspace (coils, H, W) complex64, maps (coils, H, W) complex64 or None for one coil, mask (H, W) float32."""

    kspace: Tensor
    maps: Tensor | None
    mask: Tensor


def read_kspace(path: str | Path, name: str = "input") -> KSpace:
    """k-space from an .npz or HDF5 file with the arrays `kspace`, `maps` and `mask`.

    kspace: (coils, H, W) or (H, W), complex, zero frequency in the middle. maps: as kspace; may be missing for one
    coil. mask: (H, W), or (W,) for whole columns; where it is missing, what is not zero in kspace was measured.

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
    return KSpace(kspace, maps, _mask(arrays.get("mask"), kspace, path))


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
    check(array.shape in ((height, width), (width,)), "mask", f"shape {array.shape}", f"({height}, {width}) or ({width},)")
    check(bool((array != 0).any()), "mask", "zero everywhere", "at least one measured sample")
    return torch.from_numpy((array != 0).astype(np.float32)).expand(height, width).clone()
