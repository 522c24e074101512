"""The CUDA C++ kernels as PTX for sm_80 on the CPU, launched by their own host code (`lab.host`), and their cases."""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from alps_fast.ops import _dispatch
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, LANGEVIN, NO_NOISE
from alps_fast.profile.cases import CASES as TRITON_CASES
from alps_fast.profile.cases import (
    IMAGE,
    Case,
    conv_grad_case,
    langevin_fourier_case,
    langevin_sense_case,
    langevin_sense_cg_case,
    randn,
    ridge_grad_case,
    small_network,
    states,
)
from alps_fast.profile.work import Work

from . import host, nvcc
from .ptxsim import Kernel, Module

# Of an A100: bytes of shared memory that a block can have, and multiprocessors.
ARCH, SHARED, MULTIPROCESSORS = "sm_80", 163 << 10, 108

Results = tuple[tuple[Tensor, ...], Counter[str]]


@cache
def module(op: str) -> Module:
    """The PTX of an op's source."""
    return Module(nvcc.ptx(op, ARCH))


@cache
def _kernel(op: str, name: str) -> Kernel:
    (symbol,) = (kernel.symbol for kernel in nvcc.kernels(nvcc.ptx(op, ARCH)) if kernel.name == name)
    return module(op).kernel(symbol)


class Launch(NamedTuple):
    """A kernel by its name with template arguments; blocks, threads of each, bytes of shared memory that it is launched with."""

    kernel: str
    blocks: int
    threads: int
    shared: int


_recorded: ContextVar[list[Launch] | None] = ContextVar("recorded", default=None)


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """The launches inside, of this thread, none of which runs."""
    launches: list[Launch] = []
    token = _recorded.set(launches)
    try:
        yield launches
    finally:
        _recorded.reset(token)


def run(op: str, *arguments: Any, shared: int = SHARED, multiprocessors: int = MULTIPROCESSORS, **named: Any) -> Results:
    """What the op's CUDA implementation returns for CPU tensors, and what its kernels did, which is nothing where it is recorded.

    shared, multiprocessors: of the GPU that its host believes to have.
    """
    importlib.import_module(f"alps_fast.ops.{op}")
    total: Counter[str] = Counter()

    def take(launch: host.Launch, memory: host.Memory) -> None:
        if (launches := _recorded.get()) is not None:
            launches.append(Launch(launch.kernel, math.prod(launch.grid), math.prod(launch.block), launch.shared))
            return
        kernel = _kernel(op, launch.kernel)
        assert [len(parameter) for parameter in launch.parameters] == [size for _, _, size in kernel.params]
        parameters = [memory.pieces(parameter) for parameter in launch.parameters]
        total.update(kernel.launch(launch.grid, launch.block, parameters, launch.shared))

    with host.launches(take, shared, multiprocessors) as memory:
        memory.note((arguments, named))
        out = _dispatch._implementations[op, "cuda"](*arguments, **named)
    assert out is not NotImplemented, f"{op} leaves this to others"
    return (out if isinstance(out, tuple) else (out,)), total


def _of_triton(name: str, of_cuda: Callable[[int], Results]) -> Case:
    """What the Triton kernel's case of this name computes."""
    (case,) = (case for case in TRITON_CASES if case.name == name)
    return case._replace(run=of_cuda)


def _in_float32(case: Case, of_cuda: Callable[[int], Results], small: Case | None = None) -> Case:
    """With the work that the Triton kernel gives to tensor cores done in float32."""
    def work(chains: int) -> Work:
        least = case.work(chains)
        return least._replace(flops=least.flops + least.tf32, tf32=0)
    return case._replace(run=of_cuda, work=work, small=small)


def _pixel(noise: int) -> Callable[[int], Results]:
    def pixel(chains: int) -> Results:
        return run("langevin_pixel", **states(chains, *IMAGE) | {"a": randn(1, *IMAGE[:2], 1).abs(), "noise": noise})
    return pixel


