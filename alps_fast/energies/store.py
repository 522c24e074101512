"""Energies and teachers in files: safetensors whose JSON header says everything needed to rebuild them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..errors import ArgumentError, check, check_choice
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


def _network(header: dict[str, Any], tensors: dict[str, Tensor]) -> CompactNet:
    network = CompactNet(**header["config"])
    network.load_state_dict({k: v.float() for k, v in tensors.items()})
    return network.eval().requires_grad_(False)


def _unpack(header: dict[str, Any], tensors: dict[str, Tensor]) -> Energy:
    kind = header["kind"]
    if kind == "DenoiserEnergy":
        return DenoiserEnergy(_network(header, tensors), channelwise=header["channelwise"])
    if kind == "RidgeEnergy":
        args = [tensors[k].double() for k in RIDGE_TENSORS]
        return RidgeEnergy(*args[:5], bounds=args[5], mu=header["mu"], channels=header["channels"],
                           channelwise=header["channelwise"])
    if kind == "GaussianEnergy":
        return GaussianEnergy(tensors["mean"], tensors["std"])
    if kind == "GaussianMixtureEnergy":
        return GaussianMixtureEnergy(tensors["weights"], tensors["means"], tensors["stds"])
    if kind == "SumEnergy":
        terms = [_unpack(h, {k.removeprefix(f"{i}."): v for k, v in tensors.items() if k.startswith(f"{i}.")})
                 for i, h in enumerate(header["terms"])]
        return SumEnergy(terms, header["weights"])
    raise KeyError(f"kind {kind!r}")


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
    partial = path.with_suffix(".partial")
    partial.write_bytes(safetensors.torch.save(stored, {"format": FORMAT, "energy": json.dumps(header)}))
    partial.replace(path)


def _read(path: Path, name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118 (not a mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise ArgumentError(f"{name}: {path} is not a complete safetensors file ({error})") from None
    if metadata.get("format") != FORMAT:
        raise ArgumentError(f"{name}: {path} was not written by alps_fast.energies.save")
    try:
        return json.loads(metadata["energy"]), tensors
    except (KeyError, ValueError) as error:
        raise ArgumentError(f"{name}: {path} has a damaged header ({error})") from None


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
    path = MODELS / f"{BEST.get(str(name), name)}.safetensors"
    if not path.exists():
        path = Path(name)
        check(path.is_file(), "energy", repr(str(name)), "a file, or one of " + ", ".join(names()))
    header, tensors = _read(path, "energy")
    try:
        energy = _unpack(header, tensors)
    except (KeyError, RuntimeError, TypeError) as error:
        raise ArgumentError(f"energy: {path} does not fit its own header ({error})") from None
    for term in energy.energies if isinstance(energy, SumEnergy) else (energy,):
        if isinstance(term, DenoiserEnergy):
            term.precision = precision
        if isinstance(term, (DenoiserEnergy, RidgeEnergy)):
            term.backend = backend
    return energy


def load_teacher(name: str | Path) -> CompactNet | SymmetricDenoiser:
    """A teacher denoiser D(x, t) by shipped name ("brain-teacher") or from a file that `save_teacher` wrote."""
    shipped = MODELS / f"{name}.safetensors"
    path = shipped if shipped.exists() else Path(name)
    check(path.is_file(), "teacher", repr(str(name)), "a file, or 'brain-teacher' or 'natural-teacher'")
    header, tensors = _read(path, "teacher")
    check(header.get("kind") == "teacher", "teacher", str(path), "a file that save_teacher wrote")
    try:
        network = _network(header, tensors)
    except (KeyError, RuntimeError, TypeError) as error:
        raise ArgumentError(f"teacher: {path} does not fit its own header ({error})") from None
    return SymmetricDenoiser(network).eval() if header.get("symmetric") else network
