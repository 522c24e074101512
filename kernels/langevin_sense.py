"""langevin_sense: on each line m = U g Uᴴ r and x⁺ = U (g Uᴴ r + √g' ξ), r = b + lin x − w ∇E; contract in
alps_fast/ops/langevin_sense.py.

A block takes one line and CHAIN_TILE chains: it reads U once for all of them, multiplies by Uᴴ, scales, adds the noise that it
draws for the coefficients, and multiplies by U, m and x⁺ side by side, while U is still in the L2 cache. A complex product is
one real product of the numbers as they lie in memory, real and imaginary parts in turn. r, made once, goes to the first product
and coefficients from it to the second through memory that this block alone uses, so one launch takes lines of any length.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alps_fast.ops._step import as_drawn
from alps_fast.ops.philox_normal import NO_NOISE

from .langevin_pixel import pixel_gains, scalar
from .launch import EXACT_PRODUCTS, kernel, launch, word
from .philox import id_at, step_pairs

CHAIN_TILE = 16  # of a block: 32 columns of numbers, and few chains waste little
OUTPUTS, TERMS = 32, 16  # complex numbers of a line that are summed up at a time, and summed over
WARPS = 8


@triton.jit
def _numbers(begin, stride, top, number):
    """Where numbers of a line from pixel `top` on lie in an image."""
    return (2 * (begin + (top + number // 2) * stride) + number % 2)[None, :]


@triton.jit
def _transposed(c):
    """Complex numbers (N, 2 M) as (M, 2 N)."""
    N: tl.constexpr = c.shape[0]
    M: tl.constexpr = c.shape[1] // 2
    return tl.reshape(tl.permute(tl.reshape(c, (N, M, 2)), (1, 0, 2)), (M, 2 * N))


@triton.jit
def _turned(c):
    """Each row of complex numbers (N, 2 M), and after it i times it: what real and imaginary parts of U meet."""
    N: tl.constexpr = c.shape[0]
    M: tl.constexpr = c.shape[1] // 2
    real, imaginary = tl.split(tl.reshape(c, (N, M, 2)))
    both = tl.join(tl.join(real, imaginary), tl.join(-imaginary, real))
    return tl.reshape(tl.permute(both, (0, 3, 1, 2)), (2 * N, 2 * M))


@kernel
def langevin_sense_kernel(
    x, grad, b, u, eigenvalues, xi, ids, coefficients, after, mean, level, rows: tl.int32, each: tl.int32,
    lines: tl.int32, n: tl.int32, lam: tl.float32, lin: tl.float32, w: tl.float32, inv_eta2: tl.float32, noise_lam: tl.float32,
    key0: tl.int32, key1: tl.int32, step: tl.int32, AXIS: tl.constexpr, NOISE: tl.constexpr, PRECISION: tl.constexpr,
    CHAIN_TILE: tl.constexpr, OUTPUTS: tl.constexpr, TERMS: tl.constexpr,
):
    COLUMNS: tl.constexpr = 2 * CHAIN_TILE
    pid = tl.program_id(0)
    blocks = tl.cdiv(rows, CHAIN_TILE)
    line, first = pid // blocks, pid % blocks * CHAIN_TILE
    begin, stride = (line, lines) if AXIS == 0 else (line * n, 1)  # pixel k of the line is begin + k stride
    u += line.to(tl.int64) * n * n * 2
    eigenvalues += line * n
    column = tl.arange(0, COLUMNS)
    row, part = first + column // 2, column % 2
    there = (row < rows)[None, :]
    numbers = (2 * lines * n).to(tl.int64)
    state = (row * numbers + part)[None, :]
    # as states lie in memory: a chain a row, its pixels side by side
    chain = first + tl.arange(0, CHAIN_TILE)
    of_chain, known_chain = chain[:, None] * numbers, (chain < rows)[:, None]
    number = tl.arange(0, 2 * OUTPUTS)
    size = n * COLUMNS  # coefficients of m; after them come those of x⁺, and r
    coefficients += pid.to(tl.int64) * size * (2 if NOISE == 0 else 3)
    residual = coefficients + size * (1 if NOISE == 0 else 2)

    for top in range(0, n, OUTPUTS):
        at, inside = _numbers(begin, stride, top, number), known_chain & (2 * top + number < 2 * n)[None, :]
        r = tl.fma(tl.load(x + of_chain + at, mask=inside, other=0.0), scalar(level, 1, lin),
                   tl.load(b + chain[:, None] // each * numbers + at, mask=inside, other=0.0))
        r = tl.fma(tl.load(grad + of_chain + at, mask=inside, other=0.0), -scalar(level, 2, w), r)
        k = top + tl.arange(0, OUTPUTS)[:, None]
        tl.store(residual + (k * COLUMNS + column[None, :]), _transposed(r), mask=k < n)

    tl.debug_barrier()  # what some threads stored, others load
    for top in range(0, n, OUTPUTS):
        both = 2 * top + tl.arange(0, 2 * OUTPUTS)
        total = tl.zeros((2 * OUTPUTS, COLUMNS), tl.float32)
        for bottom in range(0, n, TERMS):
            s = bottom + tl.arange(0, TERMS)
            a = tl.load(u + s[None, :] * (2 * n) + both[:, None], mask=(s < n)[None, :] & (both < 2 * n)[:, None], other=0.0)
            r = tl.load(residual + (s[:, None] * COLUMNS + column[None, :]), mask=(s < n)[:, None], other=0.0)
            total = tl.dot(a, r, total, input_precision=PRECISION)
        # the parts of U times those of r
        by_real, by_imaginary = tl.split(tl.reshape(total, (OUTPUTS, 2, CHAIN_TILE, 2)))
        rr, ir = tl.split(tl.permute(by_real, (0, 2, 1)))
        ri, ii = tl.split(tl.permute(by_imaginary, (0, 2, 1)))
        k = top + tl.arange(0, OUTPUTS)
        gain, spread = pixel_gains(tl.load(eigenvalues + k, mask=k < n, other=0.0), scalar(level, 3, inv_eta2),
                                   scalar(level, 0, lam), scalar(level, 4, noise_lam))
        c = tl.reshape(tl.join(rr + ii, ri - ir), (OUTPUTS, COLUMNS)) * gain[:, None]
        to, known = k[:, None] * COLUMNS + column[None, :], (k < n)[:, None]
        tl.store(coefficients + to, c, mask=known)
        if NOISE > 0:
            pixel = (begin + k * stride)[:, None]
            if NOISE == 3:
                drawn = tl.load(xi + state + 2 * pixel, mask=known & there, other=0.0)
            else:
                counted, image = id_at(ids, tl.minimum(chain, rows - 1))
                words = counted[None, :], image[None, :]
                none = tl.zeros((OUTPUTS, CHAIN_TILE), tl.uint32)
                real, imaginary = step_pairs(none + pixel.to(tl.uint32), words, key0, key1, step, NOISE == 2)
                drawn = tl.reshape(tl.join(real, imaginary), (OUTPUTS, COLUMNS))
            tl.store(coefficients + size + to, tl.fma(drawn, spread[:, None], c), mask=known)

    tl.debug_barrier()  # what some threads stored, others load
    for top in range(0, n, OUTPUTS):
        k = (top + tl.arange(0, OUTPUTS))[:, None]
        m = tl.zeros((OUTPUTS, COLUMNS), tl.float32)
        noisy = m
        for bottom in range(0, n, TERMS):
            s = 2 * bottom + tl.arange(0, 2 * TERMS)
            a = tl.load(u + k * (2 * n) + s[None, :], mask=(k < n) & (s < 2 * n)[None, :], other=0.0)
            source = bottom + tl.arange(0, TERMS)[:, None]
            to, inside = source * COLUMNS + column[None, :], source < n
            m = tl.dot(a, _turned(tl.load(coefficients + to, mask=inside, other=0.0)), m, input_precision=PRECISION)
            if NOISE > 0:
                with_noise = _turned(tl.load(coefficients + size + to, mask=inside, other=0.0))
                noisy = tl.dot(a, with_noise, noisy, input_precision=PRECISION)
        to, inside = of_chain + _numbers(begin, stride, top, number), known_chain & (2 * top + number < 2 * n)[None, :]
        tl.store(mean + to, _transposed(m), mask=inside)
        tl.store(after + to, _transposed(noisy if NOISE > 0 else m), mask=inside)


def langevin_sense(
    x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, ids: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """On Triton; arguments and results of `ops.langevin_sense.langevin_sense_reference`."""
    if x.dtype != torch.float32:
        return NotImplemented
    after, mean = torch.empty_like(x), torch.empty_like(x)
    if x.numel() == 0:
        return after, mean
    (lines, n), (ids, noise, xi) = eigenvalues.shape, as_drawn(x, ids, noise, xi)
    blocks = lines * triton.cdiv(len(x), CHAIN_TILE)
    coefficients = torch.empty(blocks, 2 if noise == NO_NOISE else 3, n, 2 * CHAIN_TILE, dtype=x.dtype, device=x.device)
    launch(langevin_sense_kernel, (blocks,), WARPS, x=x, grad=grad, b=b, u=torch.view_as_real(u.resolve_conj()),
           eigenvalues=eigenvalues, xi=xi, ids=ids,
           coefficients=coefficients, after=after, mean=mean, level=level, rows=len(x), each=len(x) // len(b), lines=lines, n=n,
           lam=lam, lin=lin, w=w, inv_eta2=inv_eta2, noise_lam=noise_lam, key0=word(seed), key1=word(seed >> 32),
           step=word(step), AXIS=axis, NOISE=noise, PRECISION=EXACT_PRODUCTS, CHAIN_TILE=CHAIN_TILE, OUTPUTS=OUTPUTS, TERMS=TERMS)
    return after, mean
