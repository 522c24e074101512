"""What nvcc makes of csrc/cuda, run on the CPU instruction by instruction: bits, addresses, and the memory it touches."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from step_checks import in_double
from test_ridge_grad import check_against_torch, constants

from alps_fast.ops.langevin_pixel import langevin_pixel
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT, LANGEVIN, NO_NOISE, philox_normal
from alps_fast.ops.ridge_langevin import ridge_langevin
from alps_fast.profile.ptxsim import Module

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on the PATH")

SOURCES = Path(__file__).parents[1] / "csrc" / "cuda"
THREADS, CHAINS = 256, 4  # of langevin_pixel.cu and philox_normal.cu; chains a thread
LEVEL = {"lam": 2.0, "lin": 1.5, "w": 0.7, "inv_eta2": 9.0, "noise_lam": 3.0}
SEED, STEP = 11, 5


@pytest.fixture(scope="session")
def ptx(tmp_path_factory):
    directory, modules = tmp_path_factory.mktemp("ptx"), {}

    def module(op):
        if op not in modules:
            command = ["nvcc", "-ptx", "-std=c++17", "-O3", "--fmad=false", "-arch=sm_80", str(SOURCES / f"{op}.cu")]
            subprocess.run([*command, "-o", str(directory / op)], check=True)
            modules[op] = Module((directory / op).read_text())
        return modules[op]
    return module


@pytest.mark.parametrize("n", [5, 1021, 1024])
def test_philox_normal_has_the_bits_of_the_reference(ptx, n):
    chains, out = np.array([0, 7, 2**32 - 1]), np.full((3, n), np.nan, np.float32)
    kernel = ptx("philox_normal").kernel(f"philox_normal_kernelILb{int(n % 4 == 0)}E")
    kernel.launch((1, 3), (THREADS,), [chains, 3, n, struct.pack("4I", SEED, 0, STEP, LANGEVIN), out])
    want = philox_normal(torch.from_numpy(chains), n, SEED, STEP, LANGEVIN, "torch")
    assert torch.equal(torch.from_numpy(out).view(torch.int32), want.view(torch.int32))


def run_pixel(ptx, rows, shape, noise):
    """x⁺ and m of the compiled kernel, those of the reference, and what the kernel did; a of a pixel, one measurement."""
    n, channels = int(np.prod(shape)), shape[2]
    x, grad = np.random.randn(2, rows, *shape).astype(np.float32)  # noqa: NPY002
    b, a = np.random.randn(1, *shape).astype(np.float32), np.random.rand(1, *shape[:2], 1).astype(np.float32)  # noqa: NPY002
    x, grad, chains = x.copy(), grad.copy(), np.arange(rows) + 3
    after, mean = np.full_like(x, np.nan), np.full_like(x, np.nan)
    groups = -(-rows // CHAINS)
    level = struct.pack("5f4I", LEVEL["lam"], LEVEL["lin"], -LEVEL["w"], LEVEL["inv_eta2"], LEVEL["noise_lam"], SEED, 0, STEP,
                        LANGEVIN)
    diagonal = int(channels == 1)
    kernel = ptx("langevin_pixel").kernel(f"langevin_pixel_kernelILi{noise}ELb{int(n % 4 == 0)}ELi{diagonal}E")
    grid = (-(-n // (4 * THREADS)), groups)
    counts = kernel.launch(grid, (THREADS,), [x, grad, b, a, 0, chains, after, mean, rows, groups, groups, n, channels, 0, level])
    tensors = [torch.from_numpy(v) for v in (x, grad, b, a, chains)]
    want = langevin_pixel(*tensors, **LEVEL, noise=noise, seed=SEED, step=STEP, backend="torch")
    return [torch.from_numpy(v) for v in (after, mean)], want, counts


@pytest.mark.parametrize("noise", [NO_NOISE, INDEPENDENT, AVERAGED])
@pytest.mark.parametrize("rows, shape", [(1, (1, 3, 1)), (5, (13, 11, 3)), (4, (16, 16, 1)), (3, (7, 6, 2))])
def test_langevin_pixel_is_the_reference(ptx, rows, shape, noise):
    got, want, _ = run_pixel(ptx, rows, shape, noise)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rows, channels", [(1, 3), (8, 3), (8, 1), (8, 2)])
def test_langevin_pixel_touches_what_it_must(ptx, rows, channels):
    """Sectors of 32 bytes: x, grad, x⁺, m of each chain, b and a once; at most 1.2 times that, measured 1.07 to 1.09."""
    _, _, counts = run_pixel(ptx, rows, (32, 32, channels), AVERAGED)
    n = 32 * 32 * channels
    floor = 4 * (4 * rows * n + n + n // channels) / 32
    assert (counts["global_load_sectors"] + counts["global_store_sectors"]) / floor <= 1.2


SHARED = 163 << 10  # bytes a block can have on sm_80


def ridge_energy(filters, w, r, q, mu):
    """csrc/cuda/kernels.h: RidgeEnergy."""
    bank = torch.stack(filters)
    arrays = [v.numpy() for v in (bank, w, r, q, mu)]
    each = w.shape[2] > 1, r.shape[2] > 1, q.shape[1] > 1
    return [*arrays, struct.pack("5i3?x", bank.shape[-1], len(bank), bank.shape[1], w.shape[1], len(q), *each)]


@pytest.mark.parametrize("channels, shape, bank", [(1, (6, 7), (2, 5, 3, 2)), (2, (5, 9), (1, 3, 7, 1))])
def test_ridge_grad_is_the_reference(ptx, channels, shape, bank):
    x, args = torch.randn(3, channels, *shape), constants(*bank, 3, torch.float32)
    grad, value = np.full(x.shape, np.nan, np.float32), np.full(3, np.nan, np.float32)
    images = struct.pack("q3i4x", 3, channels, *shape)
    ptx("ridge_grad").kernel(f"ridge_grad_kernelILi{channels}E").launch(
        (3,), (THREADS,), [ridge_energy(*args), images, x.numpy(), grad, value, SHARED // 4], shared=SHARED)
    check_against_torch(x, args, (torch.from_numpy(grad), torch.from_numpy(value)))


def test_ridge_langevin_is_the_reference(ptx):
    """Two steps of two chains of one measurement, a state of two one-channel images; the law is that of tests/host_cuda."""
    n, shape, groups, count = 2, (5, 7, 2), 2, 2
    x, b, a, chains = torch.randn(n, *shape), torch.randn(1, *shape), torch.rand(1, *shape[:2], 1), torch.arange(n) + 3
    energy = constants(1, 3, 5, 2, dtype=torch.float32)
    after, mean = (np.full(x.shape, np.nan, np.float32) for _ in range(2))
    state = [*(v.numpy() for v in (x, b, a)), bytes(8), chains.numpy(), after, mean,
             struct.pack("qq3i?3x", n, 0, shape[2], count, AVERAGED, False)]
    level = struct.pack("5f4I", LEVEL["lam"], LEVEL["lin"], -LEVEL["w"], LEVEL["inv_eta2"], LEVEL["noise_lam"], SEED, 0, STEP,
                        LANGEVIN)
    ptx("ridge_langevin").kernel("ridge_langevin_kernelILi1E").launch(
        (n * groups,), (THREADS,),
        [ridge_energy(*energy), struct.pack("q3i4x", n * groups, 1, *shape[:2]), state, level, SHARED // 4], shared=SHARED)
    arguments = (x, b, a, chains, *energy)
    exact, torchs = (ridge_langevin(*v, 1, **LEVEL, noise=AVERAGED, seed=SEED, step=STEP, count=count, backend="torch")
                     for v in (in_double(arguments), arguments))
    for g, e, t in zip((after, mean), exact, torchs, strict=True):
        assert (torch.from_numpy(g) - e).norm() <= 2 * (t - e).norm() + 2 * 2**-24 * e.norm()
