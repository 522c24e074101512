"""The field's methods as azula and DeepInverse have them: DPS, DiffPIR, MMPS; DDRM, ULA.

All of them in units of the teacher's images, not of [0, 1], so that nothing is rescaled.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alps_fast.operators import CircularBlur, Inpainting, SuperResolution

from ..peers import deepinv
from .figures import Draws
from .problems import ROWS, Problem
from .target import Target
from .teacher import Teacher

ALPHA_MIN, SIGMA_MIN = 0.0064, 0.01  # where the linear schedule of DDPM ends and begins, which these samplers were published with


@cache
def azula() -> Any:
    """Its modules, or None where it is not installed."""
    if any(importlib.util.find_spec(name) is None for name in ("azula", "einops")):
        return None
    deepinv()  # settles what torchvision needs
    names = {"denoise": "denoise", "noise": "noise", "sample": "sample", "dps": "guidance.dps", "diffpir": "guidance.diffpir",
             "mmps": "guidance.mmps"}
    return SimpleNamespace(**{key: importlib.import_module(f"azula.{name}") for key, name in names.items()})


def denoiser(problem: Problem, teacher: Teacher) -> Any:
    """The teacher as azula's denoisers are: of x_t = α x + σ n, variance preserving, images (N, D) as its solvers want them."""
    lib, shape = azula(), problem.truth.shape[1:]

    class Scaled(lib.denoise.Denoiser):  # type: ignore[name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.schedule = lib.noise.VPSchedule(ALPHA_MIN, SIGMA_MIN)

        def forward(self, x_t: Tensor, t: Tensor, **_: Any) -> Any:
            alpha, sigma = self.schedule(t)
            return lib.denoise.DiracPosterior(mean=teacher((x_t / alpha).view(-1, *shape), sigma / alpha).flatten(1))

    return Scaled()


def seen(problem: Problem) -> Any:
    """A of images (N, D)."""
    return lambda x: problem.A(x.view(-1, *problem.truth.shape[1:]))


def run(sampler: Any, problem: Problem, draws: int) -> Draws:
    """From noise."""
    return Draws(sampler(sampler.init((draws, problem.truth.numel()))).view(-1, *problem.truth.shape[1:]))


def dps(problem: Problem, teacher: Teacher, draws: int, seed: int, *, zeta: float, steps: int) -> Draws:
    """[DPS]. Its step is zeta of the gradient of ‖y − A x̂‖ of a draw: the batch's norm, which azula takes, is √draws of one's."""
    torch.manual_seed(seed)
    sampler = azula().dps.DPSSampler(denoiser(problem, teacher), problem.y.expand(draws, -1), seen(problem),
                                     zeta=zeta * draws**0.5, steps=steps, silent=True)
    return run(sampler, problem, draws)


def diffpir(problem: Problem, teacher: Teacher, draws: int, seed: int, *, lmbda: float, eta: float, steps: int) -> Draws:
    """[DiffPIR]. eta: how much of the noise is fresh, as of DDIM; its data step is solved by ten conjugate gradients."""
    torch.manual_seed(seed)
    guided = azula().diffpir.DiffPIRDenoiser(denoiser(problem, teacher), problem.y.expand(draws, -1), seen(problem),
                                             problem.eta**2, lmbda=lmbda, solver="cg", iterations=10)
    sampler = azula().sample.DDIMSampler(guided, eta=eta, steps=steps, silent=True)
    return run(sampler, problem, draws)


def mmps(problem: Problem, teacher: Teacher, draws: int, seed: int, *, iterations: int, eta: float, steps: int) -> Draws:
    """[MMPS]. iterations: of the solver, each a gradient through the teacher. eta: as `diffpir` takes it."""
    torch.manual_seed(seed)
    guided = azula().mmps.MMPSDenoiser(denoiser(problem, teacher), problem.y.expand(draws, -1), seen(problem),
                                       lambda v: problem.eta**2 * v, solver="gmres", iterations=iterations)
    sampler = azula().sample.DDIMSampler(guided, eta=eta, steps=steps, silent=True)
    return run(sampler, problem, draws)


