"""`alps-fast evaluate`: the tables of the model cards."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import add, json_option, print_json

if TYPE_CHECKING:
    from torch import Tensor

    from ..distill.evaluate import Denoiser


@click.command()
@click.argument("domain", type=click.Choice(["brain", "natural"]))
@click.option("--teacher", default=None, help="Name or file of a teacher; default: DOMAIN-teacher.")
@click.option("--energy", "energies", multiple=True, help="Name or file of an energy, repeatable; default: both of DOMAIN.")
@click.option("--bm3d/--no-bm3d", default=True, show_default=True, help="BM3D beside them (package bm3d).")
@add(json_option)
def command(domain: str, teacher: str | None, energies: tuple[str, ...], bm3d: bool, as_json: bool) -> None:
    """Denoising PSNR on the held-out images of DOMAIN: teacher, energies and BM3D side by side.

    \b
    Example:  alps-fast evaluate brain
    """
    from ..distill.evaluate import LEVELS, bm3d_denoiser, markdown_table, psnr_table
    from ..energies import load_teacher

    denoisers: dict[str, Denoiser] = {}
    name = f"{domain}-teacher" if teacher is None else teacher
    net = load_teacher(name)
    denoisers[name] = lambda x, t: net(x, x.new_full((1,), t))
    for energy in energies or (f"{domain}-denoiser", f"{domain}-ridge"):
        denoisers[energy] = _denoiser(energy)
    if bm3d:
        denoisers["BM3D"] = bm3d_denoiser
    rows = psnr_table(domain, denoisers)
    if as_json:
        print_json({"domain": domain, "t": list(LEVELS), "psnr": rows})
    else:
        click.echo(markdown_table(rows))


def _denoiser(name: str) -> Denoiser:
    from ..energies import load

    energy = load(name)

    def denoise(x: Tensor, t: float) -> Tensor:
        return x - energy.grad(x, t)

    return denoise
