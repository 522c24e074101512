"""This package as a user calls it: three priors, the mode, and the annealed measurement from nothing and from another's image."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

import alps_fast as af
from alps_fast.energies import DiffusionPrior, Energy
from alps_fast.samplers.chosen import chosen

from .figures import Draws
from .libraries import dps
from .papers import distilled
from .problems import Problem, as_truth
from .target import Target
from .teacher import Teacher


@cache
def ridge(domain: str) -> Energy:
    """Learned filters, distilled from the teacher."""
    return af.energies.load(f"{domain}-ridge")


def prior_of(name: str, problem: Problem, teacher: Teacher) -> Energy:
    """"diffusion", "denoiser" or "ridge"."""
    if name == "diffusion":
        return DiffusionPrior(lambda x, sigma: teacher(x, sigma), channels=problem.truth.shape[1])
    return distilled(problem.domain) if name == "denoiser" else ridge(problem.domain)


def sample(problem: Problem, teacher: Teacher, draws: int, seed: int, *, prior: str, schedule: dict[str, Any] | None = None,
           **options: Any) -> Draws:
    """`alps_fast.Sampler`, a draw a chain. schedule: arguments of `Schedule` in place of the one that is chosen."""
    plan = None if schedule is None else af.Schedule(**schedule)
    energy = prior_of(prior, problem, teacher)
    sampler = af.Sampler(problem.operator, energy, chains=draws, seed=seed, schedule=plan, progress=False, **options)
    found = sampler(problem.measured)
    if prior != "diffusion":
        teacher.evaluations += 2 * found.gradients * draws  # forward and back
    elif problem.measured.is_cuda:
        teacher.evaluations = found.gradients * draws  # replayed graphs do not tell it
    assert found.schedule is not None
    return Draws(as_truth(found.samples), found, Target(found.schedule.sigma_min, energy.grad))


def longer(problem: Problem, teacher: Teacher, draws: int, seed: int, *, prior: str, steps: int, last: float) -> Draws:
    """`steps` a level in place of the four that are chosen, down to the measurement's noise, or to `last` if that is less."""
    energy, y = prior_of(prior, problem, teacher), problem.operator.check_measurement(problem.measured)
    plan = chosen(problem.operator, energy, y, measured=True)
    plan = replace(plan, steps=steps, sigma_min=max(min(problem.eta, last), plan.sigma_min))
    return sample(problem, teacher, draws, seed, prior=prior, schedule=asdict(plan))


def warm(problem: Problem, teacher: Teacher, draws: int, seed: int, *, start: dict[str, Any], std: float,
         **options: Any) -> Draws:
    """The annealed measurement from an image of DPS, whose cost is in it; start: of DPS. std: the error that it is given."""
    image = dps(problem, teacher, 1, seed + 1, **start).x[0]
    given = torch.complex(image[:1], image[1:]) if problem.operator.is_complex else image
    return sample(problem, teacher, draws, seed, method="measurement", warm_start=given, warm_std=std, **options)


def mode(problem: Problem, teacher: Teacher, draws: int, seed: int, *, prior: str) -> Draws:
    """`alps_fast.map_estimate`: one image."""
    found = af.map_estimate(problem.measured, problem.operator, prior_of(prior, problem, teacher), progress=False)
    teacher.evaluations += 2 * (found.trace.numel() + 1) * draws  # one chain; counted a draw, as those of others are
    image: Tensor = found.image[None]
    return Draws(as_truth(image))
