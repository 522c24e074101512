"""BART's files: complex numbers of single precision in NAME.cfl, the sizes of their sixteen dimensions in NAME.hdr.

    NAME.hdr    "# Dimensions", then on the next line the sizes, the fastest first, as text
    NAME.cfl    real and imaginary part by turns, float32, little endian, the first dimension fastest

Source: the BART toolbox's documentation of its file format, https://mrirecon.github.io/bart/.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..errors import check
from .files import check_is_file, reading, replacing

READ, PHS1, PHS2, COIL, MAPS, SLICE, BATCH = 0, 1, 2, 3, 4, 13, 15
DIMENSIONS = 16
WANTED = "a .cfl file with its .hdr beside it, as BART writes them"


def read_cfl(path: Path, name: str) -> np.ndarray:
    """The array of NAME.cfl and NAME.hdr, given either: sixteen axes or more, mapped, not read.

    Raises:
        ArgumentError: naming `name` and the file, where one is missing, or they do not fit each other.
    """
    header, data = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    check_is_file(header, name)
    check_is_file(data, name)
    with reading(header, name, WANTED):
        lines = header.read_text(errors="replace").splitlines()
        at = next((i for i, line in enumerate(lines) if line.strip() == "# Dimensions"), None)
        check(at is not None and at + 1 < len(lines), name, f"{header} without '# Dimensions'", WANTED)
        sizes = [int(word) for word in lines[(at or 0) + 1].split()]
    ok = 0 < len(sizes) <= 64 and all(n > 0 for n in sizes)
    check(ok, name, f"{header} with dimensions {sizes}", WANTED)
    sizes += [1] * (DIMENSIONS - len(sizes))
    wanted, there = 8 * math.prod(sizes), data.stat().st_size
    check(there == wanted, name, f"{data} of {there} bytes", f"the {wanted} that {header.name} says, dimensions {_short(sizes)}")
    with reading(data, name, WANTED):
        return np.memmap(data, np.dtype("<c8"), "r", shape=tuple(sizes[:32]), order="F")


def write_cfl(path: Path, array: np.ndarray) -> None:
    """Write NAME.cfl and NAME.hdr of an array of at most sixteen axes, BART's dimensions in their order; each appears whole."""
    sizes = list(array.shape) + [1] * (DIMENSIONS - array.ndim)
    with replacing(path.with_suffix(".cfl")) as partial, partial.open("wb") as file:
        for part in array.T:  # last dimension slowest: no second copy of all
            file.write(np.ascontiguousarray(part, np.dtype("<c8")).data)
    with replacing(path.with_suffix(".hdr")) as partial:
        partial.write_text("# Dimensions\n" + " ".join(map(str, sizes)) + "\n")


def _short(sizes: list[int]) -> str:
    """The sizes without the ones at their end."""
    last = max((i for i, n in enumerate(sizes) if n != 1), default=0)
    return " ".join(map(str, sizes[:last + 1]))
