"""The CUDA kernels of conv_grad beside each other and Triton's: right, the same alone as in a batch, and how fast.

python conv.py [right|times]
"""

from __future__ import annotations

import os
import sys
from functools import partial

import torch
from common import DEVICE, ON_GPU, emit, in_children
from timing import ceilings, microseconds

import alps_fast
from alps_fast.bench import bench_conv_grad as bench
from alps_fast.energies.compact import edm_coefficients
from alps_fast.ops.conv_grad import CUDA_KERNELS, conv_grad

LAWS = {"high": 2e-6, "fast": 2e-2}
KERNELS = {"high": ("warpgroups", "triton"), "fast": (*CUDA_KERNELS, "triton")}
SIZES = ((64, 64), (29, 37), (1, 1), (136, 5), (200, 150))
TIMES = (("natural-denoiser", 192, 64), ("natural-denoiser", 64, 64), ("natural-denoiser", 16, 64), ("natural-denoiser", 4, 64),
         ("brain-denoiser", 16, 320), ("brain-denoiser", 4, 320), ("brain-denoiser", 1, 320), ("natural-denoiser", 48, 256))
if not ON_GPU:
    KERNELS = dict.fromkeys(LAWS, ("cpu",))
    SIZES, TIMES = SIZES[1:2], (("natural-denoiser", 1, 16),)


def network(name: str, levels: int) -> tuple[list[torch.Tensor], tuple[object, ...]]:
    net = alps_fast.energies.load(name).network.to(DEVICE)
    t = torch.linspace(0.2, 0.6, levels, device=DEVICE)
    with torch.no_grad():
        return [w.detach() for w in net.weights()], (*net.film_vectors(t), edm_coefficients(t, net.sigma_data), list(net.blocks))


def backend(kernel: str) -> str:
    """Of conv_grad; the CUDA kernel is forced."""
    if kernel in CUDA_KERNELS:
        os.environ["ALPS_FAST_CONV_GRAD"] = kernel
        return "cuda"
    return kernel


def right(kernel: str, precision: str, height: int, width: int) -> None:
    """A level an image: the law, five repeats and each image alone to the bit."""
    weights, (scale, shift, coefficients, blocks) = network("natural-denoiser", 3)
    channels, own = weights[0].shape[1] // 4, backend(kernel)
    x = torch.randn(3, channels, height, width, device=DEVICE)
    exact = conv_grad(x.double(), [w.double() for w in weights], scale.double(), shift.double(), coefficients.double(), blocks,
                      "high", "torch")

    def run(images: slice) -> tuple[torch.Tensor, ...]:
        return conv_grad(x[images], weights, scale[:, images], shift[:, images], coefficients[:, images], blocks, precision, own)

    got = run(slice(0, 3))
    error = max(float((g - e).norm() / e.norm()) for g, e in zip(got, exact, strict=True))
    again = all(torch.equal(v, g) for _ in range(5) for v, g in zip(run(slice(0, 3)), got, strict=True))
    alone = all(torch.equal(v, g[i:i + 1]) for i in range(3) for v, g in zip(run(slice(i, i + 1)), got, strict=True))
    emit("conv", ok=error < LAWS[precision] and again and alone, kernel=kernel, precision=precision,
         size=f"{height}x{width}", error=error, again=again, alone=alone)


def times(kernel: str, precision: str, name: str, images: int, size: int, top: float) -> None:
    weights, level = network(name, 1)
    own, x = backend(kernel), torch.randn(images, weights[0].shape[1] // 4, size, size, device=DEVICE)
    us, captured, eager = microseconds(lambda: conv_grad(x, weights, *level, precision, own))
    flops = bench.work(images, size, size, weights).flops
    emit("time", case=f"conv_grad, {images} x {size}x{size}, {name}, {precision}", backend=kernel, us=us, captured=captured,
         eager_us=eager, TFs=flops / us / 1e6, of_bf16=flops / us / 1e6 / (top / 1e12))


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["right", "times"]
    if "right" in wanted:
        in_children([(f"{kernel} {precision} {size}", partial(right, kernel, precision, *size))
                     for precision, kernels in KERNELS.items() for kernel in kernels for size in SIZES], 40, 6 if ON_GPU else 1)
    if "times" in wanted:
        def all_times() -> None:
            top = ceilings()["bf16"]
            for precision, kernels in KERNELS.items():
                for case in TIMES:
                    for kernel in kernels:
                        times(kernel, precision, *case, top)

        in_children([("times", all_times)], 110)
