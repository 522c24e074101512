"""The weights of `conv_grad` as its CPU kernel reads them: one convolution [tap][k][n] after another, in the order of use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

COLUMNS = 32  # output channels of a block, see csrc/cpu/conv_block.h
WIDTHS = (32, 64)  # networks the kernel is compiled for


class Packed(NamedTuple):
    """Weights of forward and transposed pass, bfloat16 in AMX tiles or float32, and the biases of the forward pass."""

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


def _one_by_one(taps: Tensor, bias: Tensor | None = None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The four matrices of a 2x2 shuffle as layers of their own, as the kernel runs them; the bias (4 n,) goes with them."""
    for part, tap in enumerate(taps):
        yield tap[None], None if bias is None else bias[part::4]


def _layers(weights: Sequence[Tensor], blocks: Sequence[int]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Taps (taps, k, n) and bias of every convolution, forward pass then transposed pass, in the order of use."""
    fine, middle, coarse = blocks
    count = 2 * fine + 2 * middle + coarse
    body, joints = weights[2:2 + 3 * count], weights[2 + 3 * count:]
    order = iter(range(count))

    def forward(blocks_here: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        for _ in range(blocks_here):
            i = next(order)
            yield _taps(body[3 * i]), None
            yield _taps(body[3 * i + 1]), body[3 * i + 2]

    yield _taps(weights[0]), weights[1]
    yield from forward(fine)
    yield _taps(joints[0]), joints[1]
    yield from forward(middle)
    yield _taps(joints[2]), joints[3]
    yield from forward(coarse)
    yield from _one_by_one(_shuffled(joints[4]), joints[5])
    yield from forward(middle)
    yield from _one_by_one(_shuffled(joints[6]), joints[7])
    yield from forward(fine)
    yield _taps(joints[8]), joints[9]

    order = iter(reversed(range(count)))

    def transposed(blocks_here: int) -> Iterator[tuple[Tensor, None]]:
        for _ in range(blocks_here):
            i = next(order)
            yield _transposed_taps(body[3 * i + 1]), None
            yield _transposed_taps(body[3 * i]), None

    yield _transposed_taps(joints[8]), None
    yield from transposed(fine)
    yield _shuffled(joints[6]).mT, None
    yield from transposed(middle)
    yield _shuffled(joints[4]).mT, None
    yield from transposed(coarse)
    yield from _one_by_one(_taps(joints[2]).mT)
    yield from transposed(middle)
    yield from _one_by_one(_taps(joints[0]).mT)
    yield from transposed(fine)
    yield _transposed_taps(weights[0]), None


def _blocked(taps: Tensor, in_tiles: bool, width: int) -> Tensor:
    """(taps, k, n), padded with zeros, flat in the order in which the kernel multiplies."""
    _, k, n = taps.shape
    channels = k if k == width else (32 if in_tiles else 16)  # of the unshuffled image
    taps = F.pad(taps, (0, -n % COLUMNS, 0, channels - k))
    columns = taps.unflatten(2, (-1, COLUMNS)).permute(2, 0, 1, 3)  # (n / 32, taps, k, 32)
    if not in_tiles:
        return columns.float().flatten()
    pairs = columns.unflatten(3, (2, 16)).unflatten(2, (-1, 16, 2))  # (n / 32, taps, k / 32, 16, 2, 2, 16)
    return pairs.permute(0, 1, 2, 5, 3, 6, 4).to(torch.bfloat16).flatten()


def pack(weights: Sequence[Tensor], blocks: Sequence[int], in_tiles: bool) -> Packed:
    """All weights of one network."""
    width = weights[0].shape[0]
    parts: list[Tensor] = []
    biases: list[Tensor] = []
    with torch.no_grad():
        for taps, bias in _layers(weights, blocks):
            parts += [_blocked(taps, in_tiles, width)]
            if bias is not None:
                biases += [F.pad(bias, (0, -len(bias) % COLUMNS))]
        return Packed(torch.cat(parts), torch.cat(biases).float())
