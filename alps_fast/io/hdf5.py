"""Arrays from HDF5 files, read by a process of its own: on a damaged file the HDF5 library may crash, or never end."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import refused
from ..limits import memory_of
from .files import reading

CHILD = Path(__file__).with_name("_hdf5_child.py")
SECONDS, BYTES_A_SECOND = 60, 1 << 22  # processor time that a file may take: a damaged one is read for ever
COPIES = 4  # of an array, in both processes, as it is and as complex numbers of single precision
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
    seconds = SECONDS + path.stat().st_size // BYTES_A_SECOND
    memory = memory_of(torch.device("cpu")) // COPIES
    command = [sys.executable, "-P", str(CHILD), str(path.absolute()), str(seconds), str(memory)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # finds what this process finds
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as request:
        request.write(json.dumps(wanted).encode())
        request.seek(0)
        child = subprocess.run(command, stdin=request, stdout=answer, stderr=subprocess.PIPE, env=environment)
        with reading(path, name, WANTED):
            if child.returncode:
                said = child.stderr.decode(errors="replace").strip().splitlines()
                died = f"the HDF5 library died of signal {-child.returncode}"
                raise ValueError(said[-1] if child.returncode > 0 and said else died)
            answer.seek(0)
            found = json.loads(answer.readline())
            if wanted is None:
                found = {"arrays": dict(found["arrays"]), "attributes": dict(found["attributes"]), "small": list(found["small"]),
                         "count": len(found["small"])}
            return found, [np.lib.format.read_array(answer, allow_pickle=False) for _ in range(found["count"])]
