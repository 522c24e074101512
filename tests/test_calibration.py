"""The calibration benchmark, in short: its exact answers are exact, and ours agree with them."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from benchmarks import beside, calibration, closed_forms, levy, peers, ranks, shipped, stein


def by_quadrature(kind: levy.Increments, y: float, eta: float) -> tuple[float, float]:
    """Mean and variance of u given y = u + N(0, η²)."""
    u = np.linspace(-40.0, 40.0, 400_001)
    log = kind.log_density(u) - 0.5 * (u - y) ** 2 / eta**2
    p = np.exp(log - log.max())
    mean = float((p * u).sum() / p.sum())
    return mean, float((p * (u - mean) ** 2).sum() / p.sum())


@pytest.mark.parametrize("process", levy.INCREMENTS)
def test_gibbs_has_the_moments_of_quadrature(process: str) -> None:
    """The first sample is measured alone, so that it is an increment by itself; 400 chains, law: 5 standard errors.

    A hundred sweeps of a chain are worth ten draws at least.
    """
    kind, eta, y = levy.INCREMENTS[process], 0.8, 1.3
    information = np.zeros((levy.LENGTH, levy.LENGTH))
    information[0, 0] = eta**-2
    b = np.zeros((400, levy.LENGTH))
    b[:, 0] = y / eta**2
    for dense in (False, True):  # by the tridiagonal Cholesky, and by that of torch
        shaped = information + (1e-12 * np.ones_like(information) if dense else 0.0)
        sweeps = levy.gibbs(kind, shaped, b, seed=1)
        found = [next(sweeps) for _ in range(40 if dense else 140)][20:]
        means, draws = (np.stack(v)[..., 0] for v in zip(*found, strict=True))
        (mean, variance), worth = by_quadrature(kind, y, eta), draws.size / 10
        error = 5 * math.sqrt(variance / worth)
        assert abs(draws.mean() - mean) < error and abs(means.mean() - mean) < error
        assert draws.var() / variance == pytest.approx(1.0, abs=5 * math.sqrt(4 / worth))


def test_increments_have_the_variance_and_density_that_are_said() -> None:
    g = np.random.default_rng(0)
    for kind in levy.INCREMENTS.values():
        drawn = kind.draw(g, (400_000,))
        u = np.linspace(-1000.0, 1000.0, 2_000_001)
        p = np.exp(kind.log_density(u))
        p /= p.sum()
        assert float((p * u * u).sum()) == pytest.approx(kind.variance, rel=0.01)
        for at in (0.5, 2.0):  # Student's variance is not known well from draws
            assert float((np.abs(drawn) < at).mean()) == pytest.approx(float(p[np.abs(u) < at].sum()), abs=0.004)
        assert np.allclose(np.cumsum(levy.increments(drawn[:64])), drawn[:64])


def test_a_part_of_the_frequencies_is_a_projection() -> None:
    """AᵀA = A, of as many dimensions as there are frequencies, two each but for the first and the last."""
    a = levy.matrix(levy.operators()["Fourier"](1.0))
    assert np.allclose(a @ a, a, atol=1e-5) and np.allclose(a, a.T, atol=1e-5)
    assert 9 <= round(float(np.trace(a))) < 64


@pytest.mark.parametrize("process, operator", [("Gauss", "Fourier"), ("Laplace", "sampling"), ("Student", "identity")])
def test_levy_processes_in_short(process: str, operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """24 measurements: coverage within three standard errors of the Gibbs sampler's own, mean within .3 dB, CRPS, of nine draws
    each, within 10 %; measured .12 dB and 5 %."""
    monkeypatch.setattr(levy, "BURN_IN", 100)
    monkeypatch.setattr(levy, "THIN", 3)
    cell = levy.cell(process, operator, 24)
    assert abs(cell.coverage - cell.exact_coverage) < 3 * math.sqrt(0.09 / 24)
    assert abs(cell.gap) < 0.3 and abs(cell.limit) < 0.3
    assert cell.crps == pytest.approx(1.0, abs=0.1)
    assert abs(cell.ksd.value) < 4 * cell.ksd.error


@pytest.mark.parametrize("correction", [None, "mala"])
@pytest.mark.parametrize("problem", ranks.PROBLEMS)
def test_ranks_are_uniform(problem: str, correction: str | None) -> None:
    """χ² of 19 degrees of freedom exceeds 48 once in 4,000 times; 90 ± 2 % are covered, and four standard errors."""
    count = 100 if problem == "MRI" else 300
    found = ranks.ranks(problem, correction, count)
    assert max(found.chi2.values()) < 48
    assert found.coverage == pytest.approx(0.9, abs=0.02 + 4 * math.sqrt(0.09 / count))


def test_ranks_see_a_posterior_that_is_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published rule returns conditional means, and intervals of them cover far less."""
    sample = ranks.sample
    monkeypatch.setattr(ranks, "SCHEDULE", ranks.SCHEDULE.__class__(4.0, ranks.T, 20, 4, 7.0))
    monkeypatch.setattr(ranks, "sample", lambda *a, **options: sample(*a, noise="independent", **options))
    found = ranks.ranks("Gaussian", None, 300)
    assert found.coverage < 0.8 and max(found.chi2.values()) > 48


