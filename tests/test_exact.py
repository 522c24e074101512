"""Schedules, predictor and MALA against exact recursions and closed forms, Monte Carlo within its standard error."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from oracles import MU, OPERATORS, Published, S, gaussian_posterior, measure
from torch import Tensor

from alps_fast import data
from alps_fast.energies import CoarseFirst, DiffusionPrior, Energy, GaussianEnergy, GaussianMixtureEnergy, SumEnergy, load
from alps_fast.errors import ArgumentError
from alps_fast.layout import to_state
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting
from alps_fast.samplers import Sampler, Schedule, map_estimate, sample
from alps_fast.samplers.chosen import GRADIENTS, LAG, WANTED, chosen, ladder, rounded_up, unmeasured_std, unseen
from alps_fast.samplers.excess import moments, published
from alps_fast.samplers.run import Run
from alps_fast.schedule import FOLDED
from benchmarks import calibration

COARSE = Schedule(sigma_max=3.0, sigma_min=0.1, levels=8, steps=3, predictor=True)
STDS = torch.tensor([0.1, 0.5, 1.0, 2.0])


def halves(eta: float, width: int = 400) -> tuple[Inpainting, GaussianEnergy, Tensor, Tensor]:
    """Four prior standard deviations, a row each; the right half is measured. Operator, energy, y and a."""
    mask = torch.zeros(1, 4, width)
    mask[..., width // 2:] = 1
    std = STDS.view(1, 4, 1)
    g = torch.Generator().manual_seed(0)
    y = mask * (std * torch.randn(1, 4, width, generator=g) + eta * torch.randn(1, 4, width, generator=g))
    return Inpainting(mask, eta), Flat(std), y, mask[0] / eta**2


class Flat(GaussianEnergy):
    """A centred Gaussian without its bound: L = 1."""

    def __init__(self, std: Tensor):
        super().__init__(0.0, std.expand(1, 4, 1))

    def curvature(self, t: float) -> None:
        return None


@pytest.mark.parametrize(("with_one", "stride"), [(False, 1.0), (True, 1.0), ("folded", 1.0), (False, 1.6), ("folded", 1.6)])
def test_a_run_has_the_variance_and_mean_of_the_recursion(with_one: bool | str, stride: float) -> None:
    """Eight cells of 200 pixels, 100 chains: variance within 4 standard errors of what `moments` says, and so the mean."""
    op, energy, y, a = halves(0.7)
    schedule, chains = replace(COARSE, predictor=with_one, stride=stride), 100
    x = sample(y, op, energy, chains=chains, schedule=schedule, pairs=False, progress=False).samples[:, 0].double()
    precision = a.double() + 1 / (STDS.double()[:, None] ** 2 + schedule.sigma_min**2)
    said = moments(schedule, STDS.numpy()[:, None], a.numpy())
    variance = x.var(0) * precision
    error = math.sqrt(2 / ((chains - 1) * 200))
    for cell in (slice(None, 200), slice(200, None)):
        want = torch.from_numpy(said.variance[:, cell.start or 0])
        assert bool(((variance[:, cell].mean(1) / want - 1).abs() < 4 * error).all())
    shrunk = (a.double() / precision * torch.from_numpy(said.bias) * y[0])[:, 200:]
    off = (x.mean(0)[:, 200:] - shrunk) * (precision[:, 200:] * chains / torch.from_numpy(said.variance[:, 200:])).sqrt()
    assert abs(float(off.square().mean()) - 1) < 4 * math.sqrt(2 / off.numel())


@pytest.mark.parametrize(("name", "kind", "stride"), [
    *((name, kind, 1.0) for name in OPERATORS for kind in (True, "folded")),
    *((name, "folded", 1.6) for name in ("inpainting", "blur", "mri 1-D", "mri 2-D"))])
def test_the_predictor_under_every_operator(name: str, kind: bool | str, stride: float) -> None:
    """The covariance's trace, seen through the exact one, is that of the recursion in the operator's eigenbasis."""
    op, shape = OPERATORS[name]
    y, chains, schedule = measure(op, shape), 400, replace(COARSE, predictor=kind, stride=stride)
    posterior = sample(y, op, Published(0.2, S), chains=chains, schedule=schedule, pairs=False, progress=False)
    assert posterior.gradients == COARSE.levels * COARSE.steps + (COARSE.levels - 1) * (kind is True)
    mean, covariance = gaussian_posterior(op, y, shape, COARSE.sigma_min)
    values = 1 / np.linalg.eigvalsh(covariance.numpy()) - 1 / (S**2 + COARSE.sigma_min**2)
    expected = float(moments(schedule, S, np.maximum(values, 0.0)).variance.mean())
    off = to_state(posterior.samples).flatten(1) - mean
    z = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), off.T, upper=False)
    error = math.sqrt(2 / z.numel())
    assert abs(float(z.var(1).mean()) - expected) < 4 * error + 0.004  # conjugate gradients stop at .03 standard deviations
    assert float(z.mean(1).square().sum()) * chains / len(z) < 1 + 4 * math.sqrt(2 / len(z))


@pytest.mark.parametrize("schedule", [Schedule(0.5, 0.02, 26, 2, 2.0, predictor="folded"),
                                      Schedule(1.0, 0.02, 18, 3, 3.0, predictor=True)])
def test_longer_steps_lag_less_and_leave_no_more(schedule: Schedule) -> None:
    """Means of what a measurement says little of are as far behind as by 1.4 times as many steps; variances no farther off."""
    stds, data = np.geomspace(0.05, 0.5, 15)[:, None], np.concatenate([[0.0], np.geomspace(0.1, 1e2 / 0.02**2, 16)])[None]
    plain, long, more = (moments(s, stds, data) for s in (
        schedule, replace(schedule, stride=1.6), replace(schedule, levels=round(1.4 * schedule.levels))))
    assert np.abs(long.bias - 1).max() < np.abs(more.bias - 1).max() < 0.8 * np.abs(plain.bias - 1).max()
    assert np.abs(long.variance - 1).max() <= np.abs(plain.variance - 1).max()
    endless = moments(replace(schedule, levels=400), stds, data)
    assert np.abs(moments(replace(schedule, levels=400, stride=1.9), stds, data).variance - 1).max() < 0.003
    assert np.abs(endless.variance - 1).max() < 0.003


def test_what_a_stride_may_be() -> None:
    """Below 2, where steps cease to settle; and not where it would be a bias. MAP estimates descend with steps of 1."""
    op, y, energy = Denoising(0.3), torch.ones(1, 4, 4), Published(0.0, S)
    long = replace(COARSE, predictor=False, stride=1.6)
    for wrong in (0.0, 2.0, math.nan):
        with pytest.raises(ArgumentError, match="stride: got"):
            Schedule(stride=wrong)
    for options in ({"correction": "mala"}, {"noise": "independent"}):
        with pytest.raises(ArgumentError, match="schedule: got one with a stride"):
            sample(y, op, energy, schedule=long, progress=False, **options)  # type: ignore[arg-type]
    found = (map_estimate(y, op, energy, schedule=s, progress=False) for s in (long, replace(long, stride=1.0)))
    assert torch.equal(*(each.image for each in found))


@pytest.mark.parametrize("name", ["blur", "mri 2-D", "linear"])
def test_noise_of_the_measurement_that_is_annealed_too_is_in_the_recursion(name: str) -> None:
    """η_t up to ten times η, so that a lag shows: mean and covariance are the recursion's, not the posterior's."""
    op, shape = OPERATORS[name]
    y, chains, schedule = measure(op, shape), 300, replace(COARSE, eta_ratio=3.0 / (10 * op.noise_std), levels=5)
    posterior = sample(y, op, Published(0.0, S), chains=chains, schedule=schedule, pairs=False, progress=False)
    assert posterior.by_level["eta"] == schedule.beside(op.noise_std).tolist() and posterior.by_level["eta"][-1] == op.noise_std
    mean, covariance = gaussian_posterior(op, y, shape, schedule.sigma_min)
    mean = mean - covariance @ torch.full_like(mean, MU / (S**2 + schedule.sigma_min**2))  # of a prior around zero
    values, vectors = torch.linalg.eigh(covariance)
    data = np.maximum(1 / values.numpy() - 1 / (S**2 + schedule.sigma_min**2), 0.0)
    said = moments(schedule, S, data, eta=op.noise_std)
    assert np.abs(said.variance - moments(schedule, S, data, eta=1e-9).variance).max() > 0.05  # without it they are others
    z = to_state(posterior.samples).flatten(1).double() @ vectors / values.sqrt()
    variance, n = z.var(0) / torch.from_numpy(said.variance), z.shape[1]
    assert abs(float(variance.mean()) - 1) < 4 * math.sqrt(2 / (chains * n)) + 0.01
    off = z.mean(0) - torch.from_numpy(said.bias) * (mean @ vectors) / values.sqrt()
    assert float((off.square() * chains / torch.from_numpy(said.variance)).mean()) < 1 + 4 * math.sqrt(2 / n) + 0.1


def test_steps_that_stop_early_leave_a_percent_where_nothing_is_measured() -> None:
    """Twelve by ten pixels seen by three coils, two rows by none, t/η up to 20: the variance of the widest quarter of all
    directions, which conjugate gradients reach last, is within 1.5 % of the recursion's, the mean's error that of its draws."""
    h, w, eta, chains = 12, 10, 0.02, 1000
    grid = torch.stack(torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij"))
    where = torch.tensor([[1.0, 0], [-1, 0], [0, 1]])[..., None, None]
    maps = torch.exp(-(grid - where).square().sum(1)) * torch.exp(1j * (grid * where).sum(1))
    maps = maps / maps.abs().square().sum(0).sqrt()
    maps[:, :2] = 0
    mask = (torch.rand(h, w, generator=torch.Generator().manual_seed(7)) < 0.4).float()
    mask[h // 2 - 1:h // 2 + 2, w // 2 - 1:w // 2 + 2] = 1
    op = CartesianMRI(mask, maps, noise_std=eta)
    y, schedule = measure(op, (1, h, w)), Schedule(1.0, 0.05, 8, 4, 7.0, predictor=True, eta_ratio=20.0)
    posterior = sample(y, op, Published(MU, S), chains=chains, schedule=schedule, pairs=False, progress=False)
    assert max(posterior.by_level["applications"]) < 20
    inside = (op.support(to_state(posterior.samples))[0, ..., 0] > 0).flatten().repeat_interleave(2)
    mean, covariance = gaussian_posterior(op, y, (1, h, w), schedule.sigma_min)
    values, vectors = torch.linalg.eigh(covariance[inside][:, inside])
    said = moments(schedule, S, np.maximum(1 / values.numpy() - 1 / (S**2 + schedule.sigma_min**2), 0.0), eta=eta)
    z = (to_state(posterior.samples).flatten(1)[:, inside].double() - mean[inside]) @ vectors / values.sqrt()
    quarter = len(values) // 4
    variance = (z.var(0) / torch.from_numpy(said.variance))[-quarter:].mean()
    assert abs(float(variance) - 1) < 0.015 + 4 * math.sqrt(2 / (chains * quarter))
    assert float(z.mean(0).square().mean()) * chains < 1.3


def test_without_a_predictor_the_excess_is_the_one_that_was_published_and_with_it_a_tenth() -> None:
    table = {(r["schedule"], r["predictor"]): r for r in calibration.table()}
    published = table["published, 50 × 5", "no"]["unobserved"]
    assert max(published) == pytest.approx(1.0757, abs=1e-3)
    for (name, with_one), row in table.items():
        if with_one == "own" and name.startswith(("published, 50", "10 to 0.02", "schedule=None")):
            assert max(abs(v - 1) for v in row["unobserved"]) < 0.002
            assert abs(row["observed"] - 1) < 0.025 and row["bias"] < 0.1


def test_a_folded_predictor_leaves_with_thirty_gradients_what_one_of_its_own_leaves_with_seventy() -> None:
    stds, data = np.geomspace(0.2, 0.5, 9)[:, None], np.concatenate([[0.0], np.geomspace(0.04, 2.5e5, 24)])[None]
    left = {}
    for kind, levels, steps in (("folded", 15, 2), (True, 14, 4), (True, 6, 4), (False, 15, 2)):
        found = moments(Schedule(1.0, 0.02, levels, steps, 7.0, predictor=kind), stds, data)
        left[kind, levels] = float(np.abs(found.variance - 1).max())
    assert left["folded", 15] < 0.021 and left[True, 14] < 0.021 < left[True, 6] and left[False, 15] > 0.2


def test_a_folded_predictor_is_for_steps_without_a_correction() -> None:
    op, energy, y, _ = halves(0.7, 8)
    with pytest.raises(ArgumentError, match="schedule: got one with a folded predictor; wanted predictor=True with a correction"):
        Sampler(op, energy, schedule=replace(COARSE, predictor="folded"), correction="mala")
    with pytest.raises(ArgumentError, match="predictor: got 'fold'; wanted True, False or 'folded'"):
        Schedule(predictor="fold")
    with pytest.raises(ArgumentError, match="^steps: got 1; wanted 2 or more with predictor='folded'"):
        Schedule(steps=1, predictor="folded")
    with pytest.raises(ArgumentError, match="schedule: got one with a predictor"):
        Sampler(op, energy, schedule=replace(COARSE, predictor="folded"), noise="independent")
    folded = map_estimate(y, op, energy, schedule=replace(COARSE, predictor="folded"), progress=False)
    assert torch.equal(folded.image, map_estimate(y, op, energy, schedule=COARSE, progress=False).image)


def test_what_is_chosen_leaves_two_percent_in_every_cell_and_takes_no_more_gradients_than_published() -> None:
    stds, data = np.array(calibration.STDS), np.array(calibration.DATA)
    for std in stds:
        s = calibration.chosen_for(float(std))
        assert calibration.gradients(s) <= GRADIENTS and np.abs(moments(s, std, data).variance - 1).max() <= WANTED + 1e-3
    s = calibration.chosen_for_all()
    assert calibration.gradients(s) <= GRADIENTS
    assert np.abs(moments(s, stds[:, None], data).variance - 1).max() <= WANTED + 1e-3


def test_where_prior_and_measurement_share_no_directions_the_predictor_takes_away_part_of_the_excess() -> None:
    for seed in range(3):
        problem = calibration.random_problem(seed)
        without, with_one = (calibration.dense(Schedule(predictor=p), *problem) for p in (False, True))
        assert (with_one.mean() - 1) < 0.75 * (without.mean() - 1) and with_one.min() > 0.98


def test_the_dense_recursion_is_the_scalar_one_where_all_is_diagonal() -> None:
    stds, data = np.array([0.2, 1.0, 5.0]), np.array([0.0, 2.0, 50.0])
    found = calibration.dense(COARSE, np.diag(stds**2), np.diag(data))
    np.testing.assert_allclose(found, np.sort(moments(COARSE, stds, data).variance), rtol=1e-9)
    schedule = replace(COARSE, predictor="folded")
    found = calibration.dense(schedule, np.diag(stds**2), np.diag(data))
    np.testing.assert_allclose(found, np.sort(moments(schedule, stds, data).variance), rtol=1e-9)


def test_the_published_rule_has_no_predictor() -> None:
    op, energy, y, _ = halves(0.7, 8)
    assert not Schedule().predictor
    post = sample(y, op, energy, chains=2, noise="independent", progress=False)
    assert post.schedule == Schedule() and post.gradients == 250
    with pytest.raises(ArgumentError, match="schedule: got one with a predictor"):
        Sampler(op, energy, schedule=COARSE, noise="independent")
    with pytest.raises(ArgumentError, match="predictor: got 1"):
        Schedule(predictor=1)  # type: ignore[arg-type]


def test_below_an_energy_s_floor_the_predictor_leaves_states_alone() -> None:
    """A ridge prior's E/t² stays as it is there, so nothing has to follow it."""
    s = Schedule(0.02, 0.005, 3, 4, predictor=True)
    stays = moments(s, 0.5, floor=0.02, curvature=lambda t: (t / 0.02) ** 2)
    np.testing.assert_allclose(stays.variance, moments(replace(s, predictor=False), 0.5, floor=0.02,
                                                       curvature=lambda t: (t / 0.02) ** 2).variance)
    left = moments(replace(s, predictor="folded"), 0.5, floor=0.02, curvature=lambda t: (t / 0.02) ** 2)
    np.testing.assert_allclose(left.variance, stays.variance)
    assert load("natural-ridge").floor == pytest.approx(0.01, rel=1e-3)


