"""What a caller tells torch around a call changes no result, and a run keeps no graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from inputs import COLUMNS, MASK, same_posterior, small_ridge
from torch import Tensor, nn

from alps_fast import data
from alps_fast.energies import DiffusionPrior, GaussianEnergy, GaussianMixtureEnergy, RidgeEnergy, SumEnergy
from alps_fast.energies.base import Energy
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, Operator, SuperResolution
from alps_fast.ops._modes import one_thread, settled
from alps_fast.posterior import Posterior
from alps_fast.samplers import Sampler, Schedule, map_estimate

FEW = Schedule(sigma_max=1.0, sigma_min=0.2, levels=2, steps=2, eta_steps=1, eta_max=0.15)
G = torch.Generator().manual_seed(1)
MAPS, MATRIX = data.coil_maps(3, 10, 10), torch.randn(40, 100, generator=G) / 10
PSF, WARM = torch.rand(3, 3, generator=G), torch.randn(1, 10, 10, generator=G)
RIDGE = small_ridge()
MEANS, WEIGHTS = torch.tensor([0.4, -0.4]).view(2, 1, 1, 1), torch.ones(2)


@contextmanager
def in_double() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


MODES: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "float64": in_double,
    "another device": lambda: torch.device("meta"),  # whose tensors hold nothing: none is to be made on a default device
}


class Differentiated(Energy):
    """What asks for its gradient by autograd, as networks do."""

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            value = (1 - torch.exp(-x * x)).flatten(1).sum(1)
            return value.detach(), torch.autograd.grad(value.sum(), x)[0]


OPERATORS: dict[str, Callable[[], Operator]] = {
    "inpainting": lambda: Inpainting(MASK, 0.1),
    "denoising": lambda: Denoising(0.1),
    "blur": lambda: CircularBlur(PSF, 0.1),
    "superres": lambda: SuperResolution(2, 0.1),
    "one coil": lambda: CartesianMRI(MASK, noise_std=0.1),
    "lines": lambda: CartesianMRI(COLUMNS.expand(10, 10), MAPS, noise_std=0.1),
    "coils": lambda: CartesianMRI(MASK, MAPS, noise_std=0.1),
    "linear": lambda: LinearOperator(lambda x: x.flatten(1) @ MATRIX.T, lambda y: (y @ MATRIX).view(-1, 1, 10, 10), 0.1,
                                     (1, 10, 10)),
}


def rebuilt() -> RidgeEnergy:
    """From the same numbers, whatever the mode."""
    return RidgeEnergy(RIDGE.filters, RIDGE.knots, RIDGE.w, RIDGE.r, RIDGE.q, bounds=RIDGE.bounds, channelwise=True)


ENERGIES: dict[str, Callable[[], Energy]] = {
    "gaussian": lambda: GaussianEnergy(0.3, 0.3),
    "mixture": lambda: GaussianMixtureEnergy(WEIGHTS, MEANS, WEIGHTS),
    "ridge": rebuilt,
    "sum": lambda: SumEnergy([rebuilt(), GaussianEnergy(0.0, 1.0)], [0.5, 0.5]),
    "autograd": Differentiated,
    "diffusion": lambda: DiffusionPrior(lambda x, sigma: 0.25 / (0.25 + sigma.view(-1, 1, 1, 1) ** 2) * x, 1),
}
WAYS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "inpainting": ("inpainting", "ridge", {"draws": 3, "thin": 2}),
    "inpainting, on torch": ("inpainting", "ridge", {"backend": "torch"}),
    "denoising": ("denoising", "autograd", {"correction": "mala"}),
    "blur": ("blur", "mixture", {"correction": "mala", "draws": 2}),
    "superres": ("superres", "gaussian", {"method": "measurement"}),
    "superres, a diffusion model": ("superres", "diffusion", {"draws": 2}),
    "one coil": ("one coil", "sum", {"method": "measurement", "correction": "mala"}),
    "lines": ("lines", "autograd", {"noise": "independent"}),
    "coils": ("coils", "mixture", {}),
    "coils, on torch": ("coils", "ridge", {"backend": "torch", "correction": "mala"}),
    "linear": ("linear", "gaussian", {"warm_start": WARM, "warm_std": 0.5}),
}


def measured(operator: str) -> Tensor:
    op = OPERATORS[operator]()
    g = torch.Generator().manual_seed(2)
    return op.forward(torch.randn(1, 10, 10, generator=g, dtype=torch.complex64 if op.is_complex else torch.float32))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("way", WAYS)
def test_a_run_is_the_same_in_any_mode(way: str, mode: str) -> None:
    operator, energy, options = WAYS[way]
    y = measured(operator)

    def run() -> Posterior:
        return Sampler(OPERATORS[operator](), ENERGIES[energy](), chains=3, schedule=FEW, progress=False, **options)(y * 1)

    want = run()
    with MODES[mode]():
        got = run()
    same_posterior(got, want)
    assert not any(v.requires_grad or v.is_inference() for v in vars(got).values() if isinstance(v, Tensor))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_map_estimate_is_the_same_in_any_mode(operator: str, mode: str) -> None:
    y = measured(operator)
    for energy in (ENERGIES["ridge"], ENERGIES["autograd"]):
        want = map_estimate(y, OPERATORS[operator](), energy(), schedule=FEW, progress=False)
        with MODES[mode]():
            got = map_estimate(y * 1, OPERATORS[operator](), energy(), schedule=FEW, progress=False)
        for w, g in zip(vars(want).values(), vars(got).values(), strict=True):
            assert torch.equal(w, g) and w.dtype == g.dtype and not g.is_inference()


@pytest.mark.parametrize("mode", MODES)
def test_operators_and_energies_by_themselves_are_the_same_in_any_mode(mode: str) -> None:
    for name, make in OPERATORS.items():
        y = measured(name)
        op = make()
        x = op.adjoint(y)
        want = op.forward(x), x, op.normal(x), op.project(x, 0.5)
        with MODES[mode]():
            op = make()
            got = op.forward(x), op.adjoint(y), op.normal(x), op.project(x, 0.5)
        for w, g in zip(want, got, strict=True):
            assert torch.equal(w, g) and w.dtype == g.dtype, name
        image = x.detach().clone().requires_grad_()  # what the operator kept meanwhile does not keep autograd out
        assert torch.autograd.grad(op.forward(image).abs().sum(), image)[0].isfinite().all()
    x = torch.randn(2, 1, 10, 10)
    for name in ("gaussian", "mixture", "ridge", "sum"):
        want = ENERGIES[name]().value_and_grad(x, 0.3)
        with MODES[mode]():
            got = ENERGIES[name]().value_and_grad(x, 0.3)
        for w, g in zip(want, got, strict=True):
            assert torch.equal(w, g) and w.dtype == g.dtype, name


@pytest.mark.parametrize("options", [{}, {"correction": "mala", "draws": 4}, {"method": "measurement"}])
def test_a_run_keeps_no_graph(options: dict[str, Any], tmp_path: Path) -> None:
    """Nor does a posterior of what requires gradients: it can be saved, drawn and judged."""
    weight, mean = nn.Parameter(MATRIX.clone()), nn.Parameter(torch.full((1, 10, 10), 0.3))
    op = LinearOperator(lambda x: x.flatten(1) @ weight.T, lambda y: (y @ weight).view(-1, 1, 10, 10), 0.1, (1, 10, 10))
    y = measured("linear").requires_grad_()
    states: list[Tensor] = []
    run = Sampler(op, GaussianEnergy(mean, 0.5), chains=3, schedule=FEW, progress=False,
                  checkpoint=tmp_path / "run", callback=lambda p: states.append(p.state), **options)
    posterior = run(y)
    found = [*states, *(v for v in vars(posterior).values() if isinstance(v, Tensor)), *posterior.interval(0.9)]
    estimate = map_estimate(y, op, GaussianEnergy(mean, 0.5), schedule=FEW, progress=False)
    for v in (*found, *vars(estimate).values()):
        assert v.grad_fn is None and not v.requires_grad
    assert len(states) == len(run.levels) and weight.grad is None and y.requires_grad
    posterior.save(tmp_path / "post.npz")
    posterior.plot(tmp_path / "post.png")
    posterior.diagnostics()


def test_a_mode_ends_where_it_was_entered() -> None:
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        with settled():
            assert not torch.is_inference_mode_enabled() and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
            with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
                assert torch.is_grad_enabled() and torch.is_autocast_enabled("cpu")
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
    assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")


def test_one_thread_for_a_while(threads: Callable[[int], None]) -> None:
    threads(2)
    with pytest.raises(KeyError), one_thread():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == 2
