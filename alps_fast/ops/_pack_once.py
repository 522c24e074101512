"""What kernels read that follows from constant tensors, made once for as long as these stay as they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

MOST = 16  # networks and banks of filters
_packed: OrderedDict[tuple[object, ...], tuple[list[Tensor], Any]] = OrderedDict()  # those last used, newest last
_packing = threading.RLock()  # a pack may ask for another
_holders: ContextVar[tuple[list[object], ...]] = ContextVar("holders", default=())


def packed_once(pack: Callable[..., T], tensors: Sequence[Tensor], *options: object) -> T:
    """pack(tensors, *options), once while the tensors do not change; holding them keeps their addresses.

    It is made as outside torch.inference_mode, for whoever asks next may be.
    """
    if any(v.is_inference() for v in tensors):  # they do not count their changes
        packed = _made(pack, tensors, options)
    else:
        key = (pack, *options, *stamp(tensors))
        with _packing:  # samplers run in threads of their own
            if key not in _packed:
                _packed[key] = list(tensors), _made(pack, tensors, options)
                if len(_packed) > MOST:
                    _packed.popitem(last=False)
            _packed.move_to_end(key)
            packed = _packed[key][1]
    for held in _holders.get():
        held.append(packed)
    return packed


def _made(pack: Callable[..., T], tensors: Sequence[Tensor], options: tuple[object, ...]) -> T:
    with torch.inference_mode(False), torch.no_grad():
        return pack(tensors, *options)


def stamp(tensors: Iterable[Tensor]) -> tuple[Hashable, ...]:
    """Another one once any of the tensors has changed, moved or been replaced; of inference tensors never the same twice."""
    return tuple(object() if v.is_inference() else (v.data_ptr(), v.shape, v.stride(), v.device, v._version) for v in tensors)


@contextmanager
def held() -> Iterator[list[object]]:
    """What `packed_once` hands out inside, to this thread, for a graph that reads it again when others took its place here."""
    mine: list[object] = []
    token = _holders.set((*_holders.get(), mine))
    try:
        yield mine
    finally:
        _holders.reset(token)
