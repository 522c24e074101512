"""`alps-fast demo`: the whole path on shipped, held-out images, with pictures, arrays and figures of merit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import numpy as np

from ..errors import ArgumentError, check
from .options import check_backend, chosen_precision, force_option, print_json, sampling_options

if TYPE_CHECKING:
    from torch import Tensor

    from ..energies.base import Energy
    from ..operators.base import Operator
    from ..posterior import Posterior
    from ..schedule import Schedule


@dataclass(frozen=True)
class Setting:
    """What an entry runs with. Noise levels are in image units: photographs in [-1, 1], MRI magnitudes in [0, 1]."""

    title: str
    energy: str
    noise_std: float
    levels: int
    sigma_min: float
    rho: float
    above: float  # t above which the prior is asked at half the size
    steps: int = 2
    map_steps: int = 3
    sigma_max: float = 0.5  # where the measurement says enough, annealing may start at the spread of the data
    predictor: bool | str = "folded"
    stride: float = 1.5
    chains: int = 4
    draws: int = 3

    @property
    def schedule(self) -> Schedule:
        """Of sampling."""
        from ..schedule import Schedule

        return Schedule(self.sigma_max, self.sigma_min, self.levels, self.steps, self.rho, predictor=self.predictor,
                        stride=self.stride)


SETTINGS = {  # levels and their spacing were found on other images (docs/performance.md)
    "mri_r4": Setting("Brain MRI, 8 coils, one line in 4 measured", "brain", noise_std=0.01, levels=10, sigma_min=0.012,
                      rho=12.0, above=0.15),
    "mri_r8": Setting("Brain MRI, 8 coils, one line in 8 measured", "brain", noise_std=0.01, levels=15, sigma_min=0.012,
                      rho=12.0, above=0.15),
    "inpaint": Setting("Photograph, 80 % of its pixels missing", "natural", noise_std=0.02, levels=26, sigma_min=0.02,
                       rho=2.0, above=0.3),
    "deblur": Setting("Photograph, Gaussian blur of 2 pixels", "natural", noise_std=0.02, levels=14, sigma_min=0.02,
                      rho=5.0, above=0.3),
}
TASKS = {"mri": ("mri_r4", "mri_r8"), "inpaint": ("inpaint",), "deblur": ("deblur",), "all": tuple(SETTINGS)}
SAMPLING = {"mri_r4": (4, 16), "mri_r8": (8, 10)}  # acceleration, and columns of the fully sampled centre
BLUR_STD = 2.0
LEAST_SQUARES_STDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0)  # t of the least-squares baseline; the best one is reported


class Problem(NamedTuple):
    """A simulated measurement of a known image. `where` (H, W): the pixels whose uncertainty is judged."""

    truth: Tensor
    operator: Operator
    y: Tensor
    first_look: Tensor
    first_name: str
    where: np.ndarray


def build(name: str, setting: Setting) -> Problem:
    """The measurement of entry `name`, the same every time."""
    from .. import data, operators

    if name in SAMPLING:
        truth = data.brain()
        height, width = truth.shape[1:]
        mask = data.line_mask(height, width, *SAMPLING[name], seed=1)
        mri = operators.CartesianMRI(mask, maps=data.coil_maps(8, height, width), noise_std=setting.noise_std)
        y = data.measure(mri, truth, mask, seed=2)
        return Problem(truth, mri, y, mri.adjoint(y), "zero_filled", truth[0].abs().numpy() > 0.05)
    truth = data.photograph()
    height, width = truth.shape[1:]
    if name == "inpaint":
        mask = data.pixel_mask(height, width, keep=0.2, seed=1)
        inpainting = operators.Inpainting(mask, noise_std=setting.noise_std)
        y = data.measure(inpainting, truth, mask, seed=2)
        return Problem(truth, inpainting, y, y, "measurement", mask[0].numpy() == 0)
    blur = operators.CircularBlur.gaussian(BLUR_STD, setting.noise_std)
    y = data.measure(blur, truth, seed=2)
    return Problem(truth, blur, y, y, "measurement", np.ones((height, width), bool))


def run(name: str, setting: Setting, energy: Energy, out: Path, seed: int, backend: str, progress: bool) -> dict[str, Any]:
    """Sample, find the MAP, write `name`.npz and `name`.png; the entry of metrics.json.

    PSNR and SSIM are those of magnitudes for MRI, the range being the truth's peak; of the image otherwise, the range
    being 2. psnr_mmse_limit is that of `endless` chains' mean. The standard deviation and the error beside it are of
    complex pixels for MRI, phase included. coverage90 counts the real components of the truth (real and imaginary parts)
    inside the 90 % interval, and error_std_correlation is Pearson's, of |error| and standard deviation: for MRI both over
    the head (truth above 5 % of its peak), for inpainting over the missing pixels, for deblurring over all.
    """
    import alps_fast as af

    from .. import metrics
    from ..io.files import replacing, write_npz
    from ..samplers.map_estimate import for_mode

    problem = build(name, setting)
    truth, is_mri = problem.truth, problem.truth.is_complex()
    data_range = float(truth.abs().max()) if is_mri else 2.0

    def score(image: Tensor) -> float:
        return metrics.psnr(view(image), view(truth), data_range)

    schedule = setting.schedule
    near = replace(for_mode(schedule, near=True), steps=setting.map_steps, rho=7.0, predictor=False, stride=1.0)
    energy = af.energies.CoarseFirst(energy, setting.above)
    posterior = af.sample(problem.y, problem.operator, energy, chains=setting.chains, draws=setting.draws, seed=seed,
                          schedule=schedule, backend=backend, progress=progress)
    if posterior.interrupted:  # a demo cut short shows nothing
        raise KeyboardInterrupt
    most_probable = af.map_estimate(problem.y, problem.operator, energy, schedule=near, start=posterior.mean, backend=backend,
                                    progress=progress)
    baseline, baseline_t = max(least_squares(problem), key=lambda found: score(found[0]))

    images = {"truth": truth, problem.first_name: problem.first_look, "least_squares": baseline, "mmse": posterior.mean,
              "map": most_probable.image}
    error, where = (posterior.mean - truth).abs()[0].numpy(), problem.where
    deviation = view(posterior.magnitude_std if is_mri else posterior.std)  # of what is looked at
    low, high = (components(end, where) for end in posterior.interval(0.9))
    entry = {
        "task": name,
        **{f"psnr_{key}": score(image) for key, image in images.items() if key != "truth"},
        "psnr_mmse_limit": endless(posterior, score),
        "ssim_mmse": metrics.ssim(view(posterior.mean), view(truth), data_range),
        "coverage90": metrics.coverage(low, high, components(truth, where)),
        "error_std_correlation": metrics.correlation(error[where], view(posterior.std)[where]),
        "schedule": asdict(schedule), "map_schedule": asdict(near), "half_size_above_t": setting.above,
        "levels": setting.levels, "steps": setting.steps, "chains": setting.chains, "draws": setting.draws,
        "seconds": posterior.seconds, "seconds_per_gradient": posterior.seconds / (posterior.gradients * setting.chains),
        "least_squares_t": baseline_t, "noise_std": setting.noise_std, "seed": seed, "broken_chains": len(posterior.broken),
    }
    arrays = {**images, "y": problem.y, "std": posterior.std, "samples": posterior.samples}
    write_npz(out / f"{name}.npz", {key: value.numpy() for key, value in arrays.items()})
    with replacing(out / f"{name}.png") as path:
        shown = {key: view(image) for key, image in images.items()}
        picture(path, setting.title, shown, posterior, deviation, np.abs(shown["mmse"] - shown["truth"]), entry)
    return entry


def endless(posterior: Posterior, score: Callable[[Tensor], float]) -> float | None:
    """About the PSNR of the mean of endlessly many chains, by how those of independent chains, or pairs, differ; None of one.

    Of K with errors b + n_k: E‖b + n̄‖² = ‖b‖² + v/K and E‖b + n_k‖² = ‖b‖² + v. Of magnitudes nearly.
    """
    from ..pairs import units

    found = units(posterior.chain_means[None], posterior.chain_means.flatten(1).isfinite().all(1)[None], 0, posterior.pairs)
    means = found.mean[0][found.whole[0]]
    of_mean, *of_each = (10 ** (-score(image) / 10) for image in (means.mean(0), *means))
    count = len(means)
    squares = (count * of_mean - sum(of_each) / count) / (count - 1) if count > 1 else 0.0
    return -10 * math.log10(squares) if squares > 0 else None


def least_squares(problem: Problem) -> list[tuple[Tensor, float]]:
    """argmin ‖Ax − y‖²/η² + ‖x‖²/t² for every t of `LEAST_SQUARES_STDS`.

    The demo reports the one nearest to the truth, which a user cannot pick: the baseline is as strong as it gets.
    """
    rhs = problem.operator.adjoint(problem.y) / problem.operator.noise_std**2
    return [(problem.operator.project(rhs, t), t) for t in LEAST_SQUARES_STDS]


def view(image: Tensor) -> np.ndarray:
    """What is looked at, (H, W): magnitudes of a complex image, else the image."""
    return (image.abs() if image.is_complex() else image)[0].numpy()


def components(image: Tensor, where: np.ndarray) -> np.ndarray:
    """The real components of the pixels `where`."""
    pixels = image[0].numpy()[where]
    return pixels.view(pixels.real.dtype)


def picture(path: Path, title: str, images: dict[str, np.ndarray], posterior: Posterior, deviation: np.ndarray, error: np.ndarray,
            entry: dict[str, Any]) -> None:
    """Two rows of four. Inpainting's least squares is its measurement, so a second sample takes that place."""
    from .picture import Panel, draw

    def panel(key: str, name: str) -> Panel:
        return Panel(images[key], name if key == "truth" else f"{name}  {entry[f'psnr_{key}']:.1f} dB")

    samples = [Panel(view(x), "a posterior sample") for x in posterior.samples if bool(x.isfinite().all())]
    is_mri = "zero_filled" in images
    rows = [
        [panel("truth", "truth"), panel("zero_filled", "zero-filled") if is_mri else panel("measurement", "measurement"),
         samples[-1] if entry["task"] == "inpaint" else panel("least_squares", "least squares"),
         Panel(deviation, "standard deviation", is_map=True)],
        [panel("mmse", "MMSE"), panel("map", "MAP"), samples[0], Panel(error, "error of MMSE", is_map=True)],
    ]
    grey = (0.0, float(images["truth"].max())) if is_mri else (-1.0, 1.0)
    draw(path, title, rows, grey, largest=max(float(np.quantile(shown, 0.995)) for shown in (error, deviation)))


