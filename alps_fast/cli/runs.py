"""Pieces of a run of `alps-fast reconstruct`, an image or the slices of a volume: sampled one after another; their results."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np

from ..errors import ArgumentError
from ..io.files import first_line
from ..io.geometry import Geometry
from ..io.results import Results

if TYPE_CHECKING:
    from torch import Tensor

    from ..energies.base import Energy
    from ..operators.base import Operator
    from ..posterior import Posterior
    from ..samplers import Sampler, Schedule

RHAT = 1.1  # above which it is told
TOGETHER = 64  # chains of slices that are sampled at a time


class Piece(NamedTuple):
    """A measurement y in units of the prior, `scale` of the input's; words: what was done to it before."""

    number: int
    label: str
    y: Tensor
    operator: Operator
    scale: float
    noise_from: str
    geometry: Geometry | None = None
    words: tuple[str, ...] = ()

    def like(self, other: Piece) -> bool:
        """Whether both can be measurements of one sampler: the same operator in all, the next slice."""
        from ..operators import CartesianMRI

        a, b = self.operator, other.operator
        if not (isinstance(a, CartesianMRI) and isinstance(b, CartesianMRI)):
            return False
        alike = (a.maps is b.maps) if a.maps is None or b.maps is None else (
            a.maps.shape == b.maps.shape and bool((a.maps == b.maps).all()))
        return (alike and self.number == other.number + 1 and a.noise_std == b.noise_std and self.y.shape == other.y.shape
                and bool((a.mask == b.mask).all()))


class Found(NamedTuple):
    """A piece's posterior and MAP estimate, in units of the input, and R-hat of its traced pixels."""

    piece: Piece
    posterior: Posterior
    best: Tensor | None
    rhat: np.ndarray | None

    def facts(self, kind: str) -> dict[str, Any]:
        """For people and programs."""
        post, piece = self.posterior, self.piece
        deviation, chi2, rate = float(post.mean_std), float(post.chi2), post.leap_acceptance
        return {"operator": kind, "image": list(post.mean.shape), "noise_std": piece.operator.noise_std * piece.scale,
                "noise_from": piece.noise_from, "scale": piece.scale, "draws": int(post.count), "gradients": post.gradients,
                "seconds": post.seconds, "mean_std": None if math.isnan(deviation) else deviation,  # NaN is no JSON
                "chi2": None if math.isnan(chi2) else chi2, "rhat": None if self.rhat is None else float(np.nanmax(self.rhat)),
                "acceptance": post.acceptance, "leap_acceptance": None if rate is None or math.isnan(rate) else rate,
                "interrupted": post.interrupted,
                "broken_chains": [lost._asdict() for lost in post.broken], "steps_before": list(piece.words)}


class Lost(NamedTuple):
    """A slice that could not be had, and why in a line."""

    label: str
    why: str


class Settings(NamedTuple):
    """What is the same for all pieces."""

    energy: Energy
    schedule: Schedule | None
    sampler: dict[str, Any]
    with_map: bool
    progress: bool


