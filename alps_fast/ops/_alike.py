"""Products and transforms on torch that round an image alike, whatever lies beside it and however many threads share the work."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 12  # numbers of an image, up to which NumPy's transforms of a batch take less time than torch's of image by image
ROWS = 16  # a multiple of the rows that NumPy transforms at once, whatever vectors it was built for


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


def fft(images: Tensor) -> Tensor:
    """Orthonormal transforms of images (N, ..., H, W)."""
    return _transformed(images, torch.fft.fft2, np.fft.fft)


def inverse_fft(spectra: Tensor) -> Tensor:
    """Their inverse."""
    return _transformed(spectra, torch.fft.ifft2, np.fft.ifft)


def _transformed(images: Tensor, of_torch: Callable[..., Tensor], of_numpy: Callable[..., Any]) -> Tensor:
    """By NumPy where images are small, a whole batch a call.

    NumPy takes a vector of rows at once, and by scalar code those past its last whole vector, which on aarch64 rounds otherwise,
    as one of a * b - c * d is fused. So rows of zeros follow, until none is past it; each lane of a vector is a row by itself.
    """
    if images.device.type != "cpu" or images[:1].numel() > SMALL or images.requires_grad:
        return each(lambda v: of_torch(v, norm="ortho"), images)
    v = images.resolve_conj().numpy()
    for _ in range(2):  # rows, then columns, as rows of the transposed
        count, length = math.prod(v.shape[:-1]), v.shape[-1]
        rows = np.zeros((-(-count // ROWS) * ROWS, length), v.dtype)
        rows[:count] = v.reshape(count, length)
        v = of_numpy(rows, norm="ortho")[:count].reshape(v.shape).swapaxes(-1, -2)
    return torch.from_numpy(np.ascontiguousarray(v))


def each(transform: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """`transform` of images (N, ...), on the CPU one after another, each from the start of memory of its own.

    A library of transforms may take another way through a batch, or through memory that is aligned otherwise.
    """
    if images.device.type != "cpu" or len(images) <= 1:
        return transform(images)
    return torch.cat([transform(image.clone()) for image in images.split(1)])
