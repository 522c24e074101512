"""Every op on a real GPU, by each backend that has it: the reference; the same bits in any batch, on any stream, in a graph."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from inputs import (
    NETWORK_LAW,
    conv_network,
    empty_moments,
    fourier_arguments,
    pixel_arguments,
    ridge_constants,
    ridge_steps,
    single,
)
from sense_inputs import random_lines, solver
from step_checks import from_a_row, in_double
from torch import Tensor

from alps_fast.ops import _dispatch

LAW = 2e-6  # of the norm, where the op's own tests have no tighter one; "high" precision
OPS = sorted(op for op, backend in _dispatch._implementations if backend == "torch")


class Call(NamedTuple):
    """Arguments of an op for several rows, which of them have a row each, and how far from the reference results may be."""

    arguments: dict[str, Any]
    rows: tuple[str, ...]
    law: float = LAW


def conv(width: int, precision: str) -> dict[str, Any]:
    weights, scale, shift, coefficients, blocks = single(conv_network(2, width, (1, 0, 1)))
    return {"x": torch.randn(3, 2, 29, 37), "weights": weights, "scale": scale, "shift": shift, "coefficients": coefficients,
            "blocks": blocks, "precision": precision}


def ridge() -> dict[str, Any]:
    filters, w, r, q, mu = ridge_constants(dtype=torch.float32)
    return {"x": torch.randn(3, 2, 37, 29), "filters": filters, "weights": w, "r": r, "q": q, "mu": mu}


def op_of(call: str) -> str:
    return call.split(",")[0]


STEP = ("x", "grad", "ids")
CALLS: dict[str, Callable[[], Call]] = {  # by op, and what distinguishes it
    "conv_grad, high": lambda: Call(conv(64, "high"), ("x",)),
    "conv_grad, fast": lambda: Call(conv(64, "fast"), ("x",), NETWORK_LAW["fast"]),
    "langevin_fourier": lambda: Call(fourier_arguments((20, 21), 3, False, 5, 1), STEP),
    "langevin_pixel": lambda: Call(pixel_arguments(5, 1, (1, 1), torch.float32, (27, 29, 3)), STEP),
    "langevin_sense": lambda: Call(random_lines((5, 70), 1, 17, 1), STEP),
    "langevin_sense_cg": lambda: Call(solver((20, 30), 3, 3, 1) | {"tol": 1e-6, "max_iter": 300}, STEP),
    "moments": lambda: Call(dict(zip(("count", "mean", "m2"), empty_moments(1, (13, 11, 3)), strict=True))
                            | {"x": torch.randn(5, 13, 11, 3), "keep": torch.ones(5, dtype=torch.bool)}, ()),
    "philox_normal": lambda: Call({"ids": torch.tensor([[0, 0], [7, 5], [2**32 - 1, 2**24 - 1]]), "n": 1021, "seed": -5,
                                   "step": 250, "tag": 1}, ("ids",)),
    "ridge_grad": lambda: Call(ridge(), ("x",)),
    "ridge_langevin": lambda: Call(ridge_steps(3, 1, (37, 29, 2), 1) | {"count": 2}, ("x", "ids")),
}
RUNS = [(call, backend) for call in CALLS for backend in ("cuda", "triton")
        if (op_of(call), backend) in _dispatch._implementations]


def moved(value: Any, device: str) -> Any:
    """The same, tensors on `device`."""
    if isinstance(value, list):
        return [moved(v, device) for v in value]
    return value.to(device) if isinstance(value, Tensor) else value


def is_left(call: str, backend: str) -> bool:
    """Whether this GPU has no kernel for it: only Hopper has that of "high"."""
    if (call, backend) != ("conv_grad, high", "cuda"):
        return False
    from alps_fast import _cuda

    return not _cuda.conv_has_warpgroups()


def skip_if_left(call: str, backend: str) -> None:
    if is_left(call, backend):
        pytest.skip("on this GPU it is another backend's")


def runner(call: str, backend: str, arguments: dict[str, Any], device: str = "cuda") -> Callable[[], tuple[Tensor, ...]]:
    """Calls the op with its arguments on the device."""
    op = op_of(call)
    function = getattr(importlib.import_module(f"alps_fast.ops.{op}"), op)
    here = {k: moved(v, device) for k, v in arguments.items()} | {"backend": backend}

    def run() -> tuple[Tensor, ...]:
        got = function(**here)
        return (got,) if isinstance(got, Tensor) else got
    return run


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(v, w) for v, w in zip(a, b, strict=True))


def replayed(run: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """What a CUDA graph of it writes where its capture left nothing."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for v in captured:
        v.zero_()
    graph.replay()
    torch.cuda.synchronize()
    return captured