# --- what is chosen ---------------------------------------------------------------------------------------------------

def half_plane(side: int = 48) -> Inpainting:
    mask = torch.ones(side, side)
    mask[:, side // 2:] = 0
    return Inpainting(mask, 0.02)


def test_where_annealing_starts_follows_what_is_measured() -> None:
    energy, y = load("natural"), torch.zeros(1, 1, 48, 48)
    pixels = Inpainting((torch.rand(48, 48, generator=torch.Generator().manual_seed(0)) < 0.2).float(), 0.02)
    assert chosen(pixels, energy, y, True).sigma_max == 1.0
    assert chosen(CircularBlur.gaussian(2.0, 0.02), energy, y, True).sigma_max == 1.0
    wide = chosen(half_plane(), energy, y, True)
    assert wide.sigma_max >= 2 * unmeasured_std(half_plane(), y, 1.0) > 4
    assert chosen(pixels, energy, y, False).sigma_max > wide.sigma_max  # annealed without data


@pytest.mark.parametrize("seed", range(3))
def test_the_share_that_is_not_measured_is_that_of_the_mask(seed: int) -> None:
    """Of pixels within four standard errors, by whichever seed the mask was drawn; noise of a mask's own seed said .90 of .80."""
    mask = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(seed)) < 0.2
    share, known = 1 - float(mask.float().mean()), (1 + 0.02**-2) ** -1
    wanted = share + (1 - share) * known
    error = (2 * share * (1 - share) / 64**2) ** 0.5  # of a ratio of sums of χ²
    assert abs(unseen(Inpainting(mask, 0.02), torch.zeros(1, 1, 64, 64), 1.0) - wanted) < 4 * error


