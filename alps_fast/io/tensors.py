"""Tensors in safetensors files that are written whole, with a digest of all they hold."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import check
from .files import check_is_file, reading, replacing

DIGEST = "sha256"


def digest_of(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, and of the metadata."""
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, value in sorted(tensors.items()):
        digest.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors, from wherever they are, and metadata at once; OSError or SafetensorError where that cannot be done."""
    here = {name: value.detach().resolve_conj().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as partial:
        save_file(here, partial, metadata | {DIGEST: digest_of(here, metadata)})


def read_tensors(path: Path, name: str, wanted: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a safetensors file, which must be what was written where it has a digest.

    Raises:
        ArgumentError: naming `name` and the file.
    """
    check_is_file(path, name)
    with reading(path, name, wanted):
        with safe_open(path, "pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
        digest = metadata.pop(DIGEST, None)
        check(digest in (None, digest_of(tensors, metadata)), name, f"{path}, whose contents do not have its digest",
              f"{wanted}, undamaged")
    return tensors, metadata | ({} if digest is None else {DIGEST: digest})
