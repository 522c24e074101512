"""Leaps between modes leave the posterior as it is, repair the weights that annealing froze, and hang on 32 chains alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from inputs import same_posterior
from oracles import MU, OPERATORS, Published, S, gaussian_posterior, measure
from torch import Tensor

from alps_fast import ArgumentError, Schedule, energies, sample
from alps_fast.cli import main
from alps_fast.energies import DiffusionPrior, GaussianEnergy, GaussianMixtureEnergy
from alps_fast.layout import from_state, to_state
from alps_fast.operators import Denoising, Inpainting
from alps_fast.posterior import Posterior
from alps_fast.samplers import Sampler
from alps_fast.samplers.leaps import Modes, Team, beyond, components, found, pieces, settled, teams_of
from alps_fast.samplers.map_estimate import posterior_energy
from alps_fast.samplers.run import Run
from alps_fast.schedule import Level
from benchmarks import leaps

STD, ETA, T = 0.2, 0.5, 0.1
MASK = (torch.arange(36).view(6, 6) % 3 > 0).float()
MEANS = torch.zeros(2, 1, 6, 6)
MEANS[0, :, 1:4, 1:4] = 1.0
SHORT = Schedule(4.0, T, 8, 2, predictor=True)
Y = MASK * (0.55 * MEANS[:1, 0] + 0.02 * torch.arange(6))


class Mixture(GaussianMixtureEnergy):
    """L = 1."""

    def curvature(self, t: float) -> None:  # type: ignore[override]
        return None


ENERGY = Mixture(torch.ones(2), MEANS, torch.full((2,), STD))
OPERATOR = Inpainting(MASK, ETA)


def weights() -> Tensor:
    """Of the two modes, in closed form."""
    variance = STD**2 + T**2 + ETA**2
    return torch.softmax(-0.5 * (MASK * (Y - MEANS)).double().square().flatten(1).sum(1) / variance, 0)


def first_mode(x: Tensor) -> Tensor:
    """Whether images (…, 1, 6, 6) belong to the first."""
    return x[..., 0, 1:4, 1:4].flatten(-2).mean(-1) > 0.5


def drawn(count: int, seed: int = 0) -> Tensor:
    """Exact draws (count, 1, 6, 6) of the posterior."""
    g = torch.Generator().manual_seed(seed)
    prior = STD**2 + T**2
    precision = MASK / ETA**2 + 1 / prior
    of = (torch.rand(count, generator=g) > weights()[0]).long()
    return (MASK * Y / ETA**2 + MEANS[of] / prior) / precision + torch.randn(count, 1, 6, 6, generator=g) / precision.sqrt()


@pytest.mark.parametrize("pairs", [False, True])
def test_leaps_leave_the_posterior_as_it_is(pairs: bool) -> None:
    """Exact draws stay such, and independent of each other, while two thirds of them change modes; law: 4 standard errors.

    With pairs, a chain of each pair leaps by its like alone; the law is that of the first and of the second of each.
    """
    measurements, chains = 60, 128
    sampler = Sampler(OPERATOR, ENERGY, chains=chains, schedule=SHORT, moves="leap", pairs=pairs, progress=False)
    run = Run(sampler, Y.expand(measurements, 1, 6, 6))
    before = drawn(measurements * chains)
    run.ensemble.x = to_state(before)
    last = len(run.course.levels) - 1
    assert run.leaps is not None and [run.leaps.rounds(i) for i in range(last + 1)] == [0] * last + [3]
    run.leaps.before(last, run.ensemble, run.most)
    after = from_state(run.ensemble.x, False)
    share = float(weights()[0])
    assert 0.6 < share < 0.9
    was, now = first_mode(before), first_mode(after).double()
    assert float((was != first_mode(after)).double().mean()) > 0.15
    for which in (slice(0, None, 2), slice(1, None, 2)):
        assert float(now[which].mean()) == pytest.approx(share, abs=4 * math.sqrt(2 * share * (1 - share) / len(now)))
    of_teams = now[teams_of(measurements, chains, pairs, now.device)].flatten(1).mean(1)  # whose variance tells of dependence
    independent = share * (1 - share) / 32
    assert float(of_teams.var()) == pytest.approx(independent, rel=4 * math.sqrt(2 / len(of_teams)))
    inside = after[now.bool()]
    exact = 1 / (MASK / ETA**2 + 1 / (STD**2 + T**2))
    assert float((inside.var(0) / exact).mean()) == pytest.approx(1.0, abs=4 * math.sqrt(2 / inside.numel()))


@pytest.mark.parametrize("options", [{}, {"method": "measurement"}, {"correction": "mala"}, {"draws": 12, "thin": 3},
                                     {"pairs": True, "chains": 64}], ids=str)
def test_weights_that_froze_are_repaired(options: dict[str, Any]) -> None:
    """Within 4 standard errors of independent chains; annealing the measurement without leaps keeps the prior's."""
    share = float(weights()[0])
    y, count = Y.expand(24, 1, 6, 6), 24 * 32
    post = sample(y, OPERATOR, ENERGY, schedule=SHORT, moves="leap", progress=False, **{"chains": 32} | options)
    error = 4 * math.sqrt(share * (1 - share) / count)
    assert float(first_mode(post.samples).double().mean()) == pytest.approx(share, abs=error)
    assert post.leap_acceptance is not None and post.leap_acceptance > 0.3
    assert post.pairs == options.get("pairs", False)
    if "method" in options:
        plain = sample(y, OPERATOR, ENERGY, schedule=SHORT, pairs=False, chains=32, progress=False, **options)
        assert float(first_mode(plain.samples).double().mean()) == pytest.approx(0.5, abs=0.08)
        assert plain.leap_acceptance is None