def test_where_annealing_ends_follows_noise_and_prior() -> None:
    y = torch.zeros(1, 1, 16, 16)
    assert [chosen(Denoising(eta), load("natural"), y, True).sigma_min for eta in (1e-3, 0.013, 0.3)] == [0.01, 0.013, 0.02]
    s = chosen(Denoising(0.5), GaussianEnergy(0.0, 2.0), y, True)
    assert (s.sigma_max, s.sigma_min) == pytest.approx((4.0, 0.2)) and s.predictor
    limited = DiffusionPrior(lambda x, t: 0 * x, 1, t_range=(0.05, 0.8))
    assert (lambda s: (s.sigma_max, s.sigma_min))(chosen(Denoising(0.01), limited, y, True)) == (0.8, 0.05)


def test_denoisers_are_given_longer_steps_where_nothing_speaks_against_them() -> None:
    """By their `stride`; not with a correction, leaps, annealed noise or a warm start, nor for other energies."""
    y, op = torch.zeros(1, 1, 16, 16), Inpainting(data.pixel_mask(16, 16, keep=0.5), 0.05)
    network, ridge = load("natural-denoiser"), load("natural-ridge")

    class Mine(Energy):
        def _grad(self, x: torch.Tensor, t: float) -> torch.Tensor:
            return x

    def of(energy: Energy, **options: Any) -> Schedule:
        found = Sampler(op, energy, chains=options.pop("chains", 1), progress=False, **options)(y[0]).schedule
        assert found is not None
        return found

    for energy in (network, DiffusionPrior(lambda x, t: 0 * x, 1, probe=False), CoarseFirst(network)):
        plan = of(energy)
        assert (plan.stride, plan.predictor, plan.steps) == (1.5, FOLDED, 2) and plan.levels >= 20
        assert plan == chosen(op, energy, y, True, longer=True)
    for energy in (Mine(), ridge, SumEnergy([network, ridge])):
        assert (of(energy).stride, of(energy).predictor) == (1.0, True)
    own = chosen(op, network, y, True)
    assert (own.stride, own.predictor, own.steps) == (1.0, True, 4)
    assert of(network, correction="mala") == of(network, moves="leap", chains=32) == own
    for start in ({}, {"warm_start": y[0], "warm_std": 0.1}):
        assert of(network, method="measurement", **start).stride == 1.0


