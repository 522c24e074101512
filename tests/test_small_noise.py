"""Measurements with hardly any noise: what is observed must not leak, by rounding, into what is not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from alps_fast.energies import GaussianEnergy
from alps_fast.layout import from_state, to_state
from alps_fast.operators import CartesianMRI, CircularBlur, Inpainting, LinearOperator, Operator, SuperResolution
from alps_fast.samplers import Schedule, map_estimate, sample

S, T, IMAGE = 0.5, 0.1, (1, 8, 6)
SCHEDULE = Schedule(sigma_max=1.0, sigma_min=T, levels=6, steps=6)
G = torch.Generator().manual_seed(0)
PLANE = (torch.rand(8, 6, generator=G) < 0.5).float()
LINES = torch.tensor([1, 0, 1, 1, 0, 1, 0, 0.0])
MAPS = torch.complex(*(torch.randn(2, 3, 8, 6, generator=G) / math.sqrt(6)).unbind())
MATRIX = torch.randn(20, 48, generator=G) / math.sqrt(20)


class Flat(GaussianEnergy):
    """Without its bound: L = 1, and steps that lean on the gradient."""

    def curvature(self, t: float) -> None:
        return None


def operator(name: str, eta: float) -> Operator:
    if name == "inpainting":
        return Inpainting(PLANE, eta)
    if name == "blur":
        return CircularBlur.gaussian(1.0, eta)
    if name == "super-resolution":
        return SuperResolution(2, eta, blur=0.8)
    if name == "linear":
        return LinearOperator(lambda x: x.flatten(1) @ MATRIX.T, lambda y: (y @ MATRIX).view(-1, *IMAGE), eta, IMAGE)
    maps = {"mri, one coil": None, "mri, lines": MAPS, "mri, one coil with a map": MAPS[:1], "mri, 2-D mask": MAPS[:2]}[name]
    return CartesianMRI(LINES, maps, noise_std=eta, axis=0) if "2-D" not in name else CartesianMRI(PLANE, maps, noise_std=eta)


NAMES = ("inpainting", "blur", "super-resolution", "linear", "mri, one coil", "mri, lines", "mri, one coil with a map",
         "mri, 2-D mask")


def problem(name: str, eta: float) -> tuple[Operator, Tensor, Tensor, Tensor]:
    """A, y, and the precision and mean of the posterior, float64, in the state's numbers."""
    op = operator(name, eta)
    g = torch.Generator().manual_seed(1)
    basis = torch.eye(math.prod(IMAGE) * (2 if op.is_complex else 1)).view(-1, 8, 6, 2 if op.is_complex else 1)
    a = real_rows(op.forward(from_state(basis if name == "linear" else basis.double(), op.is_complex))).T.double()
    y = op.forward(S * torch.randn(IMAGE, generator=g, dtype=torch.complex64 if op.is_complex else torch.float32))
    y = y + eta * torch.randn(y.shape, generator=g, dtype=y.dtype)
    precision = a.T @ a / eta**2 + torch.eye(a.shape[1], dtype=torch.float64) / (S * S + T * T)
    return op, y, precision, torch.linalg.solve(precision, a.T @ real_rows(y[None])[0].double() / eta**2)


def real_rows(v: Tensor) -> Tensor:
    return (torch.view_as_real(v) if v.is_complex() else v).flatten(1)


