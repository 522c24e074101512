"""What is known of every case, and how it stands beside baseline.json: the facts of its machine code, the counts of a step."""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch

from alps_fast.profile.cases import CASES, Case
from alps_fast.profile.work import GPUS, modelled_us

from . import cuda, host, nvcc

WORSE_IF_MORE = ("registers", "spill_instructions", "shared_bytes")
WORSE_IF_LESS = ("occupancy_percent", "global_load_bytes", "global_store_bytes", "tensor_instructions")
COUNTS = ("least_bytes", "sectors", "distinct_sectors", "bank_conflicts", "instructions")  # worse if more, by however little

Rows = dict[str, list[dict[str, Any]]]
Job = tuple[str, str, str]  # what is done, of which case or op, for which GPU


def model(case: Case) -> dict[str, Any]:
    """Least bytes and operations of a step of the case, and the roofline's time on each GPU (modelled, not measured)."""
    work = case.work(case.chains)
    return {"chains": case.chains, **work._asdict(), "modelled_us": {g.name: round(modelled_us(work, g), 2) for g in GPUS}}


def gather(cases: Sequence[Case], sources: Sequence[str], cuda_cases: Sequence[Case], static: bool, emulate: bool,
           architectures: Sequence[str], workers: int) -> dict[str, Any]:
    """All that is asked for of Triton's cases, of the sources in csrc/cuda and of their cases, by as many processes."""
    report: dict[str, Any] = {
        "nvcc": nvcc.version(), "cases": {case.name: {"model": model(case)} for case in cases},
        "cuda": {case.name: {"model": model(case)} for case in cuda_cases}}
    if sources or cuda_cases:
        host.library()  # compiled here, or each process would
    jobs: list[Job] = []
    if static:
        jobs += [("cuda_static", op, arch) for op in sources for arch in architectures]
        jobs += [("static", case.name, arch) for case in reversed(cases) for arch in architectures]  # the last take longest
        report["cuda_static"] = {op: [] for op in sources}
    if emulate:
        jobs += [(kind, case.name, cuda.ARCH) for kind, some in (("emulated", cases), ("cuda_emulated", cuda_cases))
                 for case in reversed(some)]
    for (kind, name, _), found in zip(jobs, _done(jobs, workers), strict=True):
        if kind == "cuda_static":
            report["cuda_static"][name] += found
        elif kind == "static":
            report["cases"][name].setdefault("static", []).extend(found)
        else:
            report["cuda" if kind == "cuda_emulated" else "cases"][name]["emulated"] = found
    return report


def _done(jobs: Sequence[Job], workers: int) -> list[Any]:
    if workers == 1:
        return [_do(job) for job in jobs]
    spawn = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    with ProcessPoolExecutor(workers, spawn, torch.set_num_threads, (1,)) as pool:
        return list(pool.map(_do, jobs))


def _do(job: Job) -> Any:
    from .emulate import cuda_traffic, traffic

    kind, name, arch = job
    if kind == "emulated":
        return traffic(_named(CASES, name))
    if kind == "cuda_emulated":
        return cuda_traffic(_named(cuda.CASES, name))
    from .static import cuda_facts, facts

    return cuda_facts(name, arch) if kind == "cuda_static" else facts(_named(CASES, name), arch)


def _named(cases: Sequence[Case], name: str) -> Case:
    return next(case for case in cases if case.name == name)


def facts_of(report: dict[str, Any]) -> tuple[Rows, Rows]:
    """Rows of Triton's cases, and of the sources of csrc/cuda."""
    return {name: case["static"] for name, case in report["cases"].items() if "static" in case}, report.get("cuda_static", {})


def counts_of(report: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `COUNTS` names of a step, and what was run as PTX for it; of Triton's cases, and of those of csrc/cuda."""
    def of(cases: dict[str, Any]) -> dict[str, Any]:
        counted = {name: case["emulated"] | {"least_bytes": case["model"]["bytes"]} for name, case in cases.items()
                   if "emulated" in case}
        return {name: {key: count[key] for key in ("case", "chains", *COUNTS)} for name, count in counted.items()}
    return of(report["cases"]), of(report["cuda"])


def baseline_of(rows: Rows) -> Rows:
    """What a later check holds rows (by case) against: of every launch and architecture, the facts that can get worse."""
    kept = ("kernel", "arch", *WORSE_IF_MORE, *WORSE_IF_LESS)
    return {name: [{key: row[key] for key in kept} for row in some] for name, some in rows.items()}


def regressions(rows: Rows, baseline: Rows) -> list[str]:
    """A sentence for every fact that is worse than in the baseline, and for every launch that is not in it."""
    found = []
    for name, some in rows.items():
        for arch in dict.fromkeys(row["arch"] for row in some):
            now, was = ([row for row in of if row["arch"] == arch] for of in (some, baseline.get(name, [])))
            if [row["kernel"] for row in now] != [row["kernel"] for row in was]:
                found.append(f"{name} for {arch}: its launches are not those of the baseline")
                continue
            found += [f"{name}: {a['kernel']} for {arch}: {key} was {b[key]}, is {a[key]}"
                      for a, b in zip(now, was, strict=True) for key in (*WORSE_IF_MORE, *WORSE_IF_LESS)
                      if (a[key] > b[key] if key in WORSE_IF_MORE else a[key] < b[key])]
    return found


def more_work(counts: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    """A sentence for every count of a step that is above the baseline's, and for every case that is not in it."""
    found = []
    for name, now in counts.items():
        was = baseline.get(name)
        if was is None or (was["case"], was["chains"]) != (now["case"], now["chains"]):
            found.append(f"{name}: what is run as PTX is not what the baseline has")
            continue
        found += [f"{name}: {key} of a step was {was[key]}, is {now[key]}" for key in COUNTS if now[key] > was[key]]
    return found


def written(report: dict[str, Any], was: dict[str, Any]) -> dict[str, Any]:
    """The baseline `was` with all that the report has in its place."""
    import triton

    (cases, in_cuda), (counts, cuda_counts) = facts_of(report), counts_of(report)
    kept = was.get("counts", {})
    return {"triton": triton.__version__, "cases": was.get("cases", {}) | baseline_of(cases),
            "nvcc": report["nvcc"] or was.get("nvcc"), "cuda": was.get("cuda", {}) | baseline_of(in_cuda),
            "counts": {"triton": kept.get("triton", {}) | counts, "cuda": kept.get("cuda", {}) | cuda_counts}}


def of_cuda(baseline: dict[str, Any]) -> dict[str, Any]:
    """What a baseline says of csrc/cuda."""
    return {key: baseline[key] for key in ("nvcc", "cuda") if key in baseline} | {
        "counts": {"cuda": baseline.get("counts", {}).get("cuda", {})}}


def worse(report: dict[str, Any], baseline: dict[str, Any]) -> list[str]:
    """All that is worse than in the baseline; of csrc/cuda only where its nvcc is that of the baseline."""
    (cases, in_cuda), (counts, cuda_counts) = facts_of(report), counts_of(report)
    found = regressions(cases, baseline["cases"]) + more_work(counts, baseline["counts"]["triton"])
    if report["nvcc"] == baseline["nvcc"]:
        found += regressions(in_cuda, baseline["cuda"]) + more_work(cuda_counts, baseline["counts"]["cuda"])
    return found