def summary(entries: list[dict[str, Any]]) -> str:
    """A table for people."""
    lines = [f"{'PSNR in dB':<12}{'measured':>10}{'least squares':>15}{'MAP':>8}{'MMSE':>8}{'SSIM':>8}{'90 % covers':>13}"
             f"{'seconds':>9}"]
    for e in entries:
        first = e.get("psnr_zero_filled", e.get("psnr_measurement"))
        ssim = "-" if e["ssim_mmse"] is None else f"{e['ssim_mmse']:.3f}"
        lines.append(f"{e['task']:<12}{first:>10.2f}{e['psnr_least_squares']:>15.2f}{e['psnr_map']:>8.2f}{e['psnr_mmse']:>8.2f}"
                     f"{ssim:>8}{100 * e['coverage90']:>11.1f} %{e['seconds']:>9.1f}")
    return "\n".join(lines)


def entries_of(path: Path) -> list[dict[str, Any]]:
    """What metrics.json holds, nothing where there is none.

    Raises:
        ArgumentError: it is no file that the demo wrote; that is not replaced.
    """
    from ..io.files import reading

    if not path.exists():
        return []
    with reading(path, "out", "metrics.json of the demo, or none"):
        entries = json.loads(path.read_text())
        check(isinstance(entries, list) and all(isinstance(e["task"], str) for e in entries), "out", path, "a list of tasks")
        return entries


