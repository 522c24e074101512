"""Energies and teachers in files: safetensors whose JSON header says everything needed to rebuild them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import ArgumentError, check, check_choice, refused, whole
from ..io.files import reading
from ..io.tensors import read_tensors, write_tensors
from ..ops._dispatch import NAMES
from .base import Energy
from .compact import CompactNet
from .denoiser import DenoiserEnergy
from .gaussian import GaussianEnergy, GaussianMixtureEnergy
from .ridge import RidgeEnergy
from .sum import SumEnergy
from .symmetric import SymmetricDenoiser, network_of

MODELS = Path(__file__).parent / "models"
BEST = {"brain": "brain-denoiser", "natural": "natural-denoiser"}
FORMAT = "alps_fast-1"
RIDGE_TENSORS = ("filters", "knots", "w", "r", "q", "bounds")


def names() -> list[str]:
    """The shipped energies, and the short names of the best of each pair."""
    shipped = sorted(p.stem for p in MODELS.glob("*.safetensors") if not p.stem.endswith("-teacher"))
    return [n for n, best in BEST.items() if best in shipped] + shipped


def _pack(energy: Energy) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if isinstance(energy, DenoiserEnergy):
        check(isinstance(energy.network, CompactNet), "energy.network", type(energy.network).__name__, "a CompactNet")
        return ({"kind": "DenoiserEnergy", "config": energy.network.config, "channelwise": energy.channelwise},
                dict(energy.network.state_dict()))
    if isinstance(energy, RidgeEnergy):
        header = {"kind": "RidgeEnergy", "mu": energy.mu, "channels": energy.channels, "channelwise": energy.channelwise}
        return header, {k: getattr(energy, k) for k in RIDGE_TENSORS}
    if isinstance(energy, GaussianEnergy):
        return {"kind": "GaussianEnergy"}, {"mean": energy.mean, "std": energy.std}
    if isinstance(energy, GaussianMixtureEnergy):
        return {"kind": "GaussianMixtureEnergy"}, {"weights": energy.weights, "means": energy.means, "stds": energy.stds}
    if isinstance(energy, SumEnergy):
        packed = [_pack(e) for e in energy.energies]
        return ({"kind": "SumEnergy", "weights": energy.weights, "terms": [h for h, _ in packed]},
                {f"{i}.{k}": v for i, (_, tensors) in enumerate(packed) for k, v in tensors.items()})
    raise ArgumentError(f"energy: got {type(energy).__name__}; wanted one that a file can hold, made of tensors alone")


def _flag(header: dict[str, Any], name: str) -> bool:
    check(isinstance(header[name], bool), name, header[name], "true or false")
    return header[name]


def _network(header: dict[str, Any], tensors: dict[str, Tensor]) -> CompactNet:
    blocks = [whole("blocks", count, 0, len(tensors)) for count in header["config"]["blocks"]]  # each has tensors of its own
    with torch.device("meta"):  # nothing is allocated for a header that claims more than the file has
        network = CompactNet(**header["config"] | {"blocks": blocks})
    network.load_state_dict({k: v.float() for k, v in tensors.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _unpack(header: dict[str, Any], tensors: dict[str, Tensor]) -> Energy:
    kind = header["kind"]
    if kind == "DenoiserEnergy":
        return DenoiserEnergy(_network(header, tensors), channelwise=_flag(header, "channelwise"))
    if kind == "RidgeEnergy":
        args = [tensors[k].double() for k in RIDGE_TENSORS]
        return RidgeEnergy(*args[:5], bounds=args[5], mu=header["mu"], channels=header["channels"],
                           channelwise=_flag(header, "channelwise"))
    if kind == "GaussianEnergy":
        return GaussianEnergy(tensors["mean"], tensors["std"])
    if kind == "GaussianMixtureEnergy":
        return GaussianMixtureEnergy(tensors["weights"], tensors["means"], tensors["stds"])
    if kind == "SumEnergy":
        terms = [_unpack(h, {k.removeprefix(f"{i}."): v for k, v in tensors.items() if k.startswith(f"{i}.")})
                 for i, h in enumerate(header["terms"])]
        return SumEnergy(terms, header["weights"])
    raise KeyError(f"kind {kind!r}")


@contextmanager
def fitting(path: Path, name: str) -> Iterator[None]:
    """Makes an ArgumentError that names the file of whatever its tensors raise when they are put where its header says."""
    with reading(path, name, "a file that save wrote", "does not fit its own header"):
        try:
            yield
        except ArgumentError as error:  # of a class that does not know of a file
            raise ValueError(str(error)) from error


def save(energy: Energy, path: str | Path, *, half: bool = False) -> None:
    """Write `energy` as safetensors; `half` stores a network's float32 in 16 bits, and float64 tables in 32.

    Raises:
        ArgumentError: for an energy around a foreign torch module, whose code a file cannot hold.
    """
    header, tensors = _pack(energy)
    _write(header, tensors, Path(path), half)


def save_teacher(teacher: CompactNet | SymmetricDenoiser, path: str | Path, *, half: bool = True) -> None:
    """Write a teacher denoiser."""
    network, symmetric = network_of(teacher), isinstance(teacher, SymmetricDenoiser)
    _write({"kind": "teacher", "config": network.config, "symmetric": symmetric}, dict(network.state_dict()), Path(path), half)


def _write(header: dict[str, Any], tensors: dict[str, Tensor], path: Path, half: bool) -> None:
    shorter = {torch.float32: torch.float16, torch.float64: torch.float32} if half else {}
    stored = {k: (v if k.endswith("bounds") else v.to(shorter.get(v.dtype, v.dtype))).contiguous() for k, v in tensors.items()}
    write_tensors(path, stored, {"format": FORMAT, "energy": json.dumps(header)})


def _read(path: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors, metadata = read_tensors(path, name, "a complete safetensors file")
    check(metadata.get("format") == FORMAT, name, path, "a file that alps_fast.energies.save or save_teacher wrote")
    with reading(path, name, "a file whose header is not damaged"):
        for key, value in tensors.items():
            check(bool(value.isfinite().all()), name, f"{path} with NaN or infinity in {key}", "finite numbers")
        return json.loads(metadata["energy"]), tensors


def _file(name: str | Path, argument: str, wanted: str) -> Path:
    """The shipped file of this name, or the file of this path."""
    if not isinstance(name, str | os.PathLike):
        raise refused(argument, repr(name), wanted)
    for path in (MODELS / f"{name}.safetensors", Path(name)):
        with suppress(OSError, ValueError):  # a name that no file can have
            if path.is_file():
                return path
    raise refused(argument, repr(str(name)), wanted)


def load(name: str | Path, *, precision: str = "high", backend: str = "auto") -> Energy:
    """An energy by shipped name ("brain", "natural-ridge", …) or from a file that `save` wrote.

    Args:
        precision: "high" float32, "fast" bfloat16 multiplications; for denoiser energies.
        backend: of the energy's op.

    Raises:
        ArgumentError: an unknown name, precision or backend, or a file that is cut short or not ours.
    """
    check_choice("precision", precision, ("high", "fast"))
    check_choice("backend", backend, NAMES)
    path = _file(BEST.get(str(name), name), "energy", "a file, or one of " + ", ".join(names()))
    header, tensors = _read(path, "energy")
    with fitting(path, "energy"):
        energy = _unpack(header, tensors)
    for term in energy.energies if isinstance(energy, SumEnergy) else (energy,):
        if isinstance(term, DenoiserEnergy):
            term.precision = precision
        if isinstance(term, (DenoiserEnergy, RidgeEnergy)):
            term.backend = backend
    return energy


def load_teacher(name: str | Path) -> CompactNet | SymmetricDenoiser:
    """A teacher denoiser D(x, t) by shipped name ("brain-teacher") or from a file that `save_teacher` wrote."""
    path = _file(name, "teacher", "a file, or 'brain-teacher' or 'natural-teacher'")
    header, tensors = _read(path, "teacher")
    with fitting(path, "teacher"):
        check(header["kind"] == "teacher", "kind", header["kind"], "'teacher', what save_teacher writes")
        network = _network(header, tensors)
        symmetric = _flag({"symmetric": False} | header, "symmetric")
    return SymmetricDenoiser(network).eval() if symmetric else network