def test_the_benchmark_in_short() -> None:
    """A square that is there or not: eight teams, within three standard errors and .02; frozen at about a half."""
    plain, leap = leaps.rows("a square, 64²", ["alps", "leap"], 8)
    assert plain.exact[0] == pytest.approx(leaps.WEIGHT, abs=1e-4)
    assert plain.found[0] < 0.65
    assert leap.found[0] == pytest.approx(leaps.WEIGHT, abs=0.02 + 3 * math.sqrt(leaps.WEIGHT * (1 - leaps.WEIGHT) / 256))
    assert leap.acceptance is not None and leap.acceptance > 0.15  # of two tries by the same modes the second leads back
    assert leap.gradients < 1.2 * plain.gradients


def test_where_there_are_no_two_modes_nothing_leaps() -> None:
    y = torch.zeros(1, 6, 6)
    posts = [sample(y, OPERATOR, Published(0.0, 0.5), chains=32, schedule=SHORT, moves=moves, pairs=False, progress=False)
             for moves in ("leap", None)]
    assert posts[0].leap_acceptance is not None and math.isnan(posts[0].leap_acceptance)
    assert torch.equal(posts[0].samples, posts[1].samples)


def test_a_result_hangs_on_the_seed_and_the_group_alone(tmp_path: Path) -> None:
    """To the bit: beside other groups and measurements, in parts, and gone on from a checkpoint; others' chains are others."""
    options: dict[str, Any] = {"schedule": SHORT, "moves": "leap", "draws": 6, "thin": 4, "progress": False}
    all_of = sample(Y.expand(2, 1, 6, 6), OPERATOR, ENERGY, chains=64, **options)
    alone = sample(Y, OPERATOR, ENERGY, chains=32, first_chain=32, first_measurement=1, max_chains=5, **options)
    assert torch.equal(alone.samples, all_of.samples[1, 32:])
    assert not torch.equal(alone.samples, all_of.samples[1, :32])

    def stop(at: Any) -> None:
        if at.level == stopped:
            raise KeyboardInterrupt

    whole = sample(Y, OPERATOR, ENERGY, chains=32, **options)
    for stopped in (6, 7, 9):  # before the leaps that end annealing, after them, between draws
        file = tmp_path / f"{stopped}.safetensors"
        assert sample(Y, OPERATOR, ENERGY, chains=32, checkpoint=file, callback=stop, **options).interrupted
        with pytest.raises(ArgumentError, match="belongs to another run"):
            sample(Y, OPERATOR, ENERGY, chains=32, checkpoint=file, **options | {"moves": None, "pairs": False})
        gone_on = sample(Y, OPERATOR, ENERGY, chains=32, checkpoint=file, **options)
        same_posterior(gone_on, whole)
        assert gone_on.leap_acceptance == whole.leap_acceptance


