"""Options that several commands share, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from ..ops._dispatch import NAMES

Command = Callable[..., Any]

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
seed_option = click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all noise.")
backend_option = click.option("--backend", type=click.Choice(NAMES), default="auto", show_default=True,
                              help="What runs the kernels; see `alps-fast info`.")

precision_option = click.option("--precision", type=click.Choice(["high", "fast"]), help="Multiplications of denoiser energies "
                                "in float32 or bfloat16.  [default: fast where the processor multiplies bfloat16]")
progress_option = click.option("--progress/--no-progress", default=True, show_default=True, help="A progress bar on stderr.")
force_option = click.option("--force", is_flag=True, help="Replace results that are there already; inputs never.")
compile_option = click.option("--compile/--no-compile", default=True, show_default=True,
                              help="Train through torch.compile; needs a C++ compiler.")


def add(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several options as one decorator, in the order given."""
    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command
    return decorate

sampling_options = add(backend_option, precision_option, seed_option, progress_option, json_option)  # of what samples


def check_backend(backend: str) -> None:
    """A backend that cannot run here is a wrong argument, said before any work."""
    from ..ops import _dispatch

    _dispatch.chosen(backend)


def chosen_precision(precision: str | None) -> str:
    """The one asked for, or the quicker one here."""
    from ..distill.loop import bf16_is_fast

    return precision or ("fast" if bf16_is_fast() else "high")


def print_json(value: object) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(value, indent=2))
