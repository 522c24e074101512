"""`alps-fast distill`: an energy from a teacher denoiser."""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

import click

from ..errors import check
from ..io import check_outputs
from .options import add, compile_option, force_option, json_option, print_json, progress_option, seed_option


@click.command(short_help="Make an energy from a teacher.")
@click.argument("teacher", required=False)
@click.option("--teacher", "own", help="The same: a name, a file, or module:name.")
@click.option("--domain", type=click.Choice(["brain", "natural"]), help="Images to match gradients at, of the shipped kind; or")
@click.option("--images", type=click.Path(path_type=Path, exists=True, file_okay=False), help="a folder of your own.")
@click.option("--kind", type=click.Choice(["denoiser", "ridge"]), required=True, help="DenoiserEnergy or RidgeEnergy.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="Folder of checkpoint, log and energy.safetensors; distillation goes on from what is there.")
@click.option("--steps", type=click.IntRange(min=1), default=6000, show_default=True, help="Optimiser steps in all.")
@click.option("--batch", type=click.IntRange(min=1), help="Crops a step.  [default: 8; 4 for ridge]")
@click.option("--size", type=click.IntRange(min=1), help="Side of a crop in pixels.  [default: 64; 80 for ridge]")
@add(compile_option, force_option, seed_option, progress_option, json_option)
def command(teacher: str | None, own: str | None, domain: str | None, images: Path | None, kind: str, out: Path, steps: int,
            batch: int | None, size: int | None, compile: bool, force: bool, seed: int, progress: bool, as_json: bool) -> None:
    """Match the gradient of an energy to TEACHER, a shipped name (brain-teacher), a file that `train` wrote, or module:name: a
    network D(x, sigma) or a DiffusionPrior, or a function without arguments that returns one, in a module on Python's path or in
    this folder.

    The energy can then be used by its file: alps-fast reconstruct ... --energy OUT/energy.safetensors. With images of your own a
    table of those that training has not seen is in OUT/held_out.txt.

    \b
    Example:  alps-fast distill brain-teacher --domain brain --kind ridge --out runs/brain-ridge
              alps-fast distill --teacher mine:network --images photos --kind denoiser --out runs/mine
    """
    check((teacher is None) != (own is None), "teacher", "none" if teacher is None else "two", "one, TEACHER or --teacher")
    check((domain is None) != (images is None), "images", "neither" if images is None else "both", "--images DIR or --domain")
    named, file, table = str(teacher or own), out / "energy.safetensors", out / "held_out.txt"
    check_outputs("out", [file], force, teacher=named)

    from ..distill import matching
    from ..energies import save

    started = time.perf_counter()
    given = {name: value for name, value in (("batch", batch), ("size", size)) if value is not None}  # else the function's own
    options: dict[str, Any] = {"images": images, "steps": steps, "seed": seed, "compile": compile, "progress": progress, **given}
    run = matching.distill_denoiser if kind == "denoiser" else matching.distill_ridge
    energy = run(_teacher(named), domain, out, **options)
    save(energy, file, half=True)
    seconds = time.perf_counter() - started
    if as_json:
        print_json({"teacher": named, "domain": domain, "images": None if images is None else str(images), "kind": kind,
                    "steps": steps, "energy": str(file), "log": str(out / "log.jsonl"),
                    "held_out": None if images is None else str(table), "seconds": seconds})
    else:
        click.echo(f"{steps} steps in {seconds:.0f} s; wrote {file}")
        if images is not None:
            click.echo(table.read_text(), nl=False)


def _teacher(named: str) -> Any:
    """The teacher of this name, file, or name in a module."""
    from torch import nn

    from ..energies import DiffusionPrior, load_teacher

    module, colon, name = named.partition(":")
    if not colon or Path(named).exists():
        return load_teacher(named)
    sys.path.insert(0, os.getcwd())
    wanted = "module:name, a network, or a function without arguments that returns one, in a module that can be imported"
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        check(False, "teacher", f"{named!r} ({error})", wanted)
    finally:
        sys.path.remove(os.getcwd())
    teacher: Any = getattr(found, name, None)
    if isinstance(teacher, nn.Module | DiffusionPrior):
        return teacher
    check(callable(teacher), "teacher", repr(named), wanted)
    return teacher()
