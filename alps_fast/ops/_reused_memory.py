"""Memory of large results, used again within a run: a fresh page costs more than what a step writes to it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 15  # numbers: malloc takes 128 KB and more from the system, and gives it back


class Pool:
    """Buffers of float32 that go back when nobody holds them: no tensor, view, storage or array."""

    def __init__(self) -> None:
        self.free: dict[int, list[np.ndarray]] = {}
        self.open = True

    def tensor(self, shape: torch.Size) -> Tensor:
        """A contiguous float32 tensor on memory that nobody else sees, not set."""
        free = self.free.setdefault(shape.numel(), [])
        # aligned as torch's own
        buffer = free.pop() if free else torch.empty(shape.numel(), dtype=torch.float32, device="cpu").numpy()
        lent = buffer.reshape(shape)  # an array of its own, which lives as long as the storage of the tensor
        weakref.finalize(lent, self._take_back, free, buffer)
        return torch.from_numpy(lent)

    def _take_back(self, free: list[np.ndarray], buffer: np.ndarray) -> None:
        if self.open:
            free.append(buffer)


_pool: ContextVar[Pool | None] = ContextVar("pool", default=None)


@contextmanager
def reused_memory() -> Iterator[Pool]:
    """Within it `empty_like` and `laid_out` hand out memory that was let go before; afterwards what is free goes back to malloc.

    Results stay what they were to whoever holds them, then and later.
    """
    pool = Pool()
    token = _pool.set(pool)
    try:
        yield pool
    finally:
        _pool.reset(token)
        pool.open = False
        for free in pool.free.values():  # which what is still held refers to, and would keep as long as itself
            free.clear()
        pool.free.clear()


def _pool_for(like: Tensor) -> Pool | None:
    fits = like.numel() >= LARGE and like.dtype == torch.float32 and like.device.type == "cpu"
    return _pool.get() if fits else None


def empty_like(like: Tensor) -> Tensor:
    """`torch.empty_like` of a contiguous tensor, for kernels that write all of it."""
    pool = _pool_for(like)
    return torch.empty_like(like) if pool is None else pool.tensor(like.shape)


def laid_out(view: Tensor) -> Tensor:
    """`view.contiguous()`."""
    pool = None if view.is_contiguous() else _pool_for(view)
    return view.contiguous() if pool is None else pool.tensor(view.shape).copy_(view)
