"""Batches of different problems: masks, kernels, maps and noise of each measurement."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from dense import image_matrix, matrix, real_rows
from inputs import same_posterior, small_ridge
from oracles import MU, Published, S, coil_maps, generator
from torch import Tensor

from alps_fast import ArgumentError, Schedule, data, map_estimate, sample
from alps_fast.energies import GaussianEnergy
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, Operator, SuperResolution

# of conjugate gradients, where there are more threads than chains
pytestmark = pytest.mark.filterwarnings("ignore:langevin_sense_cg. 'cpu' takes one operator a call")

M = 3
FEW = Schedule(1.0, 0.2, 3, 3, predictor=True)
ETAS = torch.tensor([0.3, 0.1, 0.2])
MASKS = (torch.rand(M, 2, 6, 5, generator=generator(1)) < 0.5).float()
PLANES = (torch.rand(M, 6, 5, generator=generator(2)) < 0.6).float()
LINES = torch.tensor([[1, 0, 1, 1, 0, 1.0], [0, 1, 1, 0, 0, 1], [1, 1, 0, 1, 1, 0]])
MAPS = torch.stack([coil_maps(2, 6, 5) * scale for scale in (1, 1.5j, -0.5)])
PSFS = torch.rand(M, 3, 3, generator=generator(3))
PIXELS = 0.1 + torch.rand(M, 2, 6, 5, generator=generator(4))

Make = Callable[[], Operator]
CASES: dict[str, tuple[Make, tuple[int, int, int]]] = {
    "masks": (lambda: Inpainting(MASKS, 0.2), (2, 6, 5)),
    "masks, noise": (lambda: Inpainting(MASKS, ETAS), (2, 6, 5)),
    "masks, noise a pixel, complex": (lambda: Inpainting(MASKS, PIXELS, is_complex=True), (2, 6, 5)),
    "one mask for all channels": (lambda: Inpainting(PLANES[:, None], ETAS), (3, 6, 5)),
    "noise alone": (lambda: Denoising(ETAS), (1, 4, 3)),
    "kernels": (lambda: CircularBlur(PSFS, 0.2), (2, 6, 5)),
    "kernels, noise": (lambda: CircularBlur(PSFS, ETAS), (1, 6, 5)),
    "one kernel, noise, complex": (lambda: CircularBlur(PSFS[0], ETAS, is_complex=True), (1, 6, 5)),
    "super-resolution": (lambda: SuperResolution(2, ETAS, PSFS), (1, 6, 4)),
    "mri, one coil": (lambda: CartesianMRI(PLANES, noise_std=ETAS), (1, 6, 5)),
    "mri, lines": (lambda: CartesianMRI(LINES[..., None], MAPS, noise_std=ETAS), (1, 6, 5)),
    "mri, lines, one mask": (lambda: CartesianMRI(LINES[0], MAPS, axis=0, noise_std=0.2), (1, 6, 5)),
    "mri, planes": (lambda: CartesianMRI(PLANES, MAPS, noise_std=ETAS), (1, 6, 5)),
    "mri, planes, one set of maps": (lambda: CartesianMRI(PLANES, MAPS[0], noise_std=0.2), (1, 6, 5)),
}


def alone(name: str, m: int) -> Operator:
    """Measurement m's operator, made of its own constants."""
    def mine(v: Tensor) -> Tensor | float:
        return v[m] if v.ndim > 1 else float(v[m])

    eta = float(ETAS[m])
    return {
        "masks": lambda: Inpainting(MASKS[m], 0.2),
        "masks, noise": lambda: Inpainting(MASKS[m], eta),
        "masks, noise a pixel, complex": lambda: Inpainting(MASKS[m], PIXELS[m], is_complex=True),
        "one mask for all channels": lambda: Inpainting(PLANES[m], eta),
        "noise alone": lambda: Denoising(eta),
        "kernels": lambda: CircularBlur(PSFS[m], 0.2),
        "kernels, noise": lambda: CircularBlur(PSFS[m], eta),
        "one kernel, noise, complex": lambda: CircularBlur(PSFS[0], eta, is_complex=True),
        "super-resolution": lambda: SuperResolution(2, eta, PSFS[m]),
        "mri, one coil": lambda: CartesianMRI(PLANES[m], noise_std=eta),
        "mri, lines": lambda: CartesianMRI(LINES[m], MAPS[m], axis=0, noise_std=eta),
        "mri, lines, one mask": lambda: CartesianMRI(LINES[0], MAPS[m], axis=0, noise_std=0.2),
        "mri, planes": lambda: CartesianMRI(PLANES[m], MAPS[m], noise_std=eta),
        "mri, planes, one set of maps": lambda: CartesianMRI(PLANES[m], MAPS[0], noise_std=0.2),
    }[name]()


