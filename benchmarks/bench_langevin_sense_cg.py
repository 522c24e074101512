"""langevin_sense_cg, ten iterations of both systems, against plain on as many rows and iterations, and the torch reference, which
has the same preconditioner and works on as many coil images as fit a cache (tuned).
"""

import math
import warnings

import torch

from alps_fast.bench.bench_langevin_sense import Plain, coil_maps
from alps_fast.bench.common import LEVEL, Work, fastest, parametrize
from alps_fast.layout import as_real
from alps_fast.ops.langevin_sense_cg import langevin_sense_cg
from alps_fast.ops.philox_normal import INDEPENDENT, counters


def work(chains: int, size: int, coils: int, iterations: int) -> Work:
    """Two systems a chain; an iteration is two transforms of every coil and of the preconditioner, the maps are read twice."""
    transforms = 2 * (coils + 1) * 5 * size**2 * math.log2(size**2)
    rows = 2 * chains
    return Work(bytes=8 * size**2 * (4 * chains + coils * rows * iterations), flops=int(rows * iterations * transforms))


@parametrize("chains, size, coils", [(16, 128, 8), (1, 128, 8)])
def test_langevin_sense_cg(measure, chains, size, coils):
    device = measure.device
    x, grad = torch.randn(2, chains, size, size, 2, device=device)
    b = torch.randn(1, size, size, 2, device=device)
    g = torch.Generator().manual_seed(3)
    maps, mask = coil_maps(coils, size).to(device), (torch.rand(size, size, generator=g) < 0.25).float().to(device)
    mask[0, 0] = 1  # torch.fft order
    ids, backend, iterations = counters(torch.arange(chains, device=device)), fastest("langevin_sense_cg", device), 10
    plain = Plain(x.repeat(2, 1, 1, 1), grad.repeat(2, 1, 1, 1), b, maps, torch.fft.fftshift(mask))

    def step(backend, tol=1e-9, max_iter=iterations):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # ten iterations are not enough
            return langevin_sense_cg(x, grad, b, maps, mask, ids, **LEVEL, noise=INDEPENDENT, seed=7, step=3, tol=tol,
                                     max_iter=max_iter, backend=backend)

    for mine, reference in zip(step(backend, 1e-5, 200), step("torch", 1e-5, 200), strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-3, atol=1e-3)
    exact = as_real(plain(iterations=60, noise=False)[:chains, 0, ..., None])
    torch.testing.assert_close(step(backend, 1e-5, 200)[1], exact, rtol=1e-3, atol=1e-3 * exact.abs().max().item())
    baselines = {"plain": lambda: plain(noise=False), "tuned": lambda: step("torch")}
    measure(f"langevin_sense_cg, {chains} x {size}², {coils} coils, {iterations} iterations", backend, lambda: step(backend),
            baselines, work(chains, size, coils, iterations), rounds=5 if chains > 1 else 15)
