"""Images of two components: two ESPIRiT sets, and a prior that knows one complex channel."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import MU, S, agrees, gaussian_posterior, generator, measure

from alps_fast import data, energies
from alps_fast.errors import ArgumentError
from alps_fast.operators import CartesianMRI, SoftSenseMRI
from alps_fast.samplers import Schedule, map_estimate, sample

QUICK = Schedule(sigma_max=1.0, sigma_min=0.25, levels=2, steps=2)
MASK = (torch.rand(6, 5, generator=generator(1)) < 0.5).float()
MAPS = torch.complex(*(torch.randn(2, 2, 2, 6, 5, generator=generator(2)) / 2).unbind())


def test_gaussian_posterior_of_two_components() -> None:
    op = SoftSenseMRI(MASK, MAPS, noise_std=0.2)
    y = measure(op, (2, 6, 5))
    posterior = sample(y, op, energies.GaussianEnergy(MU, S), chains=200, pairs=False, schedule=QUICK, progress=False)
    agrees(posterior.samples, posterior.mean, *gaussian_posterior(op, y, (2, 6, 5), QUICK.sigma_min))


def test_one_set_is_what_the_cartesian_operator_has() -> None:
    op, cartesian = (kind(MASK, MAPS[0], noise_std=0.2) for kind in (SoftSenseMRI, CartesianMRI))
    y = measure(op, (1, 6, 5)) + 5.0  # noise where nothing was measured too
    assert op.data_count(op.check_measurement(y)) == cartesian.data_count(cartesian.check_measurement(y))
    torch.testing.assert_close(op.check_measurement(y), cartesian.check_measurement(y))
    found, wanted = (map_estimate(y, one, energies.GaussianEnergy(MU, S), schedule=QUICK, progress=False).image
                     for one in (op, cartesian))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-3)


def test_a_body_larger_than_the_image_is_unfolded() -> None:
    """The side of a brain folded over: two components fit its data, one does not; the prior serves each by itself."""
    height, width, left = 64, 40, 12
    wide = data.coil_maps(8, height, width + left)
    brain = data.brain()[:, 40:104, 60:60 + width + left]
    maps = torch.stack([wide[..., :width], torch.zeros_like(wide[..., :width])])
    maps[1, ..., :left] = wide[..., width:]
    truth = torch.cat([brain[..., :width], torch.zeros_like(brain[..., :width])])
    truth[1, :, :left] = brain[0, :, width:]
    mask = data.line_mask(height, width, 2, centre=10)
    op, eta = SoftSenseMRI(mask, maps, noise_std=0.02), 0.02
    y = data.measure(op, truth, mask)
    prior = energies.load("brain-ridge")
    prior.channelwise = True
    schedule = Schedule(1.0, 0.05, levels=4, steps=3, predictor=True)
    both = sample(y, op, prior, chains=1, schedule=schedule, progress=False)
    assert 0.8 < float(both.chi2) < 1.2
    error = (both.mean - truth).abs().square().mean() ** 0.5
    assert float(error) < 4 * eta and bool((both.mean[1, :, left:] == 0).all())
    alone = sample(y, CartesianMRI(mask, maps[0], noise_std=eta), energies.load("brain-ridge"), chains=1, schedule=schedule,
                   progress=False)
    assert float(alone.chi2) > 10 and float((alone.mean - truth[:1]).abs().square().mean() ** 0.5) > 2 * float(error)


@pytest.mark.parametrize(("mask", "maps", "message"), [
    (torch.ones(6, 4), MAPS, "mask: got shape (6, 4)"),
    (MASK, MAPS[0, 0], "maps: got shape (6, 5)"),
    (MASK, MAPS * math.nan, "maps: got 120 of 120 values NaN"),
    (MASK, torch.zeros_like(MAPS), "maps: got all zero"),
])
def test_what_does_not_fit_is_refused(mask, maps, message) -> None:
    with pytest.raises(ArgumentError) as error:
        SoftSenseMRI(mask, maps, noise_std=0.1)
    assert str(error.value).startswith(message)
