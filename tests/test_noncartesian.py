"""Radial and spiral sampling: finufft against sums, the Toeplitz normal operator against both, and a posterior in closed form."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from dense import image_matrix, matrix, posterior_power
from oracles import MU, S, agrees, gaussian_posterior, measure
from torch import Tensor

from alps_fast import data
from alps_fast.energies import GaussianEnergy
from alps_fast.errors import ArgumentError
from alps_fast.operators import CartesianMRI, NonCartesianMRI
from alps_fast.ops._scalars import StepScalars
from alps_fast.ops.philox_normal import AVERAGED
from alps_fast.samplers import Schedule, sample

pytest.importorskip("finufft")
pytest.importorskip("mrinufft")
G = torch.Generator().manual_seed(0)
H, W, COILS = 6, 5, 3
QUICK = Schedule(sigma_max=1.0, sigma_min=0.25, levels=2, steps=2)
REACHED = 1e-8  # of transforms that are asked for 1e-9 of their norm; worst measured 1.7e-9


def complex_normal(*shape: int) -> Tensor:
    return torch.complex(*torch.randn(2, *shape, generator=G, dtype=torch.float64))


def radial(spokes: int, samples: int) -> Tensor:
    angle, radius = torch.arange(spokes) * math.pi / spokes, (torch.arange(samples) - samples // 2) / samples
    return torch.stack([radius * angle.sin()[:, None], radius * angle.cos()[:, None]], -1).double()


def spiral(samples: int) -> Tensor:
    turn = torch.linspace(0, 1, samples, dtype=torch.float64)
    return 0.5 * torch.stack([turn * (40 * turn).sin(), turn * (40 * turn).cos()], -1)


MAPS = complex_normal(COILS, H, W) / math.sqrt(COILS)
TRAJECTORIES = {"radial": radial(5, 8), "spiral": spiral(30), "one sample": torch.tensor([[0.3, -0.5]]),
                "float32": radial(3, 6).float()}


@pytest.mark.parametrize(("name", "sets"), [*((name, 1) for name in TRAJECTORIES), ("radial", 2)])
def test_operators_are_those_of_the_sum(name: str, sets: int) -> None:
    k, maps = TRAJECTORIES[name].double().view(-1, 2), MAPS if sets == 1 else complex_normal(2, COILS, H, W)
    op = NonCartesianMRI(TRAJECTORIES[name], maps, noise_std=0.1)
    rows, columns = (torch.arange(n) - n // 2 for n in (H, W))
    waves = torch.exp(-2j * math.pi * (k[:, 0, None, None] * rows[:, None] + k[:, 1, None, None] * columns)) / math.sqrt(H * W)
    x = complex_normal(3, sets, H, W)
    wanted = torch.einsum("jhw,bchw->bcj", waves, (maps * x[:, :, None] if sets == 2 else maps * x[:, None]).sum(1))
    torch.testing.assert_close(op.forward(x), wanted, rtol=0, atol=REACHED * 5)
    a = image_matrix(op.forward, (sets, H, W), True)
    back = matrix(lambda v: op.adjoint_state(torch.view_as_complex(v)), (*op.measured, 2))
    torch.testing.assert_close(back, a.T, rtol=0, atol=REACHED)
    torch.testing.assert_close(matrix(op.normal_state, (H, W, 2 * sets)), a.T @ a, rtol=0, atol=REACHED * 10)
    p = posterior_power(a.T @ a, 0.1**-2, 2.0**-2, -1.0)
    found = matrix(lambda v: op.project_state(v, 2.0), (H, W, 2 * sets))
    torch.testing.assert_close(found, p, rtol=0, atol=1e-6 * float(p.abs().max()))  # the condition is 4e2


def test_on_the_points_of_the_grid_it_is_the_cartesian_operator() -> None:
    k = torch.stack(torch.meshgrid((torch.arange(H) - H // 2) / H, (torch.arange(W) - W // 2) / W, indexing="ij"), -1)
    x, cartesian = complex_normal(1, H, W), CartesianMRI(torch.ones(H, W), MAPS, noise_std=0.1)
    op = NonCartesianMRI(k, MAPS, noise_std=0.1)
    torch.testing.assert_close(op.forward(x).view(COILS, H, W), cartesian.forward(x), rtol=0, atol=1e-6)  # k was float32
    torch.testing.assert_close(op.normal(x), cartesian.normal(x), rtol=0, atol=1e-6)


def test_the_spectrum_stands_for_forward_and_adjoint_of_a_scan() -> None:
    maps, truth = data.coil_maps(2, 96, 80), data.brain()[:, 48:144, 40:120]
    op = NonCartesianMRI(radial(40, 160), maps, noise_std=0.01)
    both = op.adjoint(op.forward(truth))
    torch.testing.assert_close(op.normal(truth), both, rtol=0, atol=3e-6 * float(both.abs().max()))  # single precision


def test_the_circular_convolution_nearest_to_it_saves_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what a radial scan's dense middle costs: 115 of 225 at t = 50 η here; less for less t."""
    op = NonCartesianMRI(radial(18, 96), data.coil_maps(3, 48, 48), noise_std=0.02)
    b = op.adjoint_state(op.check_measurement(op.forward(data.brain()[:, 60:108, 60:108]))) / 0.02**2
    x, calls = torch.zeros_like(b), [0]
    level = StepScalars(lam=1.0, lin=1.0, w=1.0, inv_eta2=0.02**-2, noise_lam=1.0, noise=AVERAGED, seed=0, step=0)
    normal = NonCartesianMRI.normal

    def counted(self: NonCartesianMRI, x: Tensor) -> Tensor:
        calls[0] += 1
        return normal(self, x)

    monkeypatch.setattr(NonCartesianMRI, "normal", counted)
    op.langevin(x, x, b, torch.zeros(1, dtype=torch.int64), level)
    with_one, calls[0] = calls[0], 0
    op._placed.tensors[3].fill_(float(op._placed.tensors[3].mean()))
    op._placed._there.clear()
    op.langevin(x, x, b, torch.zeros(1, dtype=torch.int64), level)
    assert 1.8 * with_one < calls[0]


