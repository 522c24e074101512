"""Named arrays and texts in one file, npz or HDF5 by its suffix: written whole, read back by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from .files import replacing, write_npz
from .hdf5 import list_hdf5, read_hdf5

HDF5 = (".h5", ".hdf5")


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Arrays of numbers or of one text; the file appears whole or, where the disk is full, not at all.

    Raises:
        ImportError: HDF5 is asked for and h5py, an extra, is not installed.
    """
    if path.suffix.lower() not in HDF5:
        write_npz(path, dict(arrays))
        return
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{path} needs h5py: pip install 'alps_fast[mri]'") from error
    with replacing(path) as partial, h5py.File(partial, "w") as file:
        for name, array in arrays.items():
            if array.dtype.kind == "U":
                file[name] = str(array)
            else:
                file.create_dataset(name, data=array, compression="gzip" if array.size > 64 else None)


def read_arrays(path: Path, name: str, wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """Those of the arrays `wanted` that are there, a text as an array of one; errors are left to whoever calls it."""
    if path.suffix.lower() not in HDF5:
        with path.open("rb") as file:  # by NumPy's own hand a broken archive stays open
            stored = np.load(file, allow_pickle=False)
            return {key: stored[key] for key in wanted if key in stored.files}
    told, _ = list_hdf5(path, name)
    there = [key for key in wanted if key in told["arrays"]]
    found = dict(zip(there, read_hdf5(path, name, [(key, None, None) for key in there]), strict=True))
    text = [key for key in there if told["arrays"][key]["dtype"] == "text"]
    return found | {key: np.array(found[key].astype(np.uint8).tobytes().decode(errors="replace")) for key in text}
