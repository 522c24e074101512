"""Standard deviations and intervals: of the value, of magnitude and phase; what they cover; blocks of chains; files."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes
from torch import Tensor

from alps_fast import ArgumentError, Schedule, data, sample
from alps_fast.energies import GaussianEnergy
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, Operator, SuperResolution
from alps_fast.posterior import Posterior
from alps_fast.samplers.chains import joined, over_chains, polar
from alps_fast.student import student

SIDE, S, NOISE = 64, 0.5, 0.02
FEW = Schedule(2.0, 0.2, 4, 3)
SLOW = Schedule(10, 0.02, 25, 4)  # at its end t ≪ s: where nothing is observed a chain hardly moves between draws


class Sharp(GaussianEnergy):
    """A Gaussian that does not know its bound, so that L = 1."""

    def curvature(self, t: float) -> None:
        return None


def mask(*shape: int) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.2).float()


def problem(operator: Operator, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A truth from the prior, std ½ in every real channel, and its measurement."""
    g = torch.Generator().manual_seed(seed)
    kind = torch.complex64 if operator.is_complex else torch.float32
    x = S * torch.randn(1, SIDE, SIDE, generator=g, dtype=kind) * (math.sqrt(2) if operator.is_complex else 1)
    y = operator.forward(x)
    noise = torch.randn(y.shape, generator=g, dtype=y.dtype) * (math.sqrt(2) if y.is_complex() else 1)
    return x, y + NOISE * noise * (y != 0)


def inside(x: Tensor, ends: tuple[Tensor, Tensor], where: Tensor | None = None) -> float:
    """Share of the real numbers of x at the pixels `where` that are between the ends."""
    parts = [torch.view_as_real(v) if v.is_complex() else v[..., None] for v in (x, *ends)]
    found = ((parts[0] > parts[1]) & (parts[0] < parts[2])).float()
    return float((found if where is None else found[:, where.bool()]).mean())


def unobserved_variance(schedule: Schedule) -> float:
    """Of a chain where nothing is observed: x⁺ = x (1 − t²/(s² + t²)) + t (R_k + R_{k+1})/√2 from x = t₀ R₀ on, weights of R."""
    weights = torch.zeros(schedule.levels * schedule.steps + 2, dtype=torch.float64)
    weights[0] = schedule.sigma_max
    for k, t in enumerate([t for t in schedule.t().tolist() for _ in range(schedule.steps)], 1):
        weights *= 1 - t * t / (S * S + t * t)
        weights[k:k + 2] += t / math.sqrt(2)
    return float(weights.square().sum())


PLAIN = [(chains, draws, False) for chains, draws in [(4, 6), (3, 6), (16, 1), (2, 20), (2, 6), (2, 1)]]
PAIRED = [(chains, draws, True) for chains, draws in [(4, 20), (4, 6), (4, 1), (5, 6), (16, 1)]]


