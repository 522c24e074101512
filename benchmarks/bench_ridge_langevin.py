"""ridge_langevin: whole steps of the shipped models against eager torch, with autograd (plain) and in closed form (tuned)."""

from typing import Any

import torch

import alps_fast as af
from alps_fast.bench import bench_langevin_pixel
from alps_fast.bench.bench_ridge_grad import T, plain, tuned
from alps_fast.bench.bench_ridge_grad import work as gradient_work
from alps_fast.bench.common import LEVEL, Work, fastest, full_float32, isa, parametrize
from alps_fast.bench.fma_peak import fma_peak
from alps_fast.energies import RidgeEnergy
from alps_fast.ops.philox_normal import AVERAGED, counters
from alps_fast.ops.ridge_langevin import ridge_langevin

STEPS = 4  # of a call
CASES = [("brain-ridge", (16, 128, 128, 2)), ("natural-ridge", (64, 64, 64, 3)), ("natural-ridge", (1, 256, 256, 3))]


def steps(gradient, step, x, constants, channels):
    """STEPS steps by one of bench_langevin_pixel's classes, each after a gradient."""
    for _ in range(STEPS):
        images = x.movedim(-1, 1)
        grad = gradient(images.reshape(-1, channels, *images.shape[2:]), *constants)
        step.x, step.grad = x, grad.reshape(images.shape).movedim(1, -1).contiguous()
        x = step()[0]
    return x


@parametrize("name, shape", CASES)
@full_float32()
def test_ridge_langevin(measure, name, shape):
    energy = af.energies.load(name)
    assert isinstance(energy, RidgeEnergy)
    device = measure.device
    x, b = 0.5 * torch.randn(shape, device=device), torch.randn(1, *shape[1:], device=device)
    a, ids = (torch.rand(1, *shape[1:3], 1, device=device) < 0.5).float(), counters(torch.arange(shape[0], device=device))
    constants, backend = energy._constants(T, x), fastest("ridge_langevin", device)
    shared: dict[str, Any] = {**LEVEL, "noise": AVERAGED, "seed": 7, "step": 3, "count": STEPS}
    baselines = {}
    for label, gradient, step in (("plain", plain, bench_langevin_pixel.Plain), ("tuned", tuned, bench_langevin_pixel.Tuned)):
        one = step(x, x, b, a, True)
        baselines[label] = lambda gradient=gradient, one=one: steps(gradient, one, x, constants, energy.channels)

    def ours():
        return ridge_langevin(x, b, a, ids, *constants, energy.channels, **shared, backend=backend)

    few = ridge_langevin(x[:1], b, a, ids[:1], *constants, energy.channels, **shared, backend="torch")
    torch.testing.assert_close(ours()[0][:1], few[0], rtol=1e-3, atol=1e-4)
    n, height, width, channels = shape
    one = gradient_work((n * channels // energy.channels, energy.channels, height, width), constants[0])
    pixel = bench_langevin_pixel.work(n, height * width * channels, height * width, 2)
    peak = fma_peak(isa(backend)) if backend == "cpu" else None
    measure(f"{name}, {n} x {height}x{width}x{channels}, {STEPS} steps", backend, ours, baselines,
            Work(bytes=pixel.bytes, flops=STEPS * (one.flops + pixel.flops)), rounds=5, peak=peak)