def images(op: Operator, shape: tuple[int, int, int], count: int = M) -> Tensor:
    dtype = torch.complex64 if op.is_complex else torch.float32
    return MU + S * torch.randn(count, *shape, generator=generator(6), dtype=dtype)


@pytest.mark.parametrize("name", CASES)
def test_each_measurement_has_its_own_operator(name: str) -> None:
    """Forward, adjoint, normal and the scale of the noise, of one image and of two a measurement."""
    make, shape = CASES[name]
    op, x = make(), images(make(), shape, 2 * M)
    assert op.measurements == M
    y = op.forward(x)
    for m in range(M):
        single, rows = alone(name, m), slice(2 * m, 2 * m + 2)
        assert torch.equal(y[rows], single.forward(x[rows]))
        assert torch.equal(op.adjoint(y)[rows], single.adjoint(y[rows]))
        torch.testing.assert_close(op.normal(x)[rows], single.normal(x[rows]), rtol=1e-5, atol=1e-5)
        assert torch.equal(op.of(m, m + 1).forward(x[rows]), y[rows])
        stds = torch.as_tensor(op.stds(y)).expand(2 * M, *y.shape[1:])[rows]
        torch.testing.assert_close(stds, torch.as_tensor(single.stds(y[rows]), dtype=stds.dtype).expand_as(stds))


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_that_of_each_measurements_posterior(name: str) -> None:
    """P and Aᴴy/η² are those of the dense matrix of the operator made alone, over its own noise."""
    make, shape = CASES[name]
    op = make()
    y = op.forward(images(op, shape))
    checked = op.check_measurement(y)
    t = 0.7
    solved = op.solve_state(op.adjoint_state(checked.to(torch.complex128 if checked.is_complex() else torch.float64))
                            * op.noise_std**-2, op.noise_std**-2, t**-2)
    for m in range(M):
        single = alone(name, m)
        a = image_matrix(single.forward, shape, single.is_complex)
        stds = torch.as_tensor(single.stds(y[m:m + 1]))
        weights = (1 / stds.double()).expand(1, *y.shape[1:]).flatten().repeat_interleave(2 if y.is_complex() else 1)
        white = a * weights[:, None]
        precision = white.T @ white + torch.eye(a.shape[1], dtype=torch.float64) / t**2
        mean = torch.linalg.solve(precision, white.T @ (real_rows(y[m:m + 1])[0].double() * weights))
        torch.testing.assert_close(solved[m].flatten().double(), mean, rtol=1e-5, atol=1e-5)
        part = op.of(m, m + 1)
        normal = matrix(lambda v, part=part: part.normal_state(v), solved.shape[1:])
        torch.testing.assert_close(normal / op.noise_std**2, white.T @ white, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name, backend", [*((name, "auto") for name in CASES), ("masks, noise", "torch"), ("kernels", "torch"),
                                           ("mri, lines", "torch")])
def test_a_measurement_is_the_same_alone_and_in_the_batch(name: str, backend: str) -> None:
    """To the bit, given its index; and whatever parts memory allows."""
    make, shape = CASES[name]
    op = make()
    y = data.measure(op, images(op, shape))
    options = {"chains": 4, "draws": 2, "schedule": FEW, "progress": False, "backend": backend}
    prior = Published(MU, S)
    together = sample(y, op, prior, **options)
    parted = sample(y, op, prior, max_chains=3, **options)
    assert torch.equal(together.samples, parted.samples) and torch.equal(together.mean, parted.mean)
    for m in range(M):
        one = sample(y[m:m + 1], op.of(m, m + 1), prior, first_measurement=m, **options)
        assert torch.equal(one.samples[0], together.samples[m]) and torch.equal(one.mean[0], together.mean[m])
        assert torch.equal(one.chi2[0], together.chi2[m])


