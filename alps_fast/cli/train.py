"""`alps-fast train`: a teacher denoiser from clean images."""

from __future__ import annotations

import time
from pathlib import Path

import click

from ..io import check_outputs
from .options import add, compile_option, force_option, json_option, print_json, progress_option, seed_option


@click.command(short_help="Train a teacher denoiser.")
@click.argument("domain", type=click.Choice(["brain", "natural"]))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True,
              help="Folder of checkpoint, log and teacher.safetensors; training goes on from what is there.")
@click.option("--steps", type=click.IntRange(min=1), default=10_000, show_default=True, help="Optimiser steps in all.")
@click.option("--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Crops a step.")
@click.option("--size", type=click.IntRange(min=16), default=64, show_default=True, help="Side of a crop in pixels.")
@click.option("--sharp", type=click.FloatRange(min=0), default=0.0, show_default=True,
              help="Photographs are drawn by (longer side)^-SHARP: reduced, sharper versions of them more often.")
@click.option("--symmetric", is_flag=True, help="Teacher: the mean of its answers to the image turned and mirrored.")
@add(compile_option, force_option, seed_option, progress_option, json_option)
def command(domain: str, out: Path, steps: int, batch: int, size: int, sharp: float, symmetric: bool, compile: bool,
            force: bool, seed: int, progress: bool, as_json: bool) -> None:
    """Train a teacher denoiser D(x, t) for DOMAIN on images of installed packages (docs/training.md).

    \b
    Example:  alps-fast train brain --out runs/brain-teacher
    """
    file = out / "teacher.safetensors"
    check_outputs("out", [file], force)

    from ..distill.teacher import train_teacher
    from ..energies import SymmetricDenoiser, save_teacher

    started = time.perf_counter()
    teacher = train_teacher(domain, out, steps=steps, batch=batch, size=size, seed=seed, sharp=sharp, compile=compile,
                            progress=progress)
    save_teacher(SymmetricDenoiser(teacher) if symmetric else teacher, file)
    seconds = time.perf_counter() - started
    if as_json:
        print_json({"domain": domain, "steps": steps, "teacher": str(file), "log": str(out / "log.jsonl"), "seconds": seconds})
    else:
        click.echo(f"{steps} steps in {seconds:.0f} s; wrote {file}")