def check_call(call: str, backend: str, device: str) -> None:
    """It is the backend's own kernel that runs; its law; and each row is bitwise what it is alone."""
    arguments, rows, law = CALLS[call]()
    kernel = _dispatch.implementations(op_of(call), backend, torch.device(device))[0]
    assert kernel(**{k: moved(v, device) for k, v in arguments.items() if k != "backend"}) is not NotImplemented
    got = runner(call, backend, arguments, device)()
    exact = runner(call, "torch", in_double(arguments) | ({"tol": 1e-10} if "tol" in arguments else {}), "cpu")()
    for g, e in zip(got, exact, strict=True):
        assert (g.cpu().double() - e.double()).norm() <= law * e.double().norm()
    if rows:
        for n in range(len(got[0])):
            alone = runner(call, backend, arguments | {k: arguments[k][n:n + 1] for k in rows}, device)()
            assert equal(alone, tuple(g[n:n + 1] for g in got))


def test_every_op_has_a_call() -> None:
    assert sorted({op_of(call) for call in CALLS}) == OPS


@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_one_that_a_kernel_passes(call: str) -> None:
    """The CPU's; so that what fails on a GPU is not the test."""
    pytest.importorskip("alps_fast._cpu")
    check_call(call, "cpu", "cpu")


@pytest.mark.gpu
@pytest.mark.parametrize(("call", "backend"), RUNS)
def test_is_the_reference_and_a_row_is_the_same_in_any_batch(call: str, backend: str) -> None:
    skip_if_left(call, backend)
    check_call(call, backend, "cuda")


@pytest.mark.gpu
@pytest.mark.parametrize(("call", "backend"), RUNS)
def test_two_streams_and_a_graph_change_nothing(call: str, backend: str) -> None:
    skip_if_left(call, backend)
    run = runner(call, backend, CALLS[call]().arguments)
    want = run()
    torch.cuda.synchronize()
    streams, got = [torch.cuda.Stream() for _ in range(2)], []
    for _ in range(8):
        for stream in streams:
            with torch.cuda.stream(stream):
                got.append(run())
    torch.cuda.synchronize()
    assert all(equal(g, want) for g in got)
    assert equal(replayed(run), want)


@pytest.mark.gpu
@pytest.mark.parametrize(("call", "backend"), [(call, backend) for call, backend in RUNS if "langevin" in call])
def test_a_graph_serves_levels_that_lie_in_memory(call: str, backend: str) -> None:
    """Captured with one level and replayed with another it has the bits of both, as given by number."""
    one = CALLS[call]().arguments
    other = one | {"lam": 0.7, "lin": 0.4, "w": 1.1, "inv_eta2": 3.0, "noise_lam": 0.9}
    rows = {id(a): from_a_row(a)["level"].cuda() for a in (one, other)}
    level = rows[id(one)].clone()
    run = runner(call, backend, from_a_row(one) | {"level": level})
    run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for numbers in (other, one):
        level.copy_(rows[id(numbers)])
        graph.replay()
        torch.cuda.synchronize()
        assert equal(captured, runner(call, backend, numbers)())
