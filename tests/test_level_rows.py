"""Scalars of a level from a row of a table are those given as numbers, in each op and backend."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from sense_inputs import cg_arguments, line_arguments
from step_checks import LEVEL, NUMBERS, from_a_row, states

from alps_fast.errors import ArgumentError
from alps_fast.ops._step import table

SHAPE = (6, 5, 2)


def pixel(dtype):
    return states(4, 2, SHAPE, dtype) | {"a": torch.rand(1, 6, 5, 1, dtype=torch.float64).to(dtype)}


def fourier(dtype):
    h = torch.fft.fft2(torch.rand(6, 5, dtype=torch.float64), norm="ortho")
    return states(4, 2, SHAPE, dtype) | {"h": h.to(dtype.to_complex()), "factor": 1, "is_complex": False}


def ridge(dtype):
    a = pixel(dtype)
    del a["grad"]
    tables = {"weights": torch.rand(1, 1, 1, 3), "r": torch.rand(1, 1, 1, 3) + 0.1, "q": torch.rand(1, 1), "mu": torch.rand(1)}
    tables = {name: v.to(dtype) for name, v in tables.items()}
    return a | tables | {"filters": [torch.randn(3, 1, 3, 3).to(dtype)], "channels": 2, "count": 2}


OPS = {"langevin_pixel": pixel, "langevin_fourier": fourier, "langevin_sense": lambda dtype: line_arguments(0, dtype=dtype),
       "langevin_sense_cg": lambda dtype: cg_arguments(dtype=dtype, tol=1e-4), "ridge_langevin": ridge}


def op_of(name):
    return getattr(importlib.import_module(f"alps_fast.ops.{name}"), name)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
@pytest.mark.parametrize("name", OPS)
def test_a_row_has_the_bits_of_the_numbers(name, backend):
    """Of those as the dtype has them; the reference of conjugate gradients alone takes a root before it rounds."""
    if backend == "cpu":
        pytest.importorskip("alps_fast._cpu")
    for dtype in (torch.float32, torch.float64):
        a = OPS[name](dtype) | {"backend": backend}
        for row, numbers in zip(op_of(name)(**from_a_row(a)), op_of(name)(**rounded(a, dtype)), strict=True):
            assert torch.equal(row, numbers)


def rounded(a, dtype):
    """The same call, its scalars rounded to a dtype."""
    return a | {name: torch.tensor(a[name], dtype=dtype).item() for name in NUMBERS}


@pytest.mark.parametrize("name", OPS)
def test_the_reference_takes_a_row_that_nobody_may_look_at(name):
    """As it does on a GPU; law: 8 roundings of the largest number, and what a solution is off by."""
    reference = getattr(importlib.import_module(f"alps_fast.ops.{name}"), f"{name}_reference")
    for dtype in (torch.float32, torch.float64):
        a = OPS[name](dtype)
        options = {"max_iter": 300} if name == "langevin_sense_cg" else {}
        for row, numbers in zip(reference(**from_a_row(a) | options), op_of(name)(**a, backend="torch"), strict=True):
            law = 8 * torch.finfo(dtype).eps if name != "langevin_sense_cg" else 1e-4
            assert row.dtype == dtype and (row - numbers).abs().max() <= law * numbers.abs().max()


def test_a_table_is_checked_when_it_is_made():
    good = [LEVEL[name] for name in ("lam", "lin", "w", "inv_eta2", "noise_lam")]
    like = torch.empty(0, dtype=torch.float64)
    rows = table([good, good], like)
    assert rows.shape == (2, 5) and rows.dtype == torch.float64 and rows[1].tolist() == good
    for i, (name, value) in enumerate([("lam", 0.0), ("lin", math.nan), ("w", math.inf), ("inv_eta2", -1.0), ("noise_lam", 0.0)]):
        with pytest.raises(ArgumentError, match=f"^{name}: got {value}"):
            table([good, [*good[:i], value, *good[i + 1:]]], like)


@pytest.mark.parametrize("level", [torch.ones(4), torch.ones(5, dtype=torch.float64),
                                   torch.ones(5, device="meta")])
def test_a_row_of_another_kind_is_refused(level):
    a = pixel(torch.float32) | {"level": level}
    with pytest.raises(ArgumentError, match=r"^level: .*wanted torch.float32 of shape \(5,\)"):
        op_of("langevin_pixel")(**a)
