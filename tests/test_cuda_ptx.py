"""What nvcc makes of csrc/cuda, run on the CPU instruction by instruction: bits, addresses, and the memory it touches."""

from __future__ import annotations

import shutil

import pytest
import torch
from step_checks import in_double
from test_ridge_grad import check_against_torch, constants

from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, LANGEVIN, NO_NOISE, philox_normal
from alps_fast.ops.ridge_langevin import ridge_langevin
from alps_fast.profile import cuda

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")

LEVEL = {"lam": 2.0, "lin": 1.5, "w": 0.7, "inv_eta2": 9.0, "noise_lam": 3.0, "seed": 11, "step": 5}


@pytest.mark.parametrize("n", [5, 1021, 1024])
def test_philox_normal_has_the_bits_of_the_reference(n):
    arguments = torch.tensor([0, 7, 2**32 - 1]), n, 11, 5, LANGEVIN
    (out,), _ = cuda.philox_normal(*arguments)
    assert torch.equal(out.view(torch.int32), philox_normal(*arguments, "torch").view(torch.int32))


def pixel_step(rows, shape):
    """Of one measurement, `a` of a pixel."""
    x, grad = torch.randn(2, rows, *shape)
    return {"x": x.clone(), "grad": grad.clone(), "b": torch.randn(1, *shape), "a": torch.rand(1, *shape[:2], 1),
            "chains": torch.arange(rows) + 3, **LEVEL}


@pytest.mark.parametrize("noise", [NO_NOISE, INDEPENDENT, AVERAGED])
@pytest.mark.parametrize("rows, shape", [(1, (1, 3, 1)), (5, (13, 11, 3)), (4, (16, 16, 1)), (3, (7, 6, 2))])
def test_langevin_pixel_is_the_reference(rows, shape, noise):
    a = pixel_step(rows, shape)
    got, _ = cuda.langevin_pixel(**a, noise=noise)
    torch.testing.assert_close(got, langevin_pixel(**a, noise=noise, backend="torch"), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows, channels", [(1, 3), (8, 3), (8, 1), (8, 2)])
def test_langevin_pixel_touches_what_it_must(rows, channels):
    """Sectors of 32 bytes: x, grad, x⁺, m of each chain, b and a once; at most 1.2 times that, measured 1.07 to 1.09."""
    _, counts = cuda.langevin_pixel(**pixel_step(rows, (32, 32, channels)), noise=AVERAGED)
    n = 32 * 32 * channels
    floor = 4 * (4 * rows * n + n + n // channels) / 32
    assert (counts["global_load_sectors"] + counts["global_store_sectors"]) / floor <= 1.2


@pytest.mark.parametrize("channels, shape, bank", [(1, (6, 7), (2, 5, 3, 2)), (2, (5, 9), (1, 3, 7, 1))])
def test_ridge_grad_is_the_reference(channels, shape, bank):
    x, args = torch.randn(3, channels, *shape), constants(*bank, 3, torch.float32)
    check_against_torch(x, args, cuda.ridge_grad(x, *args)[0])


def test_ridge_langevin_is_the_reference():
    """Two steps of two chains of one measurement, a state of two one-channel images; the law is that of tests/host_cuda."""
    shape = (5, 7, 2)
    arguments = (torch.randn(2, *shape), torch.randn(1, *shape), torch.rand(1, *shape[:2], 1), torch.arange(2) + 3,
                 *constants(1, 3, 5, 2, dtype=torch.float32))
    steps = {**LEVEL, "channels": 1, "noise": AVERAGED, "count": 2}
    got, _ = cuda.ridge_langevin(*arguments, **steps)
    exact, torchs = (ridge_langevin(*v, **steps, backend="torch") for v in (in_double(arguments), arguments))
    for g, e, t in zip(got, exact, torchs, strict=True):
        assert (g - e).norm() <= 2 * (t - e).norm() + 2 * 2**-24 * e.norm()
