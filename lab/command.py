"""`python -m lab`: what the GPU kernels hold, move and compute, found without a GPU; `alps-fast profile` hands over to it."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import click

from alps_fast.cli import OneLineErrors
from alps_fast.cli.options import add, json_option, print_json
from alps_fast.cli.profile import kernel_options
from alps_fast.errors import check as check_argument
from alps_fast.errors import check_choice, refused
from alps_fast.io import replacing

BASELINE = Path(__file__).parent / "baseline.json"
OTHER_COMPILER = 3  # exit code: nothing was compared, as facts of another compiler are no better or worse


class Command(OneLineErrors, click.Command):
    """A command that says in one line what was wrong."""


@click.command(cls=Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@add(kernel_options, json_option)
def command(static_: bool, emulate: bool, arch: tuple[str, ...], ops: tuple[str, ...], check: bool, update: bool,
            as_json: bool) -> None:
    """What every Triton kernel, and where nvcc is found every CUDA kernel, holds, moves and computes, without a GPU.

    Times are modelled (roofline of the data-sheet peaks), none is measured.

    \b
    Examples:  python -m lab --check
               python -m lab --static --arch sm_90 --op langevin_pixel
    """
    profile_kernels(static_, emulate, arch, ops, check, update, as_json)


def profile_kernels(static_: bool, emulate: bool, arch: tuple[str, ...], ops: tuple[str, ...], check: bool, update: bool,
                    as_json: bool) -> None:
    """Facts of the compiled kernels and counts of a step, and how they stand beside the baseline."""
    check_argument(not (check and update), "update", "it with --check", "one of them: the new baseline would meet itself")
    check_argument(not (update and arch), "update", f"it with --arch {' '.join(arch)}", "the baseline to be of every GPU")
    if not (static_ or emulate):
        static_, emulate = True, check or update
    check_argument(static_ or not arch, "arch", f"{' '.join(arch)} with --emulate", "it with --static: what is run is sm_80 code")
    _needs("profile --static or --emulate", "triton")
    if static_:
        _needs("--static", "cuxray")
    import triton

    from alps_fast.profile.cases import CASES
    from alps_fast.profile.work import ARCHITECTURES

    from . import cuda, nvcc, report

    for op in ops:
        check_choice("op", op, tuple(sorted({case.op for case in CASES + cuda.CASES} | set(nvcc.ops()))))
    cases = [case for case in CASES if not ops or case.op in ops]
    sources = [op for op in nvcc.ops() if not ops or op in ops] if nvcc.version() else []
    cuda_cases = [case for case in cuda.CASES if case.op in sources]
    shown = {case.op for case in cases + cuda_cases} | set(sources if static_ else ())
    why = "no nvcc is on the PATH" if nvcc.version() is None else "csrc/cuda is not here"
    for op in ops:
        if op not in shown:
            raise refused("op", repr(op), "one that has a case to run" if op in sources else
                          f"one with a Triton kernel: this one is CUDA C++, and {why}")
    if not ops and not sources:
        click.echo(f"csrc/cuda left out: {why}", err=True)
    workers = 1 if ops else min(os.cpu_count() or 1, 8)  # each loads torch; an op alone is quicker done here
    found = {"triton": triton.__version__,
             **report.gather(cases, sources, cuda_cases, static_, emulate, arch or ARCHITECTURES, workers)}
    if as_json:
        print_json(found)
    else:
        _print(found)
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    same_compiler = baseline.get("triton") == triton.__version__
    if update:
        partly = bool(ops) or not (static_ and emulate)
        check_argument(same_compiler or not partly or not baseline, "update", f"a part, with triton {triton.__version__}",
                       f"it without --op, --static and --emulate: the baseline is of triton {baseline.get('triton')}")
        kept = baseline if partly else report.of_cuda(baseline) if nvcc.version() is None else {}
        with replacing(BASELINE) as path:
            path.write_text(json.dumps(report.written(found, kept), indent=1) + "\n")
    if check:
        if not same_compiler:
            click.echo(f"Not checked: the baseline is of triton {baseline['triton']}; this is {triton.__version__}", err=True)
            raise click.exceptions.Exit(OTHER_COMPILER)
        if baseline["nvcc"] != nvcc.version():
            click.echo(f"csrc/cuda not checked: the baseline is of nvcc {baseline['nvcc']}; this is {nvcc.version()}", err=True)
        if worse := report.worse(found, baseline):
            raise click.ClickException("\n".join(("worse than the baseline:", *worse)))


def _needs(option: str, module: str) -> None:
    """Said at once, and not after what takes a minute."""
    if importlib.util.find_spec(module) is None:
        raise ImportError(f"{option} needs {module}: pip install 'alps_fast[profile]'")


def _print(report: dict[str, Any]) -> None:
    for name, case in report["cases"].items():
        _print_model(name, case["model"])
        for row in case.get("static", []):
            _print_row(row, f"{row['blocks']} blocks of {row['threads']}", "")
        _print_emulated(case)
    for op, rows in report.get("cuda_static", {}).items():
        click.echo(f"csrc/cuda/{op}.cu, nvcc {report['nvcc']}:")
        for row in rows:
            blocks = f"blocks of {row['threads']}"
            if row["case"]:
                blocks += f" for {row['case']}, at least {report['cuda'][row['case']]['model']['bytes'] / 1e6:.2f} MB"
            _print_row(row, blocks, "" if row["case"] or not row["shared_bytes"] else ", the largest")
    for name, case in report["cuda"].items():
        _print_model(f"csrc/cuda: {name}", case["model"])
        _print_emulated(case)


def _print_model(name: str, m: dict[str, Any]) -> None:
    times = ", ".join(f"{gpu} {us:g}" for gpu, us in m["modelled_us"].items())
    click.echo(f"{name}: {m['chains']} chains, at least {m['bytes'] / 1e6:.2f} MB and {m['flops'] / 1e6:.1f} Mflop a step, "
               f"{(m['tf32'] + m['bf16']) / 1e6:.1f} more on tensor cores; modelled, not measured: {times} µs")


def _print_row(row: dict[str, Any], blocks: str, shared: str) -> None:
    click.echo(f"  {row['arch']:<7}{row['kernel']}: {blocks}, {row['registers']} registers, {row['spill_instructions']} spills, "
               f"{row['shared_bytes']} B shared{shared}, occupancy {row['occupancy_percent']:g} % ({row['occupancy_limit']}), "
               f"loads of up to {row['global_load_bytes']} and stores of up to {row['global_store_bytes']} bytes, "
               f"{row['tensor_instructions']} tensor-core of {row['instructions']} instructions, {row['barriers']} barriers")


def _print_emulated(case: dict[str, Any]) -> None:
    if done := case.get("emulated"):
        tensor = (f", {done['tensor_flops'] / 1e6:g} Mflop on tensor cores, {done['tensor_over_least']:.2f} of the least"
                  if done["tensor_over_least"] else "")
        click.echo(f"  run as PTX, {done['chains']} chains of {done['case']}: {done['distinct_sectors']} distinct sectors, "
                   f"{done['distinct_over_floor']:.2f} of the floor; {done['sectors']} asked for, {done['over_floor']:.2f}; "
                   f"{done['bank_conflicts']} bank conflicts, {done['divergent_branches']} divergent branches, "
                   f"{done['instructions']} warp instructions{tensor}")
