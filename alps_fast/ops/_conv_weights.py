"""The weights of `conv_grad` as kernels read them: one convolution [tap][k][n] after another, in the order of use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = 32  # output channels of a block of the CPU kernel, see csrc/cpu/conv_block.h
WIDTHS = (32, 64)  # networks the kernels are compiled for
LAYOUTS = {"single": 16, "pairs": 16, "tiles": 32}  # of the CPU kernel's paths: the channels of an unshuffled image, with zeros


class Packed(NamedTuple):
    """What the CPU kernel takes: weights of both passes, in one of LAYOUTS, and the biases of the forward pass."""

    weights: Tensor
    biases: Tensor


def _taps(weight: Tensor) -> Tensor:
    """(n, k, h, w) -> (h w, k, n)."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1)


def _transposed_taps(weight: Tensor) -> Tensor:
    """The adjoint of a padded correlation: flipped, input and output exchanged."""
    return weight.flip(2, 3).permute(2, 3, 0, 1).flatten(0, 1)


def _shuffled(weight: Tensor) -> Tensor:
    """A 1x1 convolution before a 2x2 shuffle, (4 n, k, 1, 1) -> (4, k, n): one matrix a pixel of the four."""
    return weight[:, :, 0, 0].unflatten(0, (-1, 4)).permute(1, 2, 0)


class Layer(NamedTuple):
    """Taps (taps, k, n) and bias of a convolution; `spread`: not taps but the four matrices of a 2x2 shuffle, bias (4 n,)."""

    taps: Tensor
    bias: Tensor | None = None
    spread: bool = False


def layers(weights: Sequence[Tensor], blocks: Sequence[int]) -> Iterator[Layer]:
    """Every convolution, forward pass then transposed pass, in the order of use."""
    fine, middle, coarse = blocks
    count = 2 * fine + 2 * middle + coarse
    body, joints = weights[2:2 + 3 * count], weights[2 + 3 * count:]
    order = iter(range(count))

    def forward(blocks_here: int) -> Iterator[Layer]:
        for _ in range(blocks_here):
            i = next(order)
            yield Layer(_taps(body[3 * i]))
            yield Layer(_taps(body[3 * i + 1]), body[3 * i + 2])

    yield Layer(_taps(weights[0]), weights[1])
    yield from forward(fine)
    yield Layer(_taps(joints[0]), joints[1])
    yield from forward(middle)
    yield Layer(_taps(joints[2]), joints[3])
    yield from forward(coarse)
    yield Layer(_shuffled(joints[4]), joints[5], spread=True)
    yield from forward(middle)
    yield Layer(_shuffled(joints[6]), joints[7], spread=True)
    yield from forward(fine)
    yield Layer(_taps(joints[8]), joints[9])

    order = iter(reversed(range(count)))

    def transposed(blocks_here: int) -> Iterator[Layer]:
        for _ in range(blocks_here):
            i = next(order)
            yield Layer(_transposed_taps(body[3 * i + 1]))
            yield Layer(_transposed_taps(body[3 * i]))

    yield Layer(_transposed_taps(joints[8]))
    yield from transposed(fine)
    yield Layer(_shuffled(joints[6]).mT)
    yield from transposed(middle)
    yield Layer(_shuffled(joints[4]).mT)
    yield from transposed(coarse)
    yield Layer(_taps(joints[2]).mT, spread=True)
    yield from transposed(middle)
    yield Layer(_taps(joints[0]).mT, spread=True)
    yield from transposed(fine)
    yield Layer(_transposed_taps(weights[0]))


def _blocked(taps: Tensor, layout: str, width: int) -> Tensor:
    """(taps, k, n), padded with zeros, flat in the order in which the kernel multiplies."""
    _, k, n = taps.shape
    channels = k if k == width else LAYOUTS[layout]
    taps = F.pad(taps, (0, -n % COLUMNS, 0, channels - k))
    columns = taps.unflatten(2, (-1, COLUMNS)).permute(2, 0, 1, 3)  # (n / 32, taps, k, 32)
    if layout == "single":
        return columns.float().flatten()
    if layout == "pairs":
        return columns.unflatten(2, (-1, 2)).transpose(3, 4).to(torch.bfloat16).flatten()  # (n / 32, taps, k / 2, 32, 2)
    pairs = columns.unflatten(3, (2, 16)).unflatten(2, (-1, 16, 2))  # (n / 32, taps, k / 32, 16, 2, 2, 16)
    return pairs.permute(0, 1, 2, 5, 3, 6, 4).to(torch.bfloat16).flatten()


