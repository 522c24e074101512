"""Outputs that appear whole or not at all, and NumPy archives without pickles."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..errors import ArgumentError, check


def check_writable(path: Path, name: str) -> None:
    """`path` must be a file that could be written; asked before work starts. Its folder is made when it is, by `replacing`."""
    check(not path.is_dir(), name, path, "a file, this is a folder")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    check(there.is_dir() and os.access(there, os.W_OK), name, path, f"a file in a folder; {there} is none that can be written")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` (same suffix) that takes its place when the block ends without an error.

    Makes the folder where there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_is_file(path: Path, name: str) -> None:
    """`path` must be a file that is there."""
    check(path.is_file(), name, path, "a file that exists")


def load_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, or of an .npy under the name ""; numbers only."""
    check_is_file(path, name)
    wanted = f"a NumPy {path.suffix} file of numbers"
    try:
        with path.open("rb") as file:  # by NumPy's own hand a broken archive stays open
            loaded = np.load(file, allow_pickle=False)
            arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ArgumentError(f"{name}: got {path}; wanted {wanted} ({_first_line(error)})") from None
    for key, array in arrays.items():
        check(array.dtype.kind in "biufc", name, f"{path}{f'[{key}]' if key else ''} of dtype {array.dtype}", wanted)
    return arrays


def check_finite(array: np.ndarray, name: str, path: Path) -> None:
    """Every value must be finite; says how many are not."""
    bad = int(array.size - np.isfinite(array).sum())
    check(bad == 0, name, f"{path} with {bad} values that are NaN or infinite", "finite numbers")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
