"""`alps-fast info`: what is installed here, what can run, and why not where not."""

from __future__ import annotations

import importlib
import os
import platform
from importlib import metadata
from typing import Any

import click

from .options import add, json_option, print_json

PACKAGES = ("alps-fast", "torch", "numpy", "safetensors", "triton", "h5py", "scikit-image", "arviz", "sigpy",
            "nibabel", "pydicom")


def gather() -> dict[str, Any]:
    """Everything that `info` prints."""
    import torch

    import alps_fast
    from alps_fast.ops import _dispatch

    isa, fast = _kernels()
    return {
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "machine": {"system": f"{platform.system()} {platform.machine()}", "cores": os.cpu_count(),
                    "torch_threads": torch.get_num_threads(), "isa": isa, "fast": fast, "auto": _auto(),
                    "nvcc": _dispatch.has_nvcc(),
                    "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]},
        "backends": _dispatch.table(),
        "ops": _dispatch.serving(),
        "energies": list(alps_fast.energies.names()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _auto() -> str:
    """What stands in for backend="auto": that itself, or what ALPS_FAST_BACKEND says."""
    from alps_fast.errors import ArgumentError
    from alps_fast.ops._dispatch import chosen

    try:
        return chosen("auto")
    except ArgumentError as error:
        return f"none: {error}"


def _kernels() -> tuple[str | None, str | None]:
    """The instruction set of the CPU kernels, and what precision "fast" multiplies with in them."""
    from alps_fast.ops.conv_grad import fast_multiplications

    try:
        return importlib.import_module("alps_fast._cpu").isa(), fast_multiplications()
    except (ImportError, ValueError) as error:  # not built, or ALPS_FAST_ISA asks for what is not there
        return None if isinstance(error, ImportError) else f"none: {error}", None


@click.command(short_help="What is installed, what can run here, and why not.")
@add(json_option)
def command(as_json: bool) -> None:
    """Say which versions, backends, processor features, GPUs and energies are here, and why not where not.

    \b
    Example:  alps-fast info --json
    """
    found = gather()
    if as_json:
        print_json(found)
        return
    machine = found["machine"]
    isa = {None: "- (no alps_fast._cpu)", "portable": "portable (vectors of 128 bits)"}.get(machine["isa"], machine["isa"])
    click.echo("  ".join(f"{name} {version or '-'}" for name, version in found["packages"].items()))
    click.echo(f"python {found['python']}, {machine['system']}, {machine['cores']} cores, "
               f"{machine['torch_threads']} torch threads, ISA {isa}, "
               f"GPU {', '.join(machine['gpus']) or '-'}, nvcc {'yes' if machine['nvcc'] else 'no'}")
    same = ', as "high": bfloat16 takes AMX or AVX512_BF16' if machine["fast"] == "float32" else ""
    click.echo(f'precision "fast" in the CPU kernels: {machine["fast"] or "-"}{same}')
    click.echo("backends, in order of preference:")
    for row in found["backends"]:
        state = f"{len(row['ops'])} ops" if row["usable"] else f"not here: {row['why_not']}"
        click.echo(f"  {row['backend']:<7} {row['why']}; {state}")
    if machine["auto"] != "auto":
        click.echo(f'backend="auto" stands for: {machine["auto"]}')
    click.echo('ops, what backend="auto" runs them on here, and all that have them, in order of preference:')
    for row in found["ops"]:
        where = f"{row['op']:<18} on a CPU:" if row["device"] == "cpu" else f"{'':<18} on a GPU:"
        click.echo(f"  {where} {row['runs'] or '-':<6} of {', '.join(row['have'])}")
    click.echo(f"energies: {', '.join(found['energies']) or 'none'}")
