"""Factors of lines on disk, so that who samples a scan again does not wait for them."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from ..errors import ArgumentError
from ..io.tensors import digest_of, read_tensors, write_tensors

VARIABLE = "ALPS_FAST_CACHE"  # off: nothing is kept; a folder: there
LIMIT = 2 << 30  # bytes of all files; those that were not read for longest go first
WORTH = 96**4  # lines n³ below which factors are computed about as fast as they are read
SCHEME = "1"  # another one where factors are computed otherwise


def folder() -> Path | None:
    """Where files are: $ALPS_FAST_CACHE, else $XDG_CACHE_HOME/alps_fast, else ~/.cache/alps_fast; None where it is off."""
    given = os.environ.get(VARIABLE, "")
    if given == "off":
        return None
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME", "")
    with suppress(RuntimeError):  # of a user without a home
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "alps_fast"
    return None


def name_of(mask: Tensor, maps: Tensor, axis: int, root: float, dtype: torch.dtype, device: torch.device) -> str:
    """A file's name: a digest of all that factors hang on, the version of torch and the processor among it."""
    where = torch.backends.cpu.get_cpu_capability() if device.type == "cpu" else torch.cuda.get_device_name(device)
    tensors = {"mask": mask.detach().cpu().contiguous(), "maps": torch.view_as_real(maps.detach().cpu().contiguous())}
    facts = {"scheme": SCHEME, "torch": torch.__version__, "where": where, "axis": str(axis), "root": root.hex(),
             "dtype": str(dtype)}
    return f"lines-{digest_of(tensors, facts)[:40]}.safetensors"


def load(name: str, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """(U, Λ) of `CartesianMRI.factors`; None where there is no such file. One that is damaged is removed."""
    where = folder()
    if where is None or not (path := where / name).is_file():
        return None
    try:
        tensors, _ = read_tensors(path, "cache", "factors of lines")
        found = torch.view_as_complex(tensors["u"]), tensors["eigenvalues"]
        os.utime(path)
    except (ArgumentError, KeyError, OSError, RuntimeError):
        with suppress(OSError):
            path.unlink()
        return None
    return found[0].to(device), found[1].to(device)


def store(name: str, u: Tensor, eigenvalues: Tensor) -> None:
    """Keep them, whole or not at all; what makes more than `LIMIT` goes. A disk that is full, or read-only, keeps nothing."""
    where = folder()
    if where is None or u.nbytes + eigenvalues.nbytes > LIMIT:
        return
    with suppress(ArgumentError, OSError, SafetensorError):
        write_tensors(where / name, {"u": torch.view_as_real(u), "eigenvalues": eigenvalues}, {})
        files = [(path.stat(), path) for path in where.glob("lines-*.safetensors")]
        total = 0
        for stat, path in sorted(files, key=lambda file: file[0].st_mtime_ns, reverse=True):  # first what was just written
            total += stat.st_size
            if total > LIMIT:
                path.unlink(missing_ok=True)
