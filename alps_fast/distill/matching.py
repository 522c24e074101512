"""Distil a teacher denoiser into an energy by matching gradients at noisy images.

    loss = λ(t) ‖∇E_θ(x, t) − (x − D(x, t))‖²,  x = x₀ + t n,  λ(t) = (t² + σ_d²)/(t σ_d)²      [ALPS] §3

The target has no noise of its own, so this converges far faster than denoising score matching. Any teacher will
do: a torch module called as D(x, sigma) with x (N, C, H, W) and sigma (N,).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..energies.compact import CompactNet, edm_coefficients
from ..energies.denoiser import DenoiserEnergy
from ..energies.ridge import RidgeEnergy
from ..energies.symmetric import SYMMETRIES, SymmetricDenoiser, network_of
from ..errors import check
from ..ops.conv_grad import conv_grad_reference
from ..ops.ridge_grad import ridge_grad_reference
from .data import Crops
from .loop import bf16_is_fast, fit
from .ridge_net import RidgeNet
from .teacher import edm_weight, noisy_batch

SIGMA_DATA = 0.5


@contextmanager
def evaluating(teacher: nn.Module) -> Iterator[None]:
    """Within it the teacher is in evaluation mode; after it, each of its parts is in the mode that it was in."""
    check(isinstance(teacher, nn.Module), "teacher", type(teacher).__name__, "a module D(x, sigma)")
    modes = [(part, part.training) for part in teacher.modules()]
    teacher.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


def _matching(teacher: nn.Module, gradient: Callable[[Tensor, Tensor], Tensor], crops: Crops,
              margin: int = 0) -> Callable[[int], Tensor]:
    """The loss as a function of the step; errors within `margin` pixels of a crop's border do not count."""
    inside = slice(margin, crops.size - margin)

    def loss(step: int) -> Tensor:
        _, x, t = noisy_batch(crops, step)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_fast()):
            target = x - (teacher.one(x, t, step % SYMMETRIES) if isinstance(teacher, SymmetricDenoiser) else teacher(x, t))
        error = (gradient(x, t) - target)[..., inside, inside]
        return (edm_weight(t, SIGMA_DATA).view(-1, 1, 1, 1) * error**2).mean()

    return loss


def _check_teacher(teacher: nn.Module, crops: Crops) -> Tensor:
    """One call that fails early, with a sentence, if the teacher does not take these images; numbers that tell it from others."""
    x, *against = torch.randn(5, 1, crops.channels, crops.size, crops.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = teacher(x, torch.ones(1))
    check(isinstance(out, Tensor) and out.shape == x.shape, "teacher", f"output of shape {tuple(out.shape)}",
          f"a module D(x, sigma) that maps {tuple(x.shape)} to itself")
    return torch.stack([(out * w).sum() for w in against])


def distill_denoiser(teacher: nn.Module, domain: str, out: Path, *, steps: int = 6000, batch: int = 8, size: int = 64,
                     seed: int = 1, compile: bool = True, progress: bool = True) -> DenoiserEnergy:
    """A `DenoiserEnergy` from `teacher`; starts from its weights if it is a CompactNet, turned or not, and resumes from `out`.

    Args:
        teacher: a module D(x, sigma), x (N, C, H, W), sigma (N,), asked in evaluation mode and left as it was.
        domain: "brain" or "natural", the images to match at.
        out: folder of checkpoint and log. steps: of the optimiser, in all. batch, size: crops a step and their side in pixels.
        seed: of crops and noise. compile: through torch.compile. progress: a bar on stderr.

    Raises:
        ArgumentError: the teacher does not map such images to their like, or the domain is unknown.
        FileNotFoundError, ImportError: the domain's images are not installed; says what to install.

    Source: [ALPS] §3; docs/design.md §2.
    """
    torch.manual_seed(seed)
    crops = Crops(domain, size=size, batch=batch, seed=seed)
    student = CompactNet(crops.channels)
    network = network_of(teacher)
    if isinstance(network, CompactNet):
        student = CompactNet(**network.config)
        student.load_state_dict(network.state_dict())
    student = student.to(memory_format=torch.channels_last)
    run = torch.compile(conv_grad_reference) if compile else conv_grad_reference
    precision = "fast" if bf16_is_fast() else "high"

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        scale, shift = student.film_vectors(t)
        coefficients = edm_coefficients(t, student.sigma_data)
        return run(x, student.weights(), scale, shift, coefficients, student.blocks, precision)[0]

    with evaluating(teacher):
        probes = _check_teacher(teacher, crops)
        fit(student, _matching(teacher, gradient, crops), steps, out, lr=1e-3, progress=progress,
            of={"kind": "denoiser", "domain": domain}, probes=probes)
    return DenoiserEnergy(student.eval().requires_grad_(False), channelwise=crops.channels == 1)


def distill_ridge(teacher: nn.Module, domain: str, out: Path, *, steps: int = 6000, batch: int = 4, size: int = 80, seed: int = 2,
                  compile: bool = True, progress: bool = True) -> RidgeEnergy:
    """A `RidgeEnergy` from `teacher`, its curvature bounds computed; resumes from `out`. Arguments as `distill_denoiser`'s.

    Raises:
        ArgumentError: the teacher does not map such images to their like, or the domain is unknown.
        FileNotFoundError, ImportError: the domain's images are not installed; says what to install.

    Source: [ALPS] §3; docs/design.md §1 and 2.
    """
    torch.manual_seed(seed)
    crops = Crops(domain, size=size, batch=batch, seed=seed)
    net = RidgeNet(crops.channels)
    run = torch.compile(ridge_grad_reference) if compile else ridge_grad_reference

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        return run(x, list(net.filters()), *net.constants(t), net.mu)[0]

    with evaluating(teacher):
        probes = _check_teacher(teacher, crops)
        fit(net, _matching(teacher, gradient, crops, margin=size // 12), steps, out, lr=5e-3, progress=progress,
            of={"kind": "ridge", "domain": domain}, probes=probes)
    return net.bake()
