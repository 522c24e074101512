"""Blur with borders: against its definition, dense matrices and a known posterior; what a step costs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from dense import image_matrix, matrix, posterior_power
from oracles import MU, S, generator
from torch import Tensor

from alps_fast import ArgumentError, Schedule, data, sample
from alps_fast.energies import GaussianEnergy, load
from alps_fast.operators import Blur, LinearOperator
from alps_fast.operators.fourier import motion_psf
from alps_fast.ops._scalars import StepScalars
from alps_fast.ops.philox_normal import AVERAGED, INDEPENDENT
from alps_fast.samplers.chosen import chosen

SEPARABLE = torch.outer(torch.tensor([0.2, 0.5, 0.3, 0.1]), torch.tensor([0.3, 0.6, 0.2]))
OTHER = torch.rand(3, 4, generator=generator(1)) / 6
PADDINGS = ("valid", "reflect", "replicate", "zeros")
SHAPE = (1, 7, 6)


def at(i: int, size: int, padding: str) -> int | None:
    """The pixel of a line that stands at i; None: zero."""
    if 0 <= i < size:
        return i
    if padding == "reflect":
        return -i if i < 0 else 2 * (size - 1) - i
    return None if padding == "zeros" else min(max(i, 0), size - 1)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("psf", [SEPARABLE, OTHER])
def test_blur_is_its_definition(psf: Tensor, padding: str) -> None:
    x = torch.randn(7, 6, generator=generator(2), dtype=torch.float64)
    (h, w), (height, width) = psf.shape, x.shape
    first = (h - 1 - h // 2, w - 1 - w // 2) if padding == "valid" else (0, 0)
    wanted = torch.zeros(height - h + 1, width - w + 1) if padding == "valid" else torch.zeros(height, width)
    wanted = wanted.double()
    for i in range(wanted.shape[0]):
        for j in range(wanted.shape[1]):
            for a in range(h):
                for b in range(w):
                    row, column = at(first[0] + i + h // 2 - a, height, padding), at(first[1] + j + w // 2 - b, width, padding)
                    if row is not None and column is not None:
                        wanted[i, j] += psf[a, b].double() * x[row, column]
    got = Blur(psf, 0.1, (1, 7, 6), padding=padding).forward(x[None])
    torch.testing.assert_close(got[0], wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("psf, padding, is_complex", [*((SEPARABLE, padding, False) for padding in PADDINGS),
                                                      (SEPARABLE, "reflect", True), (OTHER, "reflect", False),
                                                      (OTHER, "valid", True)])
def test_adjoint_p_and_noise_are_those_of_the_dense_matrix(psf: Tensor, padding: str, is_complex: bool) -> None:
    op = Blur(psf, 0.1, SHAPE, padding=padding, is_complex=is_complex, tol=1e-9)
    assert op.separable == (psf is SEPARABLE)
    a = image_matrix(op.forward, SHAPE, is_complex)
    state = (7, 6, 2 if is_complex else 1)
    torch.testing.assert_close(matrix(op.normal_state, state), a.T @ a, rtol=0, atol=1e-12)
    wanted = posterior_power(a.T @ a, 100.0, 4.0, -1.0)
    torch.testing.assert_close(matrix(lambda v: op.solve_state(v, 100.0, 4.0), state), wanted, rtol=0, atol=1e-8)
    s = StepScalars(lam=4.0, lin=4.0, w=4.0, inv_eta2=100.0, noise_lam=2.0, noise=INDEPENDENT, seed=0, step=0)
    total = state if op.separable else (math.prod(state) + a.shape[0],)

    def noise(xi: Tensor) -> Tensor:
        zero = torch.zeros(len(xi), *state, dtype=xi.dtype)
        return op.langevin(zero, zero, zero[:1], torch.arange(len(xi)), s, xi=xi)[0]

    root = matrix(noise, total)
    torch.testing.assert_close(root @ root.T, posterior_power(a.T @ a, 100.0, 2.0, -1.0), rtol=0, atol=1e-8)


def test_a_step_of_a_separable_blur_asks_a_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """At σ_max = 100 and η = 0.02, where conjugate gradients take hundreds; a chain is the same alone, on any threads."""
    op = Blur.gaussian(1.5, 0.02, (1, 64, 48), padding="reflect")
    monkeypatch.setattr(op, "_continued", None)  # of A
    monkeypatch.setattr(op, "_turned", None)  # of Aᴴ
    s = StepScalars(lam=1e-4, lin=1e-4, w=1e-4, inv_eta2=2500.0, noise_lam=1e-4, noise=AVERAGED, seed=0, step=0)
    x, grad = torch.randn(2, 5, 64, 48, 1, generator=generator(3))
    after, mean = op.langevin(x, grad, x[:1], torch.arange(5), s)
    alone = op.langevin(x[3:4], grad[3:4], x[:1], torch.arange(3, 4), s)
    assert torch.equal(after[3:4], alone[0]) and torch.equal(mean[3:4], alone[1])


@pytest.mark.parametrize("padding, eta", [("valid", 0.1), ("valid", 1e-3), ("reflect", 0.1), ("reflect", 1e-3)])
def test_samples_are_the_posterior(padding: str, eta: float) -> None:
    op = Blur(SEPARABLE, eta, SHAPE, padding=padding)
    y = data.measure(op, MU + S * torch.randn(SHAPE, generator=generator(4)))
    found = sample(y, op, GaussianEnergy(MU, S), chains=100, schedule=Schedule(1.0, 0.2, 3, 3), progress=False)
    a, prior = image_matrix(op.forward, SHAPE, False) / eta, S * S + 0.2**2
    precision = a.T @ a + torch.eye(a.shape[1], dtype=torch.float64) / prior
    b = op.adjoint(y.double()).movedim(0, -1).flatten() / eta**2
    mean = torch.linalg.solve(precision, b + MU / prior)
    z = (found.samples.movedim(1, -1).flatten(1).double() - mean) @ torch.linalg.cholesky(precision)
    assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / z.numel()) + 0.01
    assert float(found.chi2) == pytest.approx(1, abs=5 * math.sqrt(2 / y.numel()))


def test_motion_that_does_not_wrap_around_is_the_posterior() -> None:
    """η is annealed beside t, of itself; variances have their standard error, where the data say least too."""
    eta, shape = 0.02, (1, 8, 8)
    op, prior = Blur(motion_psf(3, 30), eta, shape), GaussianEnergy(MU, S)
    y = data.measure(op, MU + S * torch.randn(shape, generator=generator(4)))
    assert op.iterative and chosen(op, prior, y[None], measured=True).eta_ratio == 20
    assert chosen(Blur(SEPARABLE, eta, shape), prior, y[None], measured=True).eta_ratio is None
    found = sample(y, op, prior, chains=100, schedule=Schedule(1.0, 0.1, 6, 3, predictor=True, eta_ratio=20.0), progress=False)
    a = image_matrix(op.forward, shape, False) / eta
    power, along = torch.linalg.eigh(a.T @ a + torch.eye(64, dtype=torch.float64) / (S * S + 0.1**2))
    b = op.adjoint(y.double()).flatten() / eta**2 + MU / (S * S + 0.1**2)
    z = (found.samples.flatten(1).double() @ along - b @ along / power) * power.sqrt()
    for part in (z, z[:, :16]):  # a pair counts once in a variance
        assert float(part.square().mean()) == pytest.approx(1, abs=4 * math.sqrt(2 / (part.numel() / 2)))


def test_steps_of_a_motion_ask_a_for_little() -> None:
    """Of images, from σ_max to η: below 20 products a step on average, a draw's two systems among them."""
    image = data.photograph()[:, :32, :32]
    op = Blur(motion_psf(7, 30), 0.02, (1, 32, 32), padding="reflect")
    found = sample(data.measure(op, image), op, load("natural-ridge"), chains=1, progress=False,
                   schedule=Schedule(1.0, 0.02, 10, 2, predictor=True, eta_ratio=20.0))
    counts = found.by_level["applications"]
    assert 2 < sum(counts) / len(counts) < 20