@pytest.mark.parametrize("chains, draws, pairs", PLAIN + PAIRED)
@pytest.mark.parametrize("is_complex", [False, True])
def test_90_percent_intervals_cover_what_chains_hardly_explore(is_complex: bool, chains: int, draws: int, pairs: bool) -> None:
    """Truth from the prior, unobserved pixels. As draws of one chain are near each other they used to cover 11 to 75 %.

    Law: 90 ± 2 %, and four standard errors of a share of so many pixels.
    """
    op = Inpainting(mask(SIDE, SIDE), noise_std=NOISE, is_complex=is_complex)
    x, y = problem(op)
    posterior = sample(y, op, Sharp(0.0, S), chains=chains, draws=draws, schedule=SLOW, pairs=pairs, progress=False)
    unobserved = 1 - mask(SIDE, SIDE)
    error = 4 * math.sqrt(0.09 / float(unobserved.sum()) / (2 if is_complex else 1))
    assert inside(x, posterior.interval(0.9), unobserved) == pytest.approx(0.9, abs=0.02 + error)
    # a chi-square a pixel, of chains − 1 degrees of freedom, or of as many as there are pairs
    error = 4 * math.sqrt(2 / (chains // 2 if pairs else chains - 1) / float(unobserved.sum()) / (2 if is_complex else 1))
    variance = float(posterior.channel_std.square()[:, unobserved.bool()].mean())
    assert variance / unobserved_variance(SLOW) == pytest.approx(1.0, abs=0.01 + error)


MAPS = data.coil_maps(4, SIDE, SIDE)
OPERATORS = {
    "inpainting": lambda: Inpainting(mask(SIDE, SIDE), noise_std=NOISE),
    "complex inpainting": lambda: Inpainting(mask(SIDE, SIDE), noise_std=NOISE, is_complex=True),
    "denoising": lambda: Denoising(NOISE),
    "blur": lambda: CircularBlur.gaussian(2.0, NOISE),
    "superres": lambda: SuperResolution(2, NOISE),
    "one coil": lambda: CartesianMRI(mask(SIDE, SIDE), noise_std=NOISE),
    "lines": lambda: CartesianMRI(mask(SIDE).expand(SIDE, SIDE), MAPS, noise_std=NOISE),
    "coils": lambda: CartesianMRI(mask(SIDE, SIDE), data.coil_maps(2, SIDE, SIDE), noise_std=NOISE, max_iter=2000),
    "functions": lambda: LinearOperator(lambda x: x * mask(SIDE, SIDE), lambda y: y * mask(SIDE, SIDE), NOISE, (1, SIDE, SIDE)),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_90_percent_intervals_cover_whatever_the_operator(name: str) -> None:
    """All numbers of an image, those that chains explore at once too; neighbours hang together where the operator spreads noise.

    Law: as above, a number in four standing alone.
    """
    op = OPERATORS[name]()
    x, y = problem(op)
    posterior = sample(y, op, Sharp(0.0, S), chains=4, draws=6, schedule=SLOW, progress=False)
    error = 4 * math.sqrt(0.09 / (SIDE**2 / 4))
    assert inside(x, posterior.interval(0.9)) == pytest.approx(0.9, abs=0.02 + error)
    if op.is_complex:
        assert inside(x.abs(), posterior.interval(0.9, of="magnitude")) == pytest.approx(0.9, abs=0.02 + error)


@pytest.mark.parametrize("chains, draws, pairs", [(4, 20, True), (16, 1, True), (16, 1, False), (2, 6, False)])
def test_magnitude_and_phase_have_their_own(chains: int, draws: int, pairs: bool) -> None:
    """Against the moments of |z| and exp(i arg z) of a complex Gaussian about the data, by draws of it; 90 % intervals cover."""
    op = Denoising(0.3, is_complex=True)
    x, _ = problem(op)
    x = x + 1.5
    g = torch.Generator().manual_seed(5)
    y = x + 0.3 * math.sqrt(2) * torch.randn(x.shape, generator=g, dtype=x.dtype)
    posterior = sample(y, op, GaussianEnergy(torch.tensor([1.5, 0.0]).view(2, 1, 1), S), chains=chains, draws=draws,
                       schedule=Schedule(2.0, 0.01, 10, 4), pairs=pairs, progress=False)
    precision = 1 / 0.3**2 + 1 / S**2
    mean = (y / 0.3**2 + 1.5 / S**2) / precision
    exact = mean[:, None] + torch.randn(1, 2000, SIDE, SIDE, generator=g, dtype=x.dtype) * math.sqrt(2 / precision)
    unit = torch.sgn(exact).mean(1).abs()
    for found, want in ((posterior.magnitude_std.square(), exact.abs().var(1)), (posterior.phase_std.square(), -2 * unit.log())):
        error = 4 * math.sqrt(3 / (chains // 2 if pairs else chains - 1) / SIDE**2)
        assert float((found / want).mean()) == pytest.approx(1.0, abs=0.02 + error)
    assert float((posterior.magnitude_mean - exact.abs().mean(1)).mean()) == pytest.approx(0.0, abs=0.02)
    apart = torch.remainder(posterior.phase_mean - torch.sgn(exact).mean(1).angle() + math.pi, 2 * math.pi) - math.pi
    assert float(apart.mean()) == pytest.approx(0.0, abs=0.02)
    error = 4 * math.sqrt(0.09 / SIDE**2)
    assert inside(x.abs(), posterior.interval(0.9, of="magnitude")) == pytest.approx(0.9, abs=0.02 + error)
    low, high = posterior.interval(0.9, of="phase")
    middle = (low + high) / 2
    turned = torch.remainder(x.angle() - middle + math.pi, 2 * math.pi) - math.pi
    assert inside(turned, (low - middle, high - middle)) == pytest.approx(0.9, abs=0.02 + error)


def test_a_phase_that_is_uniform_and_pixels_that_are_zero() -> None:
    """√ln of as many draws as there are is all that a uniform phase's std can be told apart from; where x is 0 so is all else."""
    op = Inpainting(torch.tensor([[0.0, 1.0]]), noise_std=0.01, is_complex=True)
    options: dict[str, Any] = {"chains": 8, "schedule": FEW, "progress": False}
    posterior = sample(torch.full((1, 1, 2), 3 + 0j), op, GaussianEnergy(0.0, S), **options)
    assert 0.8 < float(posterior.phase_std[0, 0, 0]) <= math.sqrt(math.log(8)) + 1e-6
    assert float(posterior.phase_std[0, 0, 1]) < 0.05
    low, high = posterior.interval(0.9, of="phase")
    assert float((high - low).max()) <= 2 * math.pi + 1e-5
    assert float(posterior.interval(0.999, of="magnitude")[0].min()) >= 0
    zeros = torch.zeros_like
    nothing = replace(posterior, mean=zeros(posterior.mean), channel_std=zeros(posterior.channel_std),
                      chain_means=zeros(posterior.chain_means), polar_means=zeros(posterior.polar_means),
                      polar_std=zeros(posterior.polar_std))
    for of in ("value", "magnitude", "phase"):
        assert all(not v.any() for v in nothing.interval(of=of))
    assert not any(v.any() for v in (nothing.std, nothing.magnitude_std, nothing.phase_std))


def test_one_chain_has_no_interval_and_says_what_to_ask_for() -> None:
    op = Denoising(0.1, is_complex=True)
    posterior = sample(torch.zeros(1, 3, 3, dtype=torch.complex64), op, GaussianEnergy(0.0, S), chains=1, draws=5, schedule=FEW,
                       progress=False)
    for name in ("std", "magnitude_std", "phase_std"):
        with pytest.warns(UserWarning, match=f"^{name}: NaN, .* ask for chains=4 or more"):
            assert bool(getattr(posterior, name).isnan().all())
    for of in ("value", "magnitude", "phase"):
        with pytest.warns(UserWarning, match="^interval: NaN, .* ask for chains=4 or more"):
            assert all(bool(v.isnan().all()) for v in posterior.interval(of=of))


def test_one_pair_has_no_interval_and_says_what_to_ask_for() -> None:
    """Its mean is as good as any; of chains that are independent two are enough."""
    options: dict[str, Any] = {"chains": 2, "schedule": FEW, "progress": False}
    posterior = sample(torch.zeros(1, 3, 3), Denoising(0.1), GaussianEnergy(0.0, S), pairs=True, **options)
    with pytest.warns(UserWarning, match=r"^std: NaN, as one pair .* chains=4 or more, or for pairs=False"):
        assert bool(posterior.std.isnan().all())
    with pytest.warns(UserWarning, match=r"^interval: NaN, as one pair .* chains=4 or more, or for pairs=False"):
        assert all(bool(v.isnan().all()) for v in posterior.interval())
    torch.testing.assert_close(posterior.mean, torch.zeros(1, 3, 3), rtol=0, atol=1e-6)
    plain = sample(torch.zeros(1, 3, 3), Denoising(0.1), GaussianEnergy(0.0, S), **options)
    assert bool(plain.std.isfinite().all())


def test_what_is_asked_of_an_interval_is_checked() -> None:
    posterior = sample(torch.zeros(1, 3, 3), Denoising(0.1), GaussianEnergy(0.0, S), chains=4, schedule=FEW, progress=False)
    with pytest.raises(ArgumentError, match="^level: got 1.0"):
        posterior.interval(1.0)
    for ask in (lambda: posterior.interval(of="magnitude"), lambda: posterior.magnitude_std, lambda: posterior.phase_mean):
        with pytest.raises(ArgumentError, match="^of: got '(magnitude|phase)'; wanted .*value"):
            ask()


def test_a_file_keeps_everything(tmp_path: Path) -> None:
    for is_complex in (False, True):
        op = Denoising(0.1, is_complex=is_complex)
        y = torch.zeros(2, 1, 3, 3, dtype=torch.complex64 if is_complex else torch.float32)
        posterior = sample(y, op, GaussianEnergy(0.0, S), chains=4, draws=2, schedule=FEW, first_chain=5,
                           progress=False)
        posterior.save(tmp_path / "file.npz")
        back = Posterior.load(tmp_path / "file.npz")
        for of in ("value", "magnitude", "phase")[:3 if is_complex else 1]:
            assert all(map(torch.equal, back.interval(of=of), posterior.interval(of=of)))
        assert torch.equal(back.chain_means, posterior.chain_means)
        assert (back.pairs, back.first_chain) == (posterior.pairs, posterior.first_chain) == (True, 5)
        assert is_complex or back.polar_means is None
        assert not is_complex or torch.equal(back.phase_std, posterior.phase_std)


@pytest.mark.parametrize("level", [0.1, 0.9, 0.999])
def test_students_quantile(level: float) -> None:
    """P(|T| < q) by integrating the density over the angle atan(q/√ν); relative error 1e-6 beyond 30 degrees of freedom."""
    freedom = [1, 2, 3, 4, 5, 15, 30, 31, 99, 1000]
    for nu, q in zip(freedom, student(level, torch.tensor(freedom)).tolist(), strict=True):
        angles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 * math.atan(q / math.sqrt(nu))
        density = 2 / math.sqrt(math.pi) * math.exp(math.lgamma((nu + 1) / 2) - math.lgamma(nu / 2)) * angles.cos() ** (nu - 1)
        assert float(density.mean()) * math.atan(q / math.sqrt(nu)) == pytest.approx(level, abs=1e-6)
    assert student(0.9, torch.tensor([1, 3])).tolist() == pytest.approx([6.313752, 2.353363], abs=1e-6)


# --- blocks of chains ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("first_chain", [0, 5])
def test_blocks_of_chains_that_are_summed_apart_give_the_same_bits(first_chain: int) -> None:
    """Blocks end where chains' indices are multiples of 16; a broken chain is in none."""
    rows = torch.randn(2 * 40, 3, 2, generator=torch.Generator().manual_seed(1))
    alive = torch.ones(80, dtype=torch.bool)
    alive[[3, 47]] = False
    rows[~alive] = math.nan
    whole = over_chains(rows, alive, 2, first_chain, "auto")
    bounds = [0, *(at - first_chain for at in (16, 32, 48) if at - first_chain < 40), 40]
    blocks = [over_chains(rows.unflatten(0, (2, 40))[:, begin:end].flatten(0, 1), alive.view(2, 40)[:, begin:end].flatten(), 2,
                          first_chain + begin, "auto") for begin, end in pairwise(bounds)]
    assert all(map(torch.equal, reduce(joined, blocks), whole))
    assert whole.n.tolist() == [39, 39]
    for measurement in range(2):
        kept = rows.unflatten(0, (2, 40))[measurement][alive.view(2, 40)[measurement]].double()
        torch.testing.assert_close(whole.mean[measurement], kept.mean(0))
        torch.testing.assert_close(whole.m2[measurement] / 38, kept.var(0))


def test_scaled_is_that_of_the_scaled_image() -> None:
    for is_complex in (False, True):
        op = Denoising(0.1, is_complex=is_complex)
        y = torch.randn(1, 3, 3, dtype=torch.complex64 if is_complex else torch.float32)
        posterior = sample(y, op, GaussianEnergy(0.0, S), chains=3, draws=2, schedule=FEW, progress=False)
        doubled = posterior.scaled(2.0)
        for of in ("value", "magnitude")[:2 if is_complex else 1]:
            for end, end_of_double in zip(posterior.interval(of=of), doubled.interval(of=of), strict=True):
                torch.testing.assert_close(end_of_double, 2 * end)
        torch.testing.assert_close(doubled.samples, 2 * posterior.samples)
        if is_complex:
            assert all(map(torch.equal, doubled.interval(of="phase"), posterior.interval(of="phase")))


def test_pictures_of_complex_images_show_the_magnitudes_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    op = Denoising(0.1, is_complex=True)
    posterior = sample(torch.full((1, 6, 5), 1 + 1j), op, GaussianEnergy(0.0, S), chains=3, schedule=FEW, progress=False)
    drawn: list[Any] = []
    monkeypatch.setattr(Axes, "imshow", lambda axes, *args, shown=Axes.imshow, **kwargs: drawn.append(args[0]) or shown(
        axes, *args, **kwargs))
    posterior.plot(tmp_path / "picture.png")
    assert torch.equal(torch.as_tensor(drawn[1]), posterior.magnitude_std[0])


def test_plot_gives_a_figure_and_needs_no_file(tmp_path: Path) -> None:
    posterior = sample(torch.zeros(1, 6, 5), Denoising(0.1), GaussianEnergy(0.0, S), chains=4, schedule=FEW, progress=False)
    figure = posterior.plot()
    assert [axes.get_title() for axes in figure.axes[:4]] == ["mean", "standard deviation", "sample 1", "sample 2"]
    assert type(posterior.plot(tmp_path / "picture.png")) is type(figure) and (tmp_path / "picture.png").exists()


def test_a_posterior_is_printed_in_a_few_lines() -> None:
    """And not as all its tensors."""
    y = torch.zeros(2, 1, 6, 5)
    posterior = sample(y, Denoising(0.1), GaussianEnergy(0.0, S), chains=4, draws=3, schedule=FEW, progress=False)
    first, second, *_ = repr(posterior).splitlines()
    assert first == "Posterior of 2 measurements, real images (1, 6, 5): 4 chains in pairs, 24 draws in all"
    assert second.startswith(f"  standard deviation {float(posterior.std.mean()):.3g} on average, chi2 a datum ")
    assert len(repr(posterior)) < 500
    alone = sample(y[0], Denoising(0.1), GaussianEnergy(0.0, S), chains=1, schedule=FEW, progress=False)
    assert "standard deviation nan" in repr(alone)  # without a warning


def test_polar_numbers() -> None:
    x = torch.tensor([3.0, -4.0, 0.0, 0.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(polar(x).flatten(), torch.tensor([5.0, 0.0, 0.6, 0.0, -0.8, 0.0]))