def sampled(pieces: Sequence[Callable[[], Piece]], labels: Sequence[str], settings: Settings) -> Iterator[list[Found] | Lost]:
    """What is found of each piece, or why it is lost; of one piece alone errors are left as they are.

    Pieces that are measurements of the same operator are sampled together. Ctrl-C ends it with the pieces that are done; of one
    piece alone with what there is.
    """
    from tqdm import tqdm

    alone = len(pieces) == 1
    with tqdm(total=len(pieces), desc="slices", unit="slice", file=sys.stderr, disable=alone or not settings.progress) as bar:
        waiting: list[Piece] = []
        most = max(1, TOGETHER // settings.sampler["chains"])

        def run() -> Iterator[list[Found] | Lost]:
            group, waiting[:] = list(waiting), []
            if not group:
                return
            done = bar.n
            try:
                found = _found(group, settings, alone, lambda share: _show(bar, done + share * len(group)))
                if not alone and found[0].posterior.interrupted:
                    raise KeyboardInterrupt
                yield found
            except (ArgumentError, FloatingPointError, MemoryError) as error:
                if alone:
                    raise
                yield from (Lost(piece.label, first_line(error)) for piece in group)
            _show(bar, done + len(group))

        with nullcontext() if alone else suppress(KeyboardInterrupt):
            for make, label in zip(pieces, labels, strict=True):
                try:
                    piece = make()
                except (ArgumentError, MemoryError) as error:
                    if alone:
                        raise
                    yield from run()
                    yield Lost(label, first_line(error))
                    _show(bar, bar.n + 1)
                    continue
                if waiting and (len(waiting) == most or not piece.like(waiting[-1])):
                    yield from run()
                waiting.append(piece)
            yield from run()


def _show(bar: Any, at: float) -> None:
    bar.n = round(at, 2)
    bar.refresh()


def _found(group: list[Piece], settings: Settings, alone: bool, tell: Callable[[float], None]) -> list[Found]:
    """The posterior of pieces of the same operator, as one run."""
    import torch

    from .. import map_estimate
    from ..samplers import Sampler

    first = group[0]
    sampler: Sampler = Sampler(first.operator, settings.energy, schedule=settings.schedule, first_measurement=first.number,
                               progress=alone and settings.progress, **settings.sampler,
                               callback=None if alone else lambda at: tell((at.level + 1) / at.levels))
    y = first.y if len(group) == 1 else torch.stack([piece.y for piece in group])
    posterior = sampler(y)
    images: list[Tensor | None] = [None] * len(group)
    if settings.with_map and not posterior.interrupted:
        mean = torch.where(posterior.mean.isfinite(), posterior.mean, 0)  # of a slice that is lost, which is no other's matter
        found = map_estimate(y, first.operator, settings.energy, schedule=settings.schedule,
                             start=mean if settings.schedule is None else None, backend=sampler.backend,
                             progress=alone and settings.progress).image
        images = [found] if len(group) == 1 else list(found)
    whole = []
    for i, (piece, image) in enumerate(zip(group, images, strict=True)):
        post = posterior if len(group) == 1 else replace(posterior.part(i), seconds=posterior.seconds / len(group))
        if piece.scale != 1.0:  # back to the units of the data
            post, image = post.scaled(piece.scale), None if image is None else image * piece.scale
        whole.append(Found(piece, post, image, _rhat(post)))
    return whole


def _rhat(posterior: Posterior) -> np.ndarray | None:
    """R-hat where there are draws enough and ArviZ is installed."""
    if posterior.trace.shape[-2] < 4:
        return None
    try:
        found = posterior.diagnostics().rhat
    except ImportError:
        return None
    return found if np.isfinite(found).any() else None


def results(found: list[Found], kind: str, volume: bool, provenance: dict[str, Any]) -> Results:
    """All that was found, for files. Of one image `Posterior.load` reads the npz and HDF5 files."""
    one = found[0].posterior
    is_complex = one.mean.is_complex()
    images = {"mean": _stacked([f.posterior.mean for f in found]),
              "std": np.stack([f.posterior.derived()["magnitude_std" if is_complex else "std"] for f in found])}
    if all(f.best is not None for f in found):
        images["map"] = _stacked([f.best for f in found])
    told = provenance | {"slices": [{"index": f.piece.number, "label": f.piece.label, "schedule": asdict(f.posterior.schedule)}
                                    | f.facts(kind) for f in found]}
    arrays = dict[str, np.ndarray]()
    if volume:
        for name in one.derived():
            arrays[name] = np.stack([f.posterior.derived()[name] for f in found])
        for name in ("mean", "samples", "chain_means", "count", "chi2"):
            arrays[name] = _stacked([getattr(f.posterior, name) for f in found])
        arrays["slices"] = np.array([f.piece.number for f in found])
    else:
        arrays |= one.arrays()

    def over(values: list[Any]) -> np.ndarray:
        return np.stack([np.asarray(v) for v in values]) if volume else np.asarray(values[0])

    arrays["scale"] = over([f.piece.scale for f in found])
    arrays["noise_std"] = over([f.piece.operator.noise_std * f.piece.scale for f in found])
    if "map" in images:
        arrays["map"] = images["map"] if volume else images["map"][0]
    rhats = [f.rhat for f in found if f.rhat is not None]
    if len(rhats) == len(found) and len({r.shape for r in rhats}) == 1:
        arrays["rhat"] = over(list(rhats))
    arrays["provenance"] = np.array(json.dumps(told))
    return Results(images, _stacked([f.posterior.samples for f in found]), arrays,
                   (found[0].piece.geometry, found[-1].piece.geometry), [f.piece.label for f in found],
                   None if volume else one.plot)


def _stacked(tensors: list[Any]) -> np.ndarray:
    return np.stack([t.cpu().numpy() for t in tensors])


def provenance(inputs: dict[str, str | None], energy: str, seed: int, sampler: dict[str, Any]) -> dict[str, Any]:
    """Who made a result: versions, the command, what it read, and the options that settle its noise."""
    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    kept = {name: value for name, value in sampler.items() if isinstance(value, str | int | float | bool | None)}
    return {"versions": {package: of(package) for package in ("alps-fast", "torch", "numpy")}, "command": shlex.join(sys.argv),
            "inputs": inputs, "energy": energy, "seed": seed, "options": kept}


def tell(found: Found, kind: str, facts: dict[str, Any]) -> None:
    """A result in words."""
    post = found.posterior
    for lost in post.broken:
        click.echo(f"chain {lost.chain} turned non-finite or ran away at level {lost.level}, step {lost.step}, and was left out",
                   err=True)
    told = "" if facts["mean_std"] is None else f"; mean standard deviation {facts['mean_std']:.4g}"
    click.echo(f"{facts['draws']} draws in {post.seconds:.1f} s{told}")
    chi2 = "unknown" if facts["chi2"] is None else f"{facts['chi2']:.3g}, about 1 expected"
    click.echo(f"chi-squared a datum of the samples: {chi2}")
    if facts["rhat"] is not None and facts["rhat"] > RHAT:
        click.echo(f"R-hat up to {facts['rhat']:.2g}: draws of a chain hardly move, so deviations rest on "
                   f"{len(post.samples)} chains; more --chains, or --thin")
    if post.leap_acceptance is not None:
        rate = facts["leap_acceptance"]
        click.echo("no two modes lie apart" if rate is None else f"leaps between modes: {rate:.2g} of them accepted")
    click.echo(f"noise_std {facts['noise_std']:.4g}, {facts['noise_from']}" + (f"; scale {facts['scale']:.4g}" if kind == "mri"
                                                                              else ""))
