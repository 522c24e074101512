"""Triton launches without a GPU: recorded, compiled ahead of time for any target, and run as PTX on the CPU."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.compiler import compile as triton_compile
from triton.runtime.jit import mangle_type

from alps_fast.kernels.launch import OPTIONS, Launch, observed
from alps_fast.profile.cases import Case
from alps_fast.profile.work import ARCHITECTURES

from .ptxsim import Module

TARGETS: dict[str, tuple[str, int | str, int]] = {
    **{arch: ("cuda", int(arch.removeprefix("sm_")), 32) for arch in ARCHITECTURES}, "gfx942": ("hip", "gfx942", 64)}


def compiled(launch: Launch, target: str, aligned: bool = True) -> Any:
    """What Triton makes of a launch for a target: `.asm` (PTX, cubin, …) and `.metadata`; aligned: all pointers, to 16 bytes."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[object]]] = {}
    for i, parameter in enumerate(launch.kernel.params):
        name, value = parameter.name, launch.arguments[parameter.name]
        if parameter.is_constexpr or value is None:
            signature[name], constants[name] = "constexpr", value
            if value == "tf32x3" and TARGETS[target][0] == "hip":
                constants[name] = "ieee"  # what a launch on such a device asks for
        elif isinstance(value, torch.Tensor):
            signature[name] = mangle_type(value)
            if aligned:
                attributes[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = parameter.annotation_type
    source = ASTSource(launch.kernel, signature, constants, attributes)
    return triton_compile(source, target=GPUTarget(*TARGETS[target]), options={"num_warps": launch.num_warps, **OPTIONS})


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches inside, none of which runs: what they would have written is left as it was."""
    launches: list[Launch] = []
    with observed(launches.append):
        yield launches


@contextmanager
def emulated(aligned: bool = True) -> Iterator[list[tuple[Launch, Counter[str]]]]:
    """Every launch inside is `compiled` for sm_80 and its PTX run by `ptxsim`; yields the launches with what they did."""
    done: list[tuple[Launch, Counter[str]]] = []

    def run(launch: Launch) -> None:
        code = compiled(launch, "sm_80", aligned)
        arguments = [launch.arguments[p.name] for p in launch.kernel.params if not p.is_constexpr]
        arrays = [_array(a) if isinstance(a, torch.Tensor) else a for a in arguments if a is not None]
        count = Module(code.asm["ptx"]).kernel().launch(launch.grid, (32 * launch.num_warps,), arrays, code.metadata.shared)
        done.append((launch, count))

    with observed(run):
        yield done


def _array(tensor: torch.Tensor) -> Any:
    """Memory from a tensor's first element to its last, whatever lies between: a kernel is told a pointer alone."""
    numbers = 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    memory = tensor.detach().as_strided((numbers if tensor.numel() else 0,), (1,))
    return (memory.view(torch.int16) if tensor.dtype == torch.bfloat16 else memory).numpy()  # NumPy has no bfloat16


def interpreting() -> bool:
    """Whether Triton was told to interpret: its kernels then run as Python, and cannot be compiled."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def traffic(case: Case) -> dict[str, Any]:
    """What the launches of a case do, run as PTX: traffic against its floor, bank conflicts, instructions."""
    with emulated() as done:
        case.emulated.run(case.emulated.emulated_chains)
    return described(case, sum((c for _, c in done), Counter()))


def cuda_traffic(case: Case) -> dict[str, Any]:
    """The same of a case of csrc/cuda."""
    _, count = case.emulated.run(case.emulated.emulated_chains)
    return described(case, count)


def described(case: Case, count: Counter[str]) -> dict[str, Any]:
    """What ptxsim counted of a case's emulated chains.

    Sectors are those asked for, of L1; distinct ones each once a launch, the least that DRAM moves whatever the caches hold.
    """
    small = case.emulated
    least = small.work(small.emulated_chains)
    sectors, distinct = (count[f"{of}_load_sectors"] + count[f"{of}_store_sectors"] for of in ("global", "distinct"))
    tensor = least.tf32 + least.bf16
    return {"case": small.name, "chains": small.emulated_chains, "floor_bytes": least.bytes, "sectors": sectors,
            "over_floor": 32 * sectors / least.bytes, "distinct_sectors": distinct,
            "distinct_over_floor": 32 * distinct / least.bytes,
            "bank_conflicts": count["shared_load_conflicts"] + count["shared_store_conflicts"], "barriers": count["barriers"],
            "divergent_branches": count["divergent_branches"], "instructions": count["instructions"],
            "tensor_flops": count["mma_flops"], "tensor_over_least": count["mma_flops"] / tensor if tensor else None}
