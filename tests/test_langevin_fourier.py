"""langevin_fourier against dense matrices of convolution and decimation."""

from __future__ import annotations

import pytest
import torch
from dense import fft_law, image_matrix, posterior_power
from step_checks import (
    LEVEL,
    check_bad_arguments,
    check_noise_modes,
    check_opcheck,
    check_rows_stand_alone,
    dense_step,
    states,
)

from alps_fast.ops.langevin_fourier import langevin_fourier

CASES = {  # height, width, image channels, factor, complex
    "real": (6, 5, 2, 1, False),
    "real, one pixel": (1, 1, 1, 1, False),
    "complex": (5, 4, 1, 1, True),
    "factor 2": (4, 6, 2, 2, False),
    "factor 3, complex": (3, 6, 1, 3, True),
    "factor 5, odd": (5, 15, 1, 5, False),
}


def transfer(height, width, is_complex, dtype=torch.complex128):
    kernel = torch.zeros(height, width, dtype=torch.complex128)
    g = torch.Generator().manual_seed(2)
    kernel[:2, :3] = torch.randn(2, 3, generator=g, dtype=torch.complex128)[:height, :width]
    h = torch.fft.fft2(kernel if is_complex else kernel.real)
    h = h * (h.abs() > 0.3)  # a few frequencies are lost
    return h.to(dtype)


def arguments(name, n=4, b=2, dtype=torch.float64):
    height, width, channels, factor, is_complex = CASES[name]
    h = transfer(height, width, is_complex, dtype.to_complex())
    shape = (height, width, 2 * channels if is_complex else channels)
    return states(n, b, shape, dtype) | {"h": h, "factor": factor, "is_complex": is_complex}


def dense_normal(name):
    height, width, channels, factor, is_complex = CASES[name]
    h = transfer(height, width, is_complex)

    def forward(x):
        y = torch.fft.ifft2(torch.fft.fft2(x) * h)
        return (y if is_complex else y.real)[..., ::factor, ::factor]

    a = image_matrix(forward, (channels, height, width), is_complex)
    return a.T @ a


def fourier_basis(name):
    """The unitary matrix that takes Fourier coefficients, laid out like the image, to states."""
    height, width, channels, _, is_complex = CASES[name]
    assert is_complex

    def synthesis(x):
        return torch.view_as_real(torch.fft.ifft2(x, norm="ortho").movedim(1, -1).contiguous())

    return image_matrix(synthesis, (channels, height, width), True)


@pytest.mark.parametrize("name", CASES)
def test_step_is_the_dense_one(name):
    a = arguments(name)
    xi = torch.randn(a["x"].shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    normal = dense_normal(name)
    p = posterior_power(normal, LEVEL["inv_eta2"], LEVEL["lam"], -1.0)
    root = posterior_power(normal, LEVEL["inv_eta2"], LEVEL["noise_lam"], -0.5)
    if a["is_complex"]:
        # ξ counts Fourier coefficients. For factor 1 the root is diagonal in them; for larger factors it is symmetric there.
        root = root @ fourier_basis(name)
    for ours, dense in zip(langevin_fourier(**a, xi=xi), dense_step(a, p, root, xi), strict=True):
        torch.testing.assert_close(ours, dense, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", CASES)
def test_float32_keeps_the_fft_law(name):
    double, single = langevin_fourier(**arguments(name)), langevin_fourier(**arguments(name, dtype=torch.float32))
    points = CASES[name][0] * CASES[name][1]
    for d, s in zip(double, single, strict=True):
        assert s.dtype == torch.float32
        assert (s - d).norm() <= fft_law(points) * d.norm()  # worst measured: a twentieth of the law


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", CASES)
def test_what_every_step_must_do(name, dtype):
    a = arguments(name, dtype=dtype)
    check_noise_modes(langevin_fourier, a, tuple(a["x"].shape))
    check_rows_stand_alone(langevin_fourier, a)


@pytest.mark.parametrize("name", ["real", "factor 3, complex"])
def test_opcheck(name):
    a = arguments(name, dtype=torch.float32)
    check_opcheck(langevin_fourier, a, tuple(a["x"].shape))


def test_bad_arguments():
    a = arguments("real")
    check_bad_arguments(langevin_fourier, a, {"h": a["h"][:2], "factor": 4})
    a = arguments("real, one pixel")
    with pytest.raises(ValueError, match="^x: got 1 real channels"):
        langevin_fourier(**{**a, "is_complex": True})