@pytest.mark.parametrize("pairs", [2, 3, 8])
@pytest.mark.parametrize("correlation", calibration.CORRELATIONS)
def test_intervals_of_pairs_cover_however_the_two_are_correlated(pairs: int, correlation: float) -> None:
    """90 ± 2 %, and four standard errors; measured 88.3 to 92.2."""
    share = calibration.pair_coverage(pairs, correlation, 20_000)
    assert share == pytest.approx(0.9, abs=0.02 + 4 * math.sqrt(0.09 / 20_000))


def test_crps_is_that_of_a_gaussian_in_closed_form() -> None:
    """σ (z (2Φ(z) − 1) + 2φ(z) − 1/√π), by ten draws 20,000 times over; law: 5 standard errors."""
    draws = np.random.default_rng(0).normal(size=(10, 20_000))
    for z in (0.0, 1.5):
        phi = math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)
        want = z * math.erf(z / math.sqrt(2)) + 2 * phi - 1 / math.sqrt(math.pi)
        scores = levy.crps(draws, np.full(20_000, z))
        assert float(scores.mean()) == pytest.approx(want, abs=5 * float(scores.std()) / math.sqrt(20_000))


def test_crps_is_that_of_scoringrules() -> None:
    scoringrules = pytest.importorskip("scoringrules")
    g = np.random.default_rng(1)
    draws, truth = g.normal(size=(9, 5, 7)), g.normal(size=(5, 7))
    np.testing.assert_allclose(levy.crps(draws, truth), scoringrules.crps_ensemble(truth, draws, m_axis=0, estimator="fair"))


def test_coverage_counts_the_truth_among_draws() -> None:
    draws = torch.arange(9.0).view(9, 1).numpy()
    assert [levy.covered(np.array([v]), draws) for v in (-1.0, 0.5)] == [0.0, 1.0]


@pytest.mark.parametrize("prior", closed_forms.PRIORS)
def test_exact_posteriors_have_the_moments_of_importance_sampling(prior: str) -> None:
    """Two numbers through one row of A, 400,000 draws from the prior weighted by the likelihood; law: 5 standard errors."""
    g, a, eta, y = np.random.default_rng(0), np.array([[0.8, -0.5]]), 0.4, 0.6
    two = closed_forms.PRIORS[prior](closed_forms.NUMBERS)
    two = two._replace(means=two.means[:, :2] * 3, stds=two.stds[:, :2])
    mode = g.choice(len(two.weights), 400_000, p=two.weights)
    x = two.means[mode] + two.stds[mode] * g.normal(size=(400_000, 2))
    w = np.exp(-0.5 * np.square(x @ a.T - y)[:, 0] / eta**2)
    known = closed_forms.exact(two, a, eta, np.array([[y]]))
    mean = w @ x / w.sum()
    error = np.sqrt(np.square(w[:, None] * (x - mean)).sum(0)) / w.sum()
    assert bool((np.abs(mean - known.mean[0]) < 5 * error).all())
    truth = np.array([[0.3, -0.2]])
    draws = x[g.choice(len(x), 20_000, p=w / w.sum())]
    np.testing.assert_allclose(known.crps(truth)[0], levy.crps(draws, truth[0]), rtol=0.05)


