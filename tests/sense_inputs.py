"""Inputs of the tests of langevin_sense and langevin_sense_cg."""

from __future__ import annotations

import torch
from dense import image_matrix
from step_checks import states

from alps_fast.layout import as_complex, as_real
from alps_fast.ops.langevin_sense_cg import sense_normal

H, W, COILS = 4, 5, 3
# lines of 1, of primes, above and below the blocks of 8, 4, 2, 1 sums; runs of 8 pixels and their tails, odd rows of pixels
SIZES = ((1, 1), (1, 7), (7, 1), (5, 3), (13, 16), (16, 13), (31, 9), (23, 33))


def coil_maps(coils=COILS, height=H, width=W):
    return torch.randn(coils, height, width, generator=torch.Generator().manual_seed(4), dtype=torch.complex128)


def line_mask(axis):
    mask = torch.zeros(H, W, dtype=torch.float64)
    mask[(slice(None, None, 2), slice(None))[::1 if axis == 0 else -1]] = 1
    return mask


def plane_mask():
    mask = (torch.rand(H, W, generator=torch.Generator().manual_seed(5)) < 0.5).double()
    mask[0, 0] = 1
    return mask


def dense_normal(maps, mask):
    def forward(x):
        return torch.fft.fft2(x * maps, norm="ortho") * mask

    a = image_matrix(forward, (1, *mask.shape), True)
    return a.T @ a


def line_arguments(axis, n=4, b=2, dtype=torch.float64):
    """The eigenbasis of every line, taken from the dense operator itself."""
    full = sense_matrix(coil_maps(), line_mask(axis))
    blocks = torch.stack([full[:, w, :, w] for w in range(W)] if axis == 0 else [full[h, :, h] for h in range(H)])
    values, u = torch.linalg.eigh(blocks)
    return states(n, b, (H, W, 2), dtype) | {
        "u": u.to(dtype.to_complex()).contiguous(), "eigenvalues": values.clamp_min(0).to(dtype), "axis": axis}


def sense_matrix(maps, mask):
    """AᴴA as a complex (H, W, H, W)."""
    height, width = mask.shape
    basis = torch.eye(height * width, dtype=torch.complex128).view(-1, height, width, 1)
    columns = as_complex(sense_normal(as_real(basis), maps, mask)).view(-1, height, width)
    return columns.permute(1, 2, 0).unflatten(-1, (height, width))


def cg_arguments(n=4, b=2, dtype=torch.float64, mask=None, tol=1e-10):
    return states(n, b, (H, W, 2), dtype) | {
        "maps": coil_maps().to(dtype.to_complex()), "mask": (plane_mask() if mask is None else mask).to(dtype), "tol": tol}


def noise_shape(a):
    return (len(a["x"]), 1 + COILS, H, W, 2)


def random_lines(size, axis, n, b, dtype=torch.float32):
    """A step on lines with random eigenvectors and eigenvalues, some of them zero."""
    g = torch.Generator().manual_seed(6)
    lines, length = size[::-1] if axis == 0 else size
    u = torch.linalg.qr(torch.randn(lines, length, length, generator=g, dtype=torch.complex128))[0].contiguous()
    eigenvalues = torch.rand(lines, length, generator=g, dtype=torch.float64)
    eigenvalues[:, ::3] = 0
    return states(n, b, (*size, 2), dtype) | {"u": u.to(dtype.to_complex()), "eigenvalues": eigenvalues.to(dtype), "axis": axis,
                                              "backend": "cpu"}


def solver(size, coils, n, b, tol=1e-6):
    """A step on any mask, by the CPU kernel where it has the size."""
    mask = (torch.rand(size, generator=torch.Generator().manual_seed(5)) < 0.5).float()
    mask[0, 0] = 1
    return states(n, b, (*size, 2), torch.float32) | {"maps": coil_maps(coils, *size).to(torch.complex64), "mask": mask,
                                                      "tol": tol, "backend": "cpu"}
