"""Samplers as software: invariance, restarts, interruption, broken chains, files, errors."""

from __future__ import annotations

import inspect
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alps_fast import energies
from alps_fast.data import line_mask
from alps_fast.energies import DiffusionPrior, ridge
from alps_fast.energies.base import Energy
from alps_fast.energies.gaussian import GaussianEnergy
from alps_fast.errors import ArgumentError
from alps_fast.layout import from_state, to_state
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, Operator, SuperResolution
from alps_fast.ops.moments import moments
from alps_fast.ops.philox_normal import MIRRORED, philox_normal
from alps_fast.ops.ridge_langevin import ridge_langevin
from alps_fast.posterior import Posterior
from alps_fast.samplers import Progress, Sampler, Schedule, map_estimate, outcome, sample
from alps_fast.samplers import chains as chains_module
from alps_fast.samplers.mala import row_dot

FEW = Schedule(sigma_max=2.0, sigma_min=0.2, levels=4, steps=3, eta_steps=2, eta_max=1.0)
WAYS: dict[str, dict[str, Any]] = {
    "alps": {}, "draws": {"draws": 3, "thin": 2}, "independent": {"noise": "independent"},
    "mala": {"correction": "mala", "draws": 2}, "measurement": {"method": "measurement"},
    "measurement mala": {"method": "measurement", "correction": "mala"},
}


class Sharp(GaussianEnergy):
    """A Gaussian that does not know its bound, so that L = 1."""

    def curvature(self, t: float) -> None:
        return None


def inpainting(shape: tuple[int, int, int], count: int = 1) -> tuple[Inpainting, Tensor]:
    g = torch.Generator().manual_seed(1)
    op = Inpainting((torch.rand(shape[1:], generator=g) < 0.6).float(), 0.1)
    return op, op.forward(torch.rand(count, *shape, generator=g))


def single_coil(height: int = 9, width: int = 7) -> tuple[CartesianMRI, Tensor]:
    g = torch.Generator().manual_seed(2)
    op = CartesianMRI(torch.rand(height, width, generator=g) < 0.5, noise_std=0.1)
    return op, op.forward(torch.randn(3, 1, height, width, generator=g, dtype=torch.complex64))


def coils(height: int, width: int) -> tuple[CartesianMRI, Tensor]:
    g = torch.Generator().manual_seed(4)
    maps = torch.randn(3, height, width, generator=g, dtype=torch.complex64)
    op = CartesianMRI(torch.rand(height, width, generator=g) < 0.5, maps, noise_std=0.1)
    return op, op.forward(torch.randn(3, 1, height, width, generator=g, dtype=torch.complex64))


def blurred(height: int = 9, width: int = 7) -> tuple[CircularBlur, Tensor]:
    op = CircularBlur.gaussian(1.0, 0.1)
    return op, op.forward(torch.rand(3, 2, height, width, generator=torch.Generator().manual_seed(3)))


def coarse(height: int, width: int) -> tuple[SuperResolution, Tensor]:
    op = SuperResolution(2, 0.1, 0.7)
    return op, op.forward(torch.rand(3, 1, 2 * height, 2 * width, generator=torch.Generator().manual_seed(5)))


ENERGY = Sharp(0.3, 0.5)


def run(y: Tensor, op: Operator, energy: Energy = ENERGY, **options: Any) -> Posterior:
    return sample(y, op, energy, **{"chains": 4, "pairs": True, "schedule": FEW, "progress": False} | options)