def test_a_broken_chain_takes_no_part() -> None:
    sampler = Sampler(OPERATOR, ENERGY, chains=32, schedule=SHORT, moves="leap", progress=False)
    run = Run(sampler, Y)
    run.ensemble.x = to_state(drawn(32))
    run.ensemble.x[20], run.ensemble.alive[20] = torch.nan, False
    assert run.leaps is not None
    run.leaps.before(7, run.ensemble, run.most)
    finite = run.ensemble.x.flatten(1).isfinite().all(1)
    assert torch.equal(finite, run.ensemble.alive)
    assert run.ensemble.leapt is not None and run.ensemble.leapt[0, 20] == 0 and (run.ensemble.leapt[0] > 0).sum() >= 16


@pytest.mark.parametrize("name", OPERATORS)
def test_a_mode_settles_at_the_mean_of_a_gaussian_posterior(name: str) -> None:
    """Within .02 of its standard deviations, from four of them away; conjugate gradients may stop .03 away."""
    op, shape = OPERATORS[name]
    y, t = measure(op, shape), 0.1
    mean, covariance = gaussian_posterior(op, y, shape, t)
    run = Run(Sampler(op, Published(MU, S), chains=32, schedule=Schedule(1.0, t, 2, 1), moves="leap", progress=False), y)
    target = run.targets.at(run.course.levels[-1], y.new_empty(0))
    std = covariance.diagonal().sqrt()
    far = (mean + 4 * std * torch.randn(2, len(std), dtype=torch.float64, generator=torch.Generator().manual_seed(0))).float()
    x = settled(target, far.view(2, *run.adjoint.shape[1:]))
    off = (x.flatten(1).double() - mean) / std
    assert float(off.square().mean().sqrt()) < (0.05 if name in ("mri 2-D", "linear") else 0.02)


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("name", ["inpainting", "mri 1-D", "superresolution"])
def test_a_leap_is_accepted_by_the_density_of_the_target(name: str, warm: bool) -> None:
    """What Metropolis decides by is how E/t² and the quadratic terms differ, in float64; law: 1e-4 of what they are."""
    op, shape = OPERATORS[name]
    y, g = measure(op, shape), torch.Generator().manual_seed(1)
    start = measure(Denoising(0.1, is_complex=op.is_complex), shape) if warm else None
    run = Run(Sampler(op, Published(MU, S), chains=32, schedule=Schedule(1.0, 0.1, 2, 1), moves="leap", progress=False,
                      warm_start=start, warm_std=0.3 if warm else None), y)
    target = run.targets.at(run.course.levels[-1], y.new_empty(0))
    x = torch.randn(1, 2, 16, *run.adjoint.shape[1:], generator=g)
    team = Team(target, run.targets, torch.zeros(1, dtype=torch.int64), run.ids.view(1, 2, 16, 2), x,
                torch.ones(1, 2, 16, dtype=torch.bool), 32)
    before, e = x[0, 0], 0.3 * torch.randn(16, *run.adjoint.shape[1:], generator=g)
    checked = op.check_measurement(y)

    def density(v: Tensor) -> Tensor:
        value = torch.zeros(16)
        total = posterior_energy(value, Level(target.t, op.noise_std, 1), op, v, checked)
        return total if run.targets.warm is None else total + (v - run.targets.warm).double().square().flatten(1).sum(1) / 0.18

    want = density(before + e) - density(before)
    torch.testing.assert_close(team._misfit(before, e), want, rtol=1e-4, atol=1e-4 * float(density(before).max()))


def test_components_are_those_of_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    shares = torch.tensor([0, 0.2, 0.35, 0.5, 0.8, 1]).view(-1, 1, 1)
    masks = torch.rand(6, 23, 17, generator=torch.Generator().manual_seed(0)) < shares
    spiral = torch.zeros(1, 23, 17, dtype=torch.bool)
    spiral[0, ::2], spiral[0, 1::4, -1], spiral[0, 3::4, 0] = True, True, True
    for mask in (*masks, *spiral):
        labels, (want, count) = components(mask[None])[0], ndimage.label(mask.numpy(), np.ones((3, 3)))
        pairs = {(a, b) for a, b in zip(labels.flatten().tolist(), want.flatten().tolist(), strict=True)}
        assert len(pairs) == len({a for a, _ in pairs}) == count + bool((~mask).any())
        assert torch.equal(labels > 0, mask)


