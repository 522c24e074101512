"""precision="fast" is still right: the posterior of bfloat16 multiplications is float32's, within Monte Carlo error."""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from alps_fast import data, energies
from alps_fast.energies import DenoiserEnergy, Energy
from alps_fast.layout import from_state, to_state
from alps_fast.operators import CartesianMRI
from alps_fast.posterior import Posterior
from alps_fast.samplers import Progress, Schedule, sample

CHAINS, DRAWS, THIN = 8, 3, 2
SCHEDULE = Schedule(sigma_max=1.0, sigma_min=0.012, levels=8, steps=3, rho=3.0)  # the demo's, fewer levels
TASKS = {4: 8, 8: 4}  # acceleration, and columns of the fully sampled centre


def bfloat16_backend() -> str:
    """The backend that multiplies in bfloat16 here: "cpu" does with AMX or AVX512_BF16."""
    if importlib.util.find_spec("alps_fast._cpu") is not None:
        from alps_fast import _cpu

        if _cpu.isa() in ("avx512bf16", "amx"):
            return "cpu"
    return "torch"


def task(acceleration: int) -> tuple[CartesianMRI, Tensor]:
    truth = data.brain()[:, 72:120, 48:112]
    height, width = truth.shape[1:]
    mask = data.line_mask(height, width, acceleration, TASKS[acceleration], seed=1)
    op = CartesianMRI(mask, maps=data.coil_maps(4, height, width), noise_std=0.01)
    return op, data.measure(op, truth, mask, seed=2)


class Ensemble(NamedTuple):
    """A posterior, and the draws it is of: (chains, draws, numbers of a state)."""

    posterior: Posterior
    draws: Tensor


def ensemble(op: CartesianMRI, y: Tensor, energy: Energy, first_chain: int) -> Ensemble:
    draws: list[Tensor] = []

    def keep(progress: Progress) -> None:
        if progress.level >= SCHEDULE.levels - 1:
            draws.append(progress.state.flatten(1).double())

    posterior = sample(y, op, energy, chains=CHAINS, draws=DRAWS, thin=THIN, schedule=SCHEDULE, first_chain=first_chain,
                       pairs=False, callback=keep, progress=False)
    assert len(draws) == DRAWS and not posterior.broken
    assert torch.equal(from_state(draws[-1].float().view(CHAINS, *op.image_shape(y)[1:], 2), True), posterior.samples)
    return Ensemble(posterior, torch.stack(draws, 1))


def halvings(count: int = 999) -> Tensor:
    """Ways to part 2 CHAINS chains into two halves, 1 for one and 0 for the other; the first is as they ran."""
    g = torch.Generator().manual_seed(0)
    orders = torch.stack([torch.arange(2 * CHAINS), *(torch.randperm(2 * CHAINS, generator=g) for _ in range(count))])
    return (orders < CHAINS).double()


def statistics(draws: Tensor, half: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (ways, n) of the draws (chains, draws, n) of the chains in each half (ways, chains)."""
    n = CHAINS * DRAWS
    centred = draws - draws.mean((0, 1))
    mean = half @ centred.sum(1) / n
    variance = (half @ centred.square().sum(1) / n - mean.square()) * (n / (n - 1))
    return mean + draws.mean((0, 1)), variance.sqrt()


def chances(one: Ensemble, other: Ensemble) -> dict[str, float]:
    """Of each figure, the share of halvings of all chains whose halves are at least as far apart as the two ensembles are.

    The chains are independent, so if all have one distribution, how they ran is a halving like any other.
    """
    draws, half = torch.cat([one.draws, other.draws]), halvings()
    (mean, std), (mean_too, std_too) = statistics(draws, half), statistics(draws, 1 - half)
    for ensemble in (one, other):  # users are given that of a draw, for which draws of a chain are not independent
        given = ensemble.posterior.channel_std.movedim(0, -1).flatten().double()
        within, between = ensemble.draws.var(1).mean(0), ensemble.draws.mean(1).var(0)
        assert torch.allclose(given, ((1 - 1 / DRAWS) * within + between).sqrt(), rtol=1e-3)
    apart = {"mean": (mean - mean_too).square().sum(1), "std": (std - std_too).square().sum(1),
             "overall std": (std - std_too).mean(1).square()}
    # of the MMSE estimate, a mean of projections, which scatters less than that of the samples
    mmse = to_state((one.posterior.mean - other.posterior.mean)[None]).double().square().sum()
    return {name: float((v >= v[0]).double().mean()) for name, v in apart.items()} | {
        "MMSE": float((apart["mean"] >= mmse).double().mean())}


@pytest.mark.parametrize("acceleration", TASKS)
def test_bfloat16_gives_the_posterior_of_float32(acceleration: int) -> None:
    """Other chains for each, so that no shared noise helps them agree; Monte Carlo error is that of the chains themselves.

    As measured: chances of 0.02 to 0.96, all within 0.01 of those of float32 against itself on the same chains; a gradient
    5 % too large brings 0.005 and 0.002 of the standard deviation at R = 4.
    """
    op, y = task(acceleration)
    fast = energies.load("brain-denoiser", precision="fast", backend=bfloat16_backend())
    assert isinstance(fast, DenoiserEnergy)
    high = ensemble(op, y, energies.load("brain-denoiser", precision="high"), 0)
    low = ensemble(op, y, fast, CHAINS)
    for name, chance in chances(high, low).items():
        assert chance > 0.01, name
    # and it is bfloat16 that was tried
    x = to_state(high.posterior.samples).movedim(-1, 1).contiguous()
    exact = energies.load("brain-denoiser").grad(x, SCHEDULE.sigma_min)
    error = float((fast.grad(x, SCHEDULE.sigma_min) - exact).norm() / exact.norm())
    assert error > 1e-3