def test_longer_steps_leave_gaussians_as_little_excess() -> None:
    """By the recursion, of all strengths of a measurement: two hundredths, as the schedules that others are given."""
    for high, low in ((1.0, 0.02), (3.0, 0.1), (15.0, 0.01)):
        s = ladder(low, high, 0.2, published, 0.0, tied=1.0, stride=1.5)
        stds, a = np.geomspace(0.2, high / 2, 25)[:, None], np.append(np.geomspace(1e-2 * (2 / high) ** 2, 1e2 / low**2, 16), 0.0)
        assert np.abs(moments(s, stds, a).variance - 1).max() <= 0.02
        assert s.levels * s.steps < 0.8 * (lambda t: t.levels * (t.steps + 1))(ladder(low, high, 0.2, published, 0.0, tied=1.0))


def test_the_measurement_s_noise_is_annealed_where_steps_are_iterated_and_no_further_than_the_recursion_allows() -> None:
    plane, maps = (torch.rand(32, 32, generator=torch.Generator().manual_seed(0)) < 0.4).float(), torch.ones(2, 32, 32)
    plane[10:22, 10:22] = 1
    maps, y, prior = maps.to(torch.complex64), torch.zeros(1, 2, 32, 32), load("brain")
    seen = CartesianMRI(plane, maps, noise_std=0.011)
    assert chosen(seen, prior, y, True).eta_ratio in (20.0, 25.0)
    assert chosen(seen, prior, y, False).eta_ratio is None and chosen(seen, prior, y, True, alone=False).eta_ratio is None
    for op in (CartesianMRI(plane, noise_std=0.011), CartesianMRI(torch.ones(32, 32), maps, noise_std=0.011),
               CartesianMRI(plane, maps, noise_std=0.1)):  # by FFT, by lines, and t/η of ten at most
        assert chosen(op, prior, y, True).eta_ratio is None
    for high, eta in ((1.0, 0.002), (10.0, 0.01)):
        s = ladder(0.01, high, 0.2, published, 0.0, tied=1.0, eta=eta)
        assert s == replace(ladder(0.01, high, 0.2, published, 0.0, tied=1.0), eta_ratio=s.eta_ratio) and s.eta_ratio is not None
        assert 0.1 * high < s.eta_ratio * eta < 0.3 * high
        data = np.geomspace(1e-2, 1e6, 60)[None]
        own, too = (moments(each, np.geomspace(0.2, high / 2, 20)[:, None], data, eta=eta).variance
                    for each in (replace(s, eta_ratio=None), s))
        assert float((too - own).max()) < 1.5 * LAG
        worse = moments(replace(s, eta_ratio=20.0), high / 2, data, eta=eta).variance  # what a fixed ratio would do here
        assert float(worse.max()) > 1.5