@pytest.mark.parametrize("name", ["masks", "kernels", "mri, lines, one mask", "mri, planes, one set of maps"])
def test_with_noise_of_one_level_it_is_that_of_an_operator_of_its_own(name: str) -> None:
    """To the bit: there is nothing to whiten."""
    make, shape = CASES[name]
    op = make()
    y = data.measure(op, images(op, shape))
    options = {"chains": 4, "schedule": FEW, "progress": False}
    together = sample(y, op, GaussianEnergy(MU, S), **options)
    for m in range(M):
        one = sample(y[m:m + 1], alone(name, m), GaussianEnergy(MU, S), first_measurement=m, **options)
        assert torch.equal(one.samples[0], together.samples[m]) and torch.equal(one.mean[0], together.mean[m])


@pytest.mark.parametrize("name", ["masks, noise", "masks, noise a pixel, complex", "kernels, noise", "mri, lines", "mri, planes"])
def test_samples_have_each_posteriors_mean_and_variance(name: str) -> None:
    """A Gaussian prior, whose posterior is known: means within their error, squares of what is left within theirs."""
    make, shape = CASES[name]
    op, chains = make(), 100
    y = data.measure(op, images(op, shape))
    found = sample(y, op, GaussianEnergy(MU, S), chains=chains, schedule=Schedule(1.0, 0.2, 4, 4, predictor=True), progress=False)
    for m in range(M):
        single = alone(name, m)
        prior = S * S + 0.2**2
        a = image_matrix(single.forward, shape, single.is_complex)
        rows = op.of(m, m + 1)
        precision = matrix(lambda v, rows=rows: rows.normal_state(v), (shape[1], shape[2], a.shape[1] // (shape[1] * shape[2])))
        precision = precision / op.noise_std**2 + torch.eye(a.shape[1], dtype=torch.float64) / prior
        b = rows.adjoint_state(rows.check_measurement(y[m:m + 1])).flatten().double() / op.noise_std**2
        mean = torch.linalg.solve(precision, b + MU / prior)
        z = (real_rows(found.samples[m].movedim(1, -1)).double() - mean) @ torch.linalg.cholesky(precision)
        assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / z.numel()) + 0.01
        assert float(found.chi2[m]) == pytest.approx(1, abs=5 * math.sqrt(2 / op.data_counts(op.check_measurement(y))[m]))


@pytest.mark.parametrize("options", [{"method": "measurement", "chains": 3}, {"correction": "mala"},
                                     {"warm_start": torch.full((1, 6, 5), 0.1), "warm_std": 0.4}],
                         ids=["measurement", "mala", "warm"])
@pytest.mark.parametrize("name", ["one mask for all channels", "kernels, noise", "mri, lines"])
def test_every_way_to_sample_takes_each_measurement_by_itself(name: str, options: dict[str, object]) -> None:
    """To the bit, also where a part of the chains runs at a time and the data of each chain are its own."""
    make, shape = CASES[name]
    op = make()
    y = data.measure(op, images(op, shape))
    if "warm_start" in options:
        dtype = torch.complex64 if op.is_complex else torch.float32
        options = options | {"warm_start": torch.full(shape, 0.1, dtype=dtype)}
    options = {"chains": 4, "draws": 2, "schedule": Schedule(1.0, 0.2, 2, 2, eta_steps=2), "progress": False} | options
    prior = Published(MU, S)
    together, parted = sample(y, op, prior, **options), sample(y, op, prior, max_chains=2, **options)
    assert torch.equal(together.samples, parted.samples) and bool(together.mean.isfinite().all())
    one = sample(y[1:2], op.of(1, 2), prior, first_measurement=1, **options)
    assert torch.equal(one.samples[0], together.samples[1]) and torch.equal(one.mean[0], together.mean[1])


def test_the_fused_kernel_of_ridge_energies_has_each_mask_and_noise(tmp_path) -> None:
    op = Inpainting(MASKS, PIXELS)
    y = data.measure(op, images(op, (2, 6, 5)))
    options = {"chains": 3, "draws": 2, "schedule": FEW, "progress": False}
    together = sample(y, op, small_ridge(), checkpoint=tmp_path / "run", **options)
    same_posterior(together, sample(y, op, small_ridge(), checkpoint=tmp_path / "run", **options))
    for m in range(M):
        one = sample(y[m:m + 1], op.of(m, m + 1), small_ridge(), first_measurement=m, **options)
        assert torch.equal(one.samples[0], together.samples[m])


@pytest.mark.parametrize("name", ["masks, noise", "kernels, noise", "mri, lines", "mri, planes"])
def test_map_of_a_batch_is_that_of_each(name: str) -> None:
    make, shape = CASES[name]
    op = make()
    y = data.measure(op, images(op, shape))
    together = map_estimate(y, op, Published(MU, S), schedule=FEW, progress=False)
    assert repr(together).startswith(f"MapEstimate of {M} measurements, ") and len(repr(together)) < 300
    for m in range(M):
        one = map_estimate(y[m], alone(name, m), Published(MU, S), schedule=FEW, progress=False)
        torch.testing.assert_close(together.image[m], one.image, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(together.energy[m], one.energy, rtol=1e-4, atol=1e-3)


def test_the_schedule_is_that_of_the_hardest() -> None:
    """As low as the least noise asks for, as high as the measurement that leaves most."""
    prior = GaussianEnergy(0.0, S)
    seen = Inpainting(torch.stack([torch.ones(1, 6, 5), torch.eye(6)[:, :5][None]]), torch.tensor([0.3, 0.01]))
    y = torch.zeros(2, 1, 6, 5)
    few = {"chains": 2, "progress": False}
    chosen = sample(y, seen, prior, **few).schedule
    each = [sample(y[m], Inpainting(seen.mask[m], eta), prior, **few).schedule for m, eta in enumerate((0.3, 0.01))]
    assert chosen.sigma_min == min(s.sigma_min for s in each) and chosen.sigma_max == max(s.sigma_max for s in each)


ZERO = torch.zeros(4, 2, 6, 5)
BAD = {
    "noise_std": lambda: Inpainting(MASKS, torch.full((2,), 0.1)),
    "noise_std zero": lambda: Inpainting(MASKS, torch.tensor([0.1, 0.0, 0.1])),
    "noise_std nan": lambda: Denoising(torch.tensor([0.1, math.nan])),
    "noise_std whole": lambda: Denoising(torch.tensor([1, 2])),
    "noise_std pixels": lambda: Inpainting(MASKS, torch.full((2, 6, 4), 0.1)),
    "noise_std blur": lambda: CircularBlur(PSFS, torch.full((6, 5), 0.1)),
    "noise_std mri": lambda: CartesianMRI(PLANES, noise_std=torch.full((6, 5), 0.1)),
    "noise_std channels": lambda: Denoising(PIXELS[:2]).check_measurement(torch.zeros(2, 3, 6, 5)),
    "maps": lambda: CartesianMRI(PLANES, MAPS[:2], noise_std=0.1),
    "mask one zero": lambda: Inpainting(torch.stack([MASKS[0], MASKS[0] * 0]), 0.1),
    "psf one zero": lambda: CircularBlur(torch.stack([PSFS[0], PSFS[0] * 0]), 0.1),
    "y": lambda: Inpainting(MASKS, 0.1).check_measurement(ZERO),
    "y alone": lambda: Inpainting(MASKS, 0.1).check_measurement(ZERO[0]),
    "y twice": lambda: CircularBlur(PSFS, 0.1).check_measurement(torch.zeros(6, 1, 6, 5)),
    "y mri": lambda: CartesianMRI(PLANES, noise_std=0.1).check_measurement(torch.zeros(6, 5, dtype=torch.complex64)),
    "x": lambda: Inpainting(MASKS, 0.1).forward(ZERO),
    "x blur": lambda: CircularBlur(PSFS, 0.1).forward(ZERO),
    "x mri": lambda: CartesianMRI(PLANES, noise_std=0.1).forward(torch.zeros(1, 6, 5, dtype=torch.complex64)),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_named(name: str) -> None:
    with pytest.raises(ArgumentError, match=rf"^{name.split()[0]}: "):
        BAD[name]()