@pytest.mark.parametrize("prior, operator", [("Gaussian", "SuperResolution"), ("mixture", "CartesianMRI, one coil")])
def test_closed_forms_in_short(prior: str, operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 measurements: 90 ± 2 % and 50 ± 3 % covered, and four standard errors of as many independent numbers as images have a
    quarter of; mean within .1 dB of the exact one and CRPS, of two draws, within 5 %."""
    monkeypatch.setattr(closed_forms, "CHAINS", (4,))
    cell = closed_forms.cell(prior, operator, 40)
    for shares in cell.coverage.values():
        for level, share, allowed in zip(closed_forms.LEVELS, shares, (0.03, 0.02), strict=True):
            error = math.sqrt(level * (1 - level) / (40 * closed_forms.NUMBERS / 4))
            assert share == pytest.approx(level, abs=allowed + 4 * error)
    assert cell.figures.gap < 0.1 + 0.05 * (prior == "mixture")  # the Monte Carlo error of two pairs
    assert cell.figures.crps == pytest.approx(1.0, abs=0.05)
    assert abs(cell.figures.ksd.value) < 4 * cell.figures.ksd.error


def stein_of_gaussian(mean: float, std: float) -> float:
    """D² over E k(x, x) of N(mean, std²) for N(0, 1), by quadrature: E δ(x) δ(x') φ, δ(x) the difference of the two scores."""
    x = np.linspace(-9.0, 9.0, 1201)
    q = np.exp(-0.5 * ((x - mean) / std) ** 2)
    q /= q.sum()
    apart = q * ((x - mean) / std**2 - x)
    return float(apart @ (1.0 / np.sqrt(1.0 + (x[:, None] - x) ** 2)) @ apart) / (1.0 + mean**2 + std**2)


@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (0.3, 1.0), (0.0, 1.5), (0.0, 0.6)])
def test_stein_discrepancy_is_that_of_gaussians_by_quadrature(mean: float, std: float) -> None:
    """Five draws of 1,000 Gaussians in three directions that hang together, seen in their own; law: 4 standard errors, those
    being what 20 repeats spread by."""
    g, root = np.random.default_rng(0), np.array([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [-0.3, 0.1, 0.2]])
    found = []
    for _ in range(20):
        z = mean + std * g.normal(size=(5, 1000, 3))
        found.append(stein.discrepancy(z @ root.T, -z @ np.linalg.inv(root), root))
    values = np.array([f.value for f in found])
    error = float(values.std(ddof=1))
    assert abs(values.mean() - stein_of_gaussian(mean, std)) < 4 * error / math.sqrt(20)
    assert float(np.mean([f.error for f in found])) == pytest.approx(error, rel=0.5)


