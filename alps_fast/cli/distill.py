"""`alps-fast distill`: an energy from a teacher denoiser."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ..io import check_outputs
from .options import add, compile_option, force_option, json_option, print_json, progress_option, seed_option


@click.command(short_help="Make an energy from a teacher.")
@click.argument("teacher")
@click.option("--domain", type=click.Choice(["brain", "natural"]), required=True, help="Images to match gradients at.")
@click.option("--kind", type=click.Choice(["denoiser", "ridge"]), required=True, help="DenoiserEnergy or RidgeEnergy.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="Folder of checkpoint, log and energy.safetensors; distillation goes on from what is there.")
@click.option("--steps", type=click.IntRange(min=1), default=6000, show_default=True, help="Optimiser steps in all.")
@click.option("--batch", type=click.IntRange(min=1), help="Crops a step.  [default: 8; 4 for ridge]")
@add(compile_option, force_option, seed_option, progress_option, json_option)
def command(teacher: str, domain: str, kind: str, out: Path, steps: int, batch: int | None, compile: bool, force: bool,
            seed: int, progress: bool, as_json: bool) -> None:
    """Match the gradient of an energy to TEACHER, a shipped name (brain-teacher) or a file that `train` wrote.

    The energy can then be used by its file: alps-fast reconstruct ... --energy OUT/energy.safetensors

    \b
    Example:  alps-fast distill brain-teacher --domain brain --kind ridge --out runs/brain-ridge
    """
    file = out / "energy.safetensors"
    check_outputs("out", [file], force, teacher=teacher)

    from ..distill import matching
    from ..energies import load_teacher, save

    run = {"denoiser": matching.distill_denoiser, "ridge": matching.distill_ridge}[kind]
    started = time.perf_counter()
    given = {} if batch is None else {"batch": batch}  # without, the function's own default
    energy = run(load_teacher(teacher), domain, out, steps=steps, seed=seed, compile=compile, progress=progress, **given)
    save(energy, file, half=True)
    seconds = time.perf_counter() - started
    if as_json:
        print_json({"teacher": teacher, "domain": domain, "kind": kind, "steps": steps, "energy": str(file),
                    "log": str(out / "log.jsonl"), "seconds": seconds})
    else:
        click.echo(f"{steps} steps in {seconds:.0f} s; wrote {file}")
