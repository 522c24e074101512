"""m = (b + lin x − w grad) gain,  x⁺ = m + ξ spread,  gain = 1/(a inv_eta2 + lam), spread = 1/√(a inv_eta2 + noise_lam);
contract in alps_fast/ops/langevin_pixel.py.

A block is a tile of the image for a few chains of one measurement: gains and b are read once and serve all of them, so a
chain costs what it reads (x, grad) and writes (x⁺, m). The arithmetic is that of csrc/cpu/langevin_pixel.cpp, to the bit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alps_fast.ops._step import as_drawn

from .launch import kernel, launch, word
from .philox import id_at, step_noise

QUADS = 128  # of a tile: one a thread, which leaves registers for many blocks at a time
CHAIN_TILE = 4  # of a block: gains and b cost a quarter each, and few chains still make many blocks
WARPS = 4


@triton.jit
def pixel_gains(a, inv_eta2, lam, noise_lam):
    """gain and spread; every operation correctly rounded."""
    a = tl.fma(a, inv_eta2, lam), tl.fma(a, inv_eta2, noise_lam)
    return tl.div_rn(1.0, a[0]), tl.div_rn(1.0, tl.sqrt_rn(a[1]))


@triton.jit
def scalar(level, i: tl.constexpr, otherwise):
    """Number i of a row of `ops._step.table`, or what was given without one."""
    return otherwise if level is None else tl.load(level + i)


@kernel
def langevin_pixel_kernel(
    x, grad, b, a, xi, ids, after, mean, level, each: tl.int32, n: tl.int64, lam: tl.float32, lin: tl.float32,
    w: tl.float32, inv_eta2: tl.float32, noise_lam: tl.float32, key0: tl.int32, key1: tl.int32, step: tl.int32,
    A_EACH: tl.constexpr, A_SHARED: tl.constexpr, NOISE: tl.constexpr, WHOLE: tl.constexpr, QUADS: tl.constexpr,
    CHAIN_TILE: tl.constexpr,
):
    total = tl.cdiv(n, 4)
    tiles, parts = tl.cdiv(total, QUADS), tl.cdiv(each, CHAIN_TILE)
    pid = tl.program_id(0)
    group, first = pid // tiles, (pid % tiles) * QUADS
    measurement, part = group // parts, group % parts
    here = tl.arange(0, 4 * QUADS)
    if WHOLE:  # said so that the compiler sees it: rows begin on 16 bytes and end with a quad
        inside, n = here // 4 < total - first, total * 4
    else:
        inside = here < n - first * 4
    begin = first * 4
    quads = (first + tl.arange(0, QUADS)).to(tl.uint32)

    entry = (A_EACH * measurement * n + begin) // A_SHARED + (begin % A_SHARED + here) // A_SHARED
    diagonal = tl.load(a + entry, mask=inside, other=0.0)
    gain, spread = pixel_gains(diagonal, scalar(level, 3, inv_eta2), scalar(level, 0, lam), scalar(level, 4, noise_lam))
    data = tl.load(b + measurement * n + begin + here, mask=inside, other=0.0)
    for row in range(measurement * each + part * CHAIN_TILE, measurement * each + tl.minimum(each, (part + 1) * CHAIN_TILE)):
        at = row * n + begin + here
        right = tl.fma(tl.load(x + at, mask=inside, other=0.0), scalar(level, 1, lin), data)
        m = tl.fma(tl.load(grad + at, mask=inside, other=0.0), -scalar(level, 2, w), right) * gain
        tl.store(mean + at, m, mask=inside)
        if NOISE == 3:
            m = tl.fma(tl.load(xi + at, mask=inside, other=0.0), spread, m)
        elif NOISE > 0:
            m = tl.fma(step_noise(quads, id_at(ids, row), key0, key1, step, NOISE == 2), spread, m)
        tl.store(after + at, m, mask=inside)


def langevin_pixel(
    x: Tensor, grad: Tensor, b: Tensor, a: Tensor, ids: Tensor, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """On Triton; arguments and results of `ops.langevin_pixel.langevin_pixel_reference`."""
    if x.dtype != torch.float32:
        return NotImplemented
    after, mean = torch.empty_like(x), torch.empty_like(x)
    n, each = x[0].numel() if len(x) else 0, len(x) // len(b)
    if n == 0:
        return after, mean
    ids, noise, xi = as_drawn(x, ids, noise, xi)
    groups = len(b) * triton.cdiv(each, CHAIN_TILE)
    launch(langevin_pixel_kernel, (groups * triton.cdiv(n, 4 * QUADS),), WARPS, x=x, grad=grad, b=b, a=a,
           xi=xi, ids=ids, after=after, mean=mean, level=level, each=each, n=n,
           lam=lam, lin=lin, w=w, inv_eta2=inv_eta2, noise_lam=noise_lam,
           key0=word(seed), key1=word(seed >> 32), step=word(step), A_EACH=int(len(a) > 1),
           A_SHARED=x.shape[3] // a.shape[3], NOISE=noise, WHOLE=n % 4 == 0, QUADS=QUADS, CHAIN_TILE=CHAIN_TILE)
    return after, mean