def in_deviations(image: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    """Images less the posterior's mean, in numbers that it makes standard normal."""
    return (to_state(image).flatten(1).double() - mean) @ torch.linalg.cholesky(precision)


@pytest.mark.parametrize("eta", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("name", NAMES)
def test_the_posterior_is_right_however_small_the_noise(name: str, eta: float) -> None:
    """With L the prior's own, m(x) is the posterior's mean to the last level; 0.02 deviations are twice what tol leaves."""
    op, y, precision, mean = problem(name, eta)
    chains = 100
    for energy, allowed in ((GaussianEnergy(0.0, S), 0.02), (Flat(0.0, S), 0.02 + 1 / math.sqrt(chains))):
        found = sample(y, op, energy, chains=chains, schedule=SCHEDULE, progress=False)
        assert float(in_deviations(found.mean[None], mean, precision).square().mean().sqrt()) < allowed
        z = in_deviations(found.samples, mean, precision)
        assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / z.numel()) + 0.01


@pytest.mark.parametrize("eta", [1e-3, 1e-4])
@pytest.mark.parametrize("name", NAMES)
def test_map_is_the_mean_however_small_the_noise(name: str, eta: float) -> None:
    op, y, precision, mean = problem(name, eta)
    found = map_estimate(y, op, Flat(0.0, S), schedule=Schedule(1.0, T, 2, 60), progress=False)
    assert float(in_deviations(found.image[None], mean, precision).square().mean().sqrt()) < 0.01


@pytest.mark.parametrize("name", ["blur", "mri, lines", "linear"])
def test_a_measurement_annealed_to_little_noise(name: str) -> None:
    op, y, precision, mean = problem(name, 1e-3)
    found = sample(y, op, GaussianEnergy(0.0, S), chains=100, schedule=Schedule(1.0, T, 3, 3, eta_steps=2), method="measurement",
                   progress=False)
    z = in_deviations(found.samples, mean, precision)
    assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / z.numel()) + 0.01


def test_directions_that_are_hardly_seen_have_their_deviation() -> None:
    """Forty numbers seen of sixty-four: what conjugate gradients take for solved while the rest is not yet begun."""
    a = torch.randn(40, 64, generator=torch.Generator().manual_seed(2))
    op = LinearOperator(lambda x: x.flatten(1) @ a.T, lambda y: (y @ a).view(-1, 1, 8, 8), 0.01, (1, 8, 8))
    found = sample(torch.zeros(40), op, GaussianEnergy(0.0, S), chains=200, schedule=Schedule(1.0, T, 2, 1), progress=False)
    unseen = torch.linalg.eigh(a.T @ a)[1][:, :24]
    variance = (found.samples.flatten(1) @ unseen).square().mean()
    assert float(variance) == pytest.approx(S * S + T * T, rel=4 * math.sqrt(2 / (200 * 24)))


def test_conjugate_gradients_tell_what_they_reached() -> None:
    a = torch.randn(40, 64, generator=torch.Generator().manual_seed(2))
    op = LinearOperator(lambda x: x.flatten(1) @ a.T, lambda y: (y @ a).view(-1, 1, 8, 8), 0.01, (1, 8, 8), max_iter=3)
    with pytest.warns(UserWarning, match=r"conjugate gradients: after 3 iterations a step may be .* deviations off"):
        sample(torch.zeros(40), op, GaussianEnergy(0.0, S), chains=2, schedule=Schedule(1.0, T, 2, 1), progress=False)
    op = LinearOperator(lambda x: x.flatten(1) @ a.T, lambda y: (y @ a).view(-1, 1, 8, 8), 1e-7, (1, 8, 8))
    with pytest.warns(UserWarning, match="too small for single precision"):
        sample(torch.zeros(40), op, GaussianEnergy(0.0, S), chains=2, schedule=Schedule(1.0, T, 2, 1), progress=False)


def test_a_step_whose_noise_was_cut_short_tells_what_it_has() -> None:
    """One coil whose map varies a lot, and so much data that the window of conjugate gradients ends before the rest begins."""
    op = CartesianMRI(PLANE, MAPS[:1], noise_std=1e-4)
    y = op.forward(torch.ones(IMAGE, dtype=torch.complex64))
    with pytest.warns(UserWarning, match=r"conjugate gradients: noise has 0\.\d+ of its variance at noise_std = 0.0001"):
        sample(y, op, GaussianEnergy(0.0, S), chains=8, schedule=SCHEDULE, progress=False)
    right = CartesianMRI(PLANE, MAPS[:1], noise_std=1e-4, tol=1e-4)
    found = sample(y, right, GaussianEnergy(0.0, S), chains=8, schedule=SCHEDULE, progress=False)
    assert bool(found.std.isfinite().all())
