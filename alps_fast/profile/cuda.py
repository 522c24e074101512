"""The CUDA C++ kernels as PTX for sm_80 on the CPU: their launches, packed as the hosts in csrc/cuda make them, and their cases.

Each function of an op's name takes what the op takes for one measurement, and returns its results and what the kernel did.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops._conv_weights import pack_fragments
from ..ops.philox_normal import AVERAGED, INDEPENDENT, LANGEVIN, NO_NOISE
from . import nvcc
from .cases import CASES as TRITON_CASES
from .cases import IMAGE, LEVEL, Case, conv_grad_case, randn, ridge_grad_case, ridge_langevin_case, small_network
from .ptxsim import Kernel, Module
from .work import Work

ARCH, SHARED = "sm_80", 163 << 10  # bytes of shared memory that a block can have there
CHAINS, GIVEN = 4, 3  # of langevin_pixel.cu

Results = tuple[tuple[Tensor, ...], Counter[str]]


@cache
def module(op: str) -> Module:
    """The PTX of an op's source."""
    return Module(nvcc.ptx(op, ARCH))


def _kernel(op: str, arguments: str) -> tuple[Kernel, int]:
    """The op's kernel with these mangled template arguments, and its threads."""
    kernel = module(op).kernel(f"{op}_kernelI{arguments}E")
    (threads,) = (k.threads for k in nvcc.kernels(nvcc.ptx(op, ARCH)) if k.symbol == kernel.name)
    return kernel, threads


def _fresh(like: Tensor | tuple[int, ...]) -> Tensor:
    return torch.full(like if isinstance(like, tuple) else tuple(like.shape), torch.nan)


