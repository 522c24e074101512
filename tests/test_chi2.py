"""χ² a datum of the samples: about 1 where operator, noise and prior are those of the data, and a warning where it is not."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alps_fast import data
from alps_fast.energies import GaussianEnergy
from alps_fast.layout import from_state
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, Operator, SuperResolution
from alps_fast.posterior import Posterior
from alps_fast.samplers import Schedule, sample

S, ETA = 0.5, 0.1
SCHEDULE = Schedule(sigma_max=0.5, sigma_min=0.05, levels=3, steps=4)
PRIOR = GaussianEnergy(0.0, S)
G = torch.Generator().manual_seed(0)
PLANE = (torch.rand(24, 20, generator=G) < 0.5).float()
MAPS = data.coil_maps(4, 24, 20)
EVEN = torch.tensor([1.0, 0] * 12)[:, None]
OPERATORS = {
    "denoising": (Denoising(ETA), (3, 24, 20)),
    "inpainting": (Inpainting(PLANE, ETA), (3, 24, 20)),
    "blur": (CircularBlur.gaussian(1.0, ETA), (1, 24, 20)),
    "super-resolution": (SuperResolution(2, ETA), (2, 24, 20)),
    "one coil": (CartesianMRI(PLANE, noise_std=ETA), (1, 24, 20)),
    "lines": (CartesianMRI(PLANE[:1], MAPS, noise_std=ETA), (1, 24, 20)),
    "plane": (CartesianMRI(PLANE, MAPS, noise_std=ETA), (1, 24, 20)),
    "functions": (LinearOperator(lambda x: x[..., ::2, :], lambda y: y.repeat_interleave(2, -2) * EVEN, ETA, (1, 24, 20)),
                  (1, 24, 20)),
}


def measured(op: Operator, shape: tuple[int, ...], batch: int = 1, seed: int = 1) -> torch.Tensor:
    """Of images from the prior as it is sampled, smoothed by σ_min."""
    g = torch.Generator().manual_seed(seed)
    std = math.hypot(S, SCHEDULE.sigma_min)
    state = std * torch.randn(batch, *shape[1:], shape[0] * (2 if op.is_complex else 1), generator=g)
    y = op.forward(from_state(state, op.is_complex))
    noise = torch.randn(*y.shape, 2 if y.is_complex() else 1, generator=g)
    return y + ETA * (torch.view_as_complex(noise) if y.is_complex() else noise[..., 0])


@pytest.mark.parametrize("name", OPERATORS)
def test_samples_of_the_posterior_leave_the_noise(name: str) -> None:
    """y − A x of a draw is distributed as the noise: χ² is 1 within its own error, √(2/n) an image."""
    op, shape = OPERATORS[name]
    y = measured(op, shape, batch=6)
    found = sample(y, op, PRIOR, chains=4, schedule=SCHEDULE, progress=False)
    mask = {"inpainting": PLANE.expand(3, -1, -1), "one coil": PLANE, "lines": PLANE[:1].expand(4, 24, -1),
            "plane": PLANE.expand(4, -1, -1)}
    count = (int(mask[name].sum()) if name in mask else y[0].numel()) * (2 if y.is_complex() else 1)
    assert op.data_count(op.check_measurement(y)) == count
    assert found.chi2.shape == (6,)
    assert bool(((found.chi2 - 1).abs() < 5 * math.sqrt(2 / count)).all())
    one = sample(y[0], op, PRIOR, chains=2, schedule=SCHEDULE, progress=False)
    residual = (op.forward(one.samples) - op.check_measurement(y[:1])).abs().double().square().sum() / 2
    assert float(one.chi2) == pytest.approx(float(residual) / (ETA**2 * count), rel=1e-4)


def quiet(op: Operator, y: torch.Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return float(sample(y, op, PRIOR, chains=4, schedule=SCHEDULE, progress=False).chi2)


WRONG = {
    "noise three times too small": (CartesianMRI(PLANE, MAPS, noise_std=ETA / 3), 1.5, "noise_std is too small"),
    "noise three times too large": (CartesianMRI(PLANE, MAPS, noise_std=ETA * 3), 0.5, "noise_std is too large"),
    "a mask of ones": (CartesianMRI(torch.ones(24, 20), MAPS, noise_std=ETA), 1.5, "mask"),
    "maps of others": (CartesianMRI(PLANE, MAPS.flip(0), noise_std=ETA), 1.5, "maps"),
    "maps with a hole": (CartesianMRI(PLANE, MAPS * (torch.arange(20) > 6), noise_std=ETA), 1.5, "where all maps are zero"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_told(case: str) -> None:
    right, shape = OPERATORS["plane"]
    y = measured(right, shape)[0] * PLANE
    assert quiet(right, y) == pytest.approx(1, abs=0.25)
    op, bound, says = WRONG[case]
    with pytest.warns(UserWarning, match=f"chi-squared a datum is .*{says}"):
        found = sample(y, op, PRIOR, chains=4, schedule=SCHEDULE, progress=False)
    assert float(found.chi2) > bound if bound > 1 else float(found.chi2) < bound


def test_the_measurement_of_a_batch_is_named() -> None:
    op, shape = OPERATORS["denoising"]
    y = measured(op, shape, batch=2)
    y[1] = y[1] * 30
    with pytest.warns(UserWarning, match="chi-squared a datum of measurement 1 is"):
        sample(y, op, PRIOR, chains=2, schedule=SCHEDULE, progress=False)


def test_it_goes_to_disk_and_back(tmp_path: Path) -> None:
    op, shape = OPERATORS["denoising"]
    found = sample(measured(op, shape)[0], op, PRIOR, chains=2, schedule=SCHEDULE, progress=False)
    found.save(tmp_path / "p.npz")
    assert torch.equal(Posterior.load(tmp_path / "p.npz").chi2, found.chi2)
    assert replace(found, chi2=found.chi2 * 2).chi2 == 2 * found.chi2