@pytest.mark.parametrize("name, make", [
    ("padding", lambda: Blur(OTHER, 0.1, SHAPE, padding="circular")),
    ("psf", lambda: Blur(torch.ones(9, 3), 0.1, SHAPE)),
    ("psf", lambda: Blur(torch.ones(2, 3, 3), 0.1, SHAPE)),
    ("image_shape", lambda: Blur(OTHER, 0.1, (7, 6))),
    ("noise_std", lambda: Blur(OTHER, torch.tensor([0.1, 0.2]), SHAPE)),
    ("y", lambda: Blur(OTHER, 0.1, SHAPE).check_measurement(torch.zeros(SHAPE))),
])
def test_what_does_not_fit_is_named(name: str, make) -> None:
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        make()


def test_kernels_and_noise_of_each_measurement_go_through_linear_operator() -> None:
    """As the errors say that refuse them here; its weights are those of each noise."""
    etas = torch.tensor([0.1, 0.2])
    blurs = [Blur(psf, float(eta), SHAPE, padding="reflect", tol=1e-9) for psf, eta in zip((SEPARABLE, OTHER), etas, strict=True)]

    def each(call: str) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda v, which: torch.cat([getattr(blurs[int(m)], call)(v[i:i + 1]) for i, m in enumerate(which)])

    with pytest.raises(ArgumentError, match=r"measurements=M\), of as many Blurs$"):
        Blur(torch.stack([OTHER, OTHER]), 0.1, SHAPE)
    with pytest.raises(ArgumentError, match=r"measurements=M\), of as many Blurs$"):
        Blur(OTHER, etas, SHAPE)
    op = LinearOperator(each("forward"), each("adjoint"), etas, SHAPE, tol=1e-9, measurements=2)
    rhs = torch.randn(4, 7, 6, 1, generator=generator(5), dtype=torch.float64)
    found = op.solve_state(rhs, op.noise_std**-2, 4.0)
    for m, blur in enumerate(blurs):
        wanted = blur.solve_state(rhs[2 * m:2 * m + 2], float(etas[m].double() ** -2), 4.0)
        torch.testing.assert_close(found[2 * m:2 * m + 2], wanted, rtol=0, atol=1e-8)
