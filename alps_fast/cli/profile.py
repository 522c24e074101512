"""`alps-fast profile`: where the time of a run goes; what the GPU kernels hold, move and compute is the laboratory's to find."""

from __future__ import annotations

import importlib
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from ..errors import check as check_argument
from ..errors import refused
from ..io import check_outputs, replacing
from ..profile.work import ARCHITECTURES
from .options import (
    add,
    backend_option,
    check_backend,
    chosen_precision,
    force_option,
    json_option,
    precision_option,
    print_json,
)

CHECKOUT = Path(__file__).resolve().parents[2]  # of which lab/ and csrc/ are no part of a wheel
RUN = ("task", "energy", "chains", "side", "levels", "steps", "backend", "precision")  # options of a run
SHOWN = 1e-3  # share of a run from which an op has a line of its own

run_options = add(
    click.option("--task", type=click.Choice(["inpaint", "deblur", "mri"]), default="inpaint", show_default=True,
                 help="What is sampled."),
    click.option("--energy", metavar="NAME", help="A shipped energy or a file.  [default: the best for the task]"),
    click.option("--chains", type=click.IntRange(min=1), default=16, show_default=True, help="Chains of the run."),
    click.option("--side", type=click.IntRange(min=16), default=64, show_default=True, help="Side of the image."),
    click.option("--levels", type=click.IntRange(min=1), default=4, show_default=True, help="Levels of the run."),
    click.option("--steps", type=click.IntRange(min=1), default=5, show_default=True, help="Steps a level."),
    backend_option,
    precision_option,
)
kernel_options = add(
    click.option("--static", "static_", is_flag=True, help="Instead of a run: compile the GPU kernels, read the machine code."),
    click.option("--emulate", is_flag=True, help="Instead of a run: run the GPU kernels' sm_80 code on the CPU, check every "
                 "address, count traffic and instructions."),
    click.option("--arch", type=click.Choice(ARCHITECTURES), multiple=True, help="For --static: GPU to compile "
                 "for; may be given more than once.  [default: all]"),
    click.option("--op", "ops", multiple=True, help="For --static and --emulate: only kernels of this op; may be given more than "
                 "once."),
    click.option("--check", is_flag=True, help="Fail with exit code 1 if a fact of --static or a count of --emulate (both, "
                 "where neither is given) is worse than in the baseline, with 3 if that is of another Triton and says nothing."),
    click.option("--update", is_flag=True, help="Write the baseline anew: what --static or --emulate finds, both where neither "
                 "is given."),
)
file_type = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Where the time of a run goes; rooflines; registers, spills and traffic of the GPU kernels.")
@add(run_options)
@click.option("--trace", type=file_type, metavar="FILE", help="Write the run as a Chrome trace, for ui.perfetto.dev.")
@click.option("--roofline", type=file_type, metavar="FILE.png", help="Instead of a run: time every op here, and draw it under "
              "what this machine can do, and as modelled, or on a GPU measured, for GPUs.")
@click.option("--ncu", is_flag=True, help="Print the Nsight Compute command line that profiles exactly one step, and stop.")
@click.option("--one-step", is_flag=True, help="Run one step to warm up and one that Nsight Compute looks at, and stop.")
@add(kernel_options, force_option, json_option)
@click.pass_context
def command(ctx: click.Context, task: str, energy: str | None, chains: int, side: int, levels: int, steps: int, backend: str,
            precision: str | None, trace: Path | None, roofline: Path | None, ncu: bool, one_step: bool, static_: bool,
            emulate: bool, arch: tuple[str, ...], ops: tuple[str, ...], check: bool, update: bool, force: bool,
            as_json: bool) -> None:
    """Where the time of a sampling run goes on this machine, op by op; on a GPU by CUPTI.

    With --static or --emulate, what every Triton kernel, and where nvcc is found every CUDA kernel, holds, moves and computes,
    found without a GPU: times are then modelled (roofline of the data-sheet peaks), none is measured. That needs a checkout.

    \b
    Examples:  alps-fast profile --task mri --chains 16 --side 128 --trace run.json
               alps-fast profile --roofline roofline.png
               $(alps-fast profile --ncu --task inpaint --energy natural-ridge)
               alps-fast profile --static --arch sm_90 --op langevin_pixel
    """
    of_kernels = {"--static": static_, "--emulate": emulate, "--check": check, "--update": update, "--arch": arch, "--op": ops}
    kernels = [name for name, asked in of_kernels.items() if asked]
    others = {"--roofline": roofline is not None, "--ncu": ncu, "--one-step": one_step}
    given = [name for name, asked in others.items() if asked] + kernels[:1]
    check_argument(len(given) <= 1, "profile", " and ".join(given), "one of them")
    check_argument(trace is None or not given, "trace", f"it with {', '.join(given)}", "it alone: it is of a run")
    if (kernels or roofline is not None) and (options := list(_given(ctx, RUN))):
        raise refused(options[0].strip("-"), f"it with {given[0]}", "it with a run, --ncu or --one-step")
    if kernels:
        laboratory(given[0]).profile_kernels(static_, emulate, arch, ops, check, update, as_json)
        return
    if roofline is not None:
        draw_roofline(roofline, force, as_json)
        return
    if ncu:
        click.echo(ncu_command(ctx))
        return
    from ..bench.plain_step import plain_step
    from ..profile import sampling

    check_backend(backend)
    workload = sampling.Workload(task, energy, chains, side, levels, steps, backend, chosen_precision(precision))
    device = sampling.default_device()
    if one_step:
        sampling.one_step(workload, device)
        return
    if trace is not None:
        check_outputs("trace", [trace], force, energy=energy)
        with replacing(trace) as path:
            found = sampling.run_shares(workload, device, plain_step, path)
    else:
        found = sampling.run_shares(workload, device, plain_step)
    if as_json:
        print_json({"workload": vars(workload), **found})
    else:
        _print_run(found)