def test_blocks_leap_one_at_a_time_or_all_at_once() -> None:
    """Two squares, each in half of the chains or not: a chain leaps by all of the difference, or by one of both."""
    there = torch.zeros(1, 12, 12)
    there[0, 1:4, 1:4] = there[0, 7:10, 7:10] = 1.0
    energy = Mixture(torch.ones(2), torch.stack([there, 0 * there]), torch.full((2,), STD))
    run = Run(Sampler(Denoising(1.0), energy, chains=32, schedule=Schedule(1.0, T, 2, 1), moves="leap", progress=False),
              torch.zeros(1, 12, 12))
    z = 0.02 * torch.randn(1, 16, 12, 12, 1, generator=torch.Generator().manual_seed(2))
    z[:, :8] += there[0, ..., None]
    target = run.targets.at(run.course.levels[-1], z.new_empty(0))
    modes = found(target, z, torch.ones(1, 16, dtype=torch.bool), torch.tensor([[0.1, 0.9]]))
    assert isinstance(modes, Modes) and int(modes.roots.sum()) == 2
    leap = modes._replace(difference=torch.ones(1, 12, 12, 1))
    e = pieces(leap, torch.tensor([[0.3, 0.6, 0.9]]))[0, ..., 0]
    assert [int(v.sum()) for v in e] == [144, 9, 9] and int((e[1] * e[2]).sum()) == 0


def test_chains_of_another_mode_are_told_from_neighbours() -> None:
    """Neighbours are about equally far; one chain alone is farther, or two groups are; what is infinite does not count."""
    near = 680 + 7 * torch.randn(13, generator=torch.Generator().manual_seed(0))
    for far in ([760.0], [760.0, 765.0, 840.0], [744.0, 4000.0]):
        squares = torch.cat([near, torch.tensor([*far, torch.inf])])[None]
        found = beyond(squares)[0]
        assert not bool(found[:13].any()) and not bool(found[-1])
        assert found[13:-1].tolist() == ([True] * len(far) if max(far) < 4000 else [False, True])
    assert not bool(beyond(torch.full((1, 4), torch.inf)).any())


class GradientAlone(GaussianEnergy):
    @property
    def has_value(self) -> bool:
        return False


@pytest.mark.parametrize(("options", "message"), [
    ({"moves": "jump"}, "^moves: got 'jump'; wanted None or 'leap'"),
    ({"chains": 16}, '^chains: got 16; wanted a multiple of 32 with moves="leap"'),
    ({"first_chain": 16}, "^first_chain: got 16; wanted a multiple of 32"),
    ({"pairs": True}, '^chains: got 32; wanted a multiple of 64 with moves="leap" and pairs=True'),
    ({"noise": "independent"}, "^moves: got 'leap'; wanted None with noise=\"independent\""),
])
def test_wrong_arguments_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Sampler(OPERATOR, ENERGY, **{"chains": 32, "moves": "leap"} | options)


def test_an_energy_without_a_value_is_refused() -> None:
    with pytest.raises(ArgumentError, match="^moves: got 'leap'; wanted None with a DiffusionPrior, an energy without a value"):
        Sampler(OPERATOR, DiffusionPrior(lambda x, sigma: x, channels=1), chains=32, moves="leap")


def test_a_posterior_keeps_its_acceptance(tmp_path: Path) -> None:
    post = sample(Y, OPERATOR, ENERGY, chains=32, schedule=SHORT, moves="leap", progress=False)
    post.save(tmp_path / "p.npz")
    assert Posterior.load(tmp_path / "p.npz").leap_acceptance == post.leap_acceptance


def test_the_command_line_leaps(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", Y[0].numpy())
    np.save(tmp_path / "mask.npy", MASK.numpy())
    energies.save(ENERGY, tmp_path / "e.safetensors")
    args = ["reconstruct", str(tmp_path / "y.npy"), "--operator", "inpaint", "--mask", str(tmp_path / "mask.npy"), "--energy",
            str(tmp_path / "e.safetensors"), "--noise-std", str(ETA), "--levels", "6", "--steps", "2", "--no-progress",
            "--draws", "1"]
    refused = CliRunner().invoke(main, [*args, "--moves", "leap"])
    assert refused.exit_code == 2 and refused.stderr.startswith("Error: chains: got 8; wanted a multiple of 32")
    told = CliRunner().invoke(main, [*args, "--moves", "leap", "--chains", "32", "--json"])
    assert told.exit_code == 0 and json.loads(told.stdout)["leap_acceptance"] > 0
