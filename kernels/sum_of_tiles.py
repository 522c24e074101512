"""Device function and launch that end a sum over the tiles of an image."""

from __future__ import annotations

import triton.language as tl
from torch import Tensor

from .launch import kernel, launch

SUMMED = 1024  # numbers added at a time


@kernel
def sum_of_tiles_kernel(partial, value, partials: tl.int32, SUMMED: tl.constexpr):
    """The partial values of an image in a fixed order, whatever the number of images."""
    image = tl.program_id(0)
    here = tl.arange(0, SUMMED)
    total = tl.zeros((SUMMED,), tl.float32)
    for first in range(0, partials, SUMMED):
        total += tl.load(partial + image.to(tl.int64) * partials + first + here, mask=first + here < partials, other=0.0)
    tl.store(value + image, tl.sum(total, 0))


def sum_of_tiles(partial: Tensor, value: Tensor) -> None:
    """value (N,) <- the sums of the rows of partial (N, tiles)."""
    launch(sum_of_tiles_kernel, (len(partial),), 4, partial=partial, value=value, partials=partial.shape[1], SUMMED=SUMMED)