def check_results(out: Path, tasks: Iterable[str], energy: str | None, force: bool) -> None:
    """No file that is written may be an input or, unless `force`, there already, nor a task's entry in metrics.json."""
    from ..io import check_outputs

    metrics = out / "metrics.json"
    check_outputs("out", [metrics], force=True, energy=energy)  # the entries of other tasks stay in it
    check_outputs("out", [out / f"{task}{suffix}" for task in tasks for suffix in (".npz", ".png")], force, energy=energy)
    there = {e["task"] for e in entries_of(metrics)} & set(tasks)
    check(force or not there, "out", f"{metrics} with {', '.join(sorted(there))}", "another folder, or --force to replace them")


def merge(path: Path, entry: dict[str, Any]) -> None:
    """Put the entry in place of the one of its task in metrics.json; the others stay."""
    from ..io import replacing

    before = [e for e in entries_of(path) if e["task"] != entry["task"]]
    order = list(SETTINGS)
    entries = sorted([*before, entry], key=lambda e: order.index(e["task"]) if e["task"] in order else len(order))
    with replacing(path) as partial:
        partial.write_text(json.dumps(entries, indent=2) + "\n")


@click.command(short_help="Reconstruct shipped images and say how well.")
@click.option("--task", type=click.Choice(list(TASKS)), default="all", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("demo_out"), show_default=True,
              help="Folder for pictures, arrays and metrics.json.")
