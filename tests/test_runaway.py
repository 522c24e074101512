"""Chains that run away under a network that makes large images larger: named, left out, and the others as they are without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from alps_fast import Schedule, data, map_estimate, sample
from alps_fast.energies import DiffusionPrior, GaussianEnergy
from alps_fast.operators import Denoising, Inpainting
from alps_fast.samplers.chains import Ensemble
from alps_fast.samplers.mala import Point
from alps_fast.samplers.runaway import RUNAWAY, limits

MASK = data.pixel_mask(12, 12, keep=0.4)
OP = Inpainting(MASK, noise_std=0.05)
Y = data.measure(OP, data.photograph()[:, 50:62, 50:62], MASK)
OPTIONS: dict[str, Any] = {"schedule": Schedule(3.0, 0.05, 12, 4), "pairs": False, "draws": 2, "progress": False}


def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
    """Of N(0, 1/4), where no pixel is beyond 9.9; images with one that is come out 1.5 times as large."""
    wide = sigma.view(-1, 1, 1, 1)
    return torch.where(x.abs().amax((1, 2, 3), keepdim=True) > 9.9, 1.5 * x, x * 0.25 / (0.25 + wide**2))


def prior() -> DiffusionPrior:
    return DiffusionPrior(denoiser, channels=1, probe=False)


@pytest.mark.parametrize("method", ["alps", "measurement"])
def test_a_runaway_is_named_and_left_out(method: str) -> None:
    """At the level where it passed a thousand times its first state; the others to the bit as alone, in parts too."""
    found = sample(Y, OP, prior(), chains=6, method=method, **OPTIONS)
    lost = [of.chain for of in found.broken]
    assert 0 < len(lost) < 6 and all(0 < of.level < 12 and of.step == 3 for of in found.broken)
    kept = [k for k in range(6) if k not in lost]
    assert bool(found.samples[lost].isnan().all()) and bool(found.samples[kept].abs().max() < 5)
    assert bool(found.mean.isfinite().all()) and int(found.count) == 2 * len(kept)
    for k in kept:
        assert torch.equal(sample(Y, OP, prior(), chains=1, first_chain=k, method=method, **OPTIONS).samples[0], found.samples[k])
    parts = sample(Y, OP, prior(), chains=6, method=method, max_chains=4, **OPTIONS)
    assert parts.broken == found.broken and torch.equal(parts.samples[kept], found.samples[kept])


def test_where_all_chains_run_away_there_is_nothing_to_return() -> None:
    op = DiffusionPrior(lambda x, sigma: 1.5 * x, channels=1, probe=False)
    with pytest.raises(FloatingPointError, match="every chain turned non-finite or ran away; chain 0 at level 4 .* step 3"):
        sample(Y, OP, op, chains=2, **OPTIONS)


def test_a_run_that_goes_on_knows_its_first_states(tmp_path: Path) -> None:
    def stop(at: Any) -> None:
        if at.level == 1:
            raise StopIteration

    whole, path = sample(Y, OP, prior(), chains=6, **OPTIONS), tmp_path / "x.safetensors"
    assert sample(Y, OP, prior(), chains=6, checkpoint=path, callback=stop, **OPTIONS).interrupted
    assert sample(Y, OP, prior(), chains=6, checkpoint=path, **OPTIONS).broken == whole.broken


@pytest.mark.filterwarnings("ignore:y. the image behind it reaches")
def test_a_mode_that_runs_away_is_none() -> None:
    """Of one measurement an error that says why, of several NaN; before both were returned, as large as they had become."""
    def bright(x: Tensor, sigma: Tensor) -> Tensor:
        return torch.where(x.amax((1, 2, 3), keepdim=True) > 9.9, 3.0 * x + 1.0, denoiser(x, sigma))

    own, options = DiffusionPrior(bright, channels=1, probe=False), {"schedule": OPTIONS["schedule"], "progress": False}
    with pytest.warns(UserWarning, match="y: of measurements 1 the image turned non-finite or ran away, and is NaN; an image"):
        both = map_estimate(torch.stack([Y, 20.0 * MASK]), OP, own, **options)
    assert torch.equal(both.image[0], map_estimate(Y, OP, own, **options).image)
    assert bool(both.image[1].isnan().all())
    with pytest.raises(FloatingPointError, match=r"^every image turned non-finite or ran away; an image behind y .* does that, "
                                                 "and so do levels too far apart: schedule=None chooses them$"):
        map_estimate(20.0 * MASK, OP, own, **options)


def test_a_chain_of_mala_that_ran_away_stays_lost() -> None:
    """In parts too, of which the point that a draw goes on from is a copy: it came back as large as it had been."""
    def of(x: Tensor) -> Ensemble:
        return Ensemble(x, x, torch.zeros(2), torch.ones(2, dtype=torch.bool), torch.full((2, 2), -1),
                        point=Point(x.clone(), *[torch.zeros(2)] * 5))

    ensemble = of(torch.tensor([1.0, 9.0]).view(2, 1, 1, 1))
    ensemble.lose_beyond(torch.tensor([5.0, 5.0]), 3, 1)
    assert ensemble.point is not None and ensemble.broken.tolist() == [[-1, -1], [3, 1]]
    assert [v.isnan().flatten().tolist() for v in (ensemble.x, ensemble.point.x)] == [[False, True]] * 2


@pytest.mark.filterwarnings("ignore:y. the image behind it reaches")
@pytest.mark.parametrize("method", ["alps", "measurement"])
def test_images_as_large_as_the_measurement_are_none(method: str) -> None:
    """One of other units, which is warned of, and one of a prior in closed form that is far from 0 and narrow."""
    large = sample(1e6 * Y, OP, DiffusionPrior(lambda x, sigma: x, channels=1, probe=False), chains=2, method=method, **OPTIONS)
    assert not large.broken and float(large.mean.abs().max()) > 3e5
    options = OPTIONS | {"schedule": Schedule(1.0, 0.05, 12, 4)}
    far = sample(torch.full((1, 4, 4), 1e5), Denoising(1.0), GaussianEnergy(1e5, 1.0), chains=2, method=method, **options)
    assert not far.broken and float((far.mean - 1e5).abs().max()) < 5


def test_a_limit_is_that_of_the_chain_and_its_measurement() -> None:
    first, behind = torch.zeros(4, 2, 2, 1), torch.zeros(2, 2, 2, 1)
    first[1, 0, 1], behind[1, 1, 1] = -7.0, 3.0
    first[3, 0, 0] = 2.0
    assert limits(first, behind, 0.5).tolist() == [0.5 * RUNAWAY, 7 * RUNAWAY, 3 * RUNAWAY, 3 * RUNAWAY]
