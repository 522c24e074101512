"""The command line, `alps-fast`: one file a command, imported when it is called."""

from __future__ import annotations

import importlib
import warnings
from typing import Any

import click

from ..errors import ArgumentError

COMMANDS = ("demo", "reconstruct", "train", "distill", "evaluate", "bench", "profile", "info")


class OneLineErrors(click.Command):
    """Says in one line what was wrong, with an argument with exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = _Warnings()
                return super().invoke(ctx)
        except ArgumentError as error:
            raise click.UsageError(_one_line(error)) from error
        except click.UsageError as error:
            raise click.UsageError(_one_line(error.format_message())) from error  # without its context: no usage lines
        except (OSError, FloatingPointError, ImportError, MemoryError) as error:  # a full disk, no package, all chains lost
            raise click.ClickException(_one_line(error)) from error
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError" and "can't allocate memory" not in str(error):  # torch's, GPU and CPU
                raise
            raise click.ClickException("memory: not enough for so many chains, or images so large") from error


class _Warnings:
    """Of one command: each warning as a line for people, once, however often it is come by, without the place in the code."""

    def __init__(self) -> None:
        self.told: set[str] = set()

    def __call__(self, message: Warning | str, *_: object, **__: object) -> None:
        line = _one_line(message)
        if line not in self.told:
            self.told.add(line)
            click.echo(f"warning: {line}", err=True)


class Commands(OneLineErrors, click.Group):
    """A group that imports its commands late."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f".{name}", __name__).command


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="alps-fast")
def main() -> None:
    """Posterior samples, mean, uncertainty and MAP of images measured as y = A x + noise.

    \b
    Start with:  alps-fast demo --out demo_out
    """
