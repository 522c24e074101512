"""Products and transforms on torch that round an image alike, whatever lies beside it and however many threads share the work."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """a b for complex tensors, of real products and sums that are each rounded once.

    torch's own contracts a multiply with an add where a number lies past the last whole vector of what a thread takes, and not
    elsewhere: its last bits hang on the size of the batch and on the threads.
    """
    a_real, a_imag, b_real, b_imag = (part.contiguous() for v in (a, b) for part in (v.real, v.imag))
    return torch.complex(a_real * b_real - a_imag * b_imag, a_real * b_imag + a_imag * b_real)


def power(a: Tensor) -> Tensor:
    """|a|² for a complex tensor, in the same manner."""
    return a.real.square() + a.imag.square()


def each(transform: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """`transform` of images (N, ...), on the CPU one after another, each from the start of memory of its own.

    A library of transforms may take another way through a batch, or through memory that is aligned otherwise.
    """
    if images.device.type != "cpu" or len(images) <= 1:
        return transform(images)
    return torch.cat([transform(image.clone()) for image in images.split(1)])