def _given(ctx: click.Context, names: tuple[str, ...]) -> dict[str, click.Option]:
    """The options that the command line has, of these parameters."""
    return {parameter.opts[0]: parameter for parameter in ctx.command.params
            if isinstance(parameter, click.Option) and parameter.name in names
            and ctx.get_parameter_source(parameter.name) is click.core.ParameterSource.COMMANDLINE}


def ncu_command(ctx: click.Context) -> str:
    """Nsight Compute on `--one-step` with the options of the run as they were given."""
    options = []
    for name, parameter in _given(ctx, RUN).items():
        options += [name, str(ctx.params[parameter.name or ""])]
    return shlex.join(["ncu", "--profile-from-start", "off", "--nvtx", "--set", "full", "--export", "alps_step",
                       "--force-overwrite", "alps-fast", "profile", "--one-step", *options])


def laboratory(option: str) -> Any:
    """lab.command, of the checkout that this package is imported from."""
    if not (CHECKOUT / "lab").is_dir() or not (CHECKOUT / "csrc").is_dir():
        raise ImportError(f"{option} needs the repository, with lab/ and csrc/, and this package lies in none: clone it, and "
                          "there pip install -e '.[profile]'")
    if str(CHECKOUT) not in sys.path:
        sys.path.append(str(CHECKOUT))
    return importlib.import_module("lab.command")


def draw_roofline(file: Path, force: bool, as_json: bool) -> None:
    """Measure, draw, and print the points."""
    from tqdm import tqdm

    from ..bench import roofline

    if importlib.util.find_spec("matplotlib") is None:  # said at once, and not after what takes a minute
        raise ImportError("--roofline needs matplotlib: pip install matplotlib")
    check_argument(file.suffix.lower() == ".png", "roofline", str(file), "a file named *.png")
    check_outputs("roofline", [file], force)
    with tqdm(total=1 + len(roofline.cpu_cases()), file=sys.stderr, desc="roofline") as bar:
        def before(name: str) -> None:
            bar.set_postfix_str(name)
            bar.update()

        found = roofline.gather(before)
    with replacing(file) as path:
        roofline.plot(found, path)
    if as_json:
        print_json(found)
        return
    click.echo(f"{found['machine']}, {found['threads']} threads: copies {found['copy'] / 1e9:.1f} GB/s; matrix products "
               f"{found['gemm_float32'] / 1e9:.0f} Gflop/s in float32, {found['gemm_bfloat16'] / 1e9:.0f} in bfloat16")
    for p in found["points"]:
        click.echo(f"  {p['op']:<18}{p['where']:<6} {p['kind']:<9} {p['operations'] / p['bytes']:8.2f} operations a byte, "
                   f"{p['operations'] / p['seconds'] / 1e9:10.1f} G a second, {p['bytes'] / p['seconds'] / 1e9:8.1f} GB/s  "
                   f"({p['case']})")


def _print_run(found: dict[str, Any]) -> None:
    clock = "GPU time" if found["on_gpu"] else "time"
    click.echo(f"{found['steps']} steps in {found['seconds']:.3f} s on {found['device']}; shares of wall time by {clock}")
    click.echo(f"{'op':<42} {'calls':>6} {'host ms':>9} {'GPU ms':>9} {'kernels':>8} {'share':>7}")
    shown = [row for row in found["ops"] if row["share"] >= SHOWN]
    rest = [row for row in found["ops"] if row["share"] < SHOWN]
    if rest:
        shown.append({"op": f"{len(rest)} others"} | {key: sum(row[key] for row in rest) for key in rest[0] if key != "op"})
    for row in shown:
        click.echo(f"{row['op']:<42} {row['calls']:>6} {1e3 * row['host_seconds']:>9.2f} {1e3 * row['gpu_seconds']:>9.2f} "
                   f"{row['gpu_kernels']:>8} {row['share']:>7.1%}")
    click.echo(f"{'GPU idle' if found['on_gpu'] else 'Python, between ops':<78} {found['outside']:>7.1%}")
    plain, ours = found["a_step"]["plain"], found["a_step"]["ours"]
    ops = ", ".join(f"{n:g} {name}" for name, n in ours["ops"].items())
    if plain is not None:
        click.echo(f"a step of the published loop in eager torch: {plain['torch_kernels']} kernels at least, "
                   f"{plain['bytes'] / 1e6:.2f} MB")
    click.echo(f"a step here: {ops} and {ours['torch_kernels']:g} kernels of torch, {ours['bytes'] / 1e6:.2f} MB")
