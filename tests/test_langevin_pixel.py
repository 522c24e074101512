"""langevin_pixel against its formula."""

from __future__ import annotations

import pytest
import torch
from step_checks import (
    LEVEL,
    check_bad_arguments,
    check_noise_modes,
    check_opcheck,
    check_rows_stand_alone,
    dense_step,
    states,
)

from alps_fast.ops.langevin_pixel import langevin_pixel

SHAPE = (5, 4, 3)


def arguments(n=4, b=2, a=(1, 1), dtype=torch.float64):
    diagonal = torch.rand(a[0], *SHAPE[:2], a[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    diagonal[:, 0] = 0
    return states(n, b, SHAPE, dtype) | {"a": diagonal.to(dtype)}


@pytest.mark.parametrize("b", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3])
def test_step_is_the_formula(b, channels):
    a = arguments(4, b, (1, channels))
    xi = torch.randn(a["x"].shape, dtype=torch.float64)
    diagonal = a["a"].expand(1, *SHAPE).flatten()
    maps = torch.diag(1 / (diagonal * LEVEL["inv_eta2"] + LEVEL["lam"])), torch.diag((diagonal * 9 + LEVEL["noise_lam"]) ** -0.5)
    for ours, dense in zip(langevin_pixel(**a, xi=xi), dense_step(a, *maps, xi), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-12, atol=1e-12)


def test_a_diagonal_of_each_measurement():
    a = arguments(4, 2, (2, 1))
    together = langevin_pixel(**a)
    for m in range(2):
        rows = slice(2 * m, 2 * m + 2)
        one = {k: a[k][rows] for k in ("x", "grad", "chains")} | {k: a[k][m:m + 1] for k in ("a", "b")}
        assert torch.equal(langevin_pixel(**{**a, **one})[0], together[0][rows])


def test_float32_rounds_a_few_times():
    double, single = langevin_pixel(**arguments()), langevin_pixel(**arguments(dtype=torch.float32))
    for d, s in zip(double, single, strict=True):
        assert s.dtype == torch.float32
        assert (s - d).abs().max() <= 4 * 2**-24 * d.abs().max()  # worst measured 1.5 roundings


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_every_step_must_do(dtype):
    a = arguments(dtype=dtype)
    check_noise_modes(langevin_pixel, a, tuple(a["x"].shape))
    check_rows_stand_alone(langevin_pixel, a)


def test_opcheck():
    a = arguments(dtype=torch.float32)
    check_opcheck(langevin_pixel, a, tuple(a["x"].shape))


def test_bad_arguments():
    a = arguments()
    check_bad_arguments(langevin_pixel, a, {"a": a["a"][:, :2]})
