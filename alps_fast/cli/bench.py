"""`alps-fast bench`: how fast this machine is, beside plain and tuned torch."""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import check
from ..io import check_outputs, replacing
from .options import force_option

if TYPE_CHECKING:
    import torch

QUICK_LEVELS = 1
SCALING_FILES = ("scaling.json", "scaling.png")


@click.command(short_help="Time the kernels and whole runs here, beside plain and tuned torch.")
@click.option("--case", "wanted", multiple=True, metavar="TEXT", help="Only cases with TEXT in their name; repeatable.")
@click.option("--quick", is_flag=True, help="Under a minute: the first case of each op, few rounds, whole runs of "
              f"{QUICK_LEVELS} level, no compiled baselines.")
@click.option("--levels", type=click.IntRange(min=1), help=f"Levels of whole runs, of the published 50.  [default: 50; "
              f"{QUICK_LEVELS} with --quick]")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), help="Where cases run; on a GPU they are timed by CUDA events, "
              "and DeepInverse is left out.  [default: cuda where torch sees a GPU, else cpu]")
@click.option("--list", "only_list", is_flag=True, help="Print the names of the cases and stop.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), metavar="FILE", help="Write machine and rows as JSON; - is "
              "stdout.")
@click.option("--scaling", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Instead of cases: the cost of "
              "a chain over 1 to 1024 chains and of a pixel over sides 32 to 1024; writes scaling.json and scaling.png into DIR.")
@click.option("--progress/--no-progress", default=True, show_default=True, help="A progress bar on stderr.")
@force_option
def command(wanted: tuple[str, ...], quick: bool, levels: int | None, device: str | None, only_list: bool, as_markdown: bool,
            json_file: Path | None, scaling: Path | None, progress: bool, force: bool) -> None:
    """Time ops and whole runs on this machine, contenders side by side in one process, after checking their results.

    plain: the same work as the papers write it, in eager torch. tuned: torch with care, compiled where that helps. Medians of
    interleaved rounds; "of machine" is the share of this machine's copy bandwidth or matrix product rate, measured
    beside each case. Set threads with OMP_NUM_THREADS. Without --quick and --case whole runs take an hour or more.

    \b
    Examples:  alps-fast bench --quick
               alps-fast bench --case langevin_pixel --case philox --json rows.json
               alps-fast bench --case alps --levels 5 --markdown
               alps-fast bench --scaling scaling_out
    """
    import torch
    from tqdm import tqdm

    from alps_fast.bench import common

    place = torch.device(device) if device else common.default_device()
    check(place.type == "cpu" or torch.cuda.is_available(), "device", device, "cpu: torch sees no CUDA device")
    if scaling is not None:
        alone = {"case": wanted, "levels": levels, "list": only_list, "markdown": as_markdown, "json": json_file}
        given = [f"--{name}" for name, value in alone.items() if value]
        check(not given, "scaling", f"it with {', '.join(given)}", "it alone, or with --device, --quick and --progress")
        check_outputs("scaling", [scaling / name for name in SCALING_FILES], force)
        run_scaling(scaling, quick, progress, place)
        return
    chosen = common.select(wanted, quick)
    check(bool(chosen), "case", ", ".join(wanted), "part of a name that `alps-fast bench --list` prints")
    if only_list:
        click.echo("\n".join(case.name for case in chosen))
        return
    if json_file is not None and str(json_file) != "-":
        check_outputs("json", [json_file], force)
    measure = common.Measure(quick=quick, levels=levels or (QUICK_LEVELS if quick else 50), device=place,
                             timer=common.glance if quick else common.stopwatch)
    began, failed = time.perf_counter(), list[str]()
    facts = {"machine": common.machine(place), "threads": torch.get_num_threads(), "commit": common.commit(), "quick": quick,
             "levels": measure.levels, **common.speeds(place)}
    to_stdout = str(json_file) == "-"
    if not to_stdout:
        click.echo("\n".join(heading(facts)) + "\n")
    document, head = "", True
    with tqdm(chosen, file=sys.stderr, disable=not progress) as bar:
        for case in bar:  # what was measured is shown and written at once: all cases take hours
            bar.set_postfix_str(case.name)
            known = len(measure.rows)
            try:
                case.run(measure)
            except Exception:  # the other cases are worth their time
                failed.append(case.name)
                click.echo(f"{case.name}:\n{traceback.format_exc()}", err=True)
            taken = {"seconds": time.perf_counter() - began, "failed": failed}
            document = json.dumps({**facts, **taken, "rows": measure.rows}, indent=2) + "\n"
            if to_stdout:
                continue
            if json_file is not None:
                with replacing(json_file) as path:
                    path.write_text(document)
            if measure.rows[known:]:
                bar.clear()
                click.echo("\n".join((common.markdown if as_markdown else common.table)(measure.rows[known:], head)))
                head = False
    if to_stdout:
        click.echo(document, nl=False)
    if failed:
        raise click.ClickException(f"failed: {', '.join(failed)}")


def run_scaling(out: Path, quick: bool, progress: bool, place: torch.device) -> None:
    """Measure how cost grows; scaling.json, scaling.png and a table."""
    from tqdm import tqdm

    from alps_fast.bench import scaling

    with tqdm(total=len(scaling.points()), file=sys.stderr, disable=not progress) as bar:
        def before(point: scaling.Point) -> None:
            bar.set_postfix_str(f"{point.energy}, {point.chains} chains of {point.side}x{point.side}")
            bar.update()

        found = scaling.measure(quick, before, place)
    with replacing(out / "scaling.json") as path:
        path.write_text(json.dumps(found, indent=2) + "\n")
    with replacing(out / "scaling.png") as path:
        scaling.plot(found, path)
    click.echo("\n".join(scaling.table(found)))


def heading(facts: dict[str, Any]) -> list[str]:
    """What was measured where, for people."""
    lines = [f"{facts['machine']}, {facts['threads']} threads, alps_fast {facts['commit']}",
             f"copies {facts['copy'] / 1e9:.1f} GB/s; matrix products {facts['gemm_float32'] / 1e9:.0f} Gflop/s in float32, "
             f"{facts['gemm_bfloat16'] / 1e9:.0f} in bfloat16"]
    if facts["quick"]:
        lines.append("--quick: few rounds, the first size of each op, tuned baselines not compiled: a look, not a result")
    return lines
