"""Static facts of compiled kernels, from their cubins: registers, spills, shared memory, occupancy, width."""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from cuxray.archspec import lookup
from cuxray.occupancy import compute

from . import nvcc
from .cases import Case
from .cuda import CudaCase
from .emulate import compiled, recorded
from .work import GPUS, modelled_us

ARCHITECTURES = tuple(gpu.arch for gpu in GPUS)
WORSE_IF_MORE = ("registers", "spill_instructions", "shared_bytes")
WORSE_IF_LESS = ("occupancy_percent", "global_access_bytes", "tensor_instructions")


@cache
def _tool(name: str) -> str:
    import triton

    return str(Path(triton.__file__).parent / "backends/nvidia/bin" / name)


def _dump(cubin: bytes, *options: str) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([_tool("cuobjdump"), *options, file.name], check=True, capture_output=True, text=True).stdout


def instructions(sass: str) -> Counter[str]:
    """How often each machine instruction stands in the code, by its name with modifiers."""
    return Counter(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)", sass, re.M))


def functions(cubin: bytes) -> dict[str, tuple[str, str]]:
    """What cuobjdump says of the resources and of the instructions of every function of a cubin, by its symbol."""
    usage = dict(re.findall(r"Function (\S+):\s*\n([^\n]*)", _dump(cubin, "--dump-resource-usage")))
    parts = re.split(r"^\s*Function : (\S+)$", _dump(cubin, "--dump-sass"), flags=re.M)[1:]
    return {name: (usage[name], sass) for name, sass in zip(parts[::2], parts[1::2], strict=True)}


def function_facts(usage: str, sass: str, arch: str, threads: int, dynamic_shared: int) -> dict[str, Any]:
    """What one kernel of `threads` a block holds and does, in numbers that do not depend on its inputs."""
    registers, stack, local = (int(re.findall(rf"\b{name}:(\d+)", usage)[-1]) for name in ("REG", "STACK", "LOCAL"))
    found = instructions(sass)
    widths = [_width(name) for name in found if name.startswith(("LDG", "STG"))]
    occupancy = compute(lookup(arch), registers, threads, smem_dynamic=dynamic_shared)
    return {
        "registers": registers,
        "stack_bytes": stack + local,
        "spill_instructions": sum(n for name, n in found.items() if name.startswith(("LDL", "STL"))),
        "shared_bytes": dynamic_shared,
        "threads": threads,
        "occupancy_percent": occupancy.occupancy_pct,
        "occupancy_limit": occupancy.limiter,
        "global_access_bytes": max(widths, default=0),
        "tensor_instructions": sum(n for name, n in found.items() if re.match(r"[HQIBD]?G?MMA|UTC\w*MMA", name)),
        "barriers": sum(n for name, n in found.items() if name.startswith("BAR")),
        "instructions": sum(found.values()),
    }


def _width(name: str) -> int:
    """Bytes a lane of a global load or store."""
    bits = re.search(r"\.(?:U|S)?(8|16|64|128|256)\b", name)
    return int(bits.group(1)) // 8 if bits else 4


def facts(case: Case, arch: str) -> list[dict[str, Any]]:
    """One row a launch of the case, compiled for `arch`."""
    with recorded() as launches:
        case.run(case.chains)
    rows = []
    for launch in launches:
        code = compiled(launch, arch)
        (function,) = functions(code.asm["cubin"]).values()
        row = function_facts(*function, arch, 32 * launch.num_warps, code.metadata.shared)
        rows.append({"kernel": launch.kernel.fn.__name__, "arch": arch, "blocks": math.prod(launch.grid), **row})
    return rows


def cuda_facts(op: str, arch: str) -> list[dict[str, Any]]:
    """One row a kernel of csrc/cuda/<op>.cu; one that takes shared memory at launch is given all that a block can have."""
    found, most = functions(nvcc.cubin(op, arch)), lookup(arch).smem_per_block_max
    return [{"kernel": kernel.name, "arch": arch,
             **function_facts(*found[kernel.symbol], arch, kernel.threads, most if kernel.dynamic_shared else 0)}
            for kernel in nvcc.kernels(nvcc.ptx(op, arch))]


def cuda_rows(ops: Iterable[str], architectures: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """`cuda_facts` of ops for several GPUs, each source compiled on a core of its own."""
    jobs = [(op, arch) for op in ops for arch in architectures]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda job: cuda_facts(*job), jobs))
    return {op: [row for (of, _), rows in zip(jobs, found, strict=True) if of == op for row in rows] for op in ops}


def model(case: Case | CudaCase) -> dict[str, Any]:
    """Least bytes and operations of a step of the case, and the roofline's time on each GPU (modelled, not measured)."""
    work = case.work(case.chains)
    return {"chains": case.chains, **work._asdict(), "modelled_us": {g.name: round(modelled_us(work, g), 2) for g in GPUS}}


def baseline_of(rows: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """What a later check holds rows (by case) against: of every launch and architecture, the facts that can get worse."""
    kept = ("kernel", "arch", *WORSE_IF_MORE, *WORSE_IF_LESS)
    return {name: [{key: row[key] for key in kept} for row in some] for name, some in rows.items()}


def regressions(rows: dict[str, list[dict[str, Any]]], baseline: dict[str, Any]) -> list[str]:
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
