"""Antithetic pairs: what they cancel, what they leave alone, and what counts as independent."""

from __future__ import annotations

import math

import pytest
import torch
from oracles import MU, OPERATORS, Published, S, gaussian_posterior, generator, measure

from alps_fast import ArgumentError, Schedule, sample
from alps_fast.energies import GaussianEnergy, GaussianMixtureEnergy
from alps_fast.layout import to_state
from alps_fast.operators import Denoising
from alps_fast.pairs import units

SHORT = Schedule(1.0, 0.25, 5, 4)


@pytest.mark.parametrize("name", OPERATORS)
def test_two_draws_have_the_exact_mean_of_a_gaussian_posterior(name: str) -> None:
    """In posterior standard deviations, where two draws without pairs are √½ off.

    Law: rounding, 10⁻⁵, measured 6·10⁻⁷; conjugate gradients may stop .03 of a standard deviation away, and the two of a pair do
    so in different places: measured 1.6·10⁻³.
    """
    op, shape = OPERATORS[name]
    y = measure(op, shape)
    mean, covariance = gaussian_posterior(op, y, shape, SHORT.sigma_min)
    for pairs in (True, False):
        found = sample(y, op, GaussianEnergy(MU, S), chains=2, schedule=SHORT, pairs=pairs, progress=False)
        off = (to_state(found.samples).flatten(1).double().mean(0) - mean) / covariance.diagonal().sqrt()
        far = float(off.square().mean().sqrt())
        assert far < (0.03 if name in ("mri 2-D", "linear") else 1e-5) if pairs else far > 0.4


@pytest.mark.parametrize("options", [{"draws": 3}, {"method": "measurement"}, {"noise": "independent"}], ids=str)
def test_a_pairs_middle_is_the_same_whatever_its_noise(options: dict[str, object]) -> None:
    """With L = 1 a chain moves on from where it began; its pair does so on the other side. Accept or reject may part them."""
    op, shape = OPERATORS["blur"]
    y = measure(op, shape)
    found = sample(y, op, Published(MU, S), chains=4, schedule=SHORT, progress=False, **options)  # type: ignore[arg-type]
    middles = found.samples.unflatten(0, (2, 2)).mean(1)
    assert float((middles[0] - middles[1]).abs().max()) < 1e-5
    assert float((found.samples[0] - found.samples[2]).abs().mean()) > 0.05


def test_even_chains_are_those_without_pairs_and_odd_ones_are_the_same_alone() -> None:
    y = torch.randn(2, 1, 5, 7, generator=generator(1))
    op, energy = Denoising(0.5), GaussianEnergy(MU, S)
    paired, plain = (sample(y, op, energy, chains=5, schedule=SHORT, pairs=pairs, progress=False) for pairs in (True, False))
    assert [torch.equal(paired.samples[:, k], plain.samples[:, k]) for k in range(5)] == [True, False, True, False, True]
    alone = sample(y[1], op, energy, chains=2, schedule=SHORT, first_chain=3, first_measurement=1, pairs=True, progress=False)
    assert torch.equal(alone.samples, paired.samples[1, 3:])


@pytest.mark.parametrize("chains", [2, 3, 4, 5])
def test_from_four_chains_on_there_are_pairs_unless_something_else_is_said(chains: int) -> None:
    y = torch.randn(1, 5, 7, generator=generator(1))
    unsaid, said = (sample(y, Denoising(0.5), GaussianEnergy(MU, S), chains=chains, schedule=SHORT, pairs=pairs, progress=False)
                    for pairs in (None, chains >= 4))
    assert torch.equal(unsaid.samples, said.samples) and unsaid.pairs == said.pairs == (chains >= 4)
    assert bool(unsaid.std.isfinite().all())


@pytest.mark.parametrize("correlation", [-1.0, -0.5, 0.5])
@pytest.mark.parametrize("first_chain, broken", [(0, []), (0, [2]), (1, []), (1, [0, 3])])
def test_the_variance_of_a_chain_and_of_the_mean_of_units_are_without_bias(
        correlation: float, first_chain: int, broken: list[int]) -> None:
    """Of six chains of variance one, some of which are without their other one; law: 5 standard errors."""
    count, g = 40_000, generator(2)
    noise = torch.randn(4, 2, count, generator=g, dtype=torch.float64)
    noise[:, 1] = correlation * noise[:, 0] + math.sqrt(1 - correlation**2) * noise[:, 1]
    values = noise.flatten(0, 1)[first_chain:first_chain + 6][None]
    whole = torch.ones(1, 6, dtype=torch.bool)
    whole[0, broken] = False
    values[0, broken] = math.nan
    found = units(values, whole, first_chain, True)
    means, apart = found.mean[:, found.whole[0]], found.apart[:, found.whole[0]]
    k = means.shape[1]
    assert k == {(0, 0): 3, (0, 1): 3, (1, 0): 4, (1, 2): 3}[first_chain, len(broken)]
    assert float((means.var(1) + apart.mean(1)).mean()) == pytest.approx(1.0, abs=5 * math.sqrt(2 / count))
    assert float(means.var(1).mean() / k) == pytest.approx(float(means.mean(1).var()), abs=10 * math.sqrt(2 / count) / k)
    plain = units(values, whole, first_chain, False)
    assert torch.equal(plain.mean[:, whole[0]], values[:, whole[0]]) and not plain.apart.any()
    assert torch.equal(plain.whole, whole)


def test_moments_of_a_posterior_that_is_not_gaussian_are_what_they_are_without_pairs() -> None:
    """Two modes, one dimension, four chains a run: what 1,500 runs say of mean and variance; law: 5 standard errors.

    Where they are not Gaussian the means of pairs do vary, and the variance has that part of its own.
    """
    energy = GaussianMixtureEnergy(torch.tensor([0.5, 0.5]), torch.tensor([-0.4, 0.4]).view(2, 1, 1, 1), torch.tensor([0.2, 0.2]))
    y = torch.full((1500, 1, 1, 1), 0.3)
    runs = [sample(y, Denoising(0.5), energy, chains=4, schedule=Schedule(2.0, 0.1, 10, 4), seed=seed, pairs=seed == 0,
                   progress=False) for seed in (0, 1)]
    variances = [r.std.square().flatten().double() for r in runs]
    error = 5 * math.sqrt(sum(float(v.var()) for v in variances) / len(y))
    assert abs(float(variances[0].mean() - variances[1].mean())) < error
    means = [r.mean.flatten().double() for r in runs]
    assert abs(float(means[0].mean() - means[1].mean())) < 5 * math.sqrt(sum(float(v.var()) for v in means) / len(y))
    assert float(means[0].var() / means[1].var()) < 0.8
    told = runs[0].samples.flatten(2).unflatten(1, (2, 2)).mean(2).double().var(1) / 2  # of the mean, by units' means
    assert float(told.mean() / means[0].var()) == pytest.approx(1.0, abs=0.3)


def test_pairs_are_asked_for_by_true_or_false() -> None:
    with pytest.raises(ArgumentError, match="^pairs: got 'yes'; wanted True, False or None"):
        sample(torch.zeros(1, 2, 2), Denoising(0.5), GaussianEnergy(), pairs="yes")  # type: ignore[arg-type]
