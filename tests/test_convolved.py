"""Steps of scans whose AᴴA is one convolution, radial ones and those of two sets of maps: against dense matrices."""

from __future__ import annotations

import math

import pytest
import torch
from dense import image_matrix
from oracles import MU, S, agrees, gaussian_posterior, generator, measure

from alps_fast.energies import GaussianEnergy
from alps_fast.layout import to_state
from alps_fast.operators import NonCartesianMRI, SoftSenseMRI
from alps_fast.operators.convolved import ConvolvedMRI
from alps_fast.ops._scalars import StepScalars
from alps_fast.ops._step import unit_noise
from alps_fast.ops.philox_normal import AVERAGED, NO_NOISE
from alps_fast.samplers import Schedule, sample

H, W, COILS = 6, 5, 3
ETA, T, TOL = 0.1, 2.0, 1e-3


def made(name: str, tol: float = TOL, dtype: torch.dtype = torch.complex64, part: bool = False) -> ConvolvedMRI:
    """Of two sets; if `part`, the second sees a part of the image alone."""
    maps = torch.complex(*(torch.randn(2, 2, COILS, H, W, generator=generator(3)) / 2).unbind())
    maps[1] *= torch.arange(W) < (2 if part else W)
    if name == "soft":
        return SoftSenseMRI((torch.rand(H, W, generator=generator(4)) < 0.5).float(), maps.to(dtype), noise_std=ETA, tol=tol)
    pytest.importorskip("finufft")
    pytest.importorskip("mrinufft")
    angle, radius = torch.arange(5) * math.pi / 5, (torch.arange(8) - 4) / 8
    spokes = torch.stack([radius * angle.sin()[:, None], radius * angle.cos()[:, None]], -1)
    return NonCartesianMRI(spokes, maps.to(dtype), noise_std=ETA, tol=tol)


@pytest.mark.parametrize("noise", [AVERAGED, NO_NOISE])
@pytest.mark.parametrize("name", ["soft", "radial"])
def test_a_step_that_nobody_looks_at_is_one_system(name: str, noise: int) -> None:
    """x⁺ = P(b + lin x − w ∇E + Aᴴε₁/η + ε₂/t), as near as was asked for, where x⁺ and m apart take two."""
    op = made(name, dtype=torch.complex128, part=True)
    a = image_matrix(op.forward, (2, H, W), True)
    s = StepScalars(lam=T**-2, lin=T**-2, w=T**-2, inv_eta2=ETA**-2, noise_lam=T**-2, noise=noise, seed=5, step=3)
    x, grad, b = torch.randn(3, 2, H, W, 4, generator=generator(6), dtype=torch.float64).unbind()
    ids = torch.arange(2)
    seen = op.support(x)
    assert op.iterative and seen is not None
    x, grad, b = x * seen, grad * seen, b * seen
    rhs = b + x * s.lin - grad * s.w
    if noise:
        eps = unit_noise(x, (2, x[0].numel() + 2 * math.prod(op.measured)), ids, s.noise, s.seed, s.step, None)
        samples = torch.view_as_complex(eps[:, x[0].numel():].reshape(2, *op.measured, 2).contiguous())
        rhs = rhs + to_state(op.adjoint(samples)) / ETA + eps[:, :x[0].numel()].view(x.shape) / T
    precision = a.T @ a / ETA**2 + torch.eye(x[0].numel(), dtype=torch.float64) / T**2
    off = op.advance(x, grad, b, ids, s).flatten(1) - torch.linalg.solve(precision, rhs.flatten(1).T).T
    deviations = torch.einsum("ni,ij,nj->n", off, precision, off).div(x[0].numel()).sqrt()
    assert float(deviations.max()) < 3 * TOL  # FORGOTTEN


@pytest.mark.parametrize("name", ["soft", "radial"])
def test_gaussian_posterior_where_the_noise_is_annealed_too(name: str) -> None:
    """η_t = 1/2, then η: with the prior's own curvature two steps of the last level leave nothing of the first."""
    op, schedule = made(name, 0.01), Schedule(1.0, 0.25, levels=2, steps=2, eta_ratio=2.0)
    y = measure(op, (2, H, W))
    posterior = sample(y, op, GaussianEnergy(MU, S), chains=100, pairs=False, schedule=schedule, progress=False)
    agrees(posterior.samples, posterior.mean, *gaussian_posterior(op, y, (2, H, W), schedule.sigma_min))
    assert posterior.by_level["eta"] == [0.5, ETA]