def pack(weights: Sequence[Tensor], blocks: Sequence[int], layout: str) -> Packed:
    """All weights of one network for the CPU kernel, which runs the four matrices of a shuffle as layers of their own."""
    width = weights[0].shape[0]
    parts: list[Tensor] = []
    biases: list[Tensor] = []
    with torch.no_grad():
        for taps, bias, spread in layers(weights, blocks):
            for part in range(4 if spread else 1):
                parts += [_blocked(taps[part, None] if spread else taps, layout, width)]
                if bias is not None:
                    own = bias[part::4] if spread else bias
                    biases += [F.pad(own, (0, -len(own) % COLUMNS))]
        return Packed(torch.cat(parts), torch.cat(biases).float())


FINER = 1 << 11  # of csrc/cuda/tensor_cores.h


class Fragments(NamedTuple):
    """What a CUDA kernel takes: weights of both passes, a product of 16 by 16 after another, and the forward biases.

    Weights are bfloat16, or float16 in two pieces, of a convolution the first of all weights and then the second.
    """

    weights: Tensor
    biases: Tensor


def _products(taps: Tensor) -> Tensor:
    """(taps, k, n), padded with zeros to products of 16 by 16: (products, 16, n)."""
    _, k, n = taps.shape
    return F.pad(taps, (0, -n % 16, 0, -k % 16)).unflatten(1, (-1, 16)).flatten(0, 1)


def _in_lanes(products: Tensor) -> Tensor:
    """As a warp's lanes hold them: [product][n / 16][lane][n / 8 of 2][k / 8 of 2][2]."""
    lanes = products.unflatten(2, (-1, 2, 8)).unflatten(1, (2, 4, 2))  # k: half, pair, 2; n: block, half, column
    return lanes.permute(0, 4, 6, 2, 5, 1, 3)


def _in_eights(products: Tensor) -> Tensor:
    """As a warpgroup's products read them from shared memory: [product][k / 8 of 2][n / 8][8 of n][8 of k]."""
    return products.unflatten(2, (-1, 8)).unflatten(1, (2, 8)).permute(0, 1, 3, 4, 2)


def _eights_in_lanes(products: Tensor) -> Tensor:
    """The columns of every 32 in the order in which a lane, which has two of each eight, has eight channels on end."""
    if products.shape[2] % 32:
        return products  # the last convolution
    return products.unflatten(2, (-1, 4, 4, 2)).transpose(3, 4).flatten(2)  # lane, eight, 2 to eight, lane, 2


def _in_two(numbers: Tensor) -> Tensor:
    """float32 as the nearest float16 and the nearest to FINER times what is left: (2, ...), inf and NaN beyond 65504."""
    high = numbers.to(torch.float16)
    return torch.stack([high, (FINER * (numbers - high.float())).to(torch.float16)])


def pack_fragments(weights: Sequence[Tensor], blocks: Sequence[int], kernel: str, in_bfloat16: bool) -> Fragments:
    """All weights of one network for a CUDA kernel of `conv_grad`; the biases of a shuffle's four matrices one after another."""
    ordered = _in_eights if kernel == "warpgroups" else _in_lanes
    parts: list[Tensor] = []
    biases: list[Tensor] = []
    with torch.no_grad():
        for taps, bias, spread in layers(weights, blocks):
            products = ordered(_eights_in_lanes(_products(taps)))
            parts += [(products.to(torch.bfloat16) if in_bfloat16 else _in_two(products)).flatten()]
            if bias is not None:
                own = bias.unflatten(0, (-1, 4)).T.flatten() if spread else bias
                biases += [F.pad(own, (0, -len(own) % 16))]
        return Fragments(torch.cat(parts), torch.cat(biases).float())