def test_what_eta_ratio_may_be() -> None:
    assert Schedule().eta_ratio is None and (Schedule().beside(0.3) == 0.3).all()
    assert Schedule(1.0, 0.1, 3, rho=1.0, eta_ratio=10).beside(0.06).tolist() == pytest.approx([0.1, 0.06, 0.06])
    assert Schedule(1.0, 0.1, 3, rho=1.0, eta_ratio=1).beside(0.06).tolist() == pytest.approx([1.0, 0.55, 0.06])
    for wrong in (0.0, -1.0, math.nan, "much"):
        with pytest.raises(ArgumentError, match="eta_ratio: got"):
            Schedule(eta_ratio=wrong)  # type: ignore[arg-type]


def test_spread_and_finest_of_energies() -> None:
    assert (load("brain").spread, load("brain").finest) == (1.0, 0.02)
    mixture = GaussianMixtureEnergy(torch.ones(2), torch.tensor([1.0, -1.0]).view(2, 1, 1, 1), torch.tensor([0.3, 0.5]))
    assert mixture.spread == pytest.approx(math.sqrt(0.25 + 1.0)) and mixture.finest == pytest.approx(0.03)
    both = SumEnergy([GaussianEnergy(0.0, 3.0), GaussianEnergy(0.0, 4.0)])
    assert both.spread == pytest.approx(2.4) and both.t_range is None  # 1/9 + 1/16 = 1/2.4²
    assert DiffusionPrior(lambda x, t: x, 1, image_range=(0.0, 1.0)).spread == 0.5


