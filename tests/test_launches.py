"""Launches and bytes of a Langevin step, ours against the eager formulation, as torch's dispatcher counts both."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from alps_fast.bench.plain_step import plain_step
from alps_fast.cli import main
from alps_fast.energies import GaussianEnergy
from alps_fast.profile import launches
from alps_fast.profile.launches import Kernels
from alps_fast.profile.sampling import Workload
from alps_fast.samplers.graphs import silent
from alps_fast.samplers.run import Run

CPU = torch.device("cpu")


def test_what_counts() -> None:
    x, wide = torch.ones(6, 4), torch.ones(1, 4).expand(6, 4)
    with Kernels() as counted:
        y = (x + wide).view(24)[2:].sum()  # 96 + 16 -> 96; 88 -> 4; views are free
        torch.empty(5).fill_(0.0)  # 20, once
        y.add_(y)  # 4, once
    assert dict(counted.torch) == {"add": 1, "sum": 1, "fill_": 1, "add_": 1} and not counted.ours
    assert counted.bytes == 96 + 16 + 96 + 88 + 4 + 20 + 4
    assert counted.a_step(2) == {"ops": {}, "torch_kernels": 2, "bytes": 162}


@pytest.mark.parametrize("chains", [1, 16])
def test_ridge_energies_with_pixel_data_take_less_than_a_launch_a_step(chains: int) -> None:
    """Four steps of a level of five are one op; the fifth, whose energy is recorded, is two. In draws every step is that op."""
    sampler, y = Workload(energy="natural-ridge", chains=chains).prepare(CPU)
    ours, plain = launches.ours(sampler, y), plain_step(sampler, y)
    assert ours["ops"] == {"ridge_langevin": 0.2, "ridge_grad": 0.2, "langevin_pixel": 0.2}
    assert plain is not None and plain["torch_kernels"] > 40 * (sum(ours["ops"].values()) + ours["torch_kernels"])
    assert plain["bytes"] > 100 * ours["bytes"]

    plan, rows = Run(replace(sampler, draws=2, thin=4), y).planned(len(sampler.levels))
    with Kernels() as counted:
        plan.run(rows, silent)
    assert dict(counted.ours) == {"ridge_langevin": 2}  # all but the last step, and that one


@pytest.mark.parametrize(("task", "energy", "ops"), [
    ("inpaint", "natural-denoiser", {"conv_grad": 1, "langevin_pixel": 1}),
    ("mri", "brain-ridge", {"ridge_grad": 1, "langevin_sense": 1}),
    ("deblur", "natural-ridge", {"ridge_grad": 1, "langevin_fourier": 1}),
])
def test_other_steps_are_two_ops(task: str, energy: str, ops: dict[str, float]) -> None:
    sampler, y = Workload(task, energy, chains=2, side=32).prepare(CPU)
    ours, plain = launches.ours(sampler, y), plain_step(sampler, y)
    assert ours["ops"] == ops and ours["torch_kernels"] < 15
    if task == "deblur":
        assert plain is None  # the published loop is written out for pixels and many coils alone
    else:
        assert plain is not None and plain["torch_kernels"] > 10 * (2 + ours["torch_kernels"])
        assert plain["bytes"] > 10 * ours["bytes"]  # most of ours are weights, at so few chains


def test_an_op_moves_what_it_must() -> None:
    """A step of langevin_pixel by the dispatcher's count: states in and out, b, mask, indices of chains and images, once."""
    sampler, y = Workload(energy="natural-ridge", chains=16).prepare(CPU)
    sampler, n = replace(sampler, energy=GaussianEnergy(0.0, 0.5)), 64 * 64
    plan, rows = Run(sampler, y).planned(0)
    x = torch.randn_like(rows.x)
    with Kernels() as counted:
        plan.target.langevin(x, torch.randn_like(x), rows.ids, plan.scalars[0])
    drawn = 2 * x.numel() * 4  # randn_like writes
    assert counted.bytes - drawn == 4 * 4 * 16 * n + 2 * 4 * n + 16 * 16


def test_the_command_says_it() -> None:
    arguments = ["profile", "--energy", "natural-ridge", "--chains", "2", "--side", "32", "--levels", "2"]
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)["a_step"]
    assert found["plain"]["torch_kernels"] > 100 and found["ours"]["ops"]["ridge_langevin"] == 0.2
    lines, kernels = CliRunner().invoke(main, arguments).stdout.splitlines(), found["plain"]["torch_kernels"]
    assert lines[-2].startswith(f"a step of the published loop in eager torch: {kernels} kernels at least, ")
    assert lines[-1].startswith("a step here: 0.2 ridge_langevin, 0.2 ridge_grad, 0.2 langevin_pixel and ")
