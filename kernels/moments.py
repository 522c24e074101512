"""moments: Welford's update row after row, one pass over the rows; contract in alps_fast/ops/moments.py.

Each operation rounds as the reference's, so the results are its bits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import kernel, launch

TILE = 128  # numbers of a block, four a thread: a block walks through all rows, so there must be many of them
WARPS = 1


@kernel
def moments_kernel(count, mean, m2, x, keep, count_after, mean_after, m2_after, each: tl.int32, n: tl.int64,
                   WHOLE: tl.constexpr, TILE: tl.constexpr):
    tiles = tl.cdiv(n, TILE)
    pid = tl.program_id(0)
    group, tile = pid // tiles, pid % tiles
    begin = tile * TILE
    here = tl.arange(0, TILE)
    if WHOLE:  # said so that the compiler sees it: rows begin on 16 bytes and end with four numbers
        inside, n = here // 4 < n // 4 - tile * (TILE // 4), n // 4 * 4
    else:
        inside = here < n - begin
    taken = tl.load(count + group)
    at = group * n + begin + here
    average = tl.load(mean + at, mask=inside, other=0.0)
    squares = tl.load(m2 + at, mask=inside, other=0.0)
    for row in range(group * each, (group + 1) * each):
        if tl.load(keep + row) != 0:  # a row left out is not even read
            taken += 1
            value = tl.load(x + row * n + begin + here, mask=inside, other=0.0)
            delta = value - average
            average += tl.div_rn(delta, taken.to(tl.float32))
            squares += delta * (value - average)
    tl.store(mean_after + at, average, mask=inside)
    tl.store(m2_after + at, squares, mask=inside)
    tl.store(count_after + group, taken, mask=tile == 0)


def moments(count: Tensor, mean: Tensor, m2: Tensor, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """On Triton; arguments and results of `ops.moments.moments_reference`."""
    if x.dtype != torch.float32 or not (mean.is_contiguous() and m2.is_contiguous()):
        return NotImplemented
    after = torch.empty_like(count), torch.empty_like(mean), torch.empty_like(m2)
    n = mean[0].numel() if len(mean) else 0
    if n == 0:
        return NotImplemented
    launch(moments_kernel, (len(count) * triton.cdiv(n, TILE),), WARPS, count=count.contiguous(), mean=mean, m2=m2,
           x=x.contiguous(), keep=keep.contiguous().view(torch.uint8), count_after=after[0], mean_after=after[1],
           m2_after=after[2], each=len(x) // len(count), n=n, WHOLE=n % 4 == 0, TILE=TILE)
    return after
