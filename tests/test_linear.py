"""LinearOperator beyond forward and adjoint: a known P, functions of each measurement, noise of each datum."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from dense import image_matrix, matrix, posterior_power
from oracles import MU, S, generator
from torch import Tensor

from alps_fast import ArgumentError, Schedule, data, map_estimate, sample
from alps_fast.energies import GaussianEnergy
from alps_fast.operators import LinearOperator, counting_std
from alps_fast.ops._cg import damped_least_squares
from alps_fast.ops._scalars import StepScalars
from alps_fast.ops.philox_normal import INDEPENDENT

IMAGE = (1, 4, 5)
MATRIX = torch.randn(12, 20, generator=generator(1), dtype=torch.float64) / 4
MATRICES = torch.randn(3, 12, 20, generator=generator(2), dtype=torch.float64) / 4
FEW = Schedule(1.0, 0.2, 3, 3)
ETA = 0.1


class Counted:
    """A function that counts its calls."""

    def __init__(self, function: Any):
        self.function, self.calls = function, 0

    def __call__(self, *arguments: Any) -> Tensor:
        self.calls += 1
        return self.function(*arguments)


def forward(x: Tensor) -> Tensor:
    return x.flatten(1) @ MATRIX.to(x.dtype).T


def adjoint(y: Tensor) -> Tensor:
    return (y @ MATRIX.to(y.dtype)).view(-1, *IMAGE)


def power(v: Tensor, inv_eta2: float, lam: float, exponent: float) -> Tensor:
    root = posterior_power(MATRIX.T @ MATRIX, inv_eta2, lam, exponent)
    return (v.flatten(1).double() @ root).view(v.shape).to(v.dtype)


def solve(rhs: Tensor, inv_eta2: float, lam: float) -> Tensor:
    return power(rhs, inv_eta2, lam, -1.0)


def root(xi: Tensor, inv_eta2: float, lam: float) -> Tensor:
    return power(xi, inv_eta2, lam, -0.5)


def cholesky(xi: Tensor, inv_eta2: float, lam: float) -> Tensor:
    """Another root, which is not symmetric."""
    factor = torch.linalg.cholesky(posterior_power(MATRIX.T @ MATRIX, inv_eta2, lam, -1.0)).to(xi.dtype)
    return (xi.flatten(1) @ factor.T).view(xi.shape)


def made(**known: Any) -> LinearOperator:
    return LinearOperator(forward, adjoint, ETA, IMAGE, **known)


@pytest.mark.parametrize("known", [{"solve": solve}, {"solve": solve, "sqrt": root}, {"solve": solve, "sqrt": cholesky}],
                         ids=["solve", "root", "another root"])
def test_a_known_p_is_what_steps_use(known: dict[str, Any]) -> None:
    """m, and the covariance of the noise as a matrix, are those of the dense posterior; A is not iterated."""
    op = LinearOperator(Counted(forward), adjoint, ETA, IMAGE, **known)
    op.forward(torch.zeros(IMAGE))
    tried = op._functions[0].calls
    s = StepScalars(lam=2.0, lin=2.0, w=2.0, inv_eta2=ETA**-2, noise_lam=3.0, noise=INDEPENDENT, seed=0, step=0)
    zero = torch.zeros(1, 4, 5, 1, dtype=torch.float64)
    b = torch.randn(1, 4, 5, 1, generator=generator(3), dtype=torch.float64)
    total = 20 if "sqrt" in known else 32

    def noise(xi: Tensor) -> Tensor:
        at = zero.expand(len(xi), -1, -1, -1)
        return op.langevin(at, at, zero, torch.arange(len(xi)), s, xi=xi.view(len(xi), *((4, 5, 1) if total == 20 else (32,))))[0]

    spread = matrix(noise, (total,))
    wanted = posterior_power(MATRIX.T @ MATRIX, ETA**-2, 3.0, -1.0)
    torch.testing.assert_close(spread @ spread.T, wanted, rtol=0, atol=1e-10)
    mean = op.langevin(zero, zero, b, torch.arange(1), s)[1]
    torch.testing.assert_close(mean.flatten(), posterior_power(MATRIX.T @ MATRIX, ETA**-2, 2.0, -1.0) @ b.flatten())
    assert op._functions[0].calls == tried


@pytest.mark.parametrize("eta", [0.1, 1e-3])
@pytest.mark.parametrize("known", [{"solve": solve}, {"solve": solve, "sqrt": cholesky}], ids=["solve", "sqrt"])
def test_samples_with_a_known_p_are_the_posterior(known: dict[str, Any], eta: float) -> None:
    op = LinearOperator(forward, adjoint, eta, IMAGE, **known)
    y = data.measure(op, MU + S * torch.randn(IMAGE, generator=generator(4)))
    check_posterior(op, y, MATRIX / eta, y.double() / eta)
    found = map_estimate(y, op, GaussianEnergy(MU, S), schedule=Schedule(1.0, 0.2, 2, 8), progress=False)
    precision = MATRIX.T @ MATRIX / eta**2 + torch.eye(20, dtype=torch.float64) / (S * S + 0.04)
    mean = torch.linalg.solve(precision, MATRIX.T @ y.double() / eta**2 + MU / (S * S + 0.04))
    off = (found.image.flatten().double() - mean) @ torch.linalg.cholesky(precision)
    assert float(off.square().mean().sqrt()) < 0.02


def check_posterior(op: LinearOperator, y: Tensor, white: Tensor, measured: Tensor, chains: int = 200) -> None:
    """Under the Gaussian prior, deviations from the mean, in standard deviations, have variance one within their error."""
    found = sample(y, op, GaussianEnergy(MU, S), chains=chains, schedule=FEW, progress=False)
    for m in range(1 if white.ndim == 2 else len(white)):
        a, v, each = (white, measured, found.samples) if white.ndim == 2 else (white[m], measured[m], found.samples[m])
        prior = S * S + 0.2**2
        precision = a.T @ a + torch.eye(20, dtype=torch.float64) / prior
        mean = torch.linalg.solve(precision, a.T @ v + MU / prior)
        z = (each.flatten(1).double() - mean) @ torch.linalg.cholesky(precision)
        assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / z.numel()) + 0.01


@pytest.mark.parametrize("wrong, name", [
    ({"solve": lambda r, i, lam: r / lam}, "solve"),
    ({"solve": lambda r, i, lam: solve(r, i, 2 * lam)}, "solve"),
    ({"solve": lambda r, i, lam: r[:, :, 1:]}, "solve"),
    ({"solve": solve, "sqrt": solve}, "sqrt"),
    ({"solve": solve, "sqrt": lambda r, i, lam: root(r, i, lam) * 1.01}, "sqrt"),
    ({"solve": solve, "sqrt": lambda r, i, lam: root(r, 0.0, lam)}, "sqrt"),
    ({"sqrt": root}, "solve"),
    ({"solve": 3}, "solve"),
])
def test_a_wrong_p_is_refused_by_name(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(ArgumentError, match=f"^{name}: "):
        made(**wrong).forward(torch.zeros(IMAGE))
    with pytest.raises(ArgumentError, match="^solve: "):
        LinearOperator(forward, adjoint, torch.tensor([0.1, 0.2]), IMAGE, solve=solve)


def test_functions_over_a_batch_of_their_own_are_told_how() -> None:
    factors = torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1, 1)
    with pytest.raises(ArgumentError, match=r"^forward: .*measurements=3 and functions of \(x, index\)$"):
        LinearOperator(lambda x: factors * x, lambda y: factors * y, ETA, IMAGE).forward(torch.zeros(IMAGE))


def of_each(eta: float | Tensor = ETA, **known: Any) -> LinearOperator:
    def each_forward(x: Tensor, index: Tensor) -> Tensor:
        return (MATRICES[index].to(x.dtype) * x.view(-1, 1, 20)).sum(-1)

    def each_adjoint(y: Tensor, index: Tensor) -> Tensor:
        return (MATRICES[index].to(y.dtype).mT.contiguous() * y[:, None]).sum(-1).view(-1, *IMAGE)

    return LinearOperator(each_forward, each_adjoint, eta, IMAGE, measurements=3, **known)


def test_functions_are_told_whose_row_each_is() -> None:
    op, x = of_each(), torch.randn(6, *IMAGE, generator=generator(5))
    y = op.forward(x)
    torch.testing.assert_close(y, torch.einsum("bmn,bn->bm", MATRICES.float().repeat_interleave(2, 0), x.flatten(1)))
    assert torch.equal(op.of(1, 3).forward(x[2:]), y[2:]) and torch.equal(op.of(1, 3).of(1, 2).forward(x[4:]), y[4:])
    with pytest.raises(ArgumentError, match="^x: "):
        op.forward(x[:4])
    with pytest.raises(ArgumentError, match="^y: "):
        op.check_measurement(y)


def test_samples_of_each_measurement_and_its_noise_are_its_posterior() -> None:
    """Also in parts, and alone: to the bit."""
    etas = torch.tensor([0.3, 0.1, 0.2])
    op = of_each(etas)
    y = data.measure(op, MU + S * torch.randn(3, *IMAGE, generator=generator(6)))
    check_posterior(op, y, MATRICES / etas[:, None, None], y.double() / etas[:, None], chains=30)
    options = {"chains": 3, "schedule": FEW, "progress": False}
    together = sample(y, op, GaussianEnergy(MU, S), **options)
    assert torch.equal(sample(y, op, GaussianEnergy(MU, S), max_chains=2, **options).samples, together.samples)
    alone = sample(y[1:2], op.of(1, 2), GaussianEnergy(MU, S), first_measurement=1, **options)
    assert torch.equal(alone.samples[0], together.samples[1])


def test_noise_of_each_datum_is_whitened() -> None:
    stds = 0.05 + torch.rand(1, 12, generator=generator(7))
    op = LinearOperator(forward, adjoint, stds, IMAGE)
    y = data.measure(op, MU + S * torch.randn(1, *IMAGE, generator=generator(8)))
    check_posterior(op, y, MATRIX[None] / stds[..., None], y.double() / stds)
    white = image_matrix(lambda x: op.whitened(op.forward(x)), IMAGE, False) / op.noise_std
    torch.testing.assert_close(white, MATRIX / stds[0, :, None].double())


def test_counts_have_the_noise_of_their_own_level() -> None:
    """√(gain signal + read²), as counts vary, and never less than one count's."""
    photons = torch.poisson(torch.full((20000,), 400.0), generator=generator(9))
    y = 0.01 * photons + 0.02 * torch.randn(20000, generator=generator(10)) - 1
    stds = counting_std(y, gain=0.01, read_std=0.02, black=-1.0)
    assert float(y.std()) == pytest.approx(float(stds.mean()), rel=0.02)  # 20,000 numbers: 0.5 %; and the mean of a root
    assert float(counting_std(torch.tensor([-3.0]), gain=0.01)) == pytest.approx(0.01)
    for name, wrong in (("gain", {"gain": 0.0}), ("read_std", {"gain": 1.0, "read_std": -1.0}), ("y", {"gain": 1.0})):
        with pytest.raises(ArgumentError, match=f"^{name}: "):
            counting_std(y.to(torch.complex64) if name == "y" else y, **wrong)


