"""Samplers against posteriors known in closed form (docs/design.md §8), smoothed by σ_min as the prior is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from oracles import MU, OPERATORS, Published, S, agrees, gaussian_posterior, generator, measure
from torch import Tensor

from alps_fast.energies.gaussian import GaussianEnergy, GaussianMixtureEnergy
from alps_fast.layout import to_state
from alps_fast.operators import Denoising, Inpainting
from alps_fast.operators.sense import REFINED
from alps_fast.ops._dispatch import why_not
from alps_fast.samplers import Schedule, map_estimate, sample
from alps_fast.samplers.chains import BLOCK

SHORT = Schedule(sigma_max=1.0, sigma_min=0.25, levels=5, steps=12)


class PublishedMixture(GaussianMixtureEnergy):
    """The mixture without its bound: L = 1."""

    def curvature(self, t: float) -> None:
        return None


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("energy", [GaussianEnergy(MU, S), Published(MU, S)], ids=["exact L", "L = 1"])
def test_gaussian_posterior_under_every_operator(name: str, energy: GaussianEnergy) -> None:
    op, shape = OPERATORS[name]
    y = measure(op, shape)
    posterior = sample(y, op, energy, chains=400, pairs=False, schedule=SHORT, progress=False)
    agrees(posterior.samples, posterior.mean, *gaussian_posterior(op, y, shape, SHORT.sigma_min))


KERNELS = {"inpainting": "langevin_pixel", "blur": "langevin_fourier", "superresolution": "langevin_fourier",
           "mri one coil": "langevin_fourier",
           "mri 1-D": "langevin_sense", "mri 2-D": "langevin_sense_cg"}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_gaussian_posterior_on_every_backend(name: str, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the compiled kernels every step, or by none of them; functions have none."""
    if why_not("cpu") is not None:
        pytest.skip("built without alps_fast._cpu: the other oracles are of the torch backend")
    from alps_fast import _cpu

    calls = Counter[str]()

    def counted(kernel: str, run: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            calls[kernel] += 1
            return run(*arguments)
        return call

    for kernel in {*KERNELS.values(), "moments"}:
        monkeypatch.setattr(_cpu, kernel, counted(kernel, getattr(_cpu, kernel)))
    op, shape = OPERATORS[name]
    y = measure(op, shape)
    chains = 400
    posterior = sample(y, op, Published(MU, S), chains=chains, schedule=SHORT, backend=backend, pairs=False,
                       progress=False)
    agrees(posterior.samples, posterior.mean, *gaussian_posterior(op, y, shape, SHORT.sigma_min))
    steps, of_draws = SHORT.levels * SHORT.steps, 1 + op.is_complex  # of magnitude and phase too
    blocks, rest = divmod(calls.pop("moments", 0) - of_draws * (backend == "cpu"), chains // BLOCK)
    assert rest == 0 and (blocks > 0) == (backend == "cpu")  # chains are summed a block after another, each of several figures
    of_centre = {"mri 1-D": 1 + 2 * REFINED, "mri 2-D": 2}.get(name, 0)  # what preconditions, or is, the solve of steps' centre
    assert calls == ({KERNELS[name]: 1 + steps + of_centre} if backend == "cpu" else {})


@pytest.mark.parametrize("name", ["inpainting", "mri 1-D", "superresolution"])
def test_gaussian_posterior_by_mala(name: str) -> None:
    op, shape = OPERATORS[name]
    y = measure(op, shape)
    schedule = Schedule(sigma_max=1.0, sigma_min=0.25, levels=8, steps=15)
    posterior = sample(y, op, Published(MU, S), chains=400, pairs=False, schedule=schedule, correction="mala", progress=False)
    assert posterior.acceptance is not None
    assert 0.45 < posterior.acceptance < 0.95
    agrees(posterior.samples, posterior.mean, *gaussian_posterior(op, y, shape, schedule.sigma_min))


@pytest.mark.parametrize("name", ["inpainting", "mri 1-D", "blur", "linear"])
def test_gaussian_posterior_by_annealing_the_measurement(name: str) -> None:
    op, shape = OPERATORS[name]
    y = measure(op, shape)
    posterior = sample(y, op, Published(MU, S), chains=400, pairs=False, schedule=SHORT, method="measurement", progress=False)
    agrees(posterior.samples, posterior.mean, *gaussian_posterior(op, y, shape, SHORT.sigma_min))


def test_a_warm_start_is_one_more_gaussian_measurement() -> None:
    op, shape = OPERATORS["inpainting"]
    y, std, t = measure(op, shape), 0.3, SHORT.sigma_min
    warm = MU + S * torch.randn(shape, generator=generator(8))
    _, covariance = gaussian_posterior(op, y, shape, t)
    precision = torch.linalg.inv(covariance)
    b = op.adjoint_state(op.check_measurement(y)).flatten().double() / op.noise_std**2 + MU / (S * S + t * t)
    warmer = torch.linalg.inv(precision + torch.eye(len(b)) / std**2)
    mean = warmer @ (b + to_state(warm[None]).flatten().double() / std**2)
    for method in ("alps", "measurement"):
        posterior = sample(y, op, Published(MU, S), chains=400, pairs=False, schedule=SHORT, method=method, warm_start=warm,
                           warm_std=std, progress=False)
        agrees(posterior.samples, posterior.mean, mean, warmer)


def test_the_published_rule_has_its_own_bias() -> None:
    """At a fixed level without data the variance is (s² + t²)²/(2s² + t²), and what is returned the conditional mean's."""
    t = 0.3
    mask = torch.zeros(32, 32)
    mask[0, 0] = 1
    unseen = (mask == 0).flatten()
    states: dict[str, Tensor] = {}
    for noise in ("independent", "averaged"):
        posterior = sample(torch.zeros(1, 32, 32), Inpainting(mask, 0.1), Published(0.0, S), chains=50, noise=noise,
                           schedule=Schedule(sigma_max=t, sigma_min=t, levels=1, steps=40), progress=False)
        states[noise] = posterior.samples.flatten(1)[:, unseen]
    error = 5 * math.sqrt(2 / states["averaged"].numel())
    biased = (S**2 + t**2) ** 2 / (2 * S**2 + t**2)
    assert float(states["independent"].var()) + t**2 == pytest.approx(biased, rel=error)  # P = t² was not added at the end
    assert float(states["averaged"].var()) == pytest.approx(S**2 + t**2, rel=error)
    assert biased < 0.7 * (S**2 + t**2)


def test_annealed_publication_is_underdispersed_as_measured() -> None:
    """docs/design.md §8: s = 0.5, η = 0.05, variance 0.119 of 0.25 where nothing is observed, 7.6e-5 of 2.5e-3 where all is."""
    mask = torch.zeros(1, 24, 24)
    mask[:, :12] = 1
    op = Inpainting(mask, 0.05)
    y = torch.zeros(1, 24, 24)
    independent = sample(y, op, Published(0.0, S), chains=60, noise="independent", progress=False)
    averaged = sample(y, op, Published(0.0, S), chains=60, progress=False)
    unseen, seen = independent.samples[..., 12:, :], independent.samples[..., :12, :]
    assert float(unseen.var()) == pytest.approx(0.119, rel=0.06)
    assert float(seen.var()) == pytest.approx(7.6e-5, rel=0.06)
    assert float(averaged.samples[..., 12:, :].var()) == pytest.approx(S**2 + 0.1**2, rel=0.12)  # 8 %: 250 steps lag
    assert float(averaged.samples[..., :12, :].var()) == pytest.approx(1 / (1 / 0.05**2 + 1 / 0.26), rel=0.05)


def mixture(std: float, centre: float, energy: type[GaussianMixtureEnergy] = PublishedMixture) -> GaussianMixtureEnergy:
    return energy(torch.tensor([0.5, 0.5]), torch.tensor([-centre, centre]).view(2, 1, 1, 1), torch.tensor([std, std]))


def mixture_posterior(std: float, centre: float, eta: float, y: float, t: float) -> tuple[float, float, float, float]:
    """Mean, variance, weight of the right mode, and its variance, of the mixture smoothed by t."""
    v = std**2 + t**2
    odds = [math.exp(-0.5 * (y - m) ** 2 / (v + eta**2)) for m in (-centre, centre)]
    right = odds[1] / sum(odds)
    inside = 1 / (1 / v + 1 / eta**2)
    low, high = (inside * (m / v + y / eta**2) for m in (-centre, centre))
    mean = right * high + (1 - right) * low
    return mean, inside + right * (1 - right) * (high - low) ** 2, right, inside


def test_overlapping_mixture_needs_mala_and_the_bias_without_it_is_known() -> None:
    """One dimension, modes ±0.4 of std 0.3, η = 0.5, y = 0.3 (docs/design.md §8): variance 0.144 exact."""
    op, y, chains = Denoising(0.5), torch.full((1, 1, 1), 0.3), 8000
    mean, variance, _, _ = mixture_posterior(0.3, 0.4, 0.5, 0.3, 0.1)
    assert variance == pytest.approx(0.144, abs=5e-4)
    error = 4 * variance * math.sqrt(2 / chains)  # an upper bound: the mixture's kurtosis is below the Gaussian's
    averaged = sample(y, op, mixture(0.3, 0.4), chains=chains, schedule=Schedule(), pairs=False, progress=False)
    assert float(averaged.std**2) == pytest.approx(0.1465, abs=error)
    independent = sample(y, op, mixture(0.3, 0.4), chains=chains, noise="independent", pairs=False, progress=False)
    assert float(independent.std**2) == pytest.approx(0.071, abs=error / 2)  # 0.081 before the noise-free last step
    schedule = Schedule(sigma_max=10.0, levels=20, steps=10)
    for energy in (mixture(0.3, 0.4), mixture(0.3, 0.4, GaussianMixtureEnergy)):
        exact = sample(y, op, energy, chains=chains, schedule=schedule, correction="mala", pairs=False, progress=False)
        assert float(exact.std**2) == pytest.approx(variance, abs=error)
        assert float(exact.samples.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / chains))


def test_separated_modes_are_exact_inside_and_freeze_between() -> None:
    """Modes ±1 of std 0.15 (docs/design.md §8): variance 0.0288 inside, weight 0.89 exact, about 0.81 as frozen."""
    # y is chosen so that the exact weight is the 0.89 of the figure
    eta, t = 0.5, 0.1
    y = 0.5 * math.log(0.89 / 0.11) * (0.15**2 + t**2 + eta**2)
    _, _, right, inside = mixture_posterior(0.15, 1.0, eta, y, t)
    assert right == pytest.approx(0.89, abs=1e-6)
    measured = torch.full((1, 1, 1), y)
    posterior = sample(measured, Denoising(eta), mixture(0.15, 1.0), chains=8000, schedule=Schedule(), pairs=False,
                       progress=False)
    x = posterior.samples.flatten()
    assert float(x[x > 0].var()) == pytest.approx(inside, rel=0.08)
    assert 0.78 < float((x > 0).float().mean()) < 0.84


def test_langevin_from_the_prior_follows_lemma_f1() -> None:
    """[XGP] Lemma F.1: p = N(0, 1), A = 1; after time τ, averaged over y, Var X = 1 − 2u(1 − u)/(1 + η²), u = e^{−ατ}.

    A step lasts P = (1/η² + 1/t²)⁻¹; the discrete decay per step, 1 − P (1 + 1/η²), stands for e^{−αP}.
    """
    t, eta, steps = 0.1, 1.0, 35
    prior = Published(0.0, math.sqrt(1 - t * t))
    g = generator(2)
    y = torch.randn(1, 160, 160, generator=g) + eta * torch.randn(1, 160, 160, generator=g)
    schedule = Schedule(sigma_max=1.0, sigma_min=t, levels=8, steps=25, eta_max=eta, eta_steps=steps)
    posterior = sample(y, Denoising(eta), prior, chains=1, method="measurement", schedule=schedule, progress=False)
    p = 1 / (1 / eta**2 + 1 / t**2)
    u = (1 - p * (1 + 1 / eta**2)) ** steps
    assert 0.4 < u < 0.6
    expected = 1 - 2 * u * (1 - u) / (1 + eta**2)
    assert float(posterior.samples.var()) == pytest.approx(expected, abs=5 * math.sqrt(2 / y.numel()) + 0.01)


@pytest.mark.parametrize("options", [{}, {"draws": 10, "thin": 4}, {"correction": "mala"}, {"method": "measurement"}], ids=str)
def test_ninety_percent_intervals_cover(options: dict[str, object]) -> None:
    """Over 6400 pixels; the truth comes from the smoothed prior, which is the one sampled."""
    shape, t = (1, 80, 80), SHORT.sigma_min
    g = generator(4)
    truth = MU + math.sqrt(S * S + t * t) * torch.randn(shape, generator=g)
    op = Inpainting((torch.rand(80, 80, generator=g) < 0.5).float(), 0.3)
    y = op.forward(truth) + 0.3 * torch.randn(shape, generator=g)
    schedule = replace(SHORT, predictor=True)  # without, MALA's lag behind falling levels shows: 92.1 %
    low, high = sample(y, op, Published(MU, S), schedule=schedule, progress=False, **options).interval(0.9)
    assert 0.88 < float(((truth > low) & (truth < high)).float().mean()) < 0.92


@pytest.mark.parametrize("name", OPERATORS)
def test_map_of_a_gaussian_is_its_mean_and_never_climbs(name: str) -> None:
    op, shape = OPERATORS[name]
    y = measure(op, shape)
    for energy in (GaussianEnergy(MU, S), Published(MU, S)):  # 1 bounds the curvature of both
        found = map_estimate(y, op, energy, schedule=Schedule(sigma_max=2.0, sigma_min=0.25, levels=8, steps=12), progress=False)
        mean, _ = gaussian_posterior(op, y, shape, 0.25)
        assert torch.allclose(to_state(found.image[None]).flatten().double(), mean, atol=0.01)
        rises = torch.cat([found.trace.diff(dim=-1).flatten(), (found.energy - found.trace[-1, -1])[None]])
        assert float(rises.max()) <= 1e-5 * float(found.trace.abs().max())
        misfit = (op.forward(found.image) - op.check_measurement(y)[0]).abs().double().square().sum() / (2 * op.noise_std**2)
        want = energy.value(found.image, 0.25).double() / 0.25**2 + misfit
        torch.testing.assert_close(found.energy, want, rtol=1e-4, atol=1e-4)


def test_one_step_is_enough_for_a_gaussian_with_its_bound() -> None:
    """With the exact L one step from the start N(P b, P) is a posterior draw."""
    op, t = Denoising(0.5), 0.7
    y, schedule = torch.ones(1, 1, 1), Schedule(t, t, levels=1, steps=1)
    posterior = sample(y, op, GaussianEnergy(0.0, S), chains=4000, schedule=schedule, pairs=False, progress=False)
    precision = 1 / 0.25 + 1 / (S * S + t * t)
    assert float(posterior.samples.mean()) == pytest.approx(4 / precision, abs=4 / math.sqrt(4000 * precision))
    assert float(posterior.samples.var()) == pytest.approx(1 / precision, rel=0.1)
