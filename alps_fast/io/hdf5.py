"""Arrays from HDF5 files, read by a process of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import refused
from .children import asked

WANTED = "an HDF5 file of arrays"


def list_hdf5(path: Path, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What is in the file, {"arrays": {its path: {shape, dtype, fields, attributes}}, "attributes": …}; and small arrays.

    dtype is "complex" of whatever is stored as real and imaginary part, "text", or NumPy's name.

    Raises:
        ArgumentError: naming `name` and the file, where h5py is missing, or cannot read it, or the library under it crashes.
    """
    answer, arrays = _asked(path, name, None)
    return answer, dict(zip(answer["small"], arrays, strict=True))


def read_hdf5(path: Path, name: str, wanted: Sequence[tuple[str, str | None, list[int] | None]]) -> list[np.ndarray]:
    """Arrays by (dataset, field of it or None, entries of its first axis or None for all), as the child's docstring says.

    Raises:
        ArgumentError: as `list_hdf5`; where an array is no array, is not of numbers, or does not fit in memory.
    """
    return _asked(path, name, list(wanted))[1]


def _asked(path: Path, name: str, wanted: object) -> tuple[Any, list[np.ndarray]]:
    if importlib.util.find_spec("h5py") is None:
        raise refused(name, path, "h5py to read it: pip install 'alps_fast[mri]'")
    return asked("_hdf5_child.py", "the HDF5 library", path, name, WANTED, wanted)
