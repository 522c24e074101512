"""conv_grad: ∇E = r − Jᵀr and E = ½‖r‖², r = x − ψ(x), of the compact network; contract in alps_fast/ops/conv_grad.py.

A launch a convolution, forward and then transposed. Each is a matrix product over (positions, taps and channels, channels):
a block takes a tile of positions of one image, reads one tap after another where it lies, multiplies on tensor cores with
float32 sums, and puts on bias, FiLM, activation, mask, residual or the 2×2 shuffle before anything is stored. Planes are
channels last. Of the forward pass c = φ' alone is kept, in bytes where precision is "fast".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from alps_fast.ops._conv_weights import WIDTHS, layers
from alps_fast.ops._pack_once import packed_once
from alps_fast.ops.conv_grad import MULTIPLE

from .launch import EXACT_PRODUCTS, INTERPRETED, kernel, launch
from .sum_of_tiles import sum_of_tiles

POSITIONS = 128  # of a tile
NARROW = 16  # channels of the unshuffled image, padded to what a tensor core takes
DEPTH = {"fast": 64, "high": 32}  # channels multiplied at a time at most
WARPS = 4


@triton.jit
def multiplied(a, b, total, PRECISION: tl.constexpr):
    """total + a b with float32 sums."""
    if PRECISION == "bf16":
        total = tl.dot(a, b, total)
    else:
        total = tl.dot(a.to(tl.float32), b.to(tl.float32), total, input_precision=PRECISION)
    return total


@triton.jit
def in_image(y, x, channel, height, width, CHANNELS: tl.constexpr):
    """Where channel (c, a, b) of the unshuffled image at (y, x) lies in the image, and whether it does, not in its padding."""
    y, x = 2 * y + channel // 2 % 2, 2 * x + channel % 2
    inside = (channel < 4 * CHANNELS) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return (channel // 4 * height + y) * width + x, inside


@kernel
def conv_kernel(
    source, weights, bias, residual, kept, scale, shift, coefficients, image, out, partial, h: tl.int32, w: tl.int32,
    height: tl.int32, width: tl.int32, inward: tl.int32, outward: tl.int32, levels: tl.int32, FROM: tl.constexpr,
    TO: tl.constexpr, TAPS: tl.constexpr, K: tl.constexpr, N: tl.constexpr, CHANNELS: tl.constexpr, FILM_EACH: tl.constexpr,
    EDM_EACH: tl.constexpr, PRECISION: tl.constexpr, POSITIONS: tl.constexpr, DEPTH: tl.constexpr,
):
    """A tile of one layer.

    FROM: "plane", "gathered" (2×2 positions of a finer plane to one) or "image" (unshuffled, times row `inward` of the
    coefficients). TO: "film" and "mask" (the two of a residual block), "add", "spread" (the same on a finer plane) or "image"
    (v − skip v − sum times row `outward` of the coefficients). h, w: the positions that are multiplied.
    """
    PARTS: tl.constexpr = 4 if TO == "spread" else 1
    pid = tl.program_id(0)
    part = pid % PARTS
    tiles = tl.cdiv(h * w, POSITIONS)
    n, tile = pid // PARTS // tiles, pid // PARTS % tiles
    flat = n.to(tl.int64)
    place = tile * POSITIONS + tl.arange(0, POSITIONS)
    known = place < h * w
    i, j = place // w, place % w
    k, o = tl.arange(0, DEPTH), tl.arange(0, N)
    if FROM == "image":
        source += flat * CHANNELS * height * width
        factor = tl.load(coefficients + inward * levels + n * EDM_EACH)
    elif FROM == "gathered":
        source += flat * (4 * h * w * K)
    else:
        source += flat * (h * w * K)

    total = tl.zeros((POSITIONS, N), tl.float32)
    for chunk in range(TAPS * K // DEPTH):
        tap, first = chunk // (K // DEPTH), chunk % (K // DEPTH) * DEPTH
        b = tl.load(weights + ((part * TAPS * K + chunk * DEPTH + k)[:, None] * N + o[None, :]))
        if FROM == "gathered":
            y, x = 2 * i + tap // 2, 2 * j + tap % 2
            a = tl.load(source + (y * (2 * w) + x)[:, None] * K + (first + k)[None, :], mask=known[:, None], other=0.0)
        elif TAPS == 1:
            a = tl.load(source + place[:, None] * K + (first + k)[None, :], mask=known[:, None], other=0.0)
        else:
            y, x = i + tap // 3 - 1, j + tap % 3 - 1
            if FROM == "image":
                at, inside = in_image(y[:, None], x[:, None], k[None, :], height, width, CHANNELS)
                a = (tl.load(source + at, mask=inside, other=0.0) * factor).to(b.dtype)
            else:
                inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
                a = tl.load(source + (y * w + x)[:, None] * K + (first + k)[None, :], mask=inside[:, None], other=0.0)
        total = multiplied(a, b, total, PRECISION)

    if TO == "image":
        total += tl.load(bias + o)[None, :]
        at, inside = in_image(i[:, None], j[:, None], o[None, :], height, width, CHANNELS)
        at, inside = flat * CHANNELS * height * width + at, inside & known[:, None]
        value = tl.load(image + at, mask=inside, other=0.0)
        skip = tl.load(coefficients + n * EDM_EACH)
        value -= skip * value + tl.load(coefficients + outward * levels + n * EDM_EACH) * total
        tl.store(out + at, value, mask=inside)
        if partial is not None:
            value = tl.where(inside, value, 0.0)
            tl.store(partial + pid, 0.5 * tl.sum(value * value))
    else:
        if TO == "spread":
            y, x = 2 * i + part // 2, 2 * j + part % 2
            at = (flat * (4 * h * w) + y * (2 * w) + x)[:, None] * N + o[None, :]
        else:
            at = (flat * (h * w) + place)[:, None] * N + o[None, :]
        if TO == "film":
            z = total * tl.load(scale + n * FILM_EACH * N + o)[None, :] + tl.load(shift + n * FILM_EACH * N + o)[None, :]
            c = tl.minimum(tl.maximum(z * (1 / 6) + 0.5, 0.0), 1.0)
            total = 3.0 * c * c + tl.maximum(z - 3.0, 0.0)
            if kept.dtype.element_ty == tl.uint8:
                c = (c * 255.0 + 0.5).to(tl.int32).to(tl.uint8)
            tl.store(kept + at, c, mask=known[:, None])
        elif TO == "mask":
            c = tl.load(kept + at, mask=known[:, None], other=0).to(tl.float32)
            if kept.dtype.element_ty == tl.uint8:
                c *= 1 / 255
            total *= c * tl.load(scale + n * FILM_EACH * N + o)[None, :]
        else:
            total += tl.load(bias + part * N + o)[None, :]
            if residual is not None:
                total += tl.load(residual + at, mask=known[:, None], other=0.0).to(tl.float32)
        tl.store(out + at, total.to(out.dtype.element_ty), mask=known[:, None])


class Convolution(NamedTuple):
    """One layer as the kernel takes it: weights [part][tap][k][n], biases [part][n], zeros where the layer has none."""

    weights: Tensor
    bias: Tensor
    taps: int
    k: int
    n: int


def pack(weights: Sequence[Tensor], blocks: Sequence[int], dtype: torch.dtype) -> list[Convolution]:
    """Every layer, forward pass then transposed pass, its weights in `dtype`, narrow sides padded with zeros."""
    packed = []
    with torch.no_grad():
        for taps, bias, spread in layers(weights, blocks):
            taps = F.pad(taps, (0, max(0, NARROW - taps.shape[2]), 0, max(0, NARROW - taps.shape[1])))
            parts, (count, k, n) = 4 if spread else 1, taps.shape
            own = taps.new_zeros(parts, n)
            if bias is not None:
                own[:, :len(bias) // parts] = bias.unflatten(0, (-1, parts)).T
            packed.append(Convolution(taps.to(dtype).contiguous(), own, count // parts, k, n))
    return packed


class Network:
    """The launches of one call: the layers in turn, and what all of them take."""

    def __init__(self, x: Tensor, convolutions: Sequence[Convolution], scale: Tensor, shift: Tensor, coefficients: Tensor,
                 precision: str):
        self.order, self.precision, self.device = iter(convolutions), precision, x.device
        self.scale, self.shift, self.coefficients = scale, shift, coefficients
        self.images, self.channels, self.height, self.width = x.shape
        h, w = triton.cdiv(self.height, MULTIPLE) * MULTIPLE // 2, triton.cdiv(self.width, MULTIPLE) * MULTIPLE // 2
        self.sizes = (h, w), (h // 2, w // 2), (h // 4, w // 4)
        self.kept: list[Tensor] = []

    def new(self, scale: int, kept: bool = False) -> Tensor:
        """A plane for every image, of what a layer hands on or of derivatives."""
        fast = torch.uint8 if kept else torch.bfloat16
        return torch.empty(self.images, *self.sizes[scale], self.scale.shape[2], device=self.device,
                           dtype=fast if self.precision == "fast" else torch.float32)

    def tiles(self, scale: int) -> int:
        """Of an image."""
        h, w = self.sizes[scale]
        return triton.cdiv(h * w, POSITIONS)

    def run(self, source: Tensor, scale: int, out: Tensor, start: str = "plane", to: str = "add", film: int = 0,
            kept: Tensor | None = None, residual: Tensor | None = None, image: Tensor | None = None, inward: int = 0,
            outward: int = 0, partial: Tensor | None = None) -> Tensor:
        """The next layer, over the positions of `scale`, into `out`; film: the block whose vectors it takes."""
        layer, (h, w) = next(self.order), self.sizes[scale]
        products = "bf16" if self.precision == "fast" and not INTERPRETED else EXACT_PRODUCTS  # none of bf16 is interpreted
        launch(conv_kernel, (self.images * self.tiles(scale) * (4 if to == "spread" else 1),), WARPS,
               source=source, weights=layer.weights, bias=layer.bias, residual=residual, kept=kept, scale=self.scale[film:],
               shift=self.shift[film:], coefficients=self.coefficients, image=image, out=out, partial=partial, h=h, w=w,
               height=self.height, width=self.width, inward=inward, outward=outward, levels=self.coefficients.shape[1],
               FROM=start, TO=to, TAPS=layer.taps, K=layer.k, N=layer.n, CHANNELS=self.channels,
               FILM_EACH=int(self.scale.shape[1] > 1), EDM_EACH=int(self.coefficients.shape[1] > 1), PRECISION=products,
               POSITIONS=POSITIONS, DEPTH=min(layer.k, DEPTH[self.precision]))
        return out

    def forward(self, plane: Tensor, scale: int, blocks: int) -> Tensor:
        """h + W2 φ(a * W1 h + b) + b2; φ' is kept."""
        for _ in range(blocks):
            c, film = self.new(scale, kept=True), len(self.kept)
            active = self.run(plane, scale, self.new(scale), to="film", film=film, kept=c)
            self.kept.append(c)
            plane = self.run(active, scale, self.new(scale), residual=plane)
        return plane

    def backward(self, plane: Tensor, scale: int, blocks: int) -> Tensor:
        """g + W1ᵀ (a φ' * W2ᵀ g)."""
        for _ in range(blocks):
            c = self.kept.pop()
            inner = self.run(plane, scale, self.new(scale), to="mask", film=len(self.kept), kept=c)
            plane = self.run(inner, scale, self.new(scale), residual=plane)
        return plane


