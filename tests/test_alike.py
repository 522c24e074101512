"""Transforms on torch's backend give an image the same bits alone and in any batch, on any processor's NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from alps_fast.ops._alike import ROWS, SMALL, fft, inverse_fft

SHAPES = ((1, 1, 1), (1, 1, 15), (1, 15, 1), (1, 5, 15), (2, 3, 6), (3, 7, 13), (1, 30, 11), (1, 64, 64), (1, 65, 64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("shape", SHAPES)
def test_an_image_is_transformed_as_alone(shape, dtype):
    images = torch.randn(7, *shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    for ours, torchs in ((fft, torch.fft.fft2), (inverse_fft, torch.fft.ifft2)):
        together, want = ours(images), torchs(images, norm="ortho")
        assert together.is_contiguous() and together.dtype == want.dtype
        torch.testing.assert_close(together, want)
        for rows in (slice(0, 1), slice(3, 4), slice(6, 7), slice(2, 5)):
            assert torch.equal(ours(images[rows]), together[rows])


def test_no_row_is_left_to_numpy_s_scalar_code(monkeypatch):
    """As on aarch64, where that rounds otherwise: here it is made to, on the machine at hand."""
    exact = np.fft.fft

    def uneven(rows, norm):
        spectra = exact(rows, norm=norm)
        spectra[len(rows) // ROWS * ROWS:] *= 1.001
        return spectra

    monkeypatch.setattr(np.fft, "fft", uneven)
    images = torch.randn(5, 1, 3, 7, dtype=torch.complex64)
    assert images[0].numel() < SMALL
    torch.testing.assert_close(fft(images), torch.fft.fft2(images, norm="ortho"))
    assert torch.equal(fft(images[4:]), fft(images)[4:])