def test_rounding_up() -> None:
    assert [rounded_up(v) for v in (1.0, 1.0001, 1.2, 2.5, 7.5, 0.04, 46.0)] == pytest.approx([1, 1, 1.5, 3, 10, 0.05, 50])


def test_a_run_says_what_was_chosen_and_a_batch_has_it_too() -> None:
    op, y = half_plane(12), torch.zeros(2, 1, 12, 12)
    energy = GaussianEnergy(0.0, 0.5)
    post = sample(y, op, energy, chains=2, progress=False)
    assert post.schedule == chosen(op, energy, y, True)
    assert post.gradients == post.schedule.levels * 5 - 1
    torch.testing.assert_close(post.samples[0], sample(y[0], op, energy, chains=2, progress=False).samples, rtol=0, atol=0)
    assert post.schedule.levels == 15  # a mode takes half of them, but ten
    assert map_estimate(y[0], op, energy, progress=False).trace.shape == (10, post.schedule.steps)


def test_a_sampler_chooses_once_for_images_of_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    op, y, asked = half_plane(12), torch.zeros(1, 12, 12), []
    seen = op.normal_state
    monkeypatch.setattr(op, "normal_state", lambda x: asked.append(len(x)) or seen(x))
    sampler = Sampler(op, load("natural-ridge"), chains=1, noise="averaged", progress=False, max_chains=1)
    assert sampler.schedule is None
    Run(sampler, y)
    Run(sampler, torch.stack([y, y]))
    assert sum(asked) == 36
    op.noise_std = 0.1
    Run(sampler, y)
    assert sum(asked) == 72