def test_scores_are_derivatives_of_log_densities() -> None:
    """Against differences: of a mixture's posterior in closed form, and of increments."""
    given = closed_forms.problem("mixture", "Inpainting", 3, 0)
    prior, a, eta, h = given.prior, given.matrix, given.operator.noise_std, 1e-5

    def log_density(x: np.ndarray) -> np.ndarray:
        logs = [math.log(w) - (np.log(s) + 0.5 * ((x - m) / s) ** 2).sum(-1)
                for w, m, s in zip(prior.weights, prior.means, prior.stds, strict=True)]
        return np.logaddexp(*logs) - 0.5 * np.square(given.rows - x @ a.T).sum(-1) / eta**2

    x, step = given.truth + 0.1, h * np.eye(given.truth.shape[1])[:, None]
    want = (log_density(x + step) - log_density(x - step)).T / (2 * h)
    np.testing.assert_allclose(closed_forms.score(prior, a, eta, given.rows, x), want, rtol=1e-5, atol=1e-5)
    u = np.array([-2.3, -0.4, 0.7, 5.0])
    for kind in levy.INCREMENTS.values():
        np.testing.assert_allclose(kind.score(u), (kind.log_density(u + h) - kind.log_density(u - h)) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("prior", closed_forms.PRIORS)
def test_exact_draws_have_a_stein_discrepancy_of_nought(prior: str) -> None:
    """And cover 90 %; law: 4 standard errors, of a fourth of all numbers as these hang together."""
    given = closed_forms.problem(prior, "CircularBlur", 60, 0)
    mean, draws = beside.exact_draws(given, 1)
    found = closed_forms.judged(given, mean, draws)
    rank = (draws < given.truth).sum(0)
    assert found.gap == 0.0 and found.crps == pytest.approx(1.0, abs=0.03)
    assert abs(found.ksd.value) < 4 * found.ksd.error
    inner = float(((rank > 0) & (rank < beside.DRAWS)).mean())
    assert inner == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / (given.truth.size / 4)))
    assert closed_forms.judged(given, mean, 1.3 * draws).ksd.value > 10 * found.ksd.error


def test_samplers_of_deepinverse_stand_beside_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six measurements: every row is there, and what all are given, E[x₀|x_t], is that of our energy."""
    if peers.deepinv() is None:
        pytest.skip("no deepinv here")
    monkeypatch.setattr(beside, "ULA_STEPS", 20)
    given = closed_forms.problem("mixture", "Inpainting", 6, 0)
    denoiser, x = beside.Denoiser(given.prior, 4.0), closed_forms.images(given.truth)
    theirs = 4.0 * (2.0 * denoiser(0.5 * (x / 4.0 + 1.0), 0.1) - 1.0)
    torch.testing.assert_close(theirs, x - given.prior.energy.grad(x, 0.8), rtol=1e-4, atol=1e-4)
    found = {cell.sampler: cell for cell in beside.cells("mixture", "Inpainting", 6)}
    assert list(found) == ["exact draws", "alps_fast", "DPS", "DPS, annealed guidance", "DiffPIR", "DDRM", "ULA, exact score"]
    assert found["alps_fast"].figures.gap < 0.1 < found["DPS"].figures.gap
    assert found["DDRM"].coverage < 0.8 < found["alps_fast"].coverage


def test_without_deepinverse_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch,
                                                           capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(beside.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["calibration", "--peers"])
    with pytest.raises(SystemExit) as stopped:
        calibration.main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith("pip install 'alps_fast[peers]'")


def test_shipped_priors_in_short(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Two truths of 16 × 16 of one prior, by the command; a table has the rows of its document."""
    for name, value in (("SIDE", 16), ("LONG", 2), ("RELAX", 1), ("PRIORS", ("natural-ridge",))):
        monkeypatch.setattr(shipped, name, value)
    short = shipped.cells
    monkeypatch.setattr(shipped, "cells", lambda prior, count: short(prior, count, times=(1,)))
    monkeypatch.setattr("sys.argv", ["calibration", "--shipped", "--measurements", "2", "--json"])
    calibration.main()
    document = json.loads(capsys.readouterr().out)
    assert document["measurements"] == 2
    assert [row["operator"] for row in document["rows"]] == ["30 % of the pixels", "Gaussian blur of 1.5 pixels"]
    for row in document["rows"]:
        fifty, ninety = row["coverage"]
        assert 0.3 < fifty < ninety and ninety > 0.7  # of 512 numbers that hang together
        assert 0.0 < row["crps"] < 0.1
    table = calibration.TABLES["shipped"]._replace(rows=lambda count: [shipped.Cell(**row) for row in document["rows"]])
    calibration.show(table, 2, False)
    head, rule, *lines = capsys.readouterr().out.splitlines()
    assert head.count("|") == rule.count("|") == 9
    assert [line.split(" | ")[1:4:2] for line in lines] == [[row["operator"], f"{row['coverage'][0]:.3f}"]
                                                            for row in document["rows"]]
