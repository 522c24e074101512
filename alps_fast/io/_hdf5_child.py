"""Reads arrays of an HDF5 file for another process: python _hdf5_child.py FILE SECONDS MEMORY, what is wanted on stdin as JSON.

    null                            tell what there is: {"arrays": {name: {shape, dtype, …}}, "attributes", "small"}
    [[name, field, index], …]       arrays, whole (index null) or some entries of their first axis

On stdout goes JSON in one line: what there is, or how many arrays follow; then arrays as NumPy writes them, of what there is
those that are text or small, which saves their reader a process. On stderr what was wrong. Numbers stored as real and imaginary
part come as complex, text as bytes, rows of numbers of various length as two arrays, all the numbers
one after another and the lengths. It imports nothing of alps_fast, for torch would take seconds.
"""

from __future__ import annotations

import json
import math
import resource
import sys
from contextlib import suppress
from typing import Any

MOST = 1000  # names that are told
TEXT = 1 << 20  # characters of an attribute that are told
SMALL, SMALL_TEXT, FEW = 1 << 14, 1 << 20, 64  # bytes of arrays that are told at once, and how many of them
PARTS = ({"real", "imag"}, {"r", "i"}, {"re", "im"})


def main() -> None:
    path, seconds, memory = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))  # a damaged file may be read for ever
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    wanted = json.load(sys.stdin)

    import h5py
    import numpy as np

    try:
        with h5py.File(path, "r") as file:
            if wanted is None:
                answer = told(file)
                small = small_arrays(file, answer["arrays"])
                answer["small"], answer["count"], arrays = list(small), len(small), list(small.values())
            else:
                arrays = [array for name, field, index in wanted for array in read(file, name, field, index, int(memory))]
                answer = {"count": len(arrays)}
    except Exception as error:  # for the process that asks to say in one line
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
    for array in arrays:
        np.lib.format.write_array(sys.stdout.buffer, np.asarray(array), allow_pickle=False)


def told(file: Any) -> dict[str, Any]:
    """Names, shapes, kinds and attributes of all arrays, and the attributes of the file."""
    import h5py

    arrays: dict[str, Any] = {}

    def visit(name: str, what: Any) -> bool | None:
        if isinstance(what, h5py.Dataset):
            dtype = what.dtype
            kind = "text" if h5py.check_string_dtype(dtype) else "complex" if is_complex(dtype) else str(dtype)
            numbers = kind == "complex" or dtype.kind in "biuf"
            size = math.prod(what.shape or ()) * dtype.itemsize if numbers or kind == "text" else 2 * SMALL
            arrays[name] = {"shape": list(what.shape or ()), "dtype": kind, "fields": list(dtype.names or ()), "bytes": size,
                            "attributes": attributes(what)}
        return True if len(arrays) >= MOST else None

    file.visititems(visit)
    return {"arrays": arrays, "attributes": attributes(file)}


def small_arrays(file: Any, told: dict[str, Any]) -> dict[str, Any]:
    """A few that are small, but those that cannot be read."""
    found: dict[str, Any] = {}
    for name in [name for name, one in told.items() if 0 < one["bytes"] <= SMALL][:FEW]:
        with suppress(Exception):
            found[name] = read(file, name, None, None, SMALL_TEXT)[0]
    return found


def attributes(what: Any) -> dict[str, Any]:
    """Those that are text or single numbers."""
    import numpy as np

    found: dict[str, Any] = {}
    for key in list(what.attrs)[:MOST]:
        try:
            value = what.attrs[key]
        except Exception:  # of a kind that NumPy has not
            continue
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if isinstance(value, str):
            found[key] = value[:TEXT]
        elif isinstance(value, np.generic | np.ndarray) and value.size == 1 and value.dtype.kind in "biuf":
            found[key] = value.item()
    return found


def is_complex(dtype: Any) -> bool:
    """Whether numbers are stored as a real and an imaginary part."""
    return dtype.kind == "c" or (dtype.names is not None and {n.lower() for n in dtype.names} in PARTS)


def read(file: Any, name: str, field: str | None, index: list[int] | None, memory: int) -> list[Any]:
    """One array, or two where rows have lengths of their own."""
    import h5py
    import numpy as np

    if not isinstance(file[name], h5py.Dataset):
        raise ValueError(f"{name} is no array")
    data = file[name]
    count = (data.shape or (1,))[0] if index is None else len(index)
    size = count * math.prod((data.shape or ())[1:]) * data.dtype.itemsize
    if size > memory:
        raise ValueError(f"{name} of shape {data.shape} takes {size / 1e9:.3g} GB, more than fits")
    if h5py.check_string_dtype(data.dtype):
        text = data[()] if data.shape == () else data[tuple(0 for _ in data.shape)]
        return [np.frombuffer(text if isinstance(text, bytes) else str(text).encode(), np.uint8)]
    view = data if field is None else data.fields(field)
    if index is None:
        found = view[()]
    elif index == list(range(index[0], index[-1] + 1)):
        found = view[index[0]:index[-1] + 1]
    else:
        found = view[np.array(index)]
    if found.dtype.kind == "O":
        rows = [np.asarray(row) for row in found.reshape(-1)]
        if any(row.dtype.kind not in "biuf" or row.ndim != 1 for row in rows):
            raise ValueError(f"{name} of dtype {found.dtype} is not of numbers")
        return [np.concatenate([np.empty(0, np.float32), *rows]), np.array([len(row) for row in rows], np.int64)]
    if found.dtype.names and is_complex(found.dtype):
        names = sorted(found.dtype.names, key=lambda n: n.lower() not in ("real", "r", "re"))
        found = found[names[0]] + 1j * found[names[1]]
    elif found.dtype.names is None and found.dtype.kind not in "biufc":
        raise ValueError(f"{name} of dtype {found.dtype} is not of numbers")
    return [found]


if __name__ == "__main__":
    main()
