"""What every Langevin op must do, whatever its A: shared by the test files of the ops."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from alps_fast.errors import ArgumentError
from alps_fast.ops._dispatch import Op
from alps_fast.ops._step import table
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, LANGEVIN, MIRRORED, NO_NOISE, philox_normal
from alps_fast.profile.cases import LEVEL as SCALARS

LEVEL = {**SCALARS, "noise": INDEPENDENT}

Arguments = dict[str, Any]


def states(n: int, b: int, shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> Arguments:
    """x, grad, b, ids and the level of a step of n chains on b measurements."""
    g = torch.Generator().manual_seed(n)
    x, grad, data = (torch.randn(k, *shape, generator=g, dtype=torch.float64).to(dtype) for k in (n, n, b))
    return {"x": x, "grad": grad, "b": data, "ids": ids_of(n, b), **LEVEL}


def ids_of(n: int, b: int) -> Tensor:
    """Of n chains of the last b measurements that there may be, two steps ahead, every other one mirrored."""
    row = torch.arange(n)
    return torch.stack([row + 3 + (2 << 32), row // (n // b) + (1 << 24) - b + row % 2 * MIRRORED], 1)


def shifted(value: Tensor) -> Tensor:
    """The same numbers, contiguous, one element off any alignment."""
    buffer = torch.full((value.numel() + 1,), torch.nan, dtype=value.dtype)
    buffer[1:] = value.flatten()
    return buffer[1:].view(value.shape)


def in_double(value: Any) -> Any:
    """The same numbers in float64 or complex128, through lists, tuples and dictionaries."""
    if isinstance(value, dict):
        return {k: in_double(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(in_double(v) for v in value)
    if isinstance(value, Tensor) and value.is_complex():
        return value.to(torch.complex128)
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def on_gpu(a: Arguments) -> Arguments:
    """The same call with tensors on the GPU, for the CUDA kernel."""
    return {k: v.cuda() if isinstance(v, Tensor) else v for k, v in a.items()} | {"backend": "cuda"}


NUMBERS = ("lam", "lin", "w", "inv_eta2", "noise_lam")


def from_a_row(a: Arguments) -> Arguments:
    """The same call with the scalars of its level in a row of a table, and NaN for the numbers."""
    return a | dict.fromkeys(NUMBERS, math.nan) | {"level": table([[a[name] for name in NUMBERS]], a["x"])[0]}


def dense_step(a: Arguments, mean_map: Tensor, noise_map: Tensor, xi: Tensor) -> tuple[Tensor, Tensor]:
    """x⁺ and m of dense matrices on flattened states."""
    r = a["b"].repeat_interleave(len(a["x"]) // len(a["b"]), 0) + a["lin"] * a["x"] - a["w"] * a["grad"]
    mean = r.flatten(1) @ mean_map.T
    return (mean + xi.flatten(1) @ noise_map.T).view(r.shape), mean.view(r.shape)


Same = Callable[[Tensor, Tensor], bool]  # to the bit, or as nearly as a library that chooses among its ways allows


def check_noise_modes(op: Callable[..., tuple[Tensor, Tensor]], a: Arguments, xi_shape: tuple[int, ...],
                      alike: Same = torch.equal) -> None:
    """Averaged noise is (R_k + R_{k+1})/√2, independent noise R_k, no noise the mean; the mean is the same in all."""
    numbers = torch.Size(xi_shape[1:]).numel()
    now, then = (philox_normal(a["ids"], numbers, a["seed"], k, LANGEVIN).view(xi_shape) for k in (a["step"], a["step"] + 1))
    plain, mean = op(**{**a, "noise": NO_NOISE})
    assert torch.equal(plain, mean) and plain.data_ptr() != mean.data_ptr()
    for noise, xi in ((INDEPENDENT, now), (AVERAGED, (now + then) * torch.tensor(0.5**0.5))):
        drawn, same = op(**{**a, "noise": noise})
        given, _ = op(**{**a, "noise": noise, "xi": xi})
        assert alike(drawn, given) and not alike(drawn, plain)
        torch.testing.assert_close(same, mean, rtol=1e-5, atol=1e-6 if mean.dtype == torch.float32 else 1e-12)


def check_rows_stand_alone(op: Callable[..., tuple[Tensor, Tensor]], a: Arguments, alike: Same = torch.equal) -> None:
    """Row n uses measurement n // (N/B) and is the same as alone; inputs stay as they were, chains may be strided, or none."""
    before = {k: v.clone() for k, v in a.items() if isinstance(v, Tensor)}
    together = op(**a)
    assert all(torch.equal(a[k], v) for k, v in before.items())
    assert alike(together[0], op(**{**a, "ids": a["ids"].repeat_interleave(2, 0)[::2]})[0])
    assert all(v.shape == a["x"][:0].shape for v in op(**a | {k: a[k][:0] for k in ("x", "grad", "ids")}))
    each = len(a["x"]) // len(a["b"])
    for n in range(len(a["x"])):
        one = {k: a[k][n:n + 1] for k in ("x", "grad", "ids")}
        alone = op(**{**a, **one, "b": a["b"][n // each:n // each + 1]})
        assert alike(alone[0][0], together[0][n]) and alike(alone[1][0], together[1][n])


def check_opcheck(op: Op[..., Any], a: Arguments, xi_shape: tuple[int, ...]) -> None:
    """Schema, fake implementation, no aliases, traceable."""
    torch.library.opcheck(op.traced, (), a)
    for more in ({"noise": NO_NOISE, "backend": "torch"}, {"xi": torch.zeros(xi_shape)}):
        torch.library.opcheck(op.traced, (), {**a, **more}, test_utils=("test_schema", "test_faketensor"))


def check_bad_arguments(op: Callable[..., Any], a: Arguments, more: dict[str, Any]) -> None:
    """Each wrong argument is named in one line; `more` are those of this op alone."""
    x = a["x"]
    nan, inf = float("nan"), float("inf")
    bad = {"x": x.half(), "grad": x[:, :1], "b": x[:, :1], "ids": a["ids"].int(), "lam": 0.0, "noise_lam": nan, "lin": inf,
           "w": nan, "inv_eta2": -1.0, "noise": 7, "xi": x[:1], "backend": "abacus", **more}
    for name, value in bad.items():
        with pytest.raises(ArgumentError) as caught:
            op(**{**a, name: value})
        assert str(caught.value).startswith(f"{name}:"), (name, str(caught.value))
    with pytest.raises(ArgumentError, match="^x:.* a pixel"):
        op(**a | {k: a[k][:, :0] for k in ("x", "grad", "b")} | {"noise": NO_NOISE})
    with pytest.raises(ArgumentError, match="^grad:.*contiguous"):
        op(**{**a, "grad": x.transpose(1, 2).contiguous().transpose(1, 2)})
