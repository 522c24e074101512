"""langevin_sense: on each line m = U g Uᴴ r and x⁺ = U (g Uᴴ r + √g' ξ), r = b + lin x − w ∇E; contract in
alps_fast/ops/langevin_sense.py.

A block takes one line and CHAINS chains: it reads U once for all of them, multiplies by Uᴴ, scales, adds the noise that it
draws for the coefficients, and multiplies by U, m and x⁺ side by side, while U is still in the L2 cache. A complex product is
one real product of the numbers as they lie in memory, real and imaginary parts in turn. Coefficients pass from the first
product to the second through memory that this block alone uses, so one launch takes lines of any length.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alps_fast.ops.philox_normal import NO_NOISE

from .langevin_pixel import GIVEN, pixel_gains
from .launch import EXACT_PRODUCTS, kernel, launch, word
from .philox import step_pairs

CHAINS = 16  # of a block: 32 columns of numbers, and few chains waste little
OUTPUTS, TERMS = 32, 16  # complex numbers of a line that are summed up at a time, and summed over
WARPS = 8


@kernel
def langevin_sense_kernel(
    x, grad, b, u, eigenvalues, xi, chains, coefficients, after, mean, rows: tl.int32, each: tl.int32, lines: tl.int32,
    n: tl.int32, lam: tl.float32, lin: tl.float32, w: tl.float32, inv_eta2: tl.float32, noise_lam: tl.float32, key0: tl.int32,
    key1: tl.int32, step: tl.int32, AXIS: tl.constexpr, NOISE: tl.constexpr, PRECISION: tl.constexpr, CHAINS: tl.constexpr,
    OUTPUTS: tl.constexpr, TERMS: tl.constexpr,
):
    COLUMNS: tl.constexpr = 2 * CHAINS
    pid = tl.program_id(0)
    blocks = tl.cdiv(rows, CHAINS)
    line, first = pid // blocks, pid % blocks * CHAINS
    begin, stride = (line, lines) if AXIS == 0 else (line * n, 1)  # pixel k of the line is begin + k stride
    u += line.to(tl.int64) * n * n * 2
    eigenvalues += line * n
    column = tl.arange(0, COLUMNS)
    row, part = first + column // 2, column % 2
    there = (row < rows)[None, :]
    numbers = (2 * lines * n).to(tl.int64)
    state, data = (row * numbers + part)[None, :], (row // each * numbers + part)[None, :]
    size = n * COLUMNS  # coefficients of m; after them come those of x⁺
    coefficients += pid.to(tl.int64) * size * (1 if NOISE == 0 else 2)

    for top in range(0, n, OUTPUTS):
        both = 2 * top + tl.arange(0, 2 * OUTPUTS)
        total = tl.zeros((2 * OUTPUTS, COLUMNS), tl.float32)
        for bottom in range(0, n, TERMS):
            s = (bottom + tl.arange(0, TERMS))[:, None]
            a = tl.load(u + s * (2 * n) + both[None, :], mask=(s < n) & (both < 2 * n)[None, :], other=0.0)
            at, inside = 2 * (begin + s * stride), (s < n) & there
            r = tl.fma(tl.load(x + state + at, mask=inside, other=0.0), lin, tl.load(b + data + at, mask=inside, other=0.0))
            r = tl.fma(tl.load(grad + state + at, mask=inside, other=0.0), -w, r)
            total = tl.dot(tl.trans(a), r, total, input_precision=PRECISION)
        # the parts of U times those of r
        by_real, by_imaginary = tl.split(tl.reshape(total, (OUTPUTS, 2, CHAINS, 2)))
        rr, ir = tl.split(tl.permute(by_real, (0, 2, 1)))
        ri, ii = tl.split(tl.permute(by_imaginary, (0, 2, 1)))
        k = top + tl.arange(0, OUTPUTS)
        gain, spread = pixel_gains(tl.load(eigenvalues + k, mask=k < n, other=0.0), inv_eta2, lam, noise_lam)
        c = tl.reshape(tl.join(rr + ii, ri - ir), (OUTPUTS, COLUMNS)) * gain[:, None]
        to, known = k[:, None] * COLUMNS + column[None, :], (k < n)[:, None]
        tl.store(coefficients + to, c, mask=known)
        if NOISE > 0:
            pixel = (begin + k * stride)[:, None]
            if NOISE == 3:
                drawn = tl.load(xi + state + 2 * pixel, mask=known & there, other=0.0)
            else:
                chain = first + tl.arange(0, CHAINS)
                chain = tl.load(chains + chain, mask=chain < rows, other=0)[None, :]
                none = tl.zeros((OUTPUTS, CHAINS), tl.uint32)
                real, imaginary = step_pairs(none + pixel.to(tl.uint32), chain, key0, key1, step, NOISE == 2)
                drawn = tl.reshape(tl.join(real, imaginary), (OUTPUTS, COLUMNS))
            tl.store(coefficients + size + to, tl.fma(drawn, spread[:, None], c), mask=known)

    tl.debug_barrier()  # what some threads stored, others load
    for top in range(0, n, OUTPUTS):
        k = (top + tl.arange(0, OUTPUTS))[:, None]
        m = tl.zeros((OUTPUTS, COLUMNS), tl.float32)
        noisy = m
        for bottom in range(0, 2 * n, 2 * TERMS):
            s = bottom + tl.arange(0, 2 * TERMS)
            a = tl.load(u + k * (2 * n) + s[None, :], mask=(k < n) & (s < 2 * n)[None, :], other=0.0)
            side = (s % 2)[:, None]  # imaginary parts of U meet the other part of a coefficient: i (c + i d) = −d + i c
            sign = tl.where((side == 1) & (part == 0)[None, :], -1.0, 1.0)
            source = coefficients + ((s // 2)[:, None] * COLUMNS + (column[None, :] ^ side))
            inside = (s < 2 * n)[:, None] & there
            m = tl.dot(a, sign * tl.load(source, mask=inside, other=0.0), m, input_precision=PRECISION)
            if NOISE > 0:
                noisy = tl.dot(a, sign * tl.load(source + size, mask=inside, other=0.0), noisy, input_precision=PRECISION)
        to, inside = state + 2 * (begin + k * stride), (k < n) & there
        tl.store(mean + to, m, mask=inside)
        tl.store(after + to, noisy if NOISE > 0 else m, mask=inside)


def langevin_sense(
    x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, chains: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """On Triton; arguments and results of `ops.langevin_sense.langevin_sense_reference`."""
    if x.dtype != torch.float32:
        return NotImplemented
    after, mean = torch.empty_like(x), torch.empty_like(x)
    if x.numel() == 0:
        return after, mean
    given, (lines, n) = xi is not None and noise != NO_NOISE, eigenvalues.shape
    blocks = lines * triton.cdiv(len(x), CHAINS)
    coefficients = torch.empty(blocks, 1 if noise == NO_NOISE else 2, n, 2 * CHAINS, device=x.device)
    launch(langevin_sense_kernel, (blocks,), WARPS, x=x, grad=grad, b=b, u=torch.view_as_real(u.resolve_conj()),
           eigenvalues=eigenvalues, xi=xi.to(x.dtype).contiguous() if given else None, chains=chains.contiguous(),
           coefficients=coefficients, after=after, mean=mean, rows=len(x), each=len(x) // len(b), lines=lines, n=n, lam=lam,
           lin=lin, w=w, inv_eta2=inv_eta2, noise_lam=noise_lam, key0=word(seed), key1=word(seed >> 32), step=word(step),
           AXIS=axis, NOISE=GIVEN if given else noise, PRECISION=EXACT_PRODUCTS, CHAINS=CHAINS, OUTPUTS=OUTPUTS, TERMS=TERMS)
    return after, mean