@pytest.mark.parametrize("noise", ["averaged", "independent"])
def test_a_run_is_the_published_loop(noise: str) -> None:
    """Written out where AᴴA is diagonal, on the sampler's own normals: docs/design.md §3 and 4, a level after another."""
    op, y = inpainting((2, 5, 3))
    energy, ids, inv_eta2 = Sharp(0.3, 0.5), torch.tensor([[0, 0], [0, MIRRORED]]), op.noise_std**-2
    ts, averaged = FEW.t().tolist(), noise == "averaged"
    b = op.adjoint_state(y) * inv_eta2
    a = op.diagonal(b) * inv_eta2

    def normals(step: int) -> Tensor:
        return philox_normal(ids, b[0].numel(), 5, step).view(2, *b.shape[1:])

    precision = a + ts[0] ** -2
    x, step = b / precision + normals(0) / precision.sqrt(), 1
    for t, below in zip(ts, [*ts[1:], 0.0], strict=True):
        for k in range(FEW.steps):
            grad = to_state(energy.grad(from_state(x, False), t))
            m = (b + (x - grad) / t**2) / (a + t**-2)
            xi, level = (normals(step) + normals(step + 1)) * 0.5**0.5 if averaged else normals(step), t
            if not averaged and k == FEW.steps - 1:  # the next level's noise, and none after the last
                xi, level = (xi, below) if below else (torch.zeros_like(xi), t)
            x, step = m + xi / (a + level**-2).sqrt(), step + 1
    posterior = run(y[0], op, energy, chains=2, seed=5, noise=noise)
    torch.testing.assert_close(posterior.samples, from_state(x, False), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(posterior.mean, from_state(m, False).mean(0), rtol=1e-5, atol=1e-5)


def same(a: Posterior, b: Posterior) -> None:
    for name in ("mean", "channel_std", "samples", "count", "trace", "chain_means"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


# --- a chain depends on (seed, measurement's index, its own, its y) alone ------------------------------------------

@pytest.mark.parametrize("way", WAYS)
def test_a_chain_is_the_same_alone_and_in_any_batch(way: str) -> None:
    op, y = inpainting((3, 9, 7), 3)
    together = run(y, op, **WAYS[way])
    for i in range(3):
        alone = run(y[i], op, first_measurement=i, **WAYS[way])
        assert torch.equal(alone.samples, together.samples[i])
        assert torch.equal(alone.mean, together.mean[i])
        assert torch.equal(alone.channel_std, together.channel_std[i])
    one = run(y[1], op, chains=1, first_chain=2, first_measurement=1, **WAYS[way])
    assert torch.equal(one.samples[0], together.samples[1, 2])
    rest = run(y[1:], op, first_measurement=1, **WAYS[way])
    assert torch.equal(rest.samples, together.samples[1:])


@pytest.mark.parametrize("way", WAYS)
def test_measurements_of_a_batch_have_noise_of_their_own(way: str) -> None:
    """Of 64 measurements alike, a chain each, the mean has a 64th of the variance of a chain; law: 5 standard errors."""
    op = Denoising(0.5)
    samples = run(torch.zeros(64, 1, 12, 12), op, Sharp(0.0, 0.5), chains=1, **WAYS[way]).samples[:, 0]
    variance = samples.square().mean()
    assert float(samples.mean(0).square().mean() * 64 / variance) == pytest.approx(1.0, abs=5 * math.sqrt(2 / 144 + 2 / 144 / 64))


@pytest.mark.filterwarnings("ignore:langevin_.* ran it, more slowly")
@pytest.mark.parametrize("correction", [None, "mala"])
@pytest.mark.parametrize("size", [(9, 13), (37, 4)])  # the second has a prime factor whose pass is not compiled for itself
@pytest.mark.parametrize("problem", [single_coil, coils, blurred, coarse])
def test_a_chain_is_the_same_in_any_batch_where_ffts_run(problem: Any, size: tuple[int, int], correction: str | None) -> None:
    op, y = problem(*size)
    for backend in ("auto", "torch"):
        together = run(y, op, correction=correction, backend=backend)
        whole = run(y[2], op, correction=correction, backend=backend, first_measurement=2)
        assert torch.equal(whole.samples, together.samples[2])
        alone = run(y[2], op, chains=1, first_chain=3, first_measurement=2, correction=correction, backend=backend)
        assert torch.equal(alone.samples[0], together.samples[2, 3])


@pytest.mark.parametrize("way", WAYS)
def test_threads_change_nothing(way: str, threads: Any) -> None:
    op, y = inpainting((3, 67, 61))  # more elements than torch gives to one thread
    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(run(y, op, chains=3, schedule=Schedule(1.0, 0.2, 2, 1, eta_max=0.14, eta_steps=1), **WAYS[way]))
    same(results[0], results[1])
    same(results[0], results[2])


def test_seeds_and_chains_differ() -> None:
    op, y = inpainting((1, 9, 7))
    a, b = run(y, op), run(y, op, seed=1)
    assert not torch.equal(a.samples, b.samples)
    assert not torch.equal(a.samples[0, 0], a.samples[0, 1])


def test_sums_of_rows_hang_on_nothing_else() -> None:
    a, b = torch.randn(5, 7, 3, 1), torch.randn(5, 7, 3, 1)
    assert torch.equal(row_dot(a, b)[2:3], row_dot(a[2:3], b[2:3]))
    assert torch.allclose(row_dot(a, b), (a.double() * b.double()).flatten(1).sum(1))


# --- restarts, Ctrl-C, broken chains -------------------------------------------------------------------------------

class Stop(Exception):
    pass


@pytest.mark.parametrize("way", WAYS)
def test_a_restart_gives_the_same_bits(way: str, tmp_path: Path) -> None:
    op, y = inpainting((2, 5, 7), 2)
    options = WAYS[way] | ({"draws": 25} if way in ("draws", "mala") else {})
    whole = run(y, op, **options)
    levels = len(Sampler(op, ENERGY, schedule=FEW, progress=False, **options).levels)
    for stop_at in sorted({0, 2, levels - 2}):
        def stop(progress: Progress, stop_at: int = stop_at) -> None:
            if progress.level == stop_at:
                raise Stop

        path = tmp_path / f"{stop_at}.safetensors"
        with pytest.raises(Stop):
            run(y, op, checkpoint=path, callback=stop, **options)
        seen: list[int] = []
        same(run(y, op, checkpoint=path, callback=lambda p, seen=seen: seen.append(p.level), **options), whole)
        assert seen[0] > 0
        same(run(y, op, checkpoint=path, **options), whole)  # nothing is left to do


class Looking(Sharp):
    """Notes the strides of what it is given, with which torch chooses among its convolutions."""

    def __init__(self) -> None:
        super().__init__(0.3, 0.5)
        self.seen: set[tuple[int, ...]] = set()

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        self.seen.add(x.stride())
        return super()._value_and_grad(x, t)

    def _grad(self, x: Tensor, t: float) -> Tensor:
        self.seen.add(x.stride())
        return super()._grad(x, t)


@pytest.mark.parametrize("way", WAYS)
def test_an_energy_sees_one_layout(way: str) -> None:
    """Of images of one channel too, from whatever op or file they come."""
    for op, y in (inpainting((1, 5, 7), 2), blurred(5, 7)):
        energy = Looking()
        for backend in ("auto", "torch"):
            for more in ({}, {"max_chains": 1}):
                run(y[:, :1], op, energy, backend=backend, **more, **WAYS[way])
        assert energy.seen == {(35, 1, 7, 1)}


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    op, y = inpainting((2, 5, 7))
    path = tmp_path / "state"
    run(y, op, checkpoint=path)
    before = path.read_bytes()
    for other in ({"seed": 1}, {"first_measurement": 1}, {"chains": 5}, {"schedule": Schedule(2.0, 0.2, 4, 4)},
                  {"correction": "mala"}, {"draws": 2}):
        with pytest.raises(ArgumentError, match="checkpoint: .* another run"):
            run(y, op, checkpoint=path, **other)
    with pytest.raises(ArgumentError, match="another run"):
        run(y + 1e-3, op, checkpoint=path)
    with pytest.raises(ArgumentError, match="another run"):
        run(y, op, Sharp(0.3, 0.6), checkpoint=path)
    with pytest.raises(ArgumentError, match="another run"):
        run(y, Denoising(0.1), checkpoint=path)
    assert path.read_bytes() == before
    path.write_bytes(before[:100])
    with pytest.raises(ArgumentError, match="checkpoint: .* cannot be read"):
        run(y, op, checkpoint=path)


@pytest.mark.parametrize("stop_at", [1, 6])
def test_interruption_returns_what_there_is(stop_at: int) -> None:
    op, y = inpainting((1, 5, 7))

    def stop(progress: Progress) -> None:
        if progress.level == stop_at:
            raise KeyboardInterrupt

    posterior = run(y, op, draws=6, callback=stop)
    assert posterior.interrupted
    drawn = max(stop_at - 2, 0)  # level 3 ends in the first draw
    assert posterior.trace.shape == (1, 4, drawn, 35)
    assert posterior.count.tolist() == [4 * max(drawn, 1)]
    assert bool(posterior.mean.isfinite().all())
    assert posterior.samples.shape == (1, 4, 1, 5, 7)


@pytest.mark.parametrize("stop_at", [1, 6, 8])
def test_a_callback_stops_a_run_and_it_goes_on_from_its_checkpoint(stop_at: int, tmp_path: Path) -> None:
    """As on Ctrl-C; at the last level's end nothing is left to stop."""
    op, y = inpainting((1, 5, 7))

    def stop(progress: Progress) -> None:
        if progress.level == stop_at:
            raise StopIteration

    path = tmp_path / "kept.safetensors"
    posterior = run(y, op, draws=6, callback=stop, checkpoint=path)
    assert posterior.interrupted == (stop_at < 8)
    assert posterior.count.tolist() == [4 * max(stop_at - 2, 1)]
    whole = run(y, op, draws=6)
    same(run(y, op, draws=6, checkpoint=path), whole)
    if stop_at == 8:
        same(posterior, whole)


@pytest.mark.parametrize("make", [inpainting, None], ids=["real", "complex"])
def test_a_callback_sees_images(make: Any) -> None:
    """The states, and m(x): at the last level's end the samples, and what their mean is of."""
    op, y = make((2, 5, 7), 2) if make else single_coil()
    seen: list[tuple[Tensor, Tensor]] = []
    posterior = run(y, op, callback=lambda p: seen.append((p.images.clone(), p.means.clone())))
    images, means = (v.unflatten(0, (len(y), 4)) for v in seen[-1])
    assert torch.equal(images, posterior.samples)
    torch.testing.assert_close(means.mean(1), posterior.mean)


def test_a_callback_stops_a_map_estimate() -> None:
    """At a level, which is then the last."""
    op, y = inpainting((2, 5, 7), 2)

    def stop(progress: Progress) -> None:
        if progress.level == 1:
            raise StopIteration

    estimate = map_estimate(y, op, ENERGY, schedule=FEW, progress=False, callback=stop)
    seen: list[Tensor] = []
    whole = map_estimate(y, op, ENERGY, schedule=FEW, progress=False, callback=lambda p: seen.append(p.images))
    assert torch.equal(estimate.image, seen[1]) and torch.equal(whole.image, seen[3])
    assert torch.equal(estimate.trace, whole.trace[:, :2])


def test_a_folder_keeps_a_checkpoint_for_every_measurement(tmp_path: Path) -> None:
    """One sampler for many images, each of which finds its own again; a file is another measurement's."""
    op, y = inpainting((1, 5, 7), 2)
    sampler = Sampler(op, ENERGY, chains=4, schedule=FEW, progress=False, checkpoint=tmp_path)
    first, second = sampler(y[:1]), sampler(y[1:])
    assert len(list(tmp_path.iterdir())) == 2
    calls: list[int] = []
    sampler.callback = lambda progress: calls.append(progress.level)
    same(sampler(y[:1]), first)
    same(sampler(y[1:]), second)
    assert not calls
    sampler.checkpoint = next(tmp_path.iterdir())
    with pytest.raises(ArgumentError, match=r"belongs to another run; .* or a folder, which holds one for every measurement"):
        sampler(y)


def test_grey_levels_and_channels_last_are_warned_of() -> None:
    grey = Sampler(Denoising(2.0), energies.load("natural-ridge"), chains=1, schedule=FEW, progress=False)
    with pytest.warns(UserWarning, match=r"reaches .*; it looks like grey levels 0 to 255: y / 127.5 - 1 and noise_std / 127.5"):
        grey(255 * torch.rand(1, 8, 8))
    last = Sampler(Denoising(0.1), ENERGY, chains=1, schedule=FEW, progress=False)
    with pytest.warns(UserWarning, match=r"y: an image of shape \(8, 9, 3\), .* if it is \(H, W, C\), y.movedim\(-1, -3\) is"):
        last(torch.rand(8, 9, 3))
    with pytest.warns(UserWarning, match=r"y: an image of shape \(8, 9, 3\)"):
        map_estimate(torch.rand(8, 9, 3), Denoising(0.1), ENERGY, schedule=FEW, progress=False)
    last(torch.rand(3, 8, 3))  # an image of three columns


def test_help_of_sample_explains_its_options() -> None:
    """Every one that it takes, in the words of Sampler."""
    text = inspect.getdoc(sample) or ""
    said = text[text.index("Args:"):text.index("Returns:")]
    for name in inspect.signature(sample).parameters:
        assert f"    {name}: " in said or f" {name}: " in said or f"{name}, " in said or f", {name}" in said, name
    assert "Without a correction" not in text and "method=\"measurement\" it stands for" in text


@pytest.mark.parametrize("call", [1, 2])  # of the image's numbers; of its magnitudes and phases
def test_interruption_while_the_first_draw_is_taken(call: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def stopping(*args: Any) -> tuple[Tensor, Tensor, Tensor]:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KeyboardInterrupt
        return moments(*args)

    monkeypatch.setattr(chains_module, "moments", stopping)
    op, y = single_coil()
    posterior = run(y[:1], op)
    assert posterior.interrupted
    assert posterior.count.tolist() == [4]
    torch.testing.assert_close(posterior.mean, posterior.samples.mean(1))  # of the states as they stand


class Breaks(Sharp):
    """NaN for one row from the second level on."""

    def __init__(self, row: int | None):
        super().__init__(0.3, 0.5)
        self.row = row

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        value, grad = super()._value_and_grad(x, t)
        return self._broken(value, t), self._broken(grad, t)

    def _grad(self, x: Tensor, t: float) -> Tensor:
        return self._broken(super()._grad(x, t), t)

    def _broken(self, values: Tensor, t: float) -> Tensor:
        if t > 1.5:
            return values
        values = values.clone()
        values[slice(None) if self.row is None else self.row] = math.nan
        return values


@pytest.mark.parametrize("way", ["alps", "draws", "mala", "measurement"])
def test_a_broken_chain_is_named_and_left_out(way: str) -> None:
    op, y = inpainting((2, 5, 7), 2)
    posterior, whole = run(y, op, Breaks(6), **WAYS[way]), run(y, op, **WAYS[way])
    assert [lost[:3] for lost in posterior.broken] == [(1, 2, 1)]
    assert posterior.broken[0].step == 0
    assert torch.equal(posterior.samples[0], whole.samples[0])
    kept = [0, 1, 3]
    assert torch.equal(posterior.samples[1, kept], whole.samples[1, kept])
    assert bool(posterior.samples[1, 2].isnan().all())
    draws = WAYS[way].get("draws", 1)
    assert posterior.count.tolist() == [4 * draws, 3 * draws]
    assert bool(posterior.chain_means[1, 2].isnan().all())
    alone = [run(y[1], op, chains=1, first_chain=k, first_measurement=1, **WAYS[way]).chain_means for k in kept]
    assert torch.equal(posterior.chain_means[1, kept], torch.cat(alone))
    assert bool(posterior.mean.isfinite().all())
    assert bool(posterior.std.isfinite().all())
    assert all(math.isfinite(e) for e in posterior.by_level["energy"])
    assert bool(torch.isfinite(torch.as_tensor(posterior.diagnostics().rhat)).all()) or draws < 4


@pytest.mark.parametrize("complex_image", [False, True])
def test_a_ridge_energy_with_pixel_data_takes_its_steps_together(complex_image: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """All steps of a level but the last, whose energy is recorded; and the result is that of the two ops in turn."""
    energy = energies.load("brain-ridge" if complex_image else "natural-ridge")
    op = Inpainting((torch.rand(12, 9) < 0.5), noise_std=0.1, is_complex=complex_image)
    y = op.forward(torch.randn(1, 12, 9, dtype=torch.complex64 if complex_image else torch.float32))
    counts = []

    def counted(*args: Any, count: int, **kwargs: Any) -> Any:
        counts.append(count)
        return ridge_langevin(*args, count=count, **kwargs)

    monkeypatch.setattr(ridge, "ridge_langevin", counted)
    options: dict[str, Any] = {"chains": 3, "draws": 2, "thin": 2, "schedule": Schedule(1.0, 0.1, 3, 4), "progress": False}
    fused = sample(y, op, energy, **options)
    assert counts == [3, 3, 3, 1, 1] and fused.gradients == 14
    monkeypatch.setattr(energy, "langevin_pixel", lambda *args: None)
    apart = sample(y, op, energy, **options)
    torch.testing.assert_close(fused.samples, apart.samples, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fused.mean, apart.mean, rtol=1e-4, atol=1e-4)
    assert fused.by_level["energy"] == pytest.approx(apart.by_level["energy"], rel=1e-4)


def test_all_chains_broken_is_an_error() -> None:
    op, y = inpainting((1, 5, 7))
    with pytest.raises(FloatingPointError, match="every chain turned non-finite or ran away; chain 0 at level 1 .* step 0"):
        run(y, op, Breaks(None))


# --- the result ----------------------------------------------------------------------------------------------------

def test_shapes_real_and_complex() -> None:
    op, y = inpainting((3, 9, 7), 2)
    one, both = run(y[0], op, draws=5), run(y, op, draws=5)
    assert one.mean.shape == one.std.shape == (3, 9, 7)
    assert one.samples.shape == (4, 3, 9, 7)
    assert one.count.item() == 20
    assert one.trace.shape == (4, 5, 189)
    assert both.mean.shape == (2, 3, 9, 7)
    assert both.samples.shape == (2, 4, 3, 9, 7)
    mri, k = single_coil()
    posterior = run(k[0], mri, pairs=False)
    assert posterior.mean.shape == posterior.std.shape == (1, 9, 7)
    assert posterior.mean.is_complex()
    assert not posterior.std.is_complex()
    expected = posterior.samples.var(0).sqrt()  # torch's complex variance is that of both parts
    assert torch.allclose(posterior.std, expected, rtol=1e-4)
    low, high = posterior.interval(0.5)
    assert torch.allclose((low + high) / 2, posterior.mean, atol=1e-6)
    assert bool(((high - low).real > 0).all())
    assert bool(((high - low).imag > 0).all())


@pytest.mark.parametrize("pairs", [True, False])
def test_statistics_are_those_of_the_draws(pairs: bool) -> None:
    op, y = inpainting((1, 5, 7))
    states: list[Tensor] = []
    posterior = run(y[0], op, chains=3, draws=4, pairs=pairs, callback=lambda p: states.append(from_state(p.state, False)))
    draws = torch.cat(states[3:])
    assert draws.shape == (12, 1, 5, 7)
    by_chain = torch.stack(states[3:])
    assert torch.allclose(posterior.chain_means, by_chain.mean(0), atol=1e-6)
    variance = by_chain.var(0, correction=0).mean(0)  # (m − 1)/m W + B/m
    if pairs:  # chains 0 and 1, and chain 2 without its other one
        first, second, alone = by_chain.mean(0)
        variance += torch.stack([(first + second) / 2, alone]).var(0) + ((first - second) / 2).square() / 2
    else:
        variance += by_chain.mean(0).var(0)
    assert torch.allclose(posterior.std, variance.sqrt(), rtol=1e-4)
    assert torch.equal(posterior.samples, draws[-3:])
    assert torch.equal(posterior.trace, torch.stack(states[3:], 1).movedim(-3, -1).flatten(2))
    assert posterior.gradients == 15
    assert posterior.by_level["t"] == pytest.approx(FEW.t().tolist())


def test_diagnostics_see_chains_that_mix_and_chains_that_do_not() -> None:
    op, y = inpainting((1, 5, 7))
    mixed = run(y[0], op, GaussianEnergy(0.3, 0.5), draws=40, pairs=False).diagnostics()  # R-hat takes chains for independent
    with pytest.warns(UserWarning, match="schedule: sigma_max = 2 is far below the standard deviation, about 30"):
        stuck = run(y[0], op, Sharp(0.3, 30.0), draws=10).diagnostics()  # t ≪ s: a step goes nowhere where nothing is observed
    assert float(mixed.rhat.max()) < 1.1
    assert float(mixed.ess.mean()) > 80
    assert float(stuck.rhat.max()) > 1.5
    assert len(mixed.by_level) == 4
    assert set(mixed.by_level[0]) == {"t", "eta", "energy", "acceptance", "tau"}
    assert bool(np.isnan(run(y[0], op).diagnostics().rhat).all())
    mala = run(y, op, draws=5, correction="mala").diagnostics()
    assert mala.acceptance is not None
    assert mala.rhat.shape == (1, 35)


@pytest.mark.parametrize("complex_image", [False, True])
def test_save_load_plot(complex_image: bool, tmp_path: Path) -> None:
    op, y = single_coil() if complex_image else inpainting((3, 9, 7), 2)
    posterior = run(y, op, draws=2)
    posterior.save(tmp_path / "post.npz")
    again = Posterior.load(tmp_path / "post.npz")
    same(posterior, again)
    assert again.schedule == FEW
    assert again.broken == posterior.broken
    assert again.seconds == posterior.seconds
    posterior.plot(tmp_path / "post.png", index=1)
    assert (tmp_path / "post.png").stat().st_size > 1000
    for content in (b"not an archive", (tmp_path / "post.npz").read_bytes()[:-40]):
        (tmp_path / "bad.npz").write_bytes(content)
        with pytest.raises(ArgumentError, match="path: got"):
            Posterior.load(tmp_path / "bad.npz")


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    op, y = inpainting((1, 5, 7))
    run(y, op, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "12/12" in captured.err


def test_memory_of_a_chain_is_known() -> None:
    op, y = inpainting((1, 5, 7))
    assert Sampler(op, ENERGY).memory_per_chain(y) >= 4 * 35 * 3
    assert Sampler(op, ENERGY, correction="mala").memory_per_chain(y) > Sampler(op, ENERGY).memory_per_chain(y)


def peak_over_told(setup: str, small: tuple[int, ...], large: tuple[int, ...]) -> float:
    """What a run takes over what it says, in a process of its own, after a small run has loaded everything.

    setup: defines `sampler`, which makes of the numbers of either a sampler and a measurement.
    """
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not tell a process its peak memory")
    code = f"""
import ctypes, pathlib, torch, alps_fast as af
{setup}
def resident(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))
small, y = sampler(*{small})
small(y)
run, y = sampler(*{large})
ctypes.CDLL(None).malloc_trim(0)
before = resident("VmRSS")
run(y)
print((resident("VmHWM") - before) / run.memory(y))
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_memory_counts_factors_of_lines() -> None:
    maps = torch.randn(3, 12, 20, dtype=torch.complex64)
    mask = line_mask(12, 20, 2, centre=4)
    by_lines, by_cg = (CartesianMRI(mask, maps=maps, noise_std=0.05, solver=solver) for solver in ("lines", "cg"))
    y = by_lines.forward(torch.randn(1, 12, 20, dtype=torch.complex64))
    u, _ = by_lines.factors(torch.complex64, y.device)
    assert by_lines.kept() == u.nbytes
    assert Sampler(by_lines, ENERGY).memory(y) == Sampler(by_cg, ENERGY).memory(y) + u.nbytes


def test_chi2_takes_few_images_of_much_data_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """k-space of all coils and chains is more than the rest of a run works in; χ² is the same to the bit."""
    op = CartesianMRI(line_mask(12, 20, 2, centre=4), maps=torch.randn(3, 12, 20, dtype=torch.complex64), noise_std=0.05)
    y = op.forward(torch.randn(1, 12, 20, dtype=torch.complex64))
    at_once, found = [], []
    misfit = op.misfit
    monkeypatch.setattr(op, "misfit", lambda x, y: (at_once.append(len(x)), misfit(x, y))[1])
    for numbers in (1 << 21, 2 * y.numel(), 1):
        monkeypatch.setattr(outcome, "CHI2_NUMBERS", numbers)
        found.append(Sampler(op, ENERGY, chains=5, schedule=Schedule(10.0, 1.0, levels=2, steps=2), progress=False)(y).chi2)
    assert at_once == [5, 2, 2, 1, 1, 1, 1, 1, 1]
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@pytest.mark.parametrize(("name", "chains", "side", "high"), [
    ("natural-denoiser", 1, 384, 100.0), ("natural-ridge", 64, 64, 100.0), ("natural-denoiser", 1, 384, 10.0)])
def test_memory_is_known_before_the_run(name: str, chains: int, side: int, high: float) -> None:
    """From 10, which may be too low a start for an image so large, the measurement is asked too."""
    pytest.importorskip("alps_fast._cpu")
    setup = f"""
torch.set_num_threads(2)
energy, steps = af.energies.load({name!r}, precision="fast"), af.Schedule({high}, {high / 10}, levels=2, steps=2)
def sampler(chains, side):
    op = af.operators.Inpainting(torch.arange(side * side).view(side, side) % 2, noise_std=0.1)
    return af.Sampler(op, energy, chains=chains, schedule=steps, progress=False), torch.rand(1, side, side)
"""
    assert 0.7 < peak_over_told(setup, (2, 16), (chains, side)) < 1.5


@pytest.mark.parametrize(("options", "chains", "count"), [
    ({}, 24, 1), ({}, 1, 24), ({"correction": "mala"}, 24, 1), ({"moves": "leap", "pairs": False}, 32, 1)], ids=str)
def test_memory_of_statistics_and_many_measurements_is_known(options: dict[str, Any], chains: int, count: int) -> None:
    """Complex images, of which magnitudes and phases are kept too."""
    setup = f"""
torch.set_num_threads(1)
def sampler(chains, count, side):
    op = af.operators.Inpainting(torch.ones(side, side), noise_std=0.1, is_complex=True)
    run = af.Sampler(op, af.energies.GaussianEnergy(0.0, 0.5), chains=chains, draws=2, schedule=af.Schedule(levels=2, steps=2),
                     progress=False, **{options})
    return run, torch.zeros(count, 1, side, side, dtype=torch.complex64)
"""
    assert 0.7 < peak_over_told(setup, (32 if "moves" in options else 2, 2, 16), (chains, count, 96)) < 1.5


# --- MAP -----------------------------------------------------------------------------------------------------------

def test_map_is_deterministic_and_alone_as_in_a_batch() -> None:
    op, y = inpainting((1, 5, 7), 2)
    both, one = (map_estimate(v, op, ENERGY, schedule=FEW, progress=False) for v in (y, y[1]))
    assert torch.equal(both.image[1], one.image)
    assert both.image.shape == (2, 1, 5, 7)
    assert both.trace.shape == (2, 4, 3)
    assert torch.equal(both.energy[1], one.energy) and torch.equal(both.trace[1], one.trace)
    assert one.energy.shape == ()
    assert bool((one.trace.diff(dim=-1) <= 1e-6 * one.trace.abs().max()).all())


class Wells(Energy):
    """½‖x‖² + ½ Σ (1 + cos 3x)/9, whose curvature is from ½ to 3/2: L is 1.5, and momentum overshoots."""

    def curvature(self, t: float) -> float:
        return 1.5

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        value = 0.5 * (x.square() + (1.0 + torch.cos(3.0 * x)) / 9.0)
        return value.flatten(1).sum(1), x - torch.sin(3.0 * x) / 6.0


class Slope(Energy):
    """The gradient of `Wells` alone."""

    def _grad(self, x: Tensor, t: float) -> Tensor:
        return Wells().grad(x, t)


@pytest.mark.parametrize("energy", [Wells(), Slope()])
def test_map_from_a_start_is_the_formula_with_momentum_and_restarts(energy: Energy) -> None:
    """Written out image by image, in float64; without a value there is no momentum."""
    op, y = inpainting((1, 5, 7), 2)
    schedule = Schedule(0.7, 0.5, 2, 12)
    start = torch.stack([torch.full((1, 5, 7), 2.0), torch.linspace(-3, 3, 35).view(1, 5, 7)])
    found = map_estimate(y, op, energy, schedule=schedule, start=start, progress=False)
    a, restarts = op.mask.double() / op.noise_std**2, 0
    for i in range(2):
        x = z = start[i:i + 1].double()
        k, trace = 0, []
        for t in schedule.t().tolist():
            before = math.inf
            for _ in range(schedule.steps):
                value, grad = Wells().value_and_grad(z, t)
                u = float(value) / t**2 + float((a * (z - y[i].double()).square()).sum()) / 2
                after = (a * y[i].double() + (1.5 * z - grad if energy.has_value else z - grad) / t**2) / (
                    a + (1.5 if energy.has_value else 1.0) / t**2)
                climbs = energy.has_value and u > before
                trace.append(before if climbs else u)
                if climbs:
                    z, k, before, restarts = x, 0, math.inf, restarts + 1
                else:
                    k, before = k + 1, u
                    x, z = after, after + ((k - 1) / (k + 2) if energy.has_value else 0.0) * (after - x)
        torch.testing.assert_close(found.image[i].double(), x[0], rtol=1e-4, atol=1e-4)
        if energy.has_value:
            torch.testing.assert_close(found.trace[i].flatten(), torch.tensor(trace, dtype=torch.float64), rtol=1e-5, atol=1e-5)
            assert bool((found.trace[i].diff(dim=-1) <= 1e-6 * found.trace[i].abs().max()).all())
            assert float(found.energy[i]) <= trace[-1] * (1 + 1e-6)
    assert (restarts > 0) == energy.has_value
    one = map_estimate(y[1], op, energy, schedule=schedule, start=start[1], progress=False)
    assert torch.equal(one.image, found.image[1])


class Cliff(Energy):
    """½‖x‖², and nothing is known below zero, where momentum leads."""

    def curvature(self, t: float) -> float:
        return 3.0

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        known = torch.where(x < -1e-3, math.nan, x)
        return 0.5 * known.square().flatten(1).sum(1), known


def test_momentum_that_leads_where_there_is_no_energy_is_lost_not_the_image() -> None:
    found = map_estimate(torch.zeros(1, 3, 4), Denoising(100.0), Cliff(), schedule=Schedule(0.5, 0.5, 1, 40),
                         start=torch.ones(1, 3, 4), progress=False)
    assert float(found.image.abs().max()) < 1e-2 and bool(found.trace.isfinite().all())


def test_map_from_a_start_gets_lower_in_as_many_steps() -> None:
    """A wide prior where nothing is measured, from which plain steps of t take hundreds."""
    op, y = Inpainting((torch.arange(40) % 4 == 0).float().view(5, 8), 0.1), torch.zeros(1, 5, 8)
    schedule, start = Schedule(0.1, 0.1, 1, 20), torch.ones(1, 5, 8)
    fast = map_estimate(y, op, ENERGY, schedule=schedule, start=start, progress=False)
    slow = map_estimate(y, op, DiffusionPrior(lambda x, t: x - ENERGY.grad(x, float(t[0])), 1, probe=False), schedule=schedule,
                        start=start, progress=False)
    lowest = map_estimate(y, op, ENERGY, schedule=Schedule(0.1, 0.1, 1, 600), start=start, progress=False).image
    assert float((fast.image - lowest).norm()) < 0.3 * float((slow.image - lowest).norm())
    assert map_estimate(y, op, ENERGY, start=start, progress=False).trace.shape == (6, 3)


def test_wrong_starts_are_named() -> None:
    op, y = inpainting((1, 5, 7), 2)
    for bad in (torch.zeros(1, 5, 6), torch.zeros(3, 1, 5, 7), torch.zeros(1, 5, 7, dtype=torch.complex64),
                torch.full((1, 5, 7), math.nan), torch.full((1, 5, 7), 1e39, dtype=torch.float64), [0.0]):
        with pytest.raises(ArgumentError, match="^start: got"):
            map_estimate(y, op, ENERGY, start=bad, progress=False)


def test_a_start_of_other_units_is_told() -> None:
    """Grey levels of 0 to 255, say: no step gets from there to what the prior knows, and there was an image, and no word."""
    op, energy, few = Denoising(0.1), energies.load("natural-ridge"), Schedule(0.5, 0.1, 2, 1)
    y = torch.zeros(1, 8, 8)
    with pytest.warns(UserWarning, match="^start: it reaches 255, and the energy knows images that reach about 1"):
        map_estimate(y, op, energy, start=torch.full((1, 8, 8), 255.0), schedule=few, progress=False)
    with pytest.warns(UserWarning, match="^warm_start: it reaches 255"):
        sample(y, op, energy, warm_start=torch.full((1, 8, 8), 255.0), warm_std=0.1, schedule=few, chains=2, progress=False)


# --- schedules and errors ------------------------------------------------------------------------------------------

def test_schedule() -> None:
    t = Schedule().t()
    assert t[[0, 1, 2, 39, -2, -1]] == pytest.approx([100, 92.6, 85.6, 1.08, 0.134, 0.1], rel=6e-3)
    assert Schedule(sigma_max=3.0, levels=1).t().tolist() == [0.1]
    etas = Schedule(eta_max=10.0).etas(0.05)
    assert etas[0] == pytest.approx(10)
    assert etas[-1] == 0.05
    assert float((etas[:-1] / etas[1:]).max()) <= math.sqrt(2) * (1 + 1e-12)
    assert Schedule(eta_max=0.01).etas(0.05).tolist() == [0.05]


@pytest.mark.parametrize(("options", "message"), [
    ({"chains": 0}, "chains: got 0"),
    ({"draws": -1}, "draws: got -1"),
    ({"thin": 1.5}, "thin: got 1.5"),
    ({"seed": -1}, "seed: got -1"),
    ({"first_chain": -1}, "first_chain: got -1"),
    ({"method": "hmc"}, "method: got 'hmc'"),
    ({"noise": "pink"}, "noise: got 'pink'"),
    ({"correction": "hastings"}, "correction: got 'hastings'"),
    ({"backend": "fpga"}, "backend: got 'fpga'"),
    ({"noise": "independent", "draws": 2}, "draws: got 2"),
    ({"noise": "independent", "correction": "mala"}, "noise: got 'independent'"),
    ({"noise": "independent", "method": "measurement"}, "noise: got 'independent'"),
    ({"warm_std": 0.1}, "warm_std: got 0.1"),
    ({"warm_start": torch.zeros(1, 5, 7)}, "warm_std: got None"),
    ({"warm_start": torch.zeros(1, 5, 7), "warm_std": -1.0}, "warm_std: got -1.0"),
    ({"warm_start": torch.zeros(1, 4, 7), "warm_std": 0.1}, "warm_start: got torch.float32 of shape"),
    ({"warm_start": torch.full((1, 5, 7), math.nan), "warm_std": 0.1}, "warm_start: got NaN"),
    ({"schedule": 5}, "schedule: got int"),
    ({"chains": True}, "chains: got True"),
    ({"callback": 3}, "callback: got 3"),
])
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    op, y = inpainting((1, 5, 7))
    with pytest.raises(ArgumentError) as error:
        run(y, op, **options)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_sample_takes_what_sampler_takes() -> None:
    ours, theirs = (dict(inspect.signature(f).parameters) for f in (sample, Sampler))
    assert ours.pop("y").annotation == "Tensor"
    assert list(ours.values()) == list(theirs.values())


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    op, y = inpainting((1, 5, 7))
    whole = {"chains": 2, "draws": 2, "thin": 1, "seed": 3, "first_chain": 1}
    schedule = Schedule(np.float32(2.0), np.float32(0.25), np.int64(3), np.int32(2))
    posterior = run(y, op, schedule=schedule, checkpoint=tmp_path / "c", **{k: np.int64(v) for k, v in whole.items()})
    same(posterior, run(y, op, schedule=Schedule(2.0, 0.25, 3, 2), **whole))
    posterior.save(tmp_path / "p.npz")
    assert Posterior.load(tmp_path / "p.npz").seed == 3


@pytest.mark.parametrize(("name", "value"), [("sigma_max", 0.01), ("sigma_min", 0.0), ("levels", 0), ("steps", 0), ("rho", -1.0),
                                             ("eta_max", 0.0), ("eta_steps", 0)])
def test_wrong_schedules_are_named(name: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=f"^{name}: got {value}"):
        Schedule(**{name: value})


def test_wrong_measurements_are_named() -> None:
    op, y = inpainting((1, 5, 7))
    for bad in (y[..., 1:], y * math.nan, y.to(torch.complex64)):
        with pytest.raises(ArgumentError, match="^y: "):
            run(bad, op)
        with pytest.raises(ArgumentError, match="^y: "):
            map_estimate(bad, op, ENERGY, progress=False)
    with pytest.raises(ArgumentError, match="^operator: got"):
        Sampler(op.forward, ENERGY)
    with pytest.raises(ArgumentError, match="^energy: got"):
        Sampler(op, op)
