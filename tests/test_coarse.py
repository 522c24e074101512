"""A prior that is asked at half the size above a level: what it is, and that a posterior forgets it where it should."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from alps_fast.energies import CoarseFirst, DiffusionPrior, GaussianEnergy, RidgeEnergy, SumEnergy, load
from alps_fast.errors import ArgumentError
from alps_fast.operators import Denoising, Inpainting
from alps_fast.ops import _dispatch
from alps_fast.samplers import Schedule, sample

ABOVE = 0.3


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_above_it_is_the_energy_of_means_beside_white_detail_and_below_the_energy() -> None:
    """E/t² of what is constant on blocks is that of these at t/2; of detail ½‖detail‖²/t²."""
    inner = GaussianEnergy(0.2, 0.5)
    energy, low, detail = CoarseFirst(inner, ABOVE), images(2, 1, 3, 4), images(2, 1, 6, 8)
    wide = low.repeat_interleave(2, 2).repeat_interleave(2, 3)
    detail -= torch.nn.functional.avg_pool2d(detail, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    t = 0.7
    want = inner.value(low, t / 2) / (t / 2) ** 2 + 0.5 * detail.square().flatten(1).sum(1) / t**2
    torch.testing.assert_close(energy.value(wide + detail, t) / t**2, want, rtol=1e-12, atol=0)
    for level in (ABOVE, 0.1):
        torch.testing.assert_close(energy.grad(wide + detail, level), inner.grad(wide + detail, level), rtol=0, atol=0)
    odd = images(2, 1, 5, 8)
    torch.testing.assert_close(energy.grad(odd, t), inner.grad(odd, t), rtol=0, atol=0)


@pytest.mark.parametrize("t", [0.2, 0.7])
@pytest.mark.parametrize("name", ["natural-ridge", "brain-ridge"])
def test_its_gradient_is_that_of_its_value_and_its_curvature_a_bound(name: str, t: float) -> None:
    energy, x = CoarseFirst(load(name), ABOVE), images(1, 2 if name.startswith("brain") else 1, 8, 12)
    x.requires_grad_()
    with torch.enable_grad():
        small = 1e-5
        value, grad = energy.value_and_grad(x.detach(), t)
        torch.testing.assert_close(grad, energy.grad(x.detach(), t))
        along = images(*x.shape) / 10
        up, down = (energy.value(x.detach() + sign * small * along, t) for sign in (1, -1))
    torch.testing.assert_close((up - down) / (2 * small), (grad * along).flatten(1).sum(1), rtol=1e-6, atol=1e-8)
    bent = (energy.grad(x.detach() + small * along, t) - grad) / small
    bound = energy.curvature(t)
    assert bound is not None and float((bent * along).sum()) <= bound * float(along.square().sum()) * (1 + 1e-4)
    assert value.shape == (1,)


def test_a_posterior_forgets_what_the_levels_above_knew() -> None:
    """White pixels of std .1, of which half the size knows nothing right: means and variance are the prior's all the same."""
    std, eta, chains = 0.1, 0.1, 200
    mask = torch.zeros(1, 12, 12)
    mask[..., ::2] = 1
    y = mask * 0.3
    schedule = Schedule(2.0, 0.01, 20, 3, 7.0, predictor="folded")
    found = sample(y, Inpainting(mask, eta), CoarseFirst(GaussianEnergy(0.0, std), 0.5), chains=chains, schedule=schedule,
                   pairs=False, progress=False).samples[:, 0]
    for seen in (False, True):
        precision = 1 / (std**2 + 0.01**2) + seen / eta**2
        x = found[:, mask[0].bool() == seen].double()
        off = (x.mean() - seen * 0.3 / eta**2 / precision) * math.sqrt(x.numel() * precision)
        assert abs(float(x.var(0).mean()) * precision - 1) < 0.02 + 4 * math.sqrt(2 / x.numel()) and abs(float(off)) < 4


def test_a_checkpoint_is_of_one_level_and_one_precision(tmp_path: Path) -> None:
    """Of others too where no level that a run is known by lies between the two."""
    y, schedule = torch.zeros(1, 8, 8), Schedule(1.0, 0.05, 6, 2)
    assert 0.3 < schedule.t()[2] < 0.6 and schedule.t()[3] < 0.3

    def run(above: float, precision: str = "high") -> None:
        sample(y, Denoising(0.1), CoarseFirst(load("natural-denoiser", precision=precision), above), chains=2, schedule=schedule,
               checkpoint=tmp_path / "run.safetensors", progress=False)

    run(0.3)
    run(0.3)
    for options in ((0.6,), (0.3, "fast")):
        with pytest.raises(ArgumentError, match="belongs to another run"):
            run(*options)


def test_it_takes_after_the_energy_and_says_what_it_does_not_take() -> None:
    grey = load("natural-ridge")
    assert isinstance(grey, RidgeEnergy)
    energy = CoarseFirst(grey, ABOVE)
    assert (energy.spread, energy.finest, energy.floor, energy.unit) == (grey.spread, grey.finest, grey.floor, grey.unit)
    colour = images(2, 3, 8, 8).float()
    torch.testing.assert_close(energy.grad(colour, 1.0)[:, :1], energy.grad(colour[:, :1].contiguous(), 1.0), rtol=0, atol=0)
    prior = CoarseFirst(DiffusionPrior(lambda x, t: 0.5 * x, 1, probe=False), ABOVE)
    assert not prior.has_value and prior.curvature(1.0) is None
    torch.testing.assert_close(prior.grad(torch.ones(1, 4, 4), 1.0), torch.full((1, 4, 4), 0.5))
    with pytest.raises(ArgumentError, match="x: got 2 real channels"):
        CoarseFirst(SumEnergy([DiffusionPrior(lambda x, t: x, 1)])).check_channels("x", 2)
    with pytest.raises(ArgumentError, match="energy: got function"):
        CoarseFirst(lambda x: x)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="above: got 0.3; wanted at least 0.4"):
        CoarseFirst(DiffusionPrior(lambda x, t: x, 1, t_range=(0.2, 1.0)), 0.3)
    with pytest.raises(ArgumentError, match="above: got 0"):
        CoarseFirst(grey, 0.0)


def test_a_run_says_that_images_have_no_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dispatch, "_told", set())
    op, energy = Inpainting(torch.ones(1, 5, 6), 0.1), CoarseFirst(GaussianEnergy(0.0, 1.0), ABOVE)
    schedule = Schedule(1.0, 0.1, 2, 1)
    with pytest.warns(UserWarning, match="^CoarseFirst: images of 5 x 6 have no half; .* is asked at full size at every t$"):
        sample(torch.zeros(1, 5, 6), op, energy, chains=1, schedule=schedule, progress=False)
    sample(torch.zeros(1, 5, 6), op, energy, chains=1, schedule=schedule, progress=False)  # once
