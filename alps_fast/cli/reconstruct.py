"""`alps-fast reconstruct`: the posterior of a user's own measurement."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..errors import ArgumentError, check
from .options import check_backend, chosen_precision, force_option, print_json, sampling_options

if TYPE_CHECKING:
    from torch import Tensor

    from ..operators.base import Operator
    from ..samplers import Schedule

T = TypeVar("T")
ASSUMED = 0.02  # noise_std of images in [−1, 1] where nothing tells it
OPERATORS = ("denoise", "inpaint", "deblur", "superres", "mri")
APPLY_TO = {"mask": ("inpaint",), "blur_std": ("deblur", "superres"), "motion": ("deblur", "superres"),
            "psf": ("deblur", "superres"), "factor": ("superres",), "scale": ("mri",)}  # options of some operators alone


def needed(name: str, value: T | None, wanted: str) -> T:
    """`value`, which must have been given."""
    if value is None:
        raise ArgumentError(f"{name}: got none; wanted {wanted}")
    return value


def check_applicable(kind: str, given: dict[str, object]) -> None:
    """No option may have been given that says nothing about this operator."""
    for name, kinds in APPLY_TO.items():
        check(given[name] is None or kind in kinds, name, f"it with --operator {kind}", f"it with {' or '.join(kinds)} alone")


def read_blur(blur_std: float | None, motion: tuple[float, float] | None, psf: Path | None) -> Tensor | None:
    """The blur kernel that one of the three options gives, None without any."""
    from ..io import read_psf
    from ..operators.fourier import gaussian_psf, motion_psf

    given = [name for name, value in (("blur_std", blur_std), ("motion", motion), ("psf", psf)) if value is not None]
    check(len(given) <= 1, " and ".join(given), "all of these", "one description of the blur")
    if blur_std is not None:
        return gaussian_psf(blur_std, "blur_std")
    if motion is not None:
        check(0 < motion[0] < math.inf and math.isfinite(motion[1]), "motion", motion, "a length > 0 and an angle, both finite")
        return motion_psf(*motion, "motion")
    return None if psf is None else read_psf(psf)


def image_operator(kind: str, image: Tensor, noise_std: float, mask: Path | None, blur: Tensor | None,
                   factor: int | None) -> Operator:
    """A for a measurement that is an image."""
    from .. import operators
    from ..io import read_mask

    is_complex = image.is_complex()
    if kind == "inpaint":
        seen = read_mask(needed("mask", mask, "a file, for --operator inpaint"))
        return operators.Inpainting(seen, noise_std, is_complex=is_complex)
    if kind == "deblur":
        kernel = needed("blur_std, motion or psf", blur, "one of them for --operator deblur")
        return operators.CircularBlur(kernel, noise_std, is_complex=is_complex)
    if kind == "superres":
        return operators.SuperResolution(2 if factor is None else factor, noise_std, blur, is_complex=is_complex)
    return operators.Denoising(noise_std, is_complex=is_complex)


def image_noise_std(kind: str, image: Tensor, noise_std: float | None) -> tuple[float, str]:
    """η of a measurement that is an image, and whether it was given, estimated or assumed."""
    from ..io import image_noise

    if noise_std is not None:
        return noise_std, "given"
    found = image_noise(image) if kind in ("denoise", "deblur") else None  # pixels that are missing or apart are no neighbours
    return (ASSUMED, "assumed") if found is None else (found, "estimated")


def given_schedule(noise: str, **given: float | None) -> Schedule | None:
    """The schedule that the options say, the published rule without a predictor; None where they say nothing."""
    from ..samplers import Schedule

    known = {name: value for name, value in given.items() if value is not None}
    defaults: dict[str, Any] = {"levels": 25, "steps": 4, "sigma_max": 10.0, "sigma_min": 0.02, "predictor": noise == "averaged"}
    return Schedule(**defaults | known) if known or noise == "independent" else None


def results(measurement: Path, out: Path | None) -> list[Path]:
    """The files that are written: OUT.npz and OUT.png."""
    stem = measurement.with_name(measurement.stem + "_posterior") if out is None else out
    check(stem.name not in ("", ".."), "out", f"'{stem}'", "the name of a file")
    stem = stem.with_suffix("") if stem.suffix in (".npz", ".png") else stem
    return [stem.with_name(stem.name + suffix) for suffix in (".npz", ".png")]


@click.command(short_help="Sample the posterior of your own measurement.")
@click.argument("measurement", metavar="INPUT", type=click.Path(path_type=Path))
@click.option("--operator", type=click.Choice(OPERATORS), required=True, help="How INPUT was measured.")
@click.option("--energy", help="The prior: a name of `alps-fast info`, or a file.  [default: brain for mri, else natural]")
@click.option("--mask", type=click.Path(path_type=Path), help="inpaint: a picture or array, 1 or white = observed.")
@click.option("--noise-std", type=float, help="Standard deviation of the noise, of real and imaginary part each, in units of "
              "INPUT as read.  [default: estimated for denoise, deblur and mri; else assumed to be 0.02, or 0.02 of --scale]")
@click.option("--blur-std", type=float, help="deblur, superres: Gaussian blur, its standard deviation in pixels.")
@click.option("--motion", type=(float, float), metavar="LENGTH ANGLE", help="deblur, superres: motion blur, its length in pixels "
              "and degrees counter-clockwise from the horizontal.")
@click.option("--psf", type=click.Path(path_type=Path), help="deblur, superres: a blur kernel, array or grey picture, its centre "
              "at row h // 2, column w // 2; a picture is scaled to sum 1.")
@click.option("--factor", type=int, help="superres: pixels between pixels.  [default: 2]")
@click.option("--scale", type=float, help="mri: the magnitude that the prior should take for 1.  [default: from the data]")
@click.option("--out", type=click.Path(path_type=Path), help="Where to write: OUT.npz and OUT.png.  "
              "[default: INPUT without its suffix, with _posterior]")
@click.option("--chains", type=int, default=8, show_default=True, help="Chains; none sees the others. From four on in pairs.")
@click.option("--draws", type=int, help="Draws a chain, once annealed.  [default: 20; 1 with --noise independent]")
@click.option("--thin", type=int, help="Steps between draws.  [default: 1]")
@click.option("--method", type=click.Choice(["alps", "measurement"]), default="alps", show_default=True,
              help="Anneal the prior, or the noise on the measurement.")
@click.option("--noise", type=click.Choice(["averaged", "independent"]), default="averaged", show_default=True,
              help="Noise of exact variance, or the published rule.")
@click.option("--correction", type=click.Choice(["none", "mala"]), default="none", show_default=True,
              help="Metropolis correction.")
@click.option("--levels", type=int, help="Noise levels of the annealing.  [default: chosen from prior and measurement; "
              "25 where another of these four is given]")
@click.option("--steps", type=int, help="Langevin steps a level.  [default: likewise, else 4]")
@click.option("--sigma-max", type=float, help="First noise level.  [default: likewise, else 10]")
@click.option("--sigma-min", type=float, help="Last noise level.  [default: likewise, else 0.02]")
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="Written every minute, on Ctrl-C "
              "and on SIGTERM; where it is there already, the run goes on from it.")
@force_option
@sampling_options
def command(measurement: Path, operator: str, energy: str | None, mask: Path | None, noise_std: float | None,
            blur_std: float | None, motion: tuple[float, float] | None, psf: Path | None, factor: int | None, scale: float | None,
            out: Path | None, chains: int, draws: int | None, thin: int | None, method: str, noise: str, correction: str,
            levels: int | None, steps: int | None, sigma_max: float | None, sigma_min: float | None, checkpoint: Path | None,
            force: bool, backend: str, precision: str | None, seed: int, progress: bool, as_json: bool) -> None:
    """Sample the posterior of the image behind INPUT; write mean, deviation and samples (npz) and a picture (png).

    INPUT is an image (PNG, JPEG, TIFF, npy, npz), or for mri an .npz or HDF5 file with kspace (coils, H, W), maps of
    the same shape and mask (H, W) or (W,). Grey levels 0 to 255 are read as -1 to 1; arrays of floats as they are.

    \b
    Examples:  alps-fast reconstruct photo.png --operator inpaint --mask seen.png --noise-std 0.02
               alps-fast reconstruct blurred.png --operator deblur --motion 9 30
               alps-fast reconstruct scan.h5 --operator mri --energy brain --chains 16 --out scan_posterior
    """
    import alps_fast as af

    from ..io import check_outputs, read_image, read_kspace, scaled_kspace

    check_backend(backend)
    check_applicable(operator, {"mask": mask, "blur_std": blur_std, "motion": motion, "psf": psf, "factor": factor,
                                "scale": scale})
    if draws is None:
        draws = 1 if noise == "independent" else 20
    check(thin is None or draws > 1, "thin", thin, "it with more than one draw alone")
    blur = read_blur(blur_std, motion, psf)
    prior = af.energies.load(("brain" if operator == "mri" else "natural") if energy is None else energy, backend=backend,
                             precision=chosen_precision(precision))
    op: Operator
    if operator == "mri":
        found = scaled_kspace(read_kspace(measurement), noise_std, scale)
        y, op, scale, noise_from = found.y, found.operator, found.scale, found.noise_from
    else:
        y, scale = read_image(measurement), 1.0
        noise_std, noise_from = image_noise_std(operator, y, noise_std)
        op = image_operator(operator, y, noise_std, mask, blur, factor)
    sampler = af.Sampler(op, prior, chains=chains, draws=draws, thin=1 if thin is None else thin, seed=seed,
                         schedule=given_schedule(noise, levels=levels, steps=steps, sigma_max=sigma_max, sigma_min=sigma_min),
                         method=method, noise=noise, correction=None if correction == "none" else correction, backend=backend,
                         progress=progress, checkpoint=checkpoint)
    inputs = {"INPUT": measurement, "mask": mask, "psf": psf, "energy": energy}
    files = results(measurement, out)
    check_outputs("out", files, force, **inputs, checkpoint=checkpoint)
    if checkpoint is not None:
        check_outputs("checkpoint", [checkpoint], force=True, **inputs)  # one of another run is refused when it is read
    posterior = sampler(y)
    if scale != 1.0:  # back to the units of the data
        posterior = posterior.scaled(scale)
    posterior.save(files[0])
    posterior.plot(files[1])
    if posterior.interrupted and checkpoint is not None:
        click.echo(f"interrupted: the same command with --force goes on from {checkpoint}", err=True)
    report(posterior, op, operator, files, scale, noise_from, as_json)


def report(posterior: Any, op: Operator, kind: str, files: list[Path], scale: float, noise_from: str, as_json: bool) -> None:
    """What was done and where it is."""
    deviation = float(posterior.mean_std)
    mean_std = None if math.isnan(deviation) else deviation  # NaN is no JSON
    result = {"operator": kind, "image": list(posterior.mean.shape), "noise_std": op.noise_std * scale,
              "noise_from": noise_from, "scale": scale,
              "draws": int(posterior.count), "gradients": posterior.gradients, "seconds": posterior.seconds,
              "mean_std": mean_std, "chi2": float(posterior.chi2),
              "acceptance": posterior.acceptance, "interrupted": posterior.interrupted,
              "broken_chains": [lost._asdict() for lost in posterior.broken], "files": [str(f) for f in files]}
    if noise_from == "assumed":
        click.echo(f"noise_std: {result['noise_std']:.4g} is assumed, as the data do not tell; give --noise-std if you know it",
                   err=True)
    if as_json:
        print_json(result)
        return
    for lost in posterior.broken:
        click.echo(f"chain {lost.chain} turned non-finite at level {lost.level}, step {lost.step}, and was left out", err=True)
    told = "" if mean_std is None else f"; mean standard deviation {mean_std:.4g}"
    click.echo(f"{result['draws']} draws in {posterior.seconds:.1f} s{told}")
    click.echo(f"chi-squared a datum of the samples: {result['chi2']:.3g}, about 1 expected")
    click.echo(f"noise_std {result['noise_std']:.4g}, {noise_from}" + (f"; scale {scale:.4g}" if kind == "mri" else ""))
    click.echo("wrote " + ", ".join(result["files"]))
