"""Reads the arrays of a MATLAB file before version 7.3 for another process: python _mat_child.py FILE SECONDS MEMORY

On stdout goes JSON in one line, {"bytes": of all, "names", "count"}, then the arrays as NumPy writes them; none where they take
more than MEMORY. On stderr what was wrong. What is no array of numbers is passed by. It imports nothing of alps_fast, for torch
would take seconds.
"""

from __future__ import annotations

import json
import math
import resource
import sys

NUMBERS = ("double", "single", "logical", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))


def main() -> None:
    path, seconds, memory = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))  # a damaged file may be read for ever
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    import numpy as np
    from scipy.io import loadmat, whosmat

    try:
        sizes = {key: 16 * math.prod(map(int, shape)) for key, shape, kind in whosmat(path) if kind in NUMBERS}
        names = list(sizes) if sum(sizes.values()) <= int(memory) else []
        loaded = loadmat(path, variable_names=names) if names else {}
        arrays = [np.asarray(loaded[key]) for key in names]
    except Exception as error:  # for the process that asks to say in one line
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(json.dumps({"bytes": sum(sizes.values()), "names": names, "count": len(names)}).encode() + b"\n")
    for array in arrays:
        np.lib.format.write_array(sys.stdout.buffer, array, allow_pickle=False)


if __name__ == "__main__":
    main()
