"""The named arrays of a file, whatever its format: what there is without reading it, and entries of the first axis one by one."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ..errors import check, refused
from ..limits import check_memory
from .bart import COIL, MAPS, PHS1, PHS2, READ, read_cfl
from .children import COPIES, asked
from .files import check_is_file, checked_numbers, load_arrays, reading
from .hdf5 import list_hdf5, read_hdf5

HDF5 = (".h5", ".hdf5", ".hdf", ".mrd")
CFL = (".cfl", ".hdr")
SUFFIXES = (".npz", ".npy", ".mat", *HDF5, *CFL)
MATLAB_73 = b"MATLAB 7.3"


class Info(NamedTuple):
    """Shape, dtype ("complex", "text" or NumPy's name), and text and numbers that the file says of it."""

    shape: tuple[int, ...]
    dtype: str
    attributes: dict[str, Any]
    fields: tuple[str, ...] = ()


class Source(ABC):
    """A file of arrays.

    arrays: what there is, by name. attributes: of the file. reversed: whether its axes come as MATLAB has them, (H, W, coils, …).
    letters: of a file whose format says what its axes are, as `axes.py` names them; else empty.
    """

    reversed = False
    letters = ""

    def __init__(self, path: Path, name: str, arrays: dict[str, Info], attributes: dict[str, Any] | None = None):
        self.path, self.name, self.arrays, self.attributes = path, name, arrays, attributes or {}

    @abstractmethod
    def read(self, key: str) -> np.ndarray:
        """A whole array."""

    def entry(self, key: str, axis: int, index: int) -> np.ndarray:
        """What is at `index` of an axis of it."""
        return self.read(key).take(index, axis)

    def where(self, key: str) -> str:
        """The file and the array's name, for errors."""
        return f"{self.path}[{key}]" if key else str(self.path)


class Loaded(Source):
    """A file whose arrays are in memory, or mapped."""

    def __init__(self, path: Path, name: str, loaded: dict[str, np.ndarray], letters: str = ""):
        kinds = {key: "complex" if a.dtype.kind == "c" else str(a.dtype) for key, a in loaded.items()}
        super().__init__(path, name, {key: Info(a.shape, kinds[key], {}) for key, a in loaded.items()})
        self.loaded, self.letters = loaded, letters

    def read(self, key: str) -> np.ndarray:
        return self.loaded[key]


class HDF5Source(Source):
    """An HDF5 file, read by a process of its own; of MATLAB, axes are stored from last to first."""

    def __init__(self, path: Path, name: str):
        found, small = list_hdf5(path, name)
        with path.open("rb") as file:
            self.reversed = file.read(len(MATLAB_73)) == MATLAB_73
        with reading(path, name, "an HDF5 file of arrays"):
            arrays = {key: Info(self._turned(tuple(map(int, a["shape"]))), str(a["dtype"]), dict(a["attributes"]),
                                tuple(a["fields"])) for key, a in found["arrays"].items()}
        super().__init__(path, name, arrays, found["attributes"])
        self._kept = {key: self._checked(key, array) for key, array in small.items()}

    def _turned(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape[::-1] if self.reversed else shape

    def read(self, key: str) -> np.ndarray:
        if key not in self._kept:
            self._kept[key] = self._checked(key, read_hdf5(self.path, self.name, [(key, None, None)])[0])
        return self._kept[key]

    def entry(self, key: str, axis: int, index: int) -> np.ndarray:
        if key in self._kept or axis != (len(self.arrays[key].shape) - 1 if self.reversed else 0):
            return super().entry(key, axis, index)
        return self._checked(key, read_hdf5(self.path, self.name, [(key, None, [index])])[0]).take(0, axis)

    def _checked(self, key: str, array: np.ndarray) -> np.ndarray:
        checked_numbers({key: array}, self.path, self.name, "an HDF5 file of arrays")
        return array.T if self.reversed else array

    def text(self, key: str) -> str:
        """A dataset of text, its first."""
        return self.read(key).astype(np.uint8).tobytes().decode(errors="replace")


def _mat(path: Path, name: str) -> Loaded:
    """A MATLAB file before version 7.3, read by SciPy in a process of its own; what is no array of numbers is passed by."""
    if importlib.util.find_spec("scipy") is None:
        raise refused(name, path, "SciPy to read it: pip install 'alps_fast[mri]'")
    wanted = "a MATLAB file of arrays"
    answer, arrays = asked("_mat_child.py", "SciPy", path, name, wanted)
    check_memory(name, path, COPIES * answer["bytes"], torch.device("cpu"))
    found = Loaded(path, name, checked_numbers(dict(zip(answer["names"], arrays, strict=True)), path, name, wanted))
    found.reversed = True
    return found


def open_source(path: Path, name: str) -> Source:
    """The arrays of an npz, npy, HDF5, MATLAB or BART file.

    Raises:
        ArgumentError: naming `name` and the file, where it is missing, of no such kind, or damaged.
    """
    check_is_file(path, name)
    suffix = path.suffix.lower()
    check(suffix in SUFFIXES, name, path, "k-space in an " + ", ".join(SUFFIXES) + " file")
    if suffix in (".npz", ".npy"):
        return Loaded(path, name, load_arrays(path, name))
    if suffix in CFL:
        return _bart(path, name)
    if suffix == ".mat":
        with path.open("rb") as file:
            start = file.read(520)
        if start[:len(MATLAB_73)] != MATLAB_73 and b"\x89HDF" not in (start[:4], start[512:516]):
            return _mat(path, name)
    return HDF5Source(path, name)


def _bart(path: Path, name: str) -> Loaded:
    """BART's dimensions as (h, w, c) or (h, w, c, s): those of the first three that are not 1, coils, and what else there is."""
    array = read_cfl(path, name)
    spatial = [d for d in (READ, PHS1, PHS2) if array.shape[d] > 1]
    check(len(spatial) <= 2, name, f"{path} with dimensions {array.shape[:4]}",
          "k-space of two dimensions; of three, after a transform along one of them, that one as dimension 13, slices")
    spatial += [d for d in (READ, PHS1, PHS2) if d not in spatial][:2 - len(spatial)]
    more = [d for d in range(MAPS, array.ndim) if array.shape[d] > 1]
    rest = [d for d in range(array.ndim) if d not in (*sorted(spatial), COIL, *more)]
    moved = array.transpose(*sorted(spatial), COIL, *more, *rest)
    letters = "hwc" + "".join("m" if d == MAPS else "s" for d in more)
    return Loaded(path, name, {"": moved.reshape(moved.shape[:len(letters)])}, letters)
