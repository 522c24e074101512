"""What a caller's torch is set to, its default dtype, autocast, inference mode, changes no bit of a run, and ends none."""

from contextlib import contextmanager

import pytest
import torch

import alps_fast as af
from alps_fast import data

SHORT = af.Schedule(sigma_max=2.0, sigma_min=0.2, levels=2, steps=2, eta_max=0.2, eta_steps=1)
MASK = torch.rand(8, 8, generator=torch.Generator().manual_seed(1)) < 0.6
LINES = (torch.arange(8) % 2 == 0).expand(8, 8)
OPERATORS = {
    "denoising": lambda: af.operators.Denoising(0.1),
    "inpainting": lambda: af.operators.Inpainting(MASK, 0.1),
    "blur": lambda: af.operators.CircularBlur.gaussian(1.0, 0.1),
    "superres": lambda: af.operators.SuperResolution(2, 0.1),
    "one coil": lambda: af.operators.CartesianMRI(MASK, noise_std=0.1),
    "lines": lambda: af.operators.CartesianMRI(LINES, data.coil_maps(3, 8, 8), noise_std=0.1),
    "coils": lambda: af.operators.CartesianMRI(MASK, data.coil_maps(3, 8, 8), noise_std=0.1),
    "functions": lambda: af.operators.LinearOperator(lambda x: 2 * x, lambda y: 2 * y, 0.1, (1, 8, 8)),
}


@contextmanager
def float64_by_default():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES = {"float64": float64_by_default, "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
         "inference": torch.inference_mode, "no_grad": torch.no_grad}


def results(operator):
    """Samples, means and MAP estimates of every method, all that they need made here too."""
    op, found = OPERATORS[operator](), []
    kind = torch.complex64 if op.is_complex else torch.float32
    y = op.forward(torch.linspace(-1, 1, 64, dtype=torch.float32).view(1, 8, 8).to(kind))
    channels = 2 if op.is_complex else 1
    mixture = af.energies.GaussianMixtureEnergy(torch.ones(2), torch.tensor([-0.4, 0.4]).view(2, 1, 1, 1), torch.ones(2))
    prior = af.energies.DiffusionPrior(lambda x, sigma: 0.25 / (0.25 + sigma.view(-1, 1, 1, 1) ** 2) * x, channels)
    shipped = af.energies.load("brain-ridge" if op.is_complex else "natural-ridge")
    gaussian = af.energies.GaussianEnergy(0.1, 0.5)
    for energy, options in ((gaussian, {"correction": "mala", "draws": 2}), (mixture, {}), (prior, {}),
                            (shipped, {"method": "measurement"})):
        post = af.sample(y, op, energy, chains=2, schedule=SHORT, progress=False, **options)
        found += [post.samples, post.mean, af.map_estimate(y, op, energy, schedule=SHORT, progress=False).image]
    return found


@pytest.mark.parametrize("operator", OPERATORS)
def test_no_mode_changes_a_run(operator):
    wanted = results(operator)
    for name, mode in MODES.items():
        with mode():
            found = results(operator)
        assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True)), name
