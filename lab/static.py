"""Static facts of compiled kernels, from their cubins: registers, spills, shared memory, occupancy, width."""

from __future__ import annotations

import math
import re
import subprocess
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

from cuxray.archspec import lookup
from cuxray.occupancy import compute

from alps_fast.profile.cases import Case

from . import cuda, nvcc
from .emulate import compiled, recorded


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


@cache  # a network launches one kernel many times
def functions(cubin: bytes) -> dict[str, tuple[str, str]]:
    """What cuobjdump says of the resources and of the instructions of every function of a cubin, by its symbol."""
    usage = dict(re.findall(r"Function (\S+):\s*\n([^\n]*)", _dump(cubin, "--dump-resource-usage")))
    parts = re.split(r"^\s*Function : (\S+)$", _dump(cubin, "--dump-sass"), flags=re.M)[1:]
    return {name: (usage[name], sass) for name, sass in zip(parts[::2], parts[1::2], strict=True)}


def function_facts(usage: str, sass: str, arch: str, threads: int, dynamic_shared: int) -> dict[str, Any]:
    """What one kernel of `threads` a block holds and does, in numbers that do not depend on its inputs."""
    registers, stack, local, shared = (int(re.findall(rf"\b{name}:(\d+)", usage)[-1])
                                       for name in ("REG", "STACK", "LOCAL", "SHARED"))
    spec = lookup(arch)
    if spec.cc >= (9, 0) and shared:  # counted in there, and by `compute`
        shared -= spec.smem_reserved_per_block
    found = instructions(sass)
    loads, stores = (max((_width(name) for name in found if name.startswith(kind)), default=0) for kind in ("LDG", "STG"))
    occupancy = compute(spec, registers, threads, smem_static=shared, smem_dynamic=dynamic_shared)
    return {
        "registers": registers,
        "stack_bytes": stack + local,
        "spill_instructions": sum(n for name, n in found.items() if name.startswith(("LDL", "STL"))),
        "shared_bytes": shared + dynamic_shared,
        "threads": threads,
        "occupancy_percent": occupancy.occupancy_pct,
        "occupancy_limit": occupancy.limiter,
        "global_load_bytes": loads,
        "global_store_bytes": stores,
        "tensor_instructions": sum(n for name, n in found.items() if re.match(r"[HQIBD]?G?MMA|UTC\w*MMA", name)),
        "barriers": sum(n for name, n in found.items() if name.startswith("BAR")),
        "instructions": sum(found.values()),
    }


def _width(name: str) -> int:
    """Bytes a lane of a global load or store moves."""
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
    """One row a kernel of csrc/cuda/<op>.cu.

    Threads and shared memory are those of the `case` that launches it. Without one they are the most: the threads of its launch
    bounds, and where it takes shared memory at launch, all that a block can have.
    """
    found, most, rows = functions(nvcc.cubin(op, arch)), lookup(arch).smem_per_block_max, []
    launches = cuda.asked(op)
    for kernel in nvcc.kernels(nvcc.ptx(op, arch)):
        case, launch = launches.get(kernel.name, (None, None))
        threads, shared = (launch.threads, launch.shared) if launch else (kernel.threads, most if kernel.dynamic_shared else 0)
        rows.append({"kernel": kernel.name, "arch": arch, "case": case,
                     **function_facts(*found[kernel.symbol], arch, threads, shared)})
    return rows
