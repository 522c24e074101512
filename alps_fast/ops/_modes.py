"""What a caller may have told torch around a call, and what of it must not reach a result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor

DEVICES = "cpu", "cuda"
_one_thread = threading.Lock()


def uncast() -> AbstractContextManager[object]:
    """Within it numbers keep the bits that they are given: autocast, where it is on, is off. What runs inside may ask for it."""
    casting = [device for device in DEVICES if torch.is_autocast_enabled(device)]
    if not casting:
        return nullcontext()
    stack = ExitStack()
    for device in casting:
        stack.enter_context(torch.autocast(device, enabled=False))
    return stack


@contextmanager
def settled() -> Iterator[None]:
    """Within it no graph is kept, nothing is cast, and tensors are such as a network may be differentiated at.

    So a run neither holds what its operator or measurement require gradients of, nor minds torch.inference_mode around it; an
    energy may enable gradients inside.
    """
    with torch.inference_mode(False), torch.no_grad(), uncast():
        yield


def ordinary(value: Tensor) -> Tensor:
    """`value`, or a copy where it was made in inference mode: outside it torch takes such a tensor into no graph."""
    return value.clone() if value.is_inference() else value


@contextmanager
def one_thread() -> Iterator[None]:
    """Within it torch computes with one thread: its LAPACK and BLAS round otherwise on more.

    One at a time, as MKL's number of threads is the process's.
    """
    with _one_thread:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)
