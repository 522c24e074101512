"""Every op on a real GPU, by each backend that has it: the reference; the same bits in any batch, on any stream, in a graph."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import test_langevin_pixel
import test_ridge_langevin
import torch
from step_checks import in_double
from test_conv_grad import make, single
from test_langevin_fourier import image_arguments
from test_langevin_sense import random_lines, solver
from test_moments import start
from test_ridge_grad import constants
from torch import Tensor

from alps_fast.ops import _dispatch

LAW = 2e-6  # of the norm, where the op's own tests have no tighter one; "high" precision
OPS = sorted(op for op, backend in _dispatch._implementations if backend == "torch")


class Call(NamedTuple):
    """Arguments of an op for several rows, and which of them have a row each."""

    arguments: dict[str, Any]
    rows: tuple[str, ...]


def conv() -> dict[str, Any]:
    weights, scale, shift, coefficients, blocks = single(make(2, 32, (1, 0, 1)))
    return {"x": torch.randn(3, 2, 29, 37), "weights": weights, "scale": scale, "shift": shift, "coefficients": coefficients,
            "blocks": blocks}


def ridge() -> dict[str, Any]:
    filters, w, r, q, mu = constants(dtype=torch.float32)
    return {"x": torch.randn(3, 2, 37, 29), "filters": filters, "w": w, "r": r, "q": q, "mu": mu}


STEP = ("x", "grad", "chains")
CALLS: dict[str, Callable[[], Call]] = {
    "conv_grad": lambda: Call(conv(), ("x",)),
    "langevin_fourier": lambda: Call(image_arguments((20, 21), 3, False, 5, 1), STEP),
    "langevin_pixel": lambda: Call(test_langevin_pixel.arguments(5, 1, (1, 1), torch.float32, (27, 29, 3)), STEP),
    "langevin_sense": lambda: Call(random_lines((5, 70), 1, 17, 1), STEP),
    "langevin_sense_cg": lambda: Call(solver((20, 33), 3, 3, 1) | {"tol": 1e-6}, STEP),
    "moments": lambda: Call(dict(zip(("count", "mean", "m2"), start(1, (13, 11, 3)), strict=True))
                            | {"x": torch.randn(5, 13, 11, 3), "keep": torch.ones(5, dtype=torch.bool)}, ()),
    "philox_normal": lambda: Call({"chains": torch.tensor([0, 7, 2**32 - 1]), "n": 1021, "seed": -5, "step": 250, "tag": 1},
                                  ("chains",)),
    "ridge_grad": lambda: Call(ridge(), ("x",)),
    "ridge_langevin": lambda: Call(test_ridge_langevin.arguments(3, 1, (37, 29, 2), 1) | {"count": 2}, ("x", "chains")),
}
RUNS = [(op, backend) for op in OPS for backend in ("cuda", "triton") if (op, backend) in _dispatch._implementations]


def moved(value: Any, device: str) -> Any:
    """The same, tensors on `device`."""
    if isinstance(value, list):
        return [moved(v, device) for v in value]
    return value.to(device) if isinstance(value, Tensor) else value


def runner(op: str, backend: str, arguments: dict[str, Any], device: str = "cuda") -> Callable[[], tuple[Tensor, ...]]:
    """Calls the op with its arguments on the device."""
    function = getattr(importlib.import_module(f"alps_fast.ops.{op.removesuffix('_cg')}"), op)
    here = {k: moved(v, device) for k, v in arguments.items()} | {"backend": backend}

    def run() -> tuple[Tensor, ...]:
        got = function(**here)
        return (got,) if isinstance(got, Tensor) else got
    return run


def equal(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(v, w) for v, w in zip(a, b, strict=True))


def test_every_op_has_a_call() -> None:
    """And every call is one: it runs on torch, where its rows are what they are alone."""
    assert sorted(CALLS) == OPS
    for op, call in CALLS.items():
        arguments, rows = call()
        got = runner(op, "torch", arguments, "cpu")()
        for name in rows:
            assert len(arguments[name]) == len(got[0]), op


@pytest.mark.gpu
@pytest.mark.parametrize(("op", "backend"), RUNS)
def test_is_the_reference_and_a_row_is_the_same_in_any_batch(op: str, backend: str) -> None:
    arguments, rows = CALLS[op]()
    got = runner(op, backend, arguments)()
    exact = runner(op, "torch", in_double(arguments) | ({"tol": 1e-10} if "tol" in arguments else {}), "cpu")()
    for g, e in zip(got, exact, strict=True):
        assert (g.cpu().double() - e.double()).norm() <= LAW * e.double().norm()
    if rows:
        for n in range(len(got[0])):
            alone = runner(op, backend, arguments | {k: arguments[k][n:n + 1] for k in rows})()
            assert equal(alone, tuple(g[n:n + 1] for g in got))


@pytest.mark.gpu
@pytest.mark.parametrize(("op", "backend"), RUNS)
def test_two_streams_and_a_graph_change_nothing(op: str, backend: str) -> None:
    run = runner(op, backend, CALLS[op]().arguments)
    want = run()
    torch.cuda.synchronize()
    streams, got = [torch.cuda.Stream() for _ in range(2)], []
    for _ in range(8):
        for stream in streams:
            with torch.cuda.stream(stream):
                got.append(run())
    torch.cuda.synchronize()
    assert all(equal(g, want) for g in got)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    for v in captured:
        v.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert equal(captured, want)
