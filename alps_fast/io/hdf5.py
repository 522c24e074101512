"""Arrays from HDF5 files, read by a process of its own: on a damaged file the HDF5 library may crash, or never end."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from ..errors import refused
from .files import checked_numbers, reading

CHILD = Path(__file__).with_name("_hdf5_child.py")
SECONDS, BYTES_A_SECOND = 60, 1 << 22  # processor time that a file may take: a damaged one is read for ever


def read_hdf5(path: Path, name: str, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Those of the arrays `keys` that are in the file; numbers only.

    Raises:
        ArgumentError: naming `name` and the file, where h5py is missing, or cannot read it, or the library under it crashes.
    """
    wanted = "an HDF5 file of arrays"
    if importlib.util.find_spec("h5py") is None:
        raise refused(name, path, "h5py to read it: pip install 'alps_fast[mri]'")
    seconds = SECONDS + path.stat().st_size // BYTES_A_SECOND
    command = [sys.executable, "-P", str(CHILD), str(path.absolute()), str(seconds), *keys]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # finds what this process finds
    with tempfile.TemporaryFile() as answer:
        child = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=answer, stderr=subprocess.PIPE, env=environment)
        with reading(path, name, wanted):
            if child.returncode:
                said = child.stderr.decode(errors="replace").strip().splitlines()
                died = f"the HDF5 library died of signal {-child.returncode}"
                raise ValueError(said[-1] if child.returncode > 0 and said else died)
            answer.seek(0)
            found = json.loads(answer.readline())
            arrays = {key: np.lib.format.read_array(answer, allow_pickle=False) for key in found}
    return checked_numbers(arrays, path, name, wanted)