@click.option("--energy", help="An energy's name or file for all tasks.  [default: brain for mri, natural for the others]")
@click.option("--chains", type=int, help="Chains a task.")
@click.option("--draws", type=int, help="Draws a chain, once annealed.")
@click.option("--levels", type=int, help="Noise levels of the annealing, by steps of 1; those of the settings take steps of 1.5.")
@click.option("--steps", type=int, help="Langevin steps a level.")
@force_option
@sampling_options
def command(task: str, out: Path, energy: str | None, chains: int | None, draws: int | None, levels: int | None,
            steps: int | None, force: bool, backend: str, precision: str | None, seed: int, progress: bool,
            as_json: bool) -> None:
    """Reconstruct shipped, held-out images from simulated measurements, and say how good the result is.

    mri: a brain slice from 8-coil k-space at accelerations 4 and 8. inpaint: a photograph from a fifth of its
    pixels. deblur: the same, blurred. Writes a picture and the arrays of each to --out, and metrics.json.

    \b
    Example:  alps-fast demo --task mri --out demo_out
    """
    import alps_fast as af

    check_backend(backend)
    numbers = {"chains": chains, "draws": draws, "levels": levels, "steps": steps}
    for key, number in numbers.items():
        check(number is None or number >= 1, key, number, "an integer >= 1")
    given: dict[str, Any] = {key: value for key, value in {"energy": energy, **numbers, "map_steps": steps}.items()
                             if value is not None}
    given |= {"predictor": True} if steps == 1 else {}  # folding takes two
    given |= {"stride": 1.0} if levels is not None else {}  # longer steps are for levels that were tried with them
    settings = {name: replace(SETTINGS[name], **given) for name in TASKS[task]}
    precision = chosen_precision(precision)
    energies = {s.energy: af.energies.load(s.energy, precision=precision, backend=backend) for s in settings.values()}
    check_results(out, settings, energy, force)
    entries, failed = [], []
    for name, setting in settings.items():
        try:
            entry = run(name, setting, energies[setting.energy], out, seed, backend, progress)
            entries.append(entry | {"energy": setting.energy, "precision": precision})
            merge(out / "metrics.json", entries[-1])
        except ArgumentError:
            raise
        except Exception as error:  # one task must not cost the others their results
            failed.append(name)
            click.echo(f"{name} failed: {type(error).__name__}: {error}", err=True)
    if as_json:
        print_json(entries)
    elif entries:
        click.echo(summary(entries))
        click.echo(f"pictures and arrays in {out}/: " + ", ".join(f"{e['task']}.png" for e in entries) + ", metrics.json")
    if any(e["ssim_mmse"] is None for e in entries):
        click.echo("SSIM needs scikit-image: pip install 'alps_fast[metrics]'", err=True)
    if failed:
        raise click.exceptions.Exit(1)
