"""Every method by name: what runs it, its settings, and those that are tried when it is tuned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any

import torch

from ..records import timed
from . import libraries, ours, papers
from .figures import Draws
from .problems import Problem
from .teacher import Teacher

Run = Callable[..., Draws]  # (problem, teacher, draws, seed, **knobs)


@dataclass(frozen=True)
class Method:
    """run: (problem, teacher, draws, seed, **knobs) -> draws, counting evaluations in the teacher.

    knobs: as its authors advise, within the number of steps that the table affords. grid: what is tried of each in tuning.
    quick: settings of a run that shows no more than that it runs. takes: whether it can do a problem. library: whose it is.
    """

    run: Run
    knobs: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    quick: dict[str, Any] = field(default_factory=dict)
    takes: Callable[[Problem], bool] = lambda problem: True
    library: str | None = None


FEW = {"sigma_max": 2.0, "sigma_min": 0.02, "levels": 4, "steps": 2, "predictor": True, "eta_max": 1.0, "eta_steps": 2}
BLUNT = {"sigma_max": 15.0, "sigma_min": 0.1, "levels": 12, "steps": 4, "rho": 7.0, "predictor": True, "eta_max": 2.0,
         "eta_steps": 10}  # for the annealed measurement, which at the 0.02 that is chosen runs away from the teacher
SHARP = BLUNT | {"sigma_min": 0.03, "levels": 16}
PRIORS = {"DiffusionPrior": "diffusion", "denoiser": "denoiser", "ridge": "ridge"}

METHODS: dict[str, Method] = {
    **{f"ours, {name}": Method(partial(ours.sample, prior=prior), quick={"schedule": FEW}) for name, prior in PRIORS.items()},
    "ours, DiffusionPrior, long": Method(partial(ours.longer, prior="diffusion"), {"steps": 16, "last": 0.1}, {}, {"steps": 1}),
    "ours, MAP": Method(partial(ours.mode, prior="denoiser")),
    "ours, measurement": Method(partial(ours.sample, prior="diffusion", method="measurement"), {"schedule": BLUNT},
                                {"schedule": (BLUNT, SHARP)}, {"schedule": FEW}),
    "ours, measurement, warm": Method(partial(ours.warm, prior="diffusion"), {"std": 0.15, "start": {}, "schedule": BLUNT},
                                      {"schedule": (BLUNT, SHARP)}, {"schedule": FEW}, library="azula"),
    "published ALPS": Method(
        papers.published, {"first": 100.0, "last": 0.1, "levels": 50}, {"last": (0.02, 0.1)}, {"levels": 4}),
    "DAPS": Method(papers.daps, {"rate": 1.0, "last": 0.1, "levels": 50, "ode": 5, "langevin": 100},
                   {"rate": (0.01, 0.1, 1.0), "last": (0.03, 0.1)}, {"levels": 4, "ode": 2, "langevin": 5}),
    "DAPS, long": Method(papers.daps, {"rate": 1.0, "last": 0.03, "levels": 200, "ode": 5, "langevin": 100},
                         {"rate": (0.01, 0.1, 1.0), "last": (0.03, 0.1)}, {"levels": 4, "ode": 2, "langevin": 5}),
    "PnP-DM": Method(papers.pnpdm, {"last": 0.15, "decay": 0.7, "rounds": 20, "steps": 12}, {"last": (0.05, 0.15)},
                     {"decay": 0.2, "rounds": 3, "steps": 2}),
    "DPS": Method(libraries.dps, {"zeta": 1.0, "steps": 100}, {"zeta": (0.5, 1.5, 5.0)}, {"steps": 5}, library="azula"),
    "DiffPIR": Method(libraries.diffpir, {"lmbda": 7.0, "eta": 1.0, "steps": 100},
                      {"lmbda": (1.0, 7.0), "eta": (0.3, 1.0)}, {"steps": 5}, library="azula"),
    "MMPS": Method(libraries.mmps, {"iterations": 1, "eta": 1.0, "steps": 32}, {"iterations": (1, 3)},
                   {"steps": 3}, library="azula"),
    "DDRM": Method(libraries.ddrm, {"eta": 0.85, "steps": 20, "first": 2.0}, {"eta": (0.5, 0.85, 1.0)},
                   {"steps": 5}, takes=libraries.decomposable, library="deepinv"),
    "ULA": Method(libraries.ula, {"sigma": 0.1, "alpha": 1.0, "steps": 200}, {"sigma": (0.05, 0.15)}, {"steps": 10},
                  library="deepinv")}


@cache
def teacher_of(domain: str, device: torch.device) -> Teacher:
    """Loaded once."""
    return Teacher(domain, device)


def restored(method: str, given: Problem, draws: int, seed: int, knobs: dict[str, Any]) -> tuple[Draws, dict[str, float]]:
    """Draws, and what they cost: seconds of the clock and of all processors, and evaluations a draw."""
    device = given.measured.device
    teacher = teacher_of(given.domain, device)
    teacher.evaluations = 0

    def run() -> Draws:
        found = METHODS[method].run(given, teacher, draws, seed, **knobs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return found

    found, seconds = timed(run)
    return found, seconds | {"evaluations": teacher.evaluations / draws}
