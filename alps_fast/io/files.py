"""Outputs that appear whole or not at all, and files of strangers, on which a library may raise what it likes."""

from __future__ import annotations

import os
import secrets
import stat
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from ..errors import ArgumentError, check, refused
from ..limits import check_memory

_stderr_lock = Lock()


def check_writable(path: Path, name: str) -> None:
    """`path` must be a file that could be written; asked before work starts. Its folder is made when it is, by `replacing`."""
    try:
        check(bool(path.name) and path.name != "..", name, f"'{path}'", "the name of a file")
        mode = _mode(path)  # of one look: another run may make it meanwhile
        check(mode is None or not stat.S_ISDIR(mode), name, path, "a file, this is a folder")
        check(mode is None or stat.S_ISREG(mode), name, path, "a file, this is a device or a pipe")
        there = next(folder for folder in path.absolute().parents if folder.exists())
    except OSError as error:  # a name too long, a link to itself
        raise refused(name, path, f"a file that can be written ({error.strerror})") from None
    check(there.is_dir() and os.access(there, os.W_OK), name, path, f"a file in a folder; {there} is none that can be written")


def _mode(path: Path) -> int | None:
    """What it is, None where there is nothing."""
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_outputs(name: str, files: Iterable[Path], force: bool, **inputs: str | Path | None) -> None:
    """`files` must be writable, none of them an input, whatever links lead there, and none there already unless `force`.

    Asked before work starts. inputs: by the name of their argument; one that is no file, an energy's name say, is passed by.

    Raises:
        ArgumentError: naming `name` and the file.
    """
    for file in files:
        check_writable(file, name)
        for what, given in inputs.items():
            check(given is None or not _same(file, Path(given)), name, file, f"another file than {what}, which is read")
        check(force or not os.path.lexists(file), name, f"{file}, which is there already", "a new name, or --force to replace it")


def _same(one: Path, other: Path) -> bool:
    """Whether two names are of one file, by links of either kind too."""
    return (one.exists() and other.exists() and one.samefile(other)) or os.path.realpath(one) == os.path.realpath(other)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name (same folder, same suffix, nobody else's) that takes the place of `path` when the block ends without an
    error: then what it holds is on the disk, and a reader finds the old file or the new one, each whole.

    Writes through links, keeps the permissions of what it replaces, and makes the folder where there is none.
    """
    check_writable(path, "path")
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        yield partial
        if path.exists():
            partial.chmod(stat.S_IMODE(path.stat().st_mode))
        _sync(partial)
        partial.replace(path)
        with suppress(OSError):  # not every file system can
            _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """`arrays` as a compressed .npz without pickles, whole or not at all.

    What numpy.savez_compressed writes; but NumPy 2.0's leaves the archive open where the disk is full.
    """
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _sync(path: Path) -> None:
    """Wait until the disk has a file, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_is_file(path: Path, name: str) -> None:
    """`path` must be a file that is there, no folder and no pipe."""
    try:
        there = path.is_file()
    except (OSError, ValueError):  # a name too long, or none
        there = False
    check(there, name, path, "a file that exists")


@contextmanager
def reading(path: str | Path, name: str, wanted: str, fault: str = "cannot be read") -> Iterator[None]:
    """Makes an ArgumentError, of one line, of whatever is raised inside.

    A library that reads a damaged file raises what it likes: zlib.error, KeyError, MemoryError, struct.error, AttributeError, …
    """
    try:
        yield
    except ArgumentError:
        raise
    except Exception as error:
        raise refused(name, f"{path}, which {fault} ({first_line(error)})", wanted) from error


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Nothing that is written to the process's stderr inside is seen: C libraries comment there on files that they refuse."""
    with _stderr_lock, open(os.devnull, "wb") as nowhere:
        kept = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def first_line(error: BaseException) -> str:
    """What an error says, in a line, its kind where it says nothing."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def load_arrays(path: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name, or of an .npy under the name ""; numbers only."""
    check_is_file(path, name)
    wanted = f"a NumPy {path.suffix} file of numbers"
    with reading(path, name, wanted), path.open("rb") as file:  # by NumPy's own hand a broken archive stays open
        if zipfile.is_zipfile(file):
            packed = zipfile.ZipFile(file).infolist()
            check_memory(name, path, sum(member.file_size for member in packed), torch.device("cpu"))
        file.seek(0)
        loaded = np.load(file, allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {key: loaded[key] for key in loaded.files}
    return checked_numbers(arrays, path, name, wanted)


def checked_numbers(arrays: dict[str, np.ndarray], path: Path, name: str, wanted: str) -> dict[str, np.ndarray]:
    """The arrays, which must be of numbers."""
    for key, array in arrays.items():
        ok = isinstance(array, np.ndarray) and array.dtype.kind in "biufc"
        check(ok, name, f"{path}{f'[{key}]' if key else ''} of dtype {getattr(array, 'dtype', type(array).__name__)}", wanted)
    return arrays


def check_finite(array: np.ndarray, name: str, path: Path) -> None:
    """Every value must be finite, in single precision too; says how many are not."""
    with np.errstate(over="ignore"):
        single = array.astype(np.complex64 if array.dtype.kind == "c" else np.float32)
    bad = int(array.size - np.isfinite(single).sum())
    check(bad == 0, name, f"{path} with {bad} values that are NaN, infinite or beyond float32", "finite numbers")