def conv_grad(x: Tensor, weights: Sequence[Tensor], scale: Tensor, shift: Tensor, coefficients: Tensor, blocks: Sequence[int],
              precision: str = "high") -> tuple[Tensor, Tensor]:
    """On Triton; arguments and results of `ops.conv_grad.conv_grad_reference`."""
    if x.dtype != torch.float32 or scale.shape[2] not in WIDTHS or 4 * x.shape[1] > NARROW or x.numel() == 0:
        return NotImplemented
    x = x.contiguous()
    packed = packed_once(pack, weights, tuple(blocks), torch.bfloat16 if precision == "fast" else torch.float32)
    net = Network(x, packed, scale.contiguous(), shift.contiguous(), coefficients.contiguous(), precision)
    fine, middle, coarse = blocks
    grad, value = torch.empty_like(x), torch.empty_like(x[:, 0, 0, 0])
    partial = x.new_empty(len(x), net.tiles(0))

    h1 = net.forward(net.run(x, 0, net.new(0), "image", inward=2), 0, fine)
    h2 = net.forward(net.run(h1, 1, net.new(1), "gathered"), 1, middle)
    h = net.forward(net.run(h2, 2, net.new(2), "gathered"), 2, coarse)
    h = net.forward(net.run(h, 2, net.new(1), to="spread", residual=h2), 1, middle)
    h = net.forward(net.run(h, 1, net.new(0), to="spread", residual=h1), 0, fine)
    r = net.run(h, 0, torch.empty_like(x), to="image", image=x, outward=1, partial=partial)
    sum_of_tiles(partial, value)

    g1 = net.backward(net.run(r, 0, net.new(0), "image", inward=1), 0, fine)
    g2 = net.backward(net.run(g1, 1, net.new(1), "gathered"), 1, middle)
    g = net.backward(net.run(g2, 2, net.new(2), "gathered"), 2, coarse)
    g = net.backward(net.run(g, 2, net.new(1), to="spread", residual=g2), 1, middle)
    g = net.backward(net.run(g, 1, net.new(0), to="spread", residual=g1), 0, fine)
    net.run(g, 0, grad, to="image", image=r, outward=2)
    return grad, value