def test_a_start_far_below_what_is_left_open_is_told() -> None:
    short = Schedule(1.0, 0.5, 2, 1)
    y = torch.zeros(1, 12, 12)
    with pytest.warns(UserWarning, match="schedule: sigma_max = 1 is far below the standard deviation, about 20"):
        sample(y, half_plane(12), GaussianEnergy(0.0, 20.0), chains=1, schedule=short, progress=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(y, Denoising(0.1), GaussianEnergy(0.0, 20.0), chains=1, schedule=short, noise="independent", progress=False)
        Sampler(half_plane(12), GaussianEnergy(0.0, 2.0), schedule=short, progress=False, noise="independent")(y)
    mask = torch.zeros(32, 32)
    mask[:8] = 1  # no low frequencies: frequency zero is in the middle
    op = CartesianMRI(mask, noise_std=0.01)
    with pytest.warns(UserWarning, match="schedule: sigma_max = 1 is far below"):
        sample(op.forward(torch.zeros(1, 32, 32, dtype=torch.complex64)), op, load("brain-ridge"), chains=1, schedule=short,
               progress=False)


# --- MALA and MAP -----------------------------------------------------------------------------------------------------

def test_mala_with_the_predictor_is_not_worse_than_without_mala() -> None:
    """25 levels of 4 steps from 10: the worst of four directions was 1.26 with MALA and no predictor, and is within 6 %."""
    std = STDS.view(1, 4, 1)
    op, y = Denoising(100.0), 100.0 * torch.randn(1, 4, 64, generator=torch.Generator().manual_seed(1))
    schedule = Schedule(10.0, 0.02, 25, 4, predictor=True)
    x = sample(y, op, Flat(std), chains=64, schedule=schedule, correction="mala", pairs=False,
               progress=False).samples[:, 0]
    ratio = x.var(0).mean(1) * (1 / (STDS**2 + 0.02**2) + 1e-4)
    assert float((ratio - 1).abs().max()) < 0.06 + 4 * math.sqrt(2 / (63 * 64))


@pytest.mark.filterwarnings("ignore:schedule")  # which starts far too low, so that the prior is flat beside t
def test_mala_takes_longer_steps_than_one_where_nearly_all_are_accepted() -> None:
    """Nothing measured, a prior much wider than t: P = t² is short beside it, and longer steps are accepted too."""
    schedule = Schedule(0.1, 0.1, 1, 60)
    post = sample(torch.zeros(1, 4, 4), Denoising(100.0), Flat(torch.tensor(2.0)), chains=8, schedule=schedule, correction="mala",
                  progress=False)
    assert post.by_level["tau"][-1] > 1.5


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - {"linear"}))  # linear tells that single precision is short
def test_map_never_climbs_by_more_than_rounding_where_eta_is_small(name: str) -> None:
    """From t = 100 at η = .01, where Aᴴy/η² outweighs 1/t² by 10⁸; float32 holds a residual of η in data of 1 to 10⁻⁵ of it."""
    op, shape = OPERATORS[name]
    small = type(op).__new__(type(op))
    small.__dict__.update(op.__dict__)
    small.noise_std = 0.01
    y = measure(small, shape)
    found = map_estimate(y, small, Published(0.2, S), schedule=Schedule(100.0, 0.1, 12, 5), progress=False)
    assert float(found.trace.diff(dim=-1).max()) <= 1e-5 * float(found.trace.abs().max())
