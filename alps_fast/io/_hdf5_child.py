"""Reads arrays of an HDF5 file for another process: python _hdf5_child.py FILE SECONDS NAME...

On stdout go the names that were found, as JSON in one line, and the arrays as NumPy writes them; on stderr what was wrong. It
imports nothing of alps_fast, for torch would take seconds.
"""

import json
import resource
import sys


def main() -> None:
    path, seconds, *names = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))  # a damaged file may be read for ever
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    import h5py
    import numpy as np

    try:
        with h5py.File(path, "r") as file:
            found = {}
            for name in names:
                if name in file:
                    if not isinstance(file[name], h5py.Dataset):
                        raise ValueError(f"{name} is no array")
                    found[name] = file[name][()]
                    if found[name].dtype.kind not in "biufc":
                        raise ValueError(f"{name} of dtype {found[name].dtype} is not of numbers")
    except Exception as error:  # for the process that asks to say in one line
        sys.exit(f"{type(error).__name__}: {error}")
    sys.stdout.buffer.write(json.dumps(list(found)).encode() + b"\n")
    for array in found.values():
        np.lib.format.write_array(sys.stdout.buffer, np.asarray(array), allow_pickle=False)


if __name__ == "__main__":
    main()