def philox_normal(chains: Tensor, n: int, seed: int, step: int, tag: int) -> Results:
    kernel, threads = _kernel("philox_normal", f"Lb{int(n % 4 == 0)}E")
    out = _fresh((len(chains), n))
    grid = (-(-n // (4 * threads)), len(chains))
    stream = struct.pack("4I", seed, 0, step, tag)
    return (out,), kernel.launch(grid, (threads,), [chains.numpy(), len(chains), n, stream, out.numpy()])


def _level(lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, seed: int, step: int) -> bytes:
    """csrc/cuda/pixel_step.h: PixelLevel."""
    return struct.pack("5f4I", lam, lin, -w, inv_eta2, noise_lam, seed, 0, step, LANGEVIN)


def langevin_pixel(x: Tensor, grad: Tensor, b: Tensor, a: Tensor, chains: Tensor, noise: int, xi: Tensor | None = None,
                   **level: Any) -> Results:
    """Of any number of measurements."""
    each, channels, n = len(x) // len(b), x.shape[3], x[0].numel()
    noise, a_stride = noise if xi is None else GIVEN, a[0].numel() if len(a) > 1 else 0
    kernel, threads = _kernel("langevin_pixel", f"Li{noise}ELb{int(n % 4 == 0)}ELi{int(a.shape[3] == channels)}E")
    after, mean, groups = _fresh(x), _fresh(x), -(-each // CHAINS)
    pieces, given = len(b) * groups, 0 if xi is None else xi.numpy()
    arrays = [v.numpy() for v in (x, grad, b, a)], [v.numpy() for v in (chains, after, mean)]
    count = kernel.launch((-(-n // (4 * threads)), pieces), (threads,),
                          [*arrays[0], given, *arrays[1], each, groups, pieces, n, channels, a_stride, _level(**level)])
    return (after, mean), count


def moments(count: Tensor, mean: Tensor, m2: Tensor, x: Tensor, keep: Tensor) -> Results:
    groups, n, wide = len(count), x[0].numel(), 16 // x.itemsize
    kernel, threads = _kernel("moments", f"{'f' if x.dtype == torch.float32 else 'd'}Lb{int(n % wide == 0)}E")
    after = torch.zeros_like(count), torch.full_like(mean, torch.nan), torch.full_like(m2, torch.nan)
    arrays = [v.numpy() for v in (count, mean, m2, x, keep, *after)]
    return after, kernel.launch((-(-n // (wide * threads)), groups), (threads,), [*arrays, groups, len(x) // groups, n])


def _energy(filters: Sequence[Tensor], w: Tensor, r: Tensor, q: Tensor, mu: Tensor) -> tuple[Any, ...]:
    """csrc/cuda/kernels.h: RidgeEnergy."""
    bank = torch.stack(list(filters))
    each = w.shape[2] > 1, r.shape[2] > 1, q.shape[1] > 1
    sizes = struct.pack("5i3?x", bank.shape[-1], len(bank), bank.shape[1], w.shape[1], len(q), *each)
    return *(v.numpy() for v in (bank, w, r, q, mu)), sizes


def ridge_grad(x: Tensor, *tables: Any) -> Results:
    """`tables`: filters, w, r, q, mu as the op takes them."""
    n, channels, height, width = x.shape
    kernel, threads = _kernel("ridge_grad", f"Li{channels}E")
    grad, value = _fresh(x), _fresh((n,))
    arguments = [_energy(*tables), struct.pack("q3i4x", n, channels, height, width), x.numpy(), grad.numpy(), value.numpy()]
    return (grad, value), kernel.launch((n,), (threads,), [*arguments, SHARED // 4], SHARED)


def ridge_langevin(x: Tensor, b: Tensor, a: Tensor, chains: Tensor, *tables: Any, channels: int, noise: int, count: int,
                   room: bool, **level: Any) -> Results:
    """`a` of a pixel; `room`: in shared memory, for the image between steps."""
    n, height, width, all_channels = x.shape
    images = n * all_channels // channels
    kernel, threads = _kernel("ridge_langevin", f"Li{channels}E")
    after, mean = _fresh(x), _fresh(x)
    wide = x[0].numel() % 4 == 0
    in_quads = wide and channels == all_channels and width * channels % 4 == 0
    state = (x.numpy(), b.numpy(), a.numpy(), bytes(8), chains.numpy(), after.numpy(), mean.numpy(),
             struct.pack("qq3i3?xi4x", n, 0, all_channels, count, noise, False, wide, in_quads,
                         SHARED // 4 - height * width * channels if room else 0))  # the end of what a block can have
    arguments = [_energy(*tables), struct.pack("q3i4x", images, channels, height, width), state, _level(**level)]
    return (after, mean), kernel.launch((images,), (threads,), [*arguments, SHARED // 4], SHARED)


def conv_grad(x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor, blocks: Sequence[int],
              warps: int = 4) -> Results:
    """In precision "fast"; `warps` of a block, 4 or 8."""
    n, channels, height, width = x.shape
    kernel = module("conv_grad").kernel(f"conv_grad_kernelILi{warps}E")
    packed = pack_fragments(weights, blocks)
    h, w = -(-height // 8) * 4, -(-width // 8) * 4
    pixels, step, lag = h * w, 32 * warps, (w + 32) // 32 * 32
    ring = step
    while ring < step + lag + w + 1:
        ring *= 2
    beside = 128 * pixels
    zero = beside + 128 * max(min(ring, pixels), pixels // 4)  # csrc/cuda/conv_grad.cu: ConvLayout
    vectors, sums = zero + 128, zero + 128 + 4 * 6 * 64
    kept = sum(count * times * (-(-(pixels >> 2 * level) // 32) * 32) for level, (count, times) in
               enumerate(zip(blocks, (2, 2, 1), strict=True)))
    workspace = 128 * pixels + 64 * kept
    grad, value, memory = _fresh(x), _fresh((n,)), _fresh((n * workspace // 4,))
    arrays = (packed.weights.view(torch.int16), packed.biases, scale, shift, coefficients, grad, value, memory)
    numbers = n, scale.shape[1], coefficients.shape[1], channels, height, width, *blocks, width % 2 == 0
    arguments = [(x.numpy(), *(v.numpy() for v in arrays), struct.pack("3q6i?7x", *numbers)),
                 struct.pack("9i4xq", h, w, ring, lag, beside, zero, vectors, sums, sums + 8 * warps, workspace)]
    return (grad, value), kernel.launch((n,), (32 * warps,), arguments, sums + 8 * warps)


class CudaCase(NamedTuple):
    """One configuration of an op's kernel: its run as PTX for so many chains, and its least work, which is the Triton case's."""

    name: str
    run: Callable[[int], Results]
    work: Callable[[int], Work]
    chains: int
    emulated_chains: int

    @property
    def op(self) -> str:
        return self.name.split("/")[0]


def _as_on_triton(name: str, run: Callable[[int], Results]) -> CudaCase:
    (case,) = (case for case in TRITON_CASES if case.name == name)
    return CudaCase(name, run, case.work, case.chains, case.emulated_chains)


def _in_float32(case: Case, run: Callable[[int], Results]) -> CudaCase:
    """With the work that the Triton kernel gives to tensor cores done in float32."""
    def work(chains: int) -> Work:
        least = case.work(chains)
        return least._replace(flops=least.flops + least.tensor, tensor=0)
    return CudaCase(case.name, run, work, case.chains, case.emulated_chains)


def _in_one_launch(case: Case, run: Callable[[int], Results]) -> CudaCase:
    """ridge_langevin without a gradient between its kernels: x read, x⁺ and m written a chain, b, a and the filters once."""
    def work(chains: int) -> Work:
        return _in_float32(case, run).work(chains)._replace(bytes=4 * (SIZE**2 * (3 * chains + 2) + 49 * FILTERS))
    return CudaCase(case.name, run, work, case.chains, case.emulated_chains)


def _pixel(noise: int) -> Callable[[int], Results]:
    def run(chains: int) -> Results:
        x, grad, a = randn(chains, *IMAGE), randn(chains, *IMAGE), randn(1, *IMAGE[:2], 1).abs()
        return langevin_pixel(x, grad, randn(1, *IMAGE), a, torch.arange(chains), noise, None, **LEVEL)
    return run


def _moments(chains: int) -> Results:
    state = torch.zeros(1, dtype=torch.int64), torch.zeros(1, *IMAGE), torch.zeros(1, *IMAGE)
    return moments(*state, randn(chains, *IMAGE), torch.ones(chains, dtype=torch.bool))


SIZE, FILTERS = 64, 8  # ptxsim takes seconds for them


def _ridge() -> tuple[Any, ...]:
    w = randn(1, 1, 1, FILTERS)
    return [randn(FILTERS, 1, 7, 7)], w, w.abs() + 0.1, randn(1, 1), torch.zeros(1)


def _ridge_langevin(chains: int) -> Results:
    x, b, a = randn(chains, SIZE, SIZE, 1), randn(1, SIZE, SIZE, 1), randn(1, SIZE, SIZE, 1).abs()
    return ridge_langevin(x, b, a, torch.arange(chains), *_ridge(), channels=1, noise=AVERAGED, count=1, room=True, **LEVEL)


def _conv_grad(chains: int) -> Results:
    return conv_grad(randn(chains, 2, 16, 16), *small_network(2, 64))


CASES = (
    _as_on_triton("philox_normal/64×64×3", lambda chains: philox_normal(torch.arange(chains), 64 * 64 * 3, 11, 5, LANGEVIN)),
    _as_on_triton("langevin_pixel/64×64×3/none", _pixel(NO_NOISE)),
    _as_on_triton("langevin_pixel/64×64×3/independent", _pixel(INDEPENDENT)),
    _as_on_triton("langevin_pixel/64×64×3/averaged", _pixel(AVERAGED)),
    _as_on_triton("moments/64×64×3", _moments),
    _in_float32(ridge_grad_case(1, SIZE, count=FILTERS), lambda chains: ridge_grad(randn(chains, 1, SIZE, SIZE), *_ridge())),
    _in_one_launch(ridge_langevin_case(SIZE, FILTERS), _ridge_langevin),
    CudaCase(*conv_grad_case(2, 64, "fast", 16)._replace(run=_conv_grad)),
)