def _moments(chains: int) -> Results:
    state = torch.zeros(1, dtype=torch.int64), torch.zeros(1, *IMAGE), torch.zeros(1, *IMAGE)
    return run("moments", *state, randn(chains, *IMAGE), torch.ones(chains, dtype=torch.bool))


def _tables(count: int) -> tuple[Any, ...]:
    w = randn(1, 1, 1, count)
    return [randn(count, 1, 7, 7)], w, w.abs() + 0.1, randn(1, 1), torch.zeros(1)


def _ridge_grad_case(size: int, count: int, small: Case | None = None) -> Case:
    return _in_float32(ridge_grad_case(1, size, count=count),
                       lambda chains: run("ridge_grad", randn(chains, 1, size, size), *_tables(count)), small)


def _conv_grad_case(size: int, small: Case | None = None) -> Case:
    return conv_grad_case(2, 64, "fast", size, small)._replace(
        run=lambda chains: run("conv_grad", randn(chains, 2, size, size), *small_network(2, 64), "fast"))


def _of_op(case: Case, of_cuda: Callable[..., Results]) -> Case:
    """The op's case with the kernels of csrc/cuda in the place of the op."""
    arguments = case.arguments
    assert arguments is not None
    return case._replace(run=lambda chains: of_cuda(**arguments(chains)))


def _fourier_case(size: int, whole: bool, chains: int, small: Case | None = None) -> Case:
    gpu = 1 if whole else 1 << 30  # of as many multiprocessors: fewer than are filled, or more
    case = _of_op(langevin_fourier_case(size, chains), partial(run, "langevin_fourier", multiprocessors=gpu))
    return case._replace(name=f"{case.name}/{'an image a block' if whole else 'in tiles'}", small=small)


def _sense_cg_case(size: int, coils: int, max_iter: int, chains: int, small: Case | None = None) -> Case:
    """Every iteration, as no system stops earlier at a tolerance of 0."""
    case = _of_op(langevin_sense_cg_case(size, coils, max_iter, chains), partial(run, "langevin_sense_cg", tol=0.0))
    return case._replace(small=small)


def _sense_case(size: int, axis: int, small: Case | None = None) -> Case:
    def arguments(chains: int) -> dict[str, Any]:
        u = torch.view_as_complex(randn(size, size, size, 2))
        return states(chains, size, size, 2) | {"u": u, "eigenvalues": randn(size, size).abs(), "axis": axis}

    case = langevin_sense_case(size, axis)
    return case._replace(run=lambda chains: run("langevin_sense", **arguments(chains)), small=small)


CASES = (
    _of_triton("philox_normal/64×64×3", lambda chains: run("philox_normal", torch.arange(chains), 64 * 64 * 3, 11, 5, LANGEVIN)),
    _of_triton("langevin_pixel/64×64×3/none", _pixel(NO_NOISE)),
    _of_triton("langevin_pixel/64×64×3/independent", _pixel(INDEPENDENT)),
    _of_triton("langevin_pixel/64×64×3/averaged", _pixel(AVERAGED)),
    _of_triton("moments/64×64×3", _moments),
    _fourier_case(120, True, 64, _fourier_case(48, True, 1)),
    _fourier_case(128, False, 64, _fourier_case(64, False, 1)),
    _sense_case(64, 1, _sense_case(32, 1)),
    _sense_cg_case(128, 8, 16, 16, _sense_cg_case(64, 2, 1, 1)),
    _ridge_grad_case(64, 32, _ridge_grad_case(32, 8)),
    _conv_grad_case(64, _conv_grad_case(16)),
)


@cache
def asked(op: str) -> dict[str, tuple[str, Launch]]:
    """Of each kernel that a case of the op runs: the first such case's name, and its launch with the most shared memory."""
    found: dict[str, tuple[str, Launch]] = {}
    for case in CASES:
        if case.op == op:
            with recorded() as launches:
                case.run(case.chains)
            most = {one.kernel: (case.name, one) for one in sorted(launches, key=lambda one: one.shared)}
            found = most | found
    return found
