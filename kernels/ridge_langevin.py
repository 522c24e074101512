"""ridge_langevin: `count` Langevin steps of a ridge energy; contract in alps_fast/ops/ridge_langevin.py.

One launch a call: a block takes an image of a chain through all steps, scale by scale and tile by tile, with the tiles of
ridge_grad and the arithmetic of langevin_pixel. The image, its pyramid and the gradients of all scales lie in memory that this
block alone uses, and which the L2 cache holds; a barrier parts what some of its threads store from what others load.

Images of more than `ALONE` pixels are worked off by many blocks each: the kernels of ridge_grad, which read and write the
channels-last state as it lies, and that of langevin_pixel in turn, two launches a scale and step. The bits are the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from alps_fast.ops._pack_once import packed_once
from alps_fast.ops._step import as_drawn
from alps_fast.ops.ridge_grad import stacked

from .langevin_pixel import langevin_pixel, pixel_gains, scalar
from .launch import kernel, launch, word
from .philox import id_at, step_noise, step_pairs
from .ridge_grad import WARPS, Layout, constants_of, down, fits, ridge_tile, run, sizes_of

ALONE = 128 * 128  # pixels: 240 tiles a step. By the image alone, never by the number of chains
POINTS = 32  # pixels a warp that are stepped, or shrunk, at a time


@triton.jit
def numbers_drawn(first, e, chain, key0, key1, step, C: tl.constexpr, CHANNELS: tl.constexpr, AVERAGED: tl.constexpr,
                  POINTS: tl.constexpr):
    """ξ of numbers e, and of e + 1 where C is 2, of a chain's image; POINTS consecutive ones from `first` where CHANNELS is 1."""
    if CHANNELS == 1:
        xi0 = step_noise((first // 4 + tl.arange(0, POINTS // 4)).to(tl.uint32), chain, key0, key1, step, AVERAGED)
        xi1 = xi0
    else:
        xi0, xi1 = step_pairs((e // 2).to(tl.uint32), chain, key0, key1, step, AVERAGED)
        if C == 1:
            xi0 = tl.where(e % 2 == 1, xi1, xi0)
    return xi0, xi1


@kernel
def ridge_langevin_kernel(
    x, b, a, xi, ids, bank, weights, r, q, mu, scratch, after, mean, level, height: tl.int32, width: tl.int32,
    rows: tl.int32, each: tl.int32, levels: tl.int32, scales: tl.int32, pyramid: tl.int32, count: tl.int32, lam: tl.float32,
    lin: tl.float32, w: tl.float32, inv_eta2: tl.float32, noise_lam: tl.float32, key0: tl.int32, key1: tl.int32, step: tl.int32,
    A_EACH: tl.constexpr, A_SHARED: tl.constexpr, NOISE: tl.constexpr, C: tl.constexpr, GROUPS: tl.constexpr,
    FILTERS: tl.constexpr, SIDE: tl.constexpr, POTENTIALS: tl.constexpr, WEIGHTS_EACH: tl.constexpr, R_EACH: tl.constexpr,
    Q_EACH: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, K: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr,
    POINTS: tl.constexpr,
):
    """pyramid: numbers of the image and all that is made of it; in `scratch` the gradients follow, in the same places."""
    CHANNELS: tl.constexpr = C * GROUPS
    image = tl.program_id(0)
    row, images = image // GROUPS, rows * GROUPS
    numbers = (height * width * CHANNELS).to(tl.int64)
    measurement = row // each
    scratch += image.to(tl.int64) * 2 * pyramid
    here = tl.arange(0, POINTS)
    for first in range(0, height * width, POINTS):
        for c in tl.static_range(C):
            value = tl.load(x + row * numbers + (first + here) * CHANNELS + image % GROUPS * C + c,
                            mask=first + here < height * width, other=0.0)
            tl.store(scratch + (c * height * width + first + here), value, mask=first + here < height * width)
    tl.debug_barrier()

    for k in range(count):
        at = 0
        for s in range(1, levels):
            h, wide = (height + (1 << s) - 1) >> s, (width + (1 << s) - 1) >> s
            finer_h, finer_w = (height + (1 << (s - 1)) - 1) >> (s - 1), (width + (1 << (s - 1)) - 1) >> (s - 1)
            below = at + C * finer_h * finer_w
            for c in tl.static_range(C):
                for first in range(0, h * wide, POINTS):
                    value = down(scratch + at + c * finer_h * finer_w, (first + here) // wide, (first + here) % wide, finer_h,
                                 finer_w, 1, tl.where(s == 1, tl.load(mu), 0.0))
                    tl.store(scratch + (below + c * h * wide + first + here), value, mask=first + here < h * wide)
            at = below
            tl.debug_barrier()

        at = pyramid
        for up in range(levels):
            s = levels - 1 - up
            h, wide = (height + (1 << s) - 1) >> s, (width + (1 << s) - 1) >> s
            coarse, at = scratch + pyramid + at, at - C * h * wide
            coarse_h, coarse_w = tl.where(up > 0, (h + 1) // 2, 0), tl.where(up > 0, (wide + 1) // 2, 0)
            of = tl.minimum(s, scales - 1)
            quadratic = tl.load(q + s * (images if Q_EACH else 1) + image * Q_EACH)
            # what could be hoisted would stay in registers through all of the loop, and spill
            for tile in tl.range(0, tl.cdiv(h, Y - SIDE + 1) * tl.cdiv(wide, X - SIDE + 1), disable_licm=True):
                g0, g1, _, place, own = ridge_tile(
                    tile, scratch + at, scratch + at + (C - 1) * h * wide, tl.where(s == 0, tl.load(mu), 0.0),
                    bank + of * FILTERS * SIDE * SIDE, weights + of * POTENTIALS * (images if WEIGHTS_EACH else 1) * FILTERS,
                    r + of * POTENTIALS * (images if R_EACH else 1) * FILTERS, quadratic, coarse,
                    tl.where(s < scales, FILTERS, 0), image, images, h, wide, 1, coarse_h, coarse_w, False, FILTERS, SIDE,
                    POTENTIALS, WEIGHTS_EACH, R_EACH, C, Y, X, K, TAPS, PRECISION)
                tl.store(scratch + (pyramid + at + place), g0, mask=own)
                if C == 2:
                    tl.store(scratch + (pyramid + at + h * wide + place), g1, mask=own)
            tl.debug_barrier()

        for first in range(0, height * width, POINTS):
            inside = first + here < height * width
            e = (first + here) * CHANNELS + image % GROUPS * C
            if NOISE == 1 or NOISE == 2:
                xi0, xi1 = numbers_drawn(first, e, id_at(ids, row), key0, key1, step.to(tl.uint32) + k, C, CHANNELS,
                                         NOISE == 2, POINTS)
            for c in tl.static_range(C):
                state = scratch + (c * height * width + first + here)
                diagonal = tl.load(a + (A_EACH * measurement * numbers + e + c) // A_SHARED, mask=inside, other=0.0)
                gain, spread = pixel_gains(diagonal, scalar(level, 3, inv_eta2), scalar(level, 0, lam),
                                           scalar(level, 4, noise_lam))
                right = tl.fma(tl.load(state, mask=inside, other=0.0), scalar(level, 1, lin),
                               tl.load(b + measurement * numbers + e + c, mask=inside, other=0.0))
                m = tl.fma(tl.load(state + pyramid, mask=inside, other=0.0), -scalar(level, 2, w), right) * gain
                if k + 1 == count:
                    tl.store(mean + row * numbers + e + c, m, mask=inside)
                if NOISE == 3:
                    drawn = tl.load(xi + (k * rows + row) * numbers + e + c, mask=inside, other=0.0)
                    m = tl.fma(drawn, spread, m)
                elif NOISE > 0:
                    m = tl.fma(xi1 if c == 1 else xi0, spread, m)
                tl.store(state, m, mask=inside)
                if k + 1 == count:
                    tl.store(after + row * numbers + e + c, m, mask=inside)
        tl.debug_barrier()


def ridge_langevin(
    x: Tensor, b: Tensor, a: Tensor, ids: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
    channels: int, lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int,
    count: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """On Triton; arguments and results of `ops.ridge_langevin.ridge_langevin_reference`."""
    if not fits(x, filters, channels):
        return NotImplemented
    n, height, width, c = x.shape
    if height * width > ALONE:
        layout, grad, mean = Layout(n, c // channels, channels, height, width, True), torch.empty_like(x), x
        for k in range(count):
            run(x, layout, height, width, filters, weights, r, q, mu, grad, None)
            x, mean = langevin_pixel(x, grad, b, a, ids, lam, lin, w, inv_eta2, noise_lam, noise, seed, step + k,
                                     None if xi is None else xi[k], level)
        return x, mean
    after, mean, images = torch.empty_like(x), torch.empty_like(x), n * c // channels
    bank, (ids, noise, xi) = packed_once(stacked, filters), as_drawn(x, ids, noise, xi)
    pyramid = channels * sum(h * ww for h, ww in sizes_of(height, width, len(q)))
    launch(ridge_langevin_kernel, (images,), WARPS[channels], x=x, b=b, a=a, xi=xi,
           ids=ids, bank=bank, weights=weights.contiguous(), r=r.contiguous(), q=q.contiguous(), mu=mu,
           scratch=x.new_empty(images, 2 * pyramid), after=after, mean=mean, level=level, height=height, width=width, rows=n,
           each=n // len(b),
           levels=len(q), scales=len(filters), pyramid=pyramid, count=count, lam=lam, lin=lin, w=w, inv_eta2=inv_eta2,
           noise_lam=noise_lam, key0=word(seed), key1=word(seed >> 32), step=word(step), A_EACH=int(len(a) > 1),
           A_SHARED=c // a.shape[3], NOISE=noise, C=channels, GROUPS=c // channels,
           POINTS=POINTS * WARPS[channels], **constants_of(bank, weights, r, q))
    return after, mean
