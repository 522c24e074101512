"""`alps-fast reconstruct`: the posterior of a user's own measurement."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..errors import check
from .images import image_noise_std, image_operator, read_blur
from .options import check_backend, chosen_precision, force_option, print_json, sampling_options

if TYPE_CHECKING:
    from torch import Tensor

    from ..samplers import Schedule
    from .prepare import Named
    from .runs import Found, Piece, Settings

OPERATORS = ("denoise", "inpaint", "deblur", "superres", "mri")
APPLY_TO = {"mask": ("inpaint", "mri"), "blur_std": ("deblur", "superres"), "motion": ("deblur", "superres"),
            "psf": ("deblur", "superres"), "factor": ("superres",)} | dict.fromkeys(  # options of some operators alone
                ("scale", "tol", "max_iter", "maps", "dataset", "axes", "slices", "prepare"), ("mri",))


def check_applicable(kind: str, given: dict[str, object]) -> None:
    """No option may have been given that says nothing about this operator."""
    for name, kinds in APPLY_TO.items():
        check(given[name] is None or kind in kinds, name, f"it with --operator {kind}", f"it with {' or '.join(kinds)} alone")


def given_schedule(noise: str, **given: float | None) -> Schedule | None:
    """The schedule that the options say, the published rule without a predictor; None where they say nothing."""
    from ..samplers import Schedule

    known = {name: value for name, value in given.items() if value is not None}
    defaults: dict[str, Any] = {"levels": 25, "steps": 4, "sigma_max": 10.0, "sigma_min": 0.02, "predictor": noise == "averaged"}
    return Schedule(**defaults | known) if known or noise == "independent" else None


def outputs(measurement: Path, out: tuple[Path, ...], with_map: bool) -> list[Path]:
    """The names that --out says for an input; without a suffix of a format, that name with .npz and .png."""
    from ..io.results import split

    found = []
    for name in out or (measurement.with_name(measurement.stem + "_posterior"),):
        named = Path(str(name).replace("{}", measurement.stem))
        check(named.name not in ("", ".."), "out", f"'{named}'", "the name of a file")
        found += [named] if split(named)[1] else [named.with_name(named.name + suffix) for suffix in (".npz", ".png")]
    return found


@click.command(short_help="Sample the posterior of your own measurement.")
@click.argument("measurements", metavar="INPUT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--operator", type=click.Choice(OPERATORS), required=True, help="How INPUT was measured.")
@click.option("--energy", help="The prior: a name of `alps-fast info`, or a file.  [default: brain for mri, else natural]")
@click.option("--mask", type=click.Path(path_type=Path), help="inpaint: a picture or array, 1 or white = observed. mri: a "
              "file of the mask, where it is not in INPUT.")
@click.option("--maps", type=click.Path(path_type=Path), help="mri: a file of coil maps.  "
              "[default: those in INPUT, else estimated]")
@click.option("--dataset", help="mri: the name of k-space in INPUT.  [default: kspace, or what looks like it]")
@click.option("--axes", help="mri: a letter an axis of it, as shwc: s slices, c coils, h rows, w columns, r real and imaginary "
              "part, _ of one.  [default: guessed, and said]")
@click.option("--slices", help="mri: which, as 3:20 or 7, from 0 on.  [default: all]")
@click.option("--prepare", metavar="STEPS", help="mri: what is done before, in this order, with commas: prewhiten, "
              "oversampling[=SAMPLES], recentre, compress[=ENERGY or =COILS], maps[=SETS], normalise; or none. Each says a "
              "line.  [default: those of prewhiten, oversampling and maps that INPUT calls for]")
@click.option("--noise-std", type=float, help="Standard deviation of the noise, of real and imaginary part each, in units of "
              "INPUT as read.  [default: estimated for denoise, deblur and mri; else assumed to be 0.02, or 0.02 of --scale]")
@click.option("--blur-std", type=float, help="deblur, superres: Gaussian blur, its standard deviation in pixels.")
@click.option("--motion", type=(float, float), metavar="LENGTH ANGLE", help="deblur, superres: motion blur, its length in pixels "
              "and degrees counter-clockwise from the horizontal.")
@click.option("--psf", type=click.Path(path_type=Path), help="deblur, superres: a blur kernel, array or grey picture, its centre "
              "at row h // 2, column w // 2; a picture is scaled to sum 1.")
@click.option("--factor", type=int, help="superres: pixels between pixels.  [default: 2]")
@click.option("--scale", type=float, help="mri: the magnitude that the prior should take for 1.  [default: from the data]")
@click.option("--tol", type=float, help="mri: error of a draw allowed, in posterior standard deviations, where conjugate "
              "gradients solve: several coils, a mask of two axes.  [default: 0.01]")
@click.option("--max-iter", type=int, help="mri: their iterations a step at most.  [default: 1000]")
@click.option("--out", type=click.Path(path_type=Path), multiple=True, help="Where to write, and by its suffix what: "
              ".npz or .h5 (everything), .nii.gz, .dcm, .cfl, .png; without one OUT.npz and OUT.png. Several times at will; {} "
              "stands for INPUT without its suffix.  [default: INPUT without its suffix, with _posterior]")
@click.option("--map", "with_map", is_flag=True, help="The most probable image too: from the mean, or where levels "
              "or steps are given, annealed with those.")
@click.option("--chains", type=int, default=8, show_default=True, help="Chains; none sees the others, but for leaps. From "
              "four on in pairs, unless they leap.")
@click.option("--draws", type=int, help="Draws a chain, once annealed.  [default: 20; 1 with --noise independent]")
@click.option("--thin", type=int, help="Steps between draws.  [default: 1]")
@click.option("--method", type=click.Choice(["alps", "measurement"]), default="alps", show_default=True,
              help="Anneal the prior, or the noise on the measurement: modes that lie apart then keep the prior's weights, "
              "whatever INPUT says of them, but for leaps.")
@click.option("--noise", type=click.Choice(["averaged", "independent"]), default="averaged", show_default=True,
              help="Noise of exact variance, or the published rule.")
@click.option("--correction", type=click.Choice(["none", "mala"]), default="none", show_default=True,
              help="Metropolis correction.")
@click.option("--moves", type=click.Choice(["none", "leap"]), default="none", show_default=True,
              help="Leaps from mode to mode, which give modes that lie apart their weights; for a multiple of 32 chains.")
@click.option("--levels", type=int, help="Noise levels of the annealing.  [default: chosen from prior and measurement; "
              "25 where another of these four is given]")
@click.option("--steps", type=int, help="Langevin steps a level.  [default: likewise, else 4]")
@click.option("--sigma-max", type=float, help="First noise level.  [default: likewise, else 10]")
@click.option("--sigma-min", type=float, help="Last noise level.  [default: likewise, else 0.02]")
@click.option("--checkpoint", type=click.Path(path_type=Path), metavar="FILE", help="Written every minute, on Ctrl-C "
              "and on SIGTERM; where it is there already, the run goes on from it. Of several slices a folder.")
@force_option
@sampling_options
def command(measurements: tuple[Path, ...], operator: str, energy: str | None, mask: Path | None, maps: Path | None,
            dataset: str | None, axes: str | None, slices: str | None, prepare: str | None, noise_std: float | None,
            blur_std: float | None, motion: tuple[float, float] | None, psf: Path | None, factor: int | None,
            scale: float | None, tol: float | None, max_iter: int | None, out: tuple[Path, ...], with_map: bool, chains: int,
            draws: int | None, thin: int | None, method: str, noise: str, correction: str, moves: str, levels: int | None,
            steps: int | None, sigma_max: float | None, sigma_min: float | None, checkpoint: Path | None, force: bool,
            backend: str, precision: str | None, seed: int, progress: bool, as_json: bool) -> None:
    """Sample the posterior of the image behind INPUT; write mean, deviation and samples (npz) and a picture (png).

    INPUT is an image (PNG, JPEG, TIFF, npy, npz), or for mri k-space: npz, npy, HDF5 (fastMRI's too), ISMRMRD, MATLAB or BART
    files, a slice or many. Grey levels 0 to 255 are read as -1 to 1; arrays of floats as they are. Of several slices those that
    fail are named, the others kept, and the exit code is 1; Ctrl-C keeps those that are done.

    \b
    Examples:  alps-fast reconstruct photo.png --operator inpaint --mask seen.png --noise-std 0.02
               alps-fast reconstruct blurred.png --operator deblur --motion 9 30
               alps-fast reconstruct scan.h5 --operator mri --energy brain --chains 16 --out scan_posterior
               alps-fast reconstruct volume.h5 --operator mri --slices 3:20 --map --out volume.nii.gz
    """
    import alps_fast as af

    from ..io import check_outputs
    from ..io.results import check_names, files_of
    from .prepare import Named, named_steps
    from .runs import Settings, provenance

    check_backend(backend)
    check_applicable(operator, {"mask": mask, "blur_std": blur_std, "motion": motion, "psf": psf, "factor": factor,
                                "scale": scale, "tol": tol, "max_iter": max_iter, "maps": maps, "dataset": dataset, "axes": axes,
                                "slices": slices, "prepare": prepare})
    if draws is None:
        draws = 1 if noise == "independent" else 20
    check(thin is None or draws > 1, "thin", thin, "it with more than one draw alone")
    blur = read_blur(blur_std, motion, psf)
    named = ("brain" if operator == "mri" else "natural") if energy is None else energy
    prior = af.energies.load(named, backend=backend, precision=chosen_precision(precision))
    before = named_steps(prepare)
    prior.channelwise |= Named("maps", 2) in (before or ())  # of one complex channel, it serves every set of maps by itself
    jobs = [Job(path, *_pieces(path, operator, noise_std, mask, blur, factor, maps, dataset, axes, slices, scale,
                               tol, max_iter, before))
            for path in measurements]
    pieces = sum(len(job.pieces) for job in jobs)
    check(checkpoint is None or pieces == 1 or checkpoint.is_dir() or not checkpoint.exists(), "checkpoint",
          f"the file '{checkpoint}' for {pieces} slices", "a folder, which holds their files")
    options: dict[str, Any] = {
        "chains": chains, "draws": draws, "thin": 1 if thin is None else thin, "seed": seed, "method": method, "noise": noise,
        "correction": None if correction == "none" else correction, "moves": None if moves == "none" else moves,
        "backend": backend, "checkpoint": checkpoint}
    schedule = given_schedule(noise, levels=levels, steps=steps, sigma_max=sigma_max, sigma_min=sigma_min)
    if pieces == 1:  # what it is refused for comes before what --out is
        jobs = [job._replace(pieces=[_kept(job.pieces[0]())]) for job in jobs]
        af.Sampler(jobs[0].pieces[0]().operator, prior, schedule=schedule, **options)
    wanted = [outputs(job.path, out, with_map) for job in jobs]
    inputs = {"mask": mask, "psf": psf, "energy": energy, "maps": maps}
    every = [file for names in wanted for name in names for file in files_of(name, with_map)]
    check_names(every)
    for job in jobs:
        check_outputs("out", every, force, INPUT=job.path, **inputs, checkpoint=checkpoint)
        if checkpoint is not None:
            check_outputs("checkpoint", [checkpoint / "one" if pieces > 1 else checkpoint], force=True, INPUT=job.path, **inputs)
    if checkpoint is not None and pieces > 1:
        checkpoint.mkdir(parents=True, exist_ok=True)  # of another run: a file is refused when it is read, a folder has it beside
    told = provenance({"mask": _text(mask), "psf": _text(psf), "maps": _text(maps)}, named, seed,
                      options | {"noise_std": noise_std, "scale": scale, "tol": tol, "max_iter": max_iter, "dataset": dataset,
                                 "axes": axes, "prepare": prepare})
    settings = Settings(prior, schedule, options, with_map, progress)
    done = [_run(job, names, settings, operator, told, as_json) for job, names in zip(jobs, wanted, strict=True)]
    if as_json:
        print_json(done[0][0] if len(done) == 1 else [found for found, _ in done])
    if any(failed for _, failed in done):
        raise SystemExit(1 if any(found["files"] for found, _ in done) else 2)


class Job(NamedTuple):
    """An input: its pieces, each read when it is asked for, what they are called, and whether they are slices of a volume."""

    path: Path
    pieces: list[Callable[[], Piece]]
    labels: list[str]
    volume: bool


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _kept(piece: Piece) -> Callable[[], Piece]:
    """A piece that was read already."""
    return lambda: piece


def _pieces(path: Path, operator: str, noise_std: float | None, mask: Path | None, blur: Tensor | None, factor: int | None,
            maps: Path | None, dataset: str | None, axes: str | None, slices: str | None, scale: float | None, tol: float | None,
            max_iter: int | None, before: tuple[Named, ...] | None) -> tuple[list[Callable[[], Piece]], list[str], bool]:
    """Those of an input, as `Job` has them."""
    from ..io import open_kspace, read_image
    from .runs import Piece
    from .scans import Scan, chosen_slices

    if operator == "mri":
        found = open_kspace(path, dataset=dataset, axes=axes, maps=maps, mask=mask)
        chosen = chosen_slices(slices, len(found), path)
        scan = Scan(found, noise_std, scale, tol, max_iter, before)
        return [partial(scan.piece, i) for i in chosen], [found.label(i) for i in chosen], len(found) > 1
    y = read_image(path)
    eta, noise_from = image_noise_std(operator, y, noise_std)
    piece = Piece(0, path.name, y, image_operator(operator, y, eta, mask, blur, factor), 1.0, noise_from)
    return [_kept(piece)], [path.name], False


def _run(job: Job, names: list[Path], settings: Settings, kind: str, told: dict[str, Any], as_json: bool,
         ) -> tuple[dict[str, Any], bool]:
    """Samples an input and writes what is found: the facts, and whether slices are missing."""
    from ..io.results import files_of, write
    from .runs import RHAT, Found, Lost, results, sampled, tell

    found, lost, said = list[Found](), list[Lost](), 0
    for some in sampled(job.pieces, job.labels, settings):
        if isinstance(some, Lost):
            lost.append(some)
        else:
            found += some
        if found:  # until a slice is had nothing is said: a file that is bad as a whole is one line
            for one in lost[said:]:
                click.echo(f"{job.path}, {one.label} failed: {one.why}", err=True)
            said = len(lost)
    missing = len(job.pieces) - len(found) - len(lost)
    if missing:
        kept = settings.sampler["checkpoint"]
        click.echo(f"interrupted: {missing} of {len(job.pieces)} slices of {job.path} are not done"
                   + ("" if kept is None else f"; the same command with --force goes on from {kept}"), err=True)
    if not found:
        if lost:
            click.echo(f"{job.path}: none of {len(job.pieces)} slices can be had; {lost[0].label}: {lost[0].why}", err=True)
        return {"input": str(job.path), "slices": [], "failed": [one._asdict() for one in lost], "files": []}, True
    made = results(found, kind, job.volume, told | {"input": str(job.path)})
    for name in names:
        write(name, made)
    files = [str(file) for name in names for file in files_of(name, settings.with_map)]
    facts = [one.facts(kind) for one in found]
    for good, fact in zip(found, facts, strict=True):
        _notes(good, fact, settings, job.volume)
    if not job.volume:
        if not as_json:
            tell(found[0], kind, facts[0])
            click.echo("wrote " + ", ".join(files))
        return facts[0] | {"files": files}, False
    if not as_json:
        for good, fact in zip(found, facts, strict=True):
            noise = f"noise_std {fact['noise_std']:.4g} {fact['noise_from']}"
            rhat = "" if fact["rhat"] is None or fact["rhat"] <= RHAT else f", R-hat up to {fact['rhat']:.2g}"
            chi2 = "unknown" if fact["chi2"] is None else f"{fact['chi2']:.3g}"
            click.echo(f"{good.piece.label}: chi-squared {chi2}{rhat}, {noise}, scale {fact['scale']:.4g}, "
                       f"{fact['seconds']:.1f} s")
        click.echo("wrote " + ", ".join(files))
    slices = [{"index": one.piece.number, "label": one.piece.label} | fact for one, fact in zip(found, facts, strict=True)]
    failed = [one._asdict() for one in lost]
    return {"input": str(job.path), "slices": slices, "failed": failed, "files": files}, bool(lost or missing)


def _notes(one: Found, fact: dict[str, Any], settings: Settings, volume: bool) -> None:
    """On stderr, for people and programs alike."""
    where = f"{one.piece.label}: " if volume else ""
    for words in one.piece.words:
        click.echo(f"{where}{words}", err=True)
    if one.piece.noise_from == "assumed":
        click.echo(f"{where}noise_std: {fact['noise_std']:.4g} is assumed, as the data do not tell; give --noise-std if you know "
                   "it", err=True)
    if one.posterior.interrupted and settings.sampler["checkpoint"] is not None:
        click.echo(f"interrupted: the same command with --force goes on from {settings.sampler['checkpoint']}", err=True)
