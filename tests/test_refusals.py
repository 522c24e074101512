"""What used to be taken in silence: each is now refused by name, or counts nowhere."""

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import alps_fast as af
from alps_fast.cli import main
from alps_fast.io import read_kspace
from alps_fast.io.images import read_image, read_mask

SHORT = af.Schedule(sigma_max=1.0, sigma_min=0.1, levels=3, steps=2)
GAUSSIAN = af.energies.GaussianEnergy(0.0, 0.5)


class Breaks(af.energies.GaussianEnergy):
    """Turns NaN where the image is very bright."""

    def _grad(self, x, t):
        grad = super()._grad(x, t)
        return torch.where(x.flatten(1).amax(1).view(-1, 1, 1, 1) > 50, torch.nan, grad)

    def _value_and_grad(self, x, t):
        return super()._value_and_grad(x, t)[0], self._grad(x, t)


def test_a_measurement_whose_chains_all_broke_is_nan_not_certain():
    y = torch.zeros(2, 1, 4, 4)
    y[1] = 100
    posterior = af.sample(y, af.operators.Denoising(0.1), Breaks(0.0, 0.5), chains=3, schedule=SHORT, progress=False)
    assert posterior.mean[0].isfinite().all() and posterior.mean[1].isnan().all() and posterior.std[1].isnan().all()
    assert {lost.measurement for lost in posterior.broken} == {1}


def test_one_draw_has_no_standard_deviation():
    posterior = af.sample(torch.zeros(1, 4, 4), af.operators.Denoising(0.1), GAUSSIAN, chains=1, schedule=SHORT, progress=False)
    with pytest.warns(UserWarning, match="std: NaN, .* ask for chains=4 or more"):
        assert posterior.std.isnan().all() and posterior.mean.isfinite().all()


def test_unobserved_values_count_nowhere():
    mask = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    op, y = af.operators.Inpainting(mask, noise_std=0.1), torch.ones(1, 2, 2)
    other = torch.where(mask.bool(), y, torch.tensor(1e4))
    one, two = (af.map_estimate(v, op, GAUSSIAN, schedule=SHORT, progress=False) for v in (y, other))
    assert torch.equal(one.image, two.image) and torch.equal(one.energy, two.energy)


def test_a_prior_that_does_not_fit_the_image_is_named():
    prior = af.energies.load("brain-ridge")
    for run in (af.sample, af.map_estimate):
        with pytest.raises(af.ArgumentError, match="^energy: got 1 real channels"):
            run(torch.zeros(1, 8, 8), af.operators.Denoising(0.1), prior, schedule=SHORT, progress=False)
    with pytest.raises(af.ArgumentError, match="^energy: got list"):
        af.map_estimate(torch.zeros(1, 8, 8), af.operators.Denoising(0.1), [], progress=False)


def test_load_options_are_checked_and_reach_every_term(tmp_path):
    with pytest.raises(af.ArgumentError, match="^precision: got 'foo'"):
        af.energies.load("brain", precision="foo")
    af.energies.save(af.energies.SumEnergy([af.energies.load("natural-denoiser"), GAUSSIAN]), tmp_path / "s.safetensors")
    assert af.energies.load(tmp_path / "s.safetensors", precision="fast").energies[0].precision == "fast"


def test_files_that_could_mean_two_things(tmp_path):
    np.save(tmp_path / "wide.npy", np.zeros((4, 4), np.int64))
    with pytest.raises(af.ArgumentError, match="^input: .*int64"):
        read_image(tmp_path / "wide.npy")
    np.save(tmp_path / "mask.npy", np.array([[1.0, np.nan]]))
    with pytest.raises(af.ArgumentError, match="^mask: "):
        read_mask(tmp_path / "mask.npy")
    np.savez(tmp_path / "k.npz", kspace=np.ones((1, 2, 2), np.complex64), mask=np.array([1.0, np.nan]))
    with pytest.raises(af.ArgumentError, match="^mask: "):
        read_kspace(tmp_path / "k.npz")