@pytest.mark.parametrize("name", ["radial", "spiral"])
def test_gaussian_posterior(name: str) -> None:
    """With the prior's own curvature, of which a step leaves nothing but what conjugate gradients do."""
    op = NonCartesianMRI(TRAJECTORIES[name], MAPS.to(torch.complex64), noise_std=0.2)
    y = measure(op, (1, H, W))
    posterior = sample(y, op, GaussianEnergy(MU, S), chains=100, pairs=False, schedule=QUICK, progress=False)
    agrees(posterior.samples, posterior.mean, *gaussian_posterior(op, y, (1, H, W), QUICK.sigma_min))


def test_a_chain_is_the_same_alone_and_on_any_number_of_threads(threads) -> None:
    op = NonCartesianMRI(radial(16, 64), data.coil_maps(2, 32, 70), noise_std=0.3)
    y = op.forward(data.brain()[:, 60:92, 60:130])
    found = []
    for count, chains in ((1, 2), (2, 2), (2, 1)):
        threads(count)
        found.append(sample(y, op, GaussianEnergy(MU, S), chains=chains, pairs=False, schedule=QUICK, progress=False).samples)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0][:1], found[2])


def test_nothing_is_sampled_where_no_map_is() -> None:
    maps = torch.stack([MAPS, MAPS.roll(1, 0) * (torch.arange(W) < 2)]).to(torch.complex64)
    op = NonCartesianMRI(radial(5, 8), maps, noise_std=0.2)
    y = measure(op, (2, H, W))
    posterior = sample(y, op, GaussianEnergy(MU, S), chains=4, schedule=QUICK, progress=False)
    assert bool((posterior.samples[:, 1, :, 2:] == 0).all()) and bool((posterior.samples[:, 1, :, :2] != 0).all())
    assert bool((posterior.samples[:, 0] != 0).all())


@pytest.mark.parametrize(("trajectory", "message"), [
    (torch.full((4, 2), 3.0), "trajectory: got 3 in it; wanted cycles a pixel"),
    (torch.full((4, 2), math.nan), "trajectory: got 8 of 8 values NaN"),
    (torch.zeros(4, 3), "trajectory: got torch.float32 of shape"),
])
def test_a_trajectory_in_other_units_is_refused(trajectory: Tensor, message: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{message}"):
        NonCartesianMRI(trajectory, MAPS, noise_std=0.1)


def test_one_without_the_packages_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "mrinufft", None)
    with warnings.catch_warnings(), pytest.raises(ArgumentError, match=r"wanted mri-nufft and finufft: pip install"):
        NonCartesianMRI(radial(3, 4), MAPS, noise_std=0.1)
