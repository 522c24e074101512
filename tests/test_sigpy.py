"""SigPy's operators as ours and back, against SigPy itself."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from oracles import MU, S, coil_maps, gaussian_posterior

import alps_fast as af
from alps_fast.energies import GaussianEnergy
from alps_fast.integrations import from_sigpy, to_sigpy
from alps_fast.operators import CartesianMRI, CircularBlur, Inpainting, LinearOperator

sp = pytest.importorskip("sigpy")
pytest.importorskip("sigpy.mri")


def random(*shape, dtype=np.complex64):
    generator = np.random.default_rng(0)
    real, imaginary = generator.standard_normal((2, *shape))
    return (real + 1j * imaginary if dtype == np.complex64 else real).astype(dtype)


LINOPS = {
    "fft": (lambda: sp.linop.FFT((6, 5)), True), "matrix": (lambda: sp.linop.MatMul((6, 5), random(4, 6)), True),
    "volume": (lambda: sp.linop.Sum((3, 6, 5), (0,)), True),
    "nufft": (lambda: sp.linop.NUFFT((6, 5), np.random.default_rng(1).uniform(-2.5, 2.5, (20, 2))), True),
    "stacked": (lambda: sp.linop.Vstack([sp.linop.Identity((6, 5)), sp.linop.FFT((6, 5))]), True),
    "wavelet of a crop": (lambda: sp.linop.Wavelet((4, 4)) * sp.linop.Resize((4, 4), (6, 5)), True),
    "differences": (lambda: sp.linop.FiniteDifference((6, 5)), False),
    "convolution": (lambda: sp.linop.ConvolveData((1, 6, 5), random(2, 1, 3, 3, dtype=np.float32), multi_channel=True), False)}


@pytest.mark.parametrize("name", LINOPS)
def test_any_linop_is_a_linear_operator(name):
    """A x and Aᴴy of batches are SigPy's of each."""
    make, is_complex = LINOPS[name]
    linop = make()
    op = from_sigpy(linop, 0.1, is_complex=is_complex)
    image = tuple(linop.ishape) if len(linop.ishape) == 3 else (1, *linop.ishape)
    x = random(2, *image, dtype=np.complex64 if is_complex else np.float32)
    wanted = np.stack([linop(v.reshape(linop.ishape)) for v in x])
    got = op.forward(torch.from_numpy(x))
    np.testing.assert_allclose(got.numpy(), wanted, rtol=1e-5, atol=1e-5)
    y = random(2, *linop.oshape, dtype=wanted.dtype.type)
    back = np.stack([linop.H(v) for v in y]).reshape(x.shape)
    np.testing.assert_allclose(op.adjoint(torch.from_numpy(y)).numpy(), back if is_complex else back.real, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 5), (8, 8)])
def test_cartesian_sense_is_ours(size):
    """Maps, mask and the middle of k-space mean the same in both, so the fused operator may stand for SigPy's."""
    maps, mask = coil_maps(3, *size), (torch.rand(size, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    sense, fused = sp.mri.linop.Sense(maps.numpy(), weights=mask.numpy()), CartesianMRI(mask, maps, noise_std=0.1)
    x = random(1, *size)
    np.testing.assert_allclose(sense(x[0]), fused.forward(torch.from_numpy(x)).numpy(), rtol=1e-4, atol=1e-5)
    y = random(3, *size)
    np.testing.assert_allclose(sense.H(y), fused.adjoint(torch.from_numpy(y)).numpy()[0], rtol=1e-4, atol=1e-5)


def test_a_linop_has_the_posterior_of_its_fused_operator():
    maps, mask = coil_maps(2, 6, 5), torch.tensor([1, 0, 1, 1, 0, 1.0])[:, None].expand(6, 5)
    op = from_sigpy(sp.mri.linop.Sense(maps.numpy(), weights=mask.numpy()), 0.2)
    y = op.forward(torch.complex(*(MU + S * torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(3))).unbind()))
    options = {"chains": 4, "schedule": af.Schedule(sigma_max=2, sigma_min=0.1, levels=4, steps=2), "progress": False}
    posterior = af.sample(y, op, GaussianEnergy(MU, S), **options)  # whose mean pairs make exact
    exact, covariance = gaussian_posterior(CartesianMRI(mask, maps, noise_std=0.2), y, (1, 6, 5), 0.1)
    error = torch.view_as_real(posterior.mean[0]).flatten() - exact
    assert float(error.square().mean().sqrt()) < op.tol * S  # as far as a step is solved, of the prior's deviation
    variance = posterior.channel_std.square().permute(1, 2, 0).flatten().double()
    assert abs(float((variance / covariance.diagonal()).mean()) - 1) < 4 * (2 / 2 / 60) ** 0.5  # of two pairs and 60 numbers


OURS = [Inpainting(torch.eye(4), 0.1), CartesianMRI(torch.eye(4), coil_maps(2, 4, 4), noise_std=0.1),
        CircularBlur(torch.arange(6.0).view(2, 3), 0.1)]


@pytest.mark.parametrize("op", OURS, ids=lambda op: type(op).__name__)
def test_ours_is_a_linop_and_comes_back(op):
    linop = to_sigpy(op, (1, 4, 4))
    assert isinstance(linop, sp.linop.Linop) and type(op).__name__ in repr(linop)
    x = torch.randn(1, 4, 4, dtype=torch.complex64 if op.is_complex else torch.float32)
    np.testing.assert_array_equal(linop(x.numpy()), op.forward(x).numpy())
    np.testing.assert_allclose(linop.N(x.numpy()), op.normal(x).numpy(), rtol=1e-4, atol=1e-5)
    back = from_sigpy(linop, 0.1, is_complex=op.is_complex)
    torch.testing.assert_close(back.forward(x), op.forward(x))
    torch.testing.assert_close(back.normal(x[None]), op.normal(x[None]), rtol=1e-4, atol=1e-5)


def test_sigpys_own_algorithm_solves_with_ours():
    """`LinearLeastSquares` with λ is our `project` at such a level."""
    op, t = CircularBlur.gaussian(1.0, 0.5), 2.0
    y = torch.randn(1, 6, 5)
    lamda = (op.noise_std / t) ** 2
    app = sp.app.LinearLeastSquares(to_sigpy(op, (1, 6, 5)), y.numpy(), lamda=lamda, max_iter=200, show_pbar=False)
    torch.testing.assert_close(torch.from_numpy(app.run()), op.project(op.adjoint(y) / op.noise_std**2, t), rtol=1e-3, atol=1e-3)


def test_objects_of_sigpy_name_their_adapter():
    linop, y, prior = sp.linop.FFT((4, 4)), torch.zeros(4, 4, dtype=torch.complex64), GaussianEnergy(0.0, 1.0)
    said = r".*from_sigpy\(linop, noise_std=…\), the operator"
    with pytest.raises(af.ArgumentError, match=r"^operator: got FFT; wanted an alps_fast operator: " + said):
        af.sample(y, linop, prior)
    with pytest.raises(af.ArgumentError, match=r"^forward: got a FFT; wanted a function, or " + said):
        LinearOperator(linop, linop.H, 0.1, (1, 4, 4))
    for wrong in (lambda x: x, sp.linop.FFT((4,)), sp.linop.FFT((2, 2, 4, 4))):
        with pytest.raises(af.ArgumentError, match=r"^linop: got "):
            from_sigpy(wrong, 0.1)
    with pytest.raises(af.ArgumentError, match=r"^image_shape: got \(4, 4\)"):
        to_sigpy(Inpainting(torch.eye(4), 0.1), (4, 4))