def test_a_backend_from_the_environment_is_refused_in_one_line(monkeypatch, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has the backend that others lack")
    monkeypatch.setenv("ALPS_FAST_BACKEND", "cuda")
    result = CliRunner().invoke(main, ["demo", "--task", "inpaint", "--out", str(tmp_path / "out")])
    assert result.exit_code == 2 and "ALPS_FAST_BACKEND" in result.output and len(result.output.strip().splitlines()) == 1
    monkeypatch.setenv("ALPS_FAST_BACKEND", "abacus")
    with pytest.raises(af.ArgumentError, match="^ALPS_FAST_BACKEND: got 'abacus'"):
        af.sample(torch.zeros(1, 4, 4), af.operators.Denoising(0.1), GAUSSIAN, chains=1, schedule=SHORT, progress=False)


def test_info_survives_a_wrong_isa(monkeypatch):
    monkeypatch.setenv("ALPS_FAST_ISA", "abacus")
    result = CliRunner().invoke(main, ["info", "--json"])
    assert result.exit_code == 0


def test_priors_operators_and_paths_of_another_kind_are_refused():
    box, same = torch.ones(3, 3) / 9, torch.nn.Identity()
    for shape in (64, None, (8, 8)):
        for made in (lambda shape=shape: af.operators.Blur(box, 0.1, shape),
                     lambda shape=shape: af.operators.LinearOperator(same, same, 0.1, shape)):
            with pytest.raises(af.ArgumentError, match=r"^image_shape: got .*; wanted \(C, H, W\)"):
                made()
    for energies, weights, fault in ((GAUSSIAN, None, "energies: got GaussianEnergy; wanted a sequence"),
                                     ([], None, "energies: got none; wanted a sequence of at least one"),
                                     ([lambda x: x], None, "energies: got function; wanted alps_fast energies"),
                                     ([GAUSSIAN], ["a"], "weights: got a; wanted a finite number > 0"),
                                     ([GAUSSIAN], [float("inf")], "weights: got inf; wanted a finite number > 0"),
                                     ([GAUSSIAN], 2.0, "weights: got 2.0; wanted 1 numbers > 0"),
                                     ([GAUSSIAN], [1.0, 1.0], "weights: got .*; wanted 1 numbers > 0")):
        with pytest.raises(af.ArgumentError, match=f"^{fault}"):
            af.energies.SumEnergy(energies, weights)
    for name in (None, 3):
        with pytest.raises(af.ArgumentError, match=f"^energy: got {name}; wanted a file, or one of"):
            af.energies.load(name)
    with pytest.raises(af.ArgumentError, match="^checkpoint: got 3; wanted None or a path"):
        af.samplers.Sampler(af.operators.Denoising(0.1), GAUSSIAN, checkpoint=3)


def test_what_a_posterior_is_asked_is_checked():
    """scaled(-1) had standard deviations below zero, and part(-1) forgot which chains broke."""
    one, two = (af.sample(torch.zeros(shape), af.operators.Denoising(0.1), GAUSSIAN, chains=4, schedule=SHORT, progress=False)
                for shape in ((1, 4, 4), (2, 1, 4, 4)))
    for scale in (-1.0, 0, "x", float("nan")):
        with pytest.raises(af.ArgumentError, match="^scale: got"):
            one.scaled(scale)
    for index in (-1, 2, "a", 0.0):
        for method in (two.part, lambda index: two.plot(index=index)):
            with pytest.raises(af.ArgumentError, match=r"^index: got .*; wanted an integer in \[0, 2\)"):
                method(index)
    with pytest.raises(af.ArgumentError, match=r"^index: got 1; wanted an integer in \[0, 1\)"):
        one.plot(index=1)
    with pytest.raises(af.ArgumentError, match="^index: got 0 of a posterior that is of one measurement; wanted a batch's"):
        one.part(0)
    for level in ("90", 90, None, torch.tensor([0.5, 0.9])):
        with pytest.raises(af.ArgumentError, match=r"^level: got .*; wanted a number in \(0, 1\)"):
            one.interval(level)
    assert torch.equal(one.interval(torch.tensor(0.5))[0], one.interval(0.5)[0])
