"""Distil a teacher denoiser into an energy by matching gradients at noisy images.

    loss = λ(t) ‖∇E_θ(x, t) − (x − D(x, t))‖²,  x = x₀ + t n,  λ(t) = (t² + σ_d²)/(t σ_d)²      [ALPS] §3

The target has no noise of its own, so this converges far faster than denoising score matching. Any teacher will
do: a torch module called as D(x, sigma) with x (N, C, H, W) and sigma (N,).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..energies.base import Energy
from ..energies.compact import CompactNet, edm_coefficients
from ..energies.denoiser import DenoiserEnergy
from ..energies.ridge import RidgeEnergy
from ..energies.symmetric import SYMMETRIES, SymmetricDenoiser, network_of
from ..errors import check, check_choice
from ..io.files import replacing
from ..ops.conv_grad import conv_grad_reference
from ..ops.ridge_grad import ridge_grad_reference
from .data import Crops
from .evaluate import LEVELS, markdown_table, psnr_of
from .images import Images, Source
from .loop import WARM, bf16_is_fast, fit
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


class OfPrior(nn.Module):
    """D(x, sigma) = x − ∇E(x, sigma), the denoiser behind an energy such as a `DiffusionPrior`, an image at a time."""

    def __init__(self, energy: Energy):
        super().__init__()
        self.energy = energy

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        return torch.cat([v - self.energy.grad(v, float(t)) for v, t in zip(x.split(1), sigma.expand(len(x)), strict=True)])


class InItsDtype(nn.Module):
    """D(x, sigma) of a module whose weights are of another dtype than float32, asked in that and answering in that of x."""

    def __init__(self, module: nn.Module, dtype: torch.dtype):
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            out: Tensor = self.module(x.to(self.dtype), sigma.to(self.dtype)).to(x.dtype)
        return out


def _asked(teacher: Any) -> Any:
    """The teacher as a function of float32 images; what is none is told later."""
    if isinstance(teacher, Energy):
        return OfPrior(teacher)
    weights = teacher.parameters() if isinstance(teacher, nn.Module) else iter(())
    dtype = next((v.dtype for v in weights if v.is_floating_point()), torch.float32)
    return teacher if dtype == torch.float32 else InItsDtype(teacher, dtype)


def _matching(teacher: nn.Module, gradient: Callable[[Tensor, Tensor], Tensor], crops: Source,
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


def _check_teacher(teacher: nn.Module, crops: Source) -> Tensor:
    """One call that fails early, with a sentence, if the teacher does not take these images; numbers that tell it from others."""
    x, *against = torch.randn(5, 1, crops.channels, crops.size, crops.size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = teacher(x, torch.ones(1))
    check(isinstance(out, Tensor) and out.shape == x.shape, "teacher", f"output of shape {tuple(out.shape)}",
          f"a module D(x, sigma) that maps {tuple(x.shape)} to itself")
    return torch.stack([(out * w).sum() for w in against])


def _source(domain: str | None, images: Any, size: int, batch: int, seed: int) -> tuple[Source, dict[str, object]]:
    """What to match at, and what a checkpoint calls it."""
    check((domain is None) != (images is None), "images", "none" if images is None else "some and a domain", "some, or a domain")
    if domain is not None:
        return Crops(domain, size=size, batch=batch, seed=seed), {"domain": domain}
    own = Images(images, size, batch, seed)
    return own, dict(own.described)


def _told(energy: Energy, teacher: nn.Module, crops: Source, out: Path) -> None:
    """Write the table of the images that were held out to `out`/held_out.txt."""
    if isinstance(crops, Images):
        rows = psnr_of(crops.held_out, {
            "noisy": lambda x, t: x,
            "teacher": lambda x, t: teacher(x, x.new_full((len(x),), t)),
            "energy": lambda x, t: x - energy.grad(x, t)}, 2.0)
        title = f"PSNR in dB of {len(crops.held_out)} images that were held out, their range taken as 2"
        with replacing(out / "held_out.txt") as file:
            file.write_text(f"{title}\n\n{markdown_table(rows, LEVELS)}\n")


def _own_gradient(student: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """∇E = (x − ψ) − Jᵀ(x − ψ) of a student of any architecture, in a graph that its weights can be trained by."""
    def gradient(x: Tensor, t: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        psi = student(x, t)
        check(psi.requires_grad and psi.shape == x.shape, "teacher", "a module that autograd cannot follow",
              'one that it can, or student="compact"')
        residual = x - psi
        return torch.autograd.grad(0.5 * (residual * residual).sum(), x, create_graph=True)[0]

    return gradient


def distill_denoiser(teacher: nn.Module | Energy, domain: str | None = None, out: Path | None = None, *, images: Any = None,
                     student: str | nn.Module = "compact", steps: int = 6000, batch: int = 8, size: int = 64, seed: int = 1,
                     lr: float | None = None, compile: bool = True, progress: bool = True) -> DenoiserEnergy:
    """A `DenoiserEnergy` from `teacher`; starts from its weights if it is a CompactNet, turned or not, and resumes from `out`.

    Args:
        teacher: a module D(x, sigma), x (N, C, H, W), sigma (N,), asked in evaluation mode and its own dtype and left as it was;
            or an energy, such as a `DiffusionPrior`, which knows other conventions.
        domain: "brain" or "natural", the images to match at; or
        images: one's own, as `distill.images.Images` takes them: a folder, a tensor, a Dataset, a DataLoader, a function.
        out: folder of checkpoint and log and, of one's own images, held_out.txt: the table of those that training has not seen.
        student: "compact", a `CompactNet`, whose kernels are here; "teacher": of the teacher's own architecture, started from
            its weights as [ALPS] does. That is trained through its gradient's gradient, at some six passes a step, and has to be
            made of what autograd differentiates twice; `save` does not hold it, its `network.state_dict()` does. Or a module
            ψ(x, t) to begin with, such as a `CompactNet` of another width, which is trained itself.
        steps: of the optimiser, in all. batch, size: crops a step and their side in pixels.
        seed: of crops and noise. lr: of AdamW, at most; None: 1e-3, and 1e-4 from a teacher's own weights.
        compile: through torch.compile, a compact student. progress: a bar on stderr.

    Raises:
        ArgumentError: the teacher does not map such images to their like, or the domain is unknown.
        FileNotFoundError, ImportError: the domain's images are not installed; says what to install.

    Source: [ALPS] §3; docs/design.md §2.
    """
    torch.manual_seed(seed)
    if not isinstance(student, nn.Module):
        check_choice("student", student, ("compact", "teacher"))
    out = _folder(out)
    crops, of = _source(domain, images, size, batch, seed)
    given, teacher = teacher, _asked(teacher)
    own = student != "compact"
    if student == "teacher":
        check(not isinstance(given, Energy), "student", repr(student), "'compact' of an energy, which may hold no network")
        net = copy.deepcopy(network_of(given)).float().requires_grad_(True).eval()
    else:
        net = student if isinstance(student, nn.Module) else _compact_student(network_of(given), crops.channels)
    if not isinstance(net, CompactNet):
        gradient = _own_gradient(net)
    else:
        compact = net.requires_grad_(True).to(memory_format=torch.channels_last)
        run = torch.compile(conv_grad_reference) if compile else conv_grad_reference
        precision = "fast" if bf16_is_fast() else "high"

        def gradient(x: Tensor, t: Tensor) -> Tensor:
            scale, shift = compact.film_vectors(t)
            coefficients = edm_coefficients(t, compact.sigma_data)
            return run(x, compact.weights(), scale, shift, coefficients, compact.blocks, precision)[0]

    with evaluating(teacher):
        probes = _check_teacher(teacher, crops)
        fit(net, _matching(teacher, gradient, crops), steps, out, lr=lr or (1e-4 if student == "teacher" else 1e-3),
            warm=WARM if images is None else min(WARM, steps // 10), progress=progress,
            of={"kind": "denoiser"} | of | ({"student": type(net).__name__} if own else {}), probes=probes)
        energy = DenoiserEnergy(net.eval().requires_grad_(False), channelwise=crops.channels == 1, channels=crops.channels)
        _told(energy, teacher, crops, out)
    return energy


def _folder(out: Path | None) -> Path:
    check(out is not None, "out", out, "a folder")
    return Path(str(out))


def _compact_student(network: nn.Module, channels: int) -> CompactNet:
    student = CompactNet(channels)
    if isinstance(network, CompactNet):
        student = CompactNet(**network.config)
        student.load_state_dict(network.state_dict())
    return student


def distill_ridge(teacher: nn.Module | Energy, domain: str | None = None, out: Path | None = None, *, images: Any = None,
                  steps: int = 6000, batch: int = 4, size: int = 80, seed: int = 2, compile: bool = True,
                  progress: bool = True) -> RidgeEnergy:
    """A `RidgeEnergy` from `teacher`, its curvature bounds computed; resumes from `out`. Arguments as `distill_denoiser`'s.

    It knows images of one real or one complex channel: own images of more real ones are matched channel by channel, with the same
    filters for each, and what a teacher knows of how channels hang together is not in it.

    Raises:
        ArgumentError: the teacher does not map such images to their like, or the domain is unknown.
        FileNotFoundError, ImportError: the domain's images are not installed; says what to install.

    Source: [ALPS] §3; docs/design.md §1 and 2.
    """
    torch.manual_seed(seed)
    out = _folder(out)
    crops, of = _source(domain, images, size, batch, seed)
    teacher = _asked(teacher)
    together = 2 if crops.channels == 2 else 1
    net = RidgeNet(together)
    run = torch.compile(ridge_grad_reference) if compile else ridge_grad_reference

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        planes = x.reshape(-1, together, *x.shape[2:])
        levels = t.repeat_interleave(len(planes) // len(x))
        return run(planes, list(net.filters()), *net.constants(levels), net.mu)[0].view(x.shape)

    with evaluating(teacher):
        probes = _check_teacher(teacher, crops)
        fit(net, _matching(teacher, gradient, crops, margin=size // 12), steps, out, lr=5e-3, progress=progress,
            of={"kind": "ridge"} | of, probes=probes)
        energy = net.bake()
        _told(energy, teacher, crops, out)
    return energy
