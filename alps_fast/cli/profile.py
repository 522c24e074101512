"""`alps-fast profile`: what the GPU kernels hold, move and compute, found without a GPU."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import add, json_option, print_json

BASELINE = Path(__file__).resolve().parent.parent / "profile" / "baseline.json"
OTHER_COMPILER = 3  # exit code: nothing was compared, as facts of another compiler are no better or worse


@click.command(short_help="Registers, spills, traffic and modelled time of the GPU kernels; needs no GPU.")
@click.option("--static", "static_", is_flag=True, help="Compile and read the machine code.  [default, unless --emulate]")
@click.option("--emulate", is_flag=True, help="Run the sm_80 code on the CPU, check every address, count traffic.")
@click.option("--arch", type=click.Choice(["sm_80", "sm_90", "sm_100"]), multiple=True, help="GPU to compile for; may be "
              "given more than once.  [default: all]")
@click.option("--op", "ops", multiple=True, help="Only kernels of this op; may be given more than once.")
@click.option("--check", is_flag=True, help="Fail with exit code 1 if a static fact is worse than in the baseline, with "
              "3 if the baseline is of another Triton and says nothing.")
@click.option("--update", is_flag=True, help="Write the baseline anew.")
@add(json_option)
def command(static_: bool, emulate: bool, arch: tuple[str, ...], ops: tuple[str, ...], check: bool, update: bool,
            as_json: bool) -> None:
    """What every Triton kernel, and where nvcc is found every CUDA kernel, holds, moves and computes, found without a GPU.

    Times are modelled (roofline of the data-sheet peaks), none is measured.

    \b
    Example:  alps-fast profile --static --arch sm_90 --op langevin_pixel
    """
    import triton

    from ..errors import check_choice
    from ..profile import cuda, nvcc
    from ..profile.cases import CASES
    from ..profile.emulate import described, traffic
    from ..profile.static import ARCHITECTURES, baseline_of, cuda_rows, facts, model, regressions

    for op in ops:
        check_choice("op", op, tuple(sorted({case.op for case in CASES} | set(nvcc.ops()))))
    cases = [case for case in CASES if not ops or case.op in ops]
    cuda_ops = [op for op in nvcc.ops() if not ops or op in ops] if nvcc.version() else []
    cuda_cases = [case for case in cuda.CASES if case.op in cuda_ops]
    report: dict[str, Any] = {"triton": triton.__version__, "cases": {case.name: {"model": model(case)} for case in cases},
                              "nvcc": nvcc.version(), "cuda": {case.name: {"model": model(case)} for case in cuda_cases}}
    if static_ or check or update or not emulate:
        report["cuda_static"] = in_cuda = cuda_rows(cuda_ops, arch or ARCHITECTURES)
        rows = {case.name: [row for a in arch or ARCHITECTURES for row in facts(case, a)] for case in cases}
        for name, some in rows.items():
            report["cases"][name]["static"] = some
    if emulate:
        for case in cases:
            report["cases"][case.name]["emulated"] = traffic(case)
        for cuda_case in cuda_cases:
            _, count = cuda_case.run(cuda_case.emulated_chains)
            report["cuda"][cuda_case.name]["emulated"] = described(cuda_case, count)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if update:
        was = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
        whole, of_cuda = (was.get(key, {}) if ops else {} for key in ("cases", "cuda"))
        written = {"triton": triton.__version__, "cases": whole | baseline_of(rows),
                   "nvcc": nvcc.version(), "cuda": of_cuda | baseline_of(in_cuda)}
        if nvcc.version() is None:  # what it said when it was there
            written |= {key: was[key] for key in ("nvcc", "cuda") if key in was}
        BASELINE.write_text(json.dumps(written, indent=1) + "\n")
    if check:
        baseline = json.loads(BASELINE.read_text())
        if baseline["triton"] != triton.__version__:
            click.echo(f"Not checked: the baseline is of triton {baseline['triton']}; this is {triton.__version__}", err=True)
            raise click.exceptions.Exit(OTHER_COMPILER)
        worse = regressions(rows, baseline["cases"])
        if baseline["nvcc"] == nvcc.version():
            worse += regressions(in_cuda, baseline["cuda"])
        else:
            click.echo(f"csrc/cuda not checked: the baseline is of nvcc {baseline['nvcc']}; this is {nvcc.version()}", err=True)
        if worse:
            raise click.ClickException("\n".join(("worse than the baseline:", *worse)))


def _print(report: dict[str, Any]) -> None:
    for name, case in report["cases"].items():
        _print_model(name, case["model"])
        for row in case.get("static", []):
            _print_row(row, f"{row['blocks']} blocks of {row['threads']}")
        _print_emulated(case)
    for op, rows in report.get("cuda_static", {}).items():
        click.echo(f"csrc/cuda/{op}.cu, nvcc {report['nvcc']}:")
        for row in rows:
            _print_row(row, f"blocks of {row['threads']}")
    for name, case in report["cuda"].items():
        _print_model(f"csrc/cuda: {name}", case["model"])
        _print_emulated(case)


def _print_model(name: str, m: dict[str, Any]) -> None:
    times = ", ".join(f"{gpu} {us:g}" for gpu, us in m["modelled_us"].items())
    click.echo(f"{name}: {m['chains']} chains, at least {m['bytes'] / 1e6:.2f} MB and {m['flops'] / 1e6:.1f} Mflop a step; "
               f"modelled, not measured: {times} µs")


def _print_row(row: dict[str, Any], blocks: str) -> None:
    click.echo(f"  {row['arch']:<7}{row['kernel']}: {blocks}, {row['registers']} registers, {row['spill_instructions']} spills, "
               f"{row['shared_bytes']} B shared, occupancy {row['occupancy_percent']:g} % ({row['occupancy_limit']}), "
               f"{row['global_access_bytes']}-byte accesses, {row['tensor_instructions']} tensor-core of "
               f"{row['instructions']} instructions, {row['barriers']} barriers")


def _print_emulated(case: dict[str, Any]) -> None:
    if done := case.get("emulated"):
        click.echo(f"  run as PTX, {done['chains']} chains: {done['sectors']} sectors, {done['over_floor']:.2f} of the "
                   f"floor; {done['bank_conflicts']} bank conflicts, {done['divergent_branches']} divergent branches, "
                   f"{done['instructions']} warp instructions, {done['tensor_flops'] / 1e6:g} Mflop on tensor cores")
