"""Maps that are zero outside the body, as ESPIRiT makes them: nothing is there, in statistics, MAP or pictures."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alps_fast.energies import GaussianEnergy
from alps_fast.errors import ArgumentError
from alps_fast.layout import from_state, to_state
from alps_fast.operators import CartesianMRI
from alps_fast.posterior import Posterior
from alps_fast.samplers import Schedule, map_estimate, sample

S, MU, T, ETA = 0.5, 0.3, 0.2, 0.1
G = torch.Generator().manual_seed(0)
PLANE = (torch.rand(8, 6, generator=G) < 0.6).float()
BODY = torch.zeros(8, 6, dtype=torch.bool)
BODY[1:7, 2:5] = True
MAPS = torch.complex(*(torch.randn(2, 3, 8, 6, generator=G) / math.sqrt(6)).unbind()) * BODY


class Flat(GaussianEnergy):
    """Without its bound, so that steps lean on the gradient."""

    def curvature(self, t: float) -> None:
        return None


def operator(name: str) -> CartesianMRI:
    maps = MAPS[:1] if name == "one coil" else MAPS
    return CartesianMRI(PLANE[:, :1] if name == "lines" else PLANE, maps, noise_std=ETA)


def problem(name: str) -> tuple[CartesianMRI, Tensor, Tensor, Tensor]:
    """A, y, and the posterior's precision and mean over the body alone, float64."""
    op = operator(name)
    g = torch.Generator().manual_seed(1)
    y = op.forward(MU + S * torch.randn(1, 8, 6, generator=g, dtype=torch.complex64))
    y = y + ETA * torch.randn(y.shape, generator=g, dtype=y.dtype)
    inside = BODY[..., None].expand(8, 6, 2).flatten()
    basis = torch.eye(96, dtype=torch.float64)[inside].view(-1, 8, 6, 2)
    a = torch.view_as_real(op.forward(from_state(basis, True))).flatten(1).T
    precision = a.T @ a / ETA**2 + torch.eye(len(basis), dtype=torch.float64) / (S * S + T * T)
    rhs = a.T @ torch.view_as_real(y).flatten().double() / ETA**2 + MU / (S * S + T * T)
    return op, y, precision, torch.linalg.solve(precision, rhs)


def whitened(image: Tensor, mean: Tensor, precision: Tensor) -> Tensor:
    inside = BODY[..., None].expand(8, 6, 2).flatten()
    return (to_state(image).flatten(1)[:, inside].double() - mean) @ torch.linalg.cholesky(precision)


@pytest.mark.parametrize("correction", [None, "mala"])
@pytest.mark.parametrize("name", ["one coil", "lines", "plane"])
def test_nothing_is_sampled_where_nothing_is_measured(name: str, correction: str | None) -> None:
    op, y, precision, mean = problem(name)
    chains = 200
    found = sample(y, op, Flat(MU, S), chains=chains, draws=2, schedule=Schedule(1.0, T, 4, 10), correction=correction,
                   progress=False)
    for image in (found.mean, found.samples, found.std):
        assert bool((image[..., ~BODY] == 0).all())
    assert found.support is not None
    assert torch.equal(found.support, BODY)
    z = whitened(found.samples, mean, precision)
    assert abs(float(z.square().mean()) - 1) < 4 * math.sqrt(2 / z.numel()) + 0.03
    assert float(whitened(found.mean[None], mean, precision).square().mean()) < 3 / chains
    assert float(found.mean_std) == pytest.approx(float(found.std[:, BODY].mean()))
    assert found.trace.shape == (chains, 2, 2 * int(BODY.sum()))
    assert bool((found.trace.flatten(0, 1).std(0) > 0).all())


@pytest.mark.parametrize("name", ["one coil", "lines", "plane"])
def test_map_is_zero_where_nothing_is_measured(name: str) -> None:
    op, y, precision, mean = problem(name)
    found = map_estimate(y, op, Flat(MU, S), schedule=Schedule(1.0, T, 4, 40), progress=False)
    assert bool((found.image[..., ~BODY] == 0).all())
    assert float(whitened(found.image[None], mean, precision).abs().max()) < 0.02


def test_the_support_goes_to_disk_and_bounds_the_grey_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    op, y, *_ = problem("lines")
    found = sample(y, op, Flat(2.0, S), chains=4, draws=2, schedule=Schedule(1.0, T, 2, 2), progress=False)
    found.save(tmp_path / "p.npz")
    back = Posterior.load(tmp_path / "p.npz")
    assert back.support is not None
    assert torch.equal(back.support, BODY)
    scales = []
    draw = Axes.imshow

    def noted(self: Axes, *args: object, **options: object) -> object:
        scales.append(options.get("vmin"))
        return draw(self, *args, **options)

    monkeypatch.setattr(Axes, "imshow", noted)
    back.plot(tmp_path / "p.png")
    assert scales[0] == pytest.approx(float(found.mean.abs()[:, BODY].min()))


def test_maps_everywhere_have_no_support_to_tell() -> None:
    op = CartesianMRI(PLANE, torch.ones(2, 8, 6, dtype=torch.complex64), noise_std=ETA)
    y = torch.zeros(2, 8, 6, dtype=torch.complex64)
    found = sample(y, op, Flat(MU, S), chains=2, schedule=Schedule(1.0, T, 2, 2), progress=False)
    assert found.support is None
    with pytest.raises(ArgumentError, match="^maps: got all zero"):
        CartesianMRI(PLANE, torch.zeros(2, 8, 6, dtype=torch.complex64), noise_std=ETA)