@pytest.mark.parametrize(("gain", "size"), [(-7, -13), (-13, -13), (13, 13), (-20, 20), (20, -20), (-26, -20)])
def test_neither_gain_nor_size_of_images_matters(gain: int, size: int) -> None:
    prior = torch.randn(2, 4, 5, 1, generator=generator(3))
    measured = torch.randn(2, 12, 1, generator=generator(4))

    def solved(gain: float, size: float) -> Tensor:
        return damped_least_squares(lambda x: gain * forward(x)[..., None], lambda y: gain * adjoint(y[..., 0]).view(-1, 4, 5, 1),
                                    size * prior, gain * size * measured, 1 / (gain * size * ETA) ** 2,
                                    torch.tensor([1.0, 30.0]) / size**2, 1e-3, 100)

    exact = solve(prior[:1].double().view(1, *IMAGE) + adjoint(measured[:1, :, 0].double()) / ETA**2, 1 / ETA**2, 1.0)
    assert (solved(1, 1)[:1].view(1, *IMAGE) - exact).abs().max() < 1e-3
    assert torch.equal(solved(2.0**gain, 2.0**size), 2.0**size * solved(1, 1))


def twice(x: Tensor) -> Tensor:
    return 2 * x


@pytest.mark.parametrize(("functions", "fault"), [
    ({"forward": lambda x: x.mul_(2)}, "forward: got a function that writes into its argument; wanted one that leaves it as"),
    ({"forward": lambda x: torch.from_numpy(np.multiply(x.numpy(), 2, out=x.numpy()))}, "forward: got a function that"),
    ({"adjoint": lambda y: y.mul_(2)}, "adjoint: got a function that writes into its argument"),
    ({"solve": lambda r, inv_eta2, lam: r.div_(4 * inv_eta2 + lam)}, "solve: got a function that writes into its argument"),
    ({"forward": lambda x: x.numpy()}, "forward: got an output float32; wanted a tensor of floating-point or complex numbers"),
    ({"forward": lambda x: None}, "forward: got an output NoneType; wanted a tensor"),
    ({"forward": lambda x: x.long()}, "forward: got an output torch.int64; wanted a tensor of floating-point"),
    ({"adjoint": lambda y: None}, r"adjoint: got an output NoneType; wanted torch.float32 of shape \(1, 1, 4, 5\)"),
])
def test_functions_that_are_none_of_an_operator_are_refused(functions: dict[str, Any], fault: str) -> None:
    op = LinearOperator(**{"forward": twice, "adjoint": twice} | functions, noise_std=ETA, image_shape=IMAGE)
    with pytest.raises(ArgumentError, match=f"^{fault}"):
        op.check_measurement(torch.zeros(IMAGE))


def test_no_measurement_is_refused() -> None:
    with pytest.raises(ArgumentError, match=r"^y: got shape \(0, 1, 4, 5\); wanted"):
        LinearOperator(twice, twice, ETA, IMAGE).check_measurement(torch.zeros(0, *IMAGE))
