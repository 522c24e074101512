"""ridge_grad: value and gradient of a ridge energy; contract in alps_fast/ops/ridge_grad.py.

Down the pyramid one small kernel a scale; up again one kernel a scale that filters a tile and its halo, applies the
potential, filters back and adds the gradient of the coarser scale. Both filterings are matrix products on tensor cores over
(positions, taps, filters): z = patches Wᵀ, then (z slope) W, whose columns are shifted by their taps and summed. Responses
never leave the chip. A tile's value is summed in one fixed order, and so are the tiles of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alps_fast.ops._pack_once import packed_once
from alps_fast.ops.ridge_grad import stacked

from .launch import EXACT_PRODUCTS, kernel, launch
from .sum_of_tiles import sum_of_tiles

POSITIONS_Y, POSITIONS_X = 16, 16  # of a tile with its halo: (16 − 2r)² gradients
GROUP = 16  # filters at a time
TAPS = 16 if triton.__version__ < "3.8" else 8  # at a time; before 3.8 a product has 16 terms at least
WARPS = {1: 16, 2: 8}  # by channels: what needs no spills; 25 and 12.5 % occupancy


@triton.jit
def down_axis(tap):
    """Weight of tap 0 … 3 of (1 3 3 1)/8 · √2, zero elsewhere."""
    outer = (tap == 0) | (tap == 3)
    inner = (tap == 1) | (tap == 2)
    return tl.where(outer, 0.125, tl.where(inner, 0.375, 0.0))


@triton.jit
def pixels(base, i, j, height, width, stride, mu):
    """x − mu at (i, j), zero outside the image."""
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    value = tl.load(base + (i * width + j) * stride, mask=inside, other=0.0)
    return tl.where(inside, value - mu, 0.0)


@triton.jit
def transposed_down(coarse, i, j, height, width):
    """(Dᵀ coarse) at (i, j); height and width are those of coarse."""
    total = tl.zeros_like(i + j).to(tl.float32)
    for a in tl.static_range(2):
        y = (i + 1) // 2 - a
        for b in tl.static_range(2):
            x = (j + 1) // 2 - b
            weight = 2.0 * down_axis(i + 1 - 2 * y) * down_axis(j + 1 - 2 * x)
            inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
            total += weight * tl.load(coarse + y * width + x, mask=inside, other=0.0)
    return total


@triton.jit
def responses(x, bank, k, i, j, height, width, stride, mu, FILTERS: tl.constexpr, SIDE: tl.constexpr, P: tl.constexpr,
              K: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr):
    """Filters k at the P positions (i, j). The loops are not pipelined: buffers of patches would not fit the registers."""
    z = tl.zeros((P, K), tl.float32)
    for first in tl.range(0, SIDE * SIDE, TAPS, num_stages=1):
        tap = first + tl.arange(0, TAPS)
        known = (tap[:, None] < SIDE * SIDE) & (k[None, :] < FILTERS)
        weights = tl.load(bank + k[None, :] * (SIDE * SIDE) + tap[:, None], mask=known, other=0.0)
        y, xx = i[:, None] + tap[None, :] // SIDE - SIDE // 2, j[:, None] + tap[None, :] % SIDE - SIDE // 2
        z = tl.dot(pixels(x, y, xx, height, width, stride, mu), weights, z, input_precision=PRECISION)
    return z


@triton.jit
def transposed(z, bank, k, place, total, FILTERS: tl.constexpr, SIDE: tl.constexpr, X: tl.constexpr, P: tl.constexpr,
               TAPS: tl.constexpr, PRECISION: tl.constexpr):
    """total + Σ_k W_kᵀ z_k where all of the filter lies in the tile, rows of X positions."""
    for first in tl.range(0, SIDE * SIDE, TAPS, num_stages=1):
        tap = first + tl.arange(0, TAPS)
        known = (tap[None, :] < SIDE * SIDE) & (k[:, None] < FILTERS)
        weights = tl.load(bank + k[:, None] * (SIDE * SIDE) + tap[None, :], mask=known, other=0.0)
        source = place[:, None] - (tap[None, :] // SIDE - SIDE // 2) * X - (tap[None, :] % SIDE - SIDE // 2)
        source = tl.minimum(tl.maximum(source, 0), P - 1)  # wrong only where the tile does not own the gradient
        total += tl.sum(tl.gather(tl.dot(z, weights, input_precision=PRECISION), source, 0), 1)
    return total


@triton.jit
def plane(base, image, channel, groups, row_stride, group_stride, channel_stride):
    """Where the plane of an image's channel begins: images are groups of channels of the rows of a state."""
    row = (image // groups).to(tl.int64)
    return base + row * row_stride + image % groups * group_stride + channel * channel_stride


@triton.jit
def down(source, i, j, height, width, stride, mu):
    """(D (x − mu)) at (i, j); height and width are those of x."""
    total = tl.zeros_like(i + j).to(tl.float32)
    for a in tl.static_range(4):
        for b in tl.static_range(4):
            weight = 2.0 * (0.375 if a == 1 or a == 2 else 0.125) * (0.375 if b == 1 or b == 2 else 0.125)
            total += weight * pixels(source, 2 * i + a - 1, 2 * j + b - 1, height, width, stride, mu)
    return total


@kernel
def ridge_down_kernel(x, mu, out, height: tl.int32, width: tl.int32, row_stride: tl.int64, group_stride: tl.int64,
                      channel_stride: tl.int64, pixel_stride: tl.int32, groups: tl.int32, C: tl.constexpr, TILE: tl.constexpr):
    h, w = (height + 1) // 2, (width + 1) // 2
    tiles = tl.cdiv(h * w, TILE)
    pid = tl.program_id(0)
    flat = pid // tiles
    here = pid % tiles * TILE + tl.arange(0, TILE)
    source = plane(x, flat // C, flat % C, groups, row_stride, group_stride, channel_stride)
    value = down(source, here // w, here % w, height, width, pixel_stride, tl.load(mu))
    tl.store(out + flat.to(tl.int64) * (h * w) + here, value, mask=here < h * w)


@triton.jit
def ridge_tile(
    tile, x0, x1, offset, bank, weights, r, quadratic, coarse, count, image, images, height, width, stride, coarse_height,
    coarse_width, WANT_VALUE: tl.constexpr, FILTERS: tl.constexpr, SIDE: tl.constexpr, POTENTIALS: tl.constexpr,
    WEIGHTS_EACH: tl.constexpr, R_EACH: tl.constexpr, C: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, K: tl.constexpr,
    TAPS: tl.constexpr, PRECISION: tl.constexpr,
):
    """Gradients of one or two channels at the positions of a tile of a scale, their energy, where they lie, which are the tile's.

    x0, x1: planes of C channels, x1 that of x0 where C is 1. count: FILTERS, or 0 where the scale has none. coarse: the coarser
    gradient, channel after channel; its sizes are 0 where there is none. K filters at a time, whose responses fit.
    """
    R: tl.constexpr = SIDE // 2
    INNER_Y: tl.constexpr = Y - 2 * R
    INNER_X: tl.constexpr = X - 2 * R
    P: tl.constexpr = Y * X
    tiles_x = tl.cdiv(width, INNER_X)
    place = tl.arange(0, P)
    ty, tx = place // X, place % X
    i, j = tile // tiles_x * INNER_Y - R + ty, tile % tiles_x * INNER_X - R + tx
    inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
    own = inside & (ty >= R) & (ty < Y - R) & (tx >= R) & (tx < X - R)
    v0 = pixels(x0, i, j, height, width, stride, offset)
    energy = 0.5 * quadratic * v0 * v0
    g0 = quadratic * v0 + transposed_down(coarse, i, j, coarse_height, coarse_width)
    g1 = g0
    if C == 2:
        v1 = pixels(x1, i, j, height, width, stride, offset)
        energy += 0.5 * quadratic * v1 * v1
        g1 = quadratic * v1 + transposed_down(coarse + coarse_height * coarse_width, i, j, coarse_height, coarse_width)
    for group in range(0, count, K):
        k = group + tl.arange(0, K)
        z0 = responses(x0, bank, k, i, j, height, width, stride, offset, FILTERS, SIDE, P, K, TAPS, PRECISION)
        square = z0 * z0
        z1 = z0
        if C == 2:
            z1 = responses(x1, bank, k, i, j, height, width, stride, offset, FILTERS, SIDE, P, K, TAPS, PRECISION)
            square += z1 * z1
        slope = tl.zeros((P, K), tl.float32)
        for p in tl.static_range(POTENTIALS):
            row = weights + (p * images + image if WEIGHTS_EACH else p) * FILTERS
            wk = tl.load(row + k, mask=k < FILTERS, other=0.0)[None, :]
            rk = tl.load(r + (p * images + image if R_EACH else p) * FILTERS + k, mask=k < FILTERS, other=1.0)[None, :]
            u = 1.0 + square * rk
            slope += wk / u
            if WANT_VALUE:
                energy += tl.sum(0.5 * wk / rk * tl.log(u), 1)
        slope = tl.where(inside[:, None], slope, 0.0)
        g0 = transposed(z0 * slope, bank, k, place, g0, FILTERS, SIDE, X, P, TAPS, PRECISION)
        if C == 2:
            g1 = transposed(z1 * slope, bank, k, place, g1, FILTERS, SIDE, X, P, TAPS, PRECISION)
    return g0, g1, energy, i * width + j, own


@kernel
def ridge_scale_kernel(
    x, mu, bank, weights, r, q, coarse, grad, partial, height: tl.int32, width: tl.int32, row_stride: tl.int64,
    group_stride: tl.int64, channel_stride: tl.int64, pixel_stride: tl.int32, images: tl.int32, first_partial: tl.int32,
    partials: tl.int32, groups: tl.int32, count: tl.int32, coarse_height: tl.int32, coarse_width: tl.int32, FILTERS: tl.constexpr,
    SIDE: tl.constexpr, POTENTIALS: tl.constexpr, WEIGHTS_EACH: tl.constexpr, R_EACH: tl.constexpr, Q_EACH: tl.constexpr,
    C: tl.constexpr, Y: tl.constexpr, X: tl.constexpr, K: tl.constexpr, TAPS: tl.constexpr, PRECISION: tl.constexpr,
):
    """A tile of a scale of an image; `ridge_tile` says what it takes."""
    tiles = tl.cdiv(height, Y - SIDE + 1) * tl.cdiv(width, X - SIDE + 1)
    pid = tl.program_id(0)
    image, tile = pid // tiles, pid % tiles
    x0 = plane(x, image, 0, groups, row_stride, group_stride, channel_stride)
    below = coarse + (image * C).to(tl.int64) * (coarse_height * coarse_width)
    g0, g1, energy, here, own = ridge_tile(
        tile, x0, x0 + (C - 1) * channel_stride, tl.load(mu), bank, weights, r, tl.load(q + image * Q_EACH), below, count, image,
        images, height, width, pixel_stride, coarse_height, coarse_width, partial is not None, FILTERS, SIDE, POTENTIALS,
        WEIGHTS_EACH, R_EACH, C, Y, X, K, TAPS, PRECISION)
    out = plane(grad, image, 0, groups, row_stride, group_stride, channel_stride) + here * pixel_stride
    tl.store(out, g0, mask=own)
    if C == 2:
        tl.store(out + channel_stride, g1, mask=own)
    if partial is not None:
        tl.store(partial + image.to(tl.int64) * partials + first_partial + tile, tl.sum(tl.where(own, energy, 0.0), 0))


class Layout:
    """Where the planes of images lie: (N, C, H, W), or groups of C channels of a channels-last state."""

    def __init__(self, rows: int, groups: int, channels: int, height: int, width: int, last: bool):
        self.groups, self.channels, self.images, plane = groups, channels, rows * groups, height * width
        self.row, self.group = plane * groups * channels, channels if last else plane * channels
        self.channel, self.pixel = (1, groups * channels) if last else (plane, 1)

    def arguments(self) -> dict[str, int]:
        return {"row_stride": self.row, "group_stride": self.group, "channel_stride": self.channel, "pixel_stride": self.pixel,
                "C": self.channels, "groups": self.groups}


def fits(x: Tensor, filters: Sequence[Tensor], channels: int) -> bool:
    """Whether the kernels take it: float32, one or two channels, filters that leave most of a tile to gradients."""
    return x.dtype == torch.float32 and channels in (1, 2) and x.numel() > 0 and all(f.shape[-1] <= 9 for f in filters)


def sizes_of(height: int, width: int, levels: int) -> list[tuple[int, int]]:
    """Height and width of every scale of the pyramid."""
    return [(triton.cdiv(height, 1 << s), triton.cdiv(width, 1 << s)) for s in range(levels)]


def constants_of(bank: Tensor, weights: Tensor, r: Tensor, q: Tensor) -> dict[str, Any]:
    """What a kernel with `ridge_tile` is compiled for; bank: the stacked filters."""
    return {"FILTERS": bank.shape[1], "SIDE": bank.shape[-1], "POTENTIALS": weights.shape[1],
            "WEIGHTS_EACH": int(weights.shape[2] > 1), "R_EACH": int(r.shape[2] > 1), "Q_EACH": int(q.shape[1] > 1),
            "Y": POSITIONS_Y, "X": POSITIONS_X, "K": GROUP, "TAPS": TAPS, "PRECISION": EXACT_PRODUCTS}


def run(x: Tensor, layout: Layout, height: int, width: int, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor,
        mu: Tensor, grad: Tensor, value: Tensor | None) -> None:
    """∇E of the images of x into grad, which has the layout of x, and E into value."""
    images, c = layout.images, layout.channels
    sizes = sizes_of(height, width, len(q))
    levels, layouts, zero = [x], [layout], torch.zeros_like(mu)
    for s, (h, ww) in enumerate(sizes[1:]):
        tall, wide = sizes[s]
        levels.append(x.new_empty(images, c, h, ww))
        layouts.append(Layout(images, 1, c, h, ww, False))
        launch(ridge_down_kernel, (images * c * triton.cdiv(h * ww, 256),), 4, x=levels[s], mu=zero if s else mu,
               out=levels[s + 1], height=tall, width=wide, TILE=256, **layouts[s].arguments())
    bank = packed_once(stacked, filters)
    side = bank.shape[-1]
    tiles = [triton.cdiv(h, POSITIONS_Y - side + 1) * triton.cdiv(ww, POSITIONS_X - side + 1) for h, ww in sizes]
    partial = None if value is None else x.new_empty(images, sum(tiles))
    coarse, coarse_size = x, (0, 0)
    shared = constants_of(bank, weights, r, q)
    weights, r, q = weights.contiguous(), r.contiguous(), q.contiguous()
    for s in reversed(range(len(q))):
        here, of = grad if s == 0 else torch.empty_like(levels[s]), min(s, len(filters) - 1)
        launch(ridge_scale_kernel, (images * tiles[s],), WARPS[c], x=levels[s], mu=zero if s else mu, bank=bank[of],
               weights=weights[of], r=r[of], q=q[s], coarse=coarse, grad=here, partial=partial, height=sizes[s][0],
               width=sizes[s][1], images=images, first_partial=sum(tiles[:s]), partials=sum(tiles),
               count=bank.shape[1] if s < len(filters) else 0, coarse_height=coarse_size[0], coarse_width=coarse_size[1],
               **shared, **layouts[s].arguments())
        coarse, coarse_size = here, sizes[s]
    if partial is not None and value is not None:
        sum_of_tiles(partial, value)


def ridge_grad(x: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
               want_value: bool = True) -> tuple[Tensor, Tensor]:
    """On Triton; arguments and results of `ops.ridge_grad.ridge_grad_reference`."""
    n, c, height, width = x.shape
    if not fits(x, filters, c):
        return NotImplemented
    x = x.contiguous()
    grad, value = torch.empty_like(x), torch.empty_like(x[:n if want_value else 0, 0, 0, 0])
    run(x, Layout(n, 1, c, height, width, False), height, width, filters, weights, r, q, mu, grad, value if want_value else None)
    return grad, value
