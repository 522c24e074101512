"""Files that are read by a process of their own: on a damaged one the library may crash, or never end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..limits import memory_of
from .files import reading

SECONDS, BYTES_A_SECOND = 60, 1 << 22  # processor time that a file may take: a damaged one is read for ever
COPIES = 4  # of an array, in both processes, as it is and as complex numbers of single precision


def asked(child: str, library: str, path: Path, name: str, wanted: str, request: object = None) -> tuple[Any, list[np.ndarray]]:
    """What a script beside this one, `child`, says of a file in answer to a request, and as many arrays as that has for "count".

    Raises:
        ArgumentError: naming `name` and the file, where the child cannot read it, or `library` crashes.
    """
    seconds = SECONDS + path.stat().st_size // BYTES_A_SECOND
    memory = memory_of(torch.device("cpu")) // COPIES
    script = Path(__file__).with_name(child)
    command = [sys.executable, "-P", str(script), str(path.absolute()), str(seconds), str(memory)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}  # finds what this process finds
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile() as asks:
        asks.write(json.dumps(request).encode())
        asks.seek(0)
        ended = subprocess.run(command, stdin=asks, stdout=answer, stderr=subprocess.PIPE, env=environment)
        with reading(path, name, wanted):
            if ended.returncode:
                said = ended.stderr.decode(errors="replace").strip().splitlines()
                died = f"{library} died of signal {-ended.returncode}"
                raise ValueError(said[-1] if ended.returncode > 0 and said else died)
            answer.seek(0)
            found = json.loads(answer.readline())
            return found, [np.lib.format.read_array(answer, allow_pickle=False) for _ in range(found["count"])]
