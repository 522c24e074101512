"""philox_normal: out[row, e] = element e of R_step of the row's chain; contract in alps_fast/ops/philox_normal.py."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alps_fast.ops.philox_normal import counters

from .launch import kernel, launch, word
from .philox import id_at, normals

QUADS = 256  # of a block: eight normals a thread
WARPS = 4


@kernel
def philox_normal_kernel(ids, out, n: tl.int64, key0: tl.int32, key1: tl.int32, step: tl.int32, tag: tl.int32,
                         WHOLE: tl.constexpr, QUADS: tl.constexpr):
    total = tl.cdiv(n, 4)
    tiles = tl.cdiv(total, QUADS)
    pid = tl.program_id(0)
    row, first = pid // tiles, (pid % tiles) * QUADS
    quads = (first + tl.arange(0, QUADS)).to(tl.uint32)
    values = normals(quads, id_at(ids, row), key0, key1, step, tag)
    here = tl.arange(0, 4 * QUADS)
    if WHOLE:  # said so that the compiler sees it: rows begin on 16 bytes and end with a quad
        tl.store(out + (row * total + first) * 4 + here, values, mask=here // 4 < total - first)
    else:
        tl.store(out + row * n + first * 4 + here, values, mask=here < n - first * 4)


def philox_normal(ids: Tensor, n: int, seed: int, step: int, tag: int) -> Tensor:
    """On Triton; arguments and result of `ops.philox_normal.philox_normal_reference`."""
    out = torch.empty(len(ids), n, dtype=torch.float32, device=ids.device)
    if len(ids):
        launch(philox_normal_kernel, (len(ids) * triton.cdiv(n, 4 * QUADS),), WARPS, ids=counters(ids), out=out, n=n,
               key0=word(seed), key1=word(seed >> 32), step=word(step), tag=word(tag), WHOLE=n % 4 == 0, QUADS=QUADS)
    return out
