"""Products and transforms on torch that round an image alike, whatever lies beside it and however many threads share the work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

SMALL = 1 << 12  # numbers of an image, up to which NumPy's transforms of a batch take less time than torch's of image by image


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
    return _transformed(images, torch.fft.fft2, np.fft.fft2)


def inverse_fft(spectra: Tensor) -> Tensor:
    """Their inverse."""
    return _transformed(spectra, torch.fft.ifft2, np.fft.ifft2)


def _transformed(images: Tensor, of_torch: Callable[..., Tensor], of_numpy: Callable[..., Any]) -> Tensor:
    """By NumPy where images are small: a row of numbers after another goes through the same scalar code, aligned or not."""
    if images.device.type == "cpu" and images[:1].numel() <= SMALL and not images.requires_grad:
        return torch.from_numpy(of_numpy(images.resolve_conj().numpy(), norm="ortho"))
    return each(lambda v: of_torch(v, norm="ortho"), images)


def each(transform: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """`transform` of images (N, ...), on the CPU one after another, each from the start of memory of its own.

    A library of transforms may take another way through a batch, or through memory that is aligned otherwise.
    """
    if images.device.type != "cpu" or len(images) <= 1:
        return transform(images)
    return torch.cat([transform(image.clone()) for image in images.split(1)])