def ddrm(problem: Problem, teacher: Teacher, draws: int, seed: int, *, eta: float, steps: int, first: float) -> Draws:
    """[DDRM]. `steps` levels, equally far apart, from `first` to nothing."""
    torch.manual_seed(seed)
    sampler = deepinv().sampling.DDRM(teacher, sigmas=np.linspace(first, 0, steps), eta=eta)
    y = problem.measured[None].expand(draws, *problem.measured.shape).clone()
    return Draws(sampler(y, decomposed(problem)).float())


def decomposable(problem: Problem) -> bool:
    """Whether A has a singular value decomposition at hand: coils have none."""
    return isinstance(problem.operator, Inpainting | CircularBlur)  # of which SuperResolution is one


def decomposed(problem: Problem) -> Any:
    """DeepInverse's physics with the decomposition of A."""
    library, size = deepinv().physics, tuple(problem.truth.shape[1:])
    noise, operator = library.GaussianNoise(problem.eta), problem.operator
    if isinstance(operator, Inpainting):
        return library.Inpainting(size, mask=operator.mask.float().expand(size), noise_model=noise)
    if isinstance(operator, SuperResolution):
        u, s, v = singular(problem.row, size)
        measured = problem.measured.shape

        def padded(z: Tensor) -> Tensor:  # as long as an image, zeros where there is no singular value
            return torch.nn.functional.pad(z, (0, v.shape[0] - z.shape[1]))

        return library.DecomposablePhysics(
            U=lambda z: (z[:, :len(s)] @ u.T).view(-1, *measured), U_adjoint=lambda y: padded(y.flatten(1) @ u),
            V=lambda z: (z @ v).view(-1, *size), V_adjoint=lambda x: x.flatten(1) @ v.T, mask=padded(s[None]), noise_model=noise)
    assert isinstance(operator, CircularBlur)
    return library.BlurFFT(size, operator.psf.float()[None, None], noise_model=noise)


@cache
def singular(row: str, size: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """U, the singular values, and all rows of Vᵀ of a row's A, dense."""
    pixels = math.prod(size)
    matrix = ROWS[row](size[-1]).forward(torch.eye(pixels).view(pixels, *size)).flatten(1).T
    u, s, v = torch.linalg.svd(matrix.double(), full_matrices=False)
    rest = torch.linalg.qr(v.T, mode="complete").Q[:, len(s):].T
    return u.float(), s.float(), torch.cat([v, rest]).float()


def ula(problem: Problem, teacher: Teacher, draws: int, seed: int, *, sigma: float, alpha: float, steps: int) -> Draws:
    """[ULA]: `draws` chains beside each other, each the last of its states; the longest step that is stable, halved."""
    torch.manual_seed(seed)
    library = deepinv()
    physics = library.physics.LinearPhysics(A=lambda x, **_: problem.A(x), A_adjoint=lambda v, **_: problem.At(v),
                                            noise_model=library.physics.GaussianNoise(problem.eta))
    step = 1.0 / (problem.eta**-2 + alpha * sigma**-2)
    sampler = library.sampling.sampling_builder(
        "ULA", library.optim.data_fidelity.L2(sigma=problem.eta), library.optim.ScorePrior(teacher), max_iter=steps,
        thinning=1, burnin_ratio=1 - 1.5 / steps, clip=(-2.0, 2.0), history_size=1,
        params_algo={"step_size": step, "alpha": alpha, "sigma": sigma})
    y = problem.y.expand(draws, -1)
    sampler.sample(y, physics, x_init=problem.At(y))
    found = sampler.get_chain()[-1]["x"]
    return Draws(found, target=Target(sigma, lambda x, t: alpha * (x - teacher(x, t))))
