"""The shipped demo images, and the simulation of measurements from them (sources and licences: README.md here).

Neither image, nor the subject or scene it shows, was seen in training.
"""

from __future__ import annotations

import math
from importlib import resources

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import check, whole
from ..operators.base import Operator


def _grey(name: str) -> Tensor:
    with resources.files(__package__).joinpath(name).open("rb") as file, Image.open(file) as image:
        return torch.from_numpy(np.array(image, dtype=np.float32))[None] / 255


def _grid(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Coordinates v (down) and u (right) of the pixels, the image spanning [-1, 1]."""
    v = torch.linspace(-1, 1, height, dtype=torch.float64, device="cpu")[:, None].expand(height, width)
    u = torch.linspace(-1, 1, width, dtype=torch.float64, device="cpu").expand(height, width)
    return v, u


def brain() -> Tensor:
    """The ICBM152 T1 slice with a smooth phase: (1, 192, 160) complex64, largest magnitude 1."""
    magnitude = _grey("brain.png")
    v, u = _grid(*magnitude.shape[1:])
    phase = 0.6 + 1.4 * u - 0.9 * v + 0.8 * u * v + 0.5 * (v * v - u * u)
    return torch.polar(magnitude, phase.float()[None])


def photograph() -> Tensor:
    """The photograph: (1, 192, 192) float32 in [-1, 1]."""
    return 2 * _grey("photograph.png") - 1


def coil_maps(coils: int, height: int, width: int) -> Tensor:
    """Sensitivities of small loops on a ring around the image: (coils, height, width) complex64, Σ_c |S_c|² = 1.

    S_c(r) ∝ exp(i (θ_c + ∠(d_in + 0.3, d_along))) / (|d|² + 0.1),  d = r − 1.5 (cos θ_c, sin θ_c), in a frame that
    points from the coil to the centre: a smooth fall-off with a slow phase.
    """
    v, u = _grid(height, width)
    maps = []
    for c in range(coils):
        angle = 2 * math.pi * (c + 0.5) / coils
        du, dv = u - 1.5 * math.cos(angle), v - 1.5 * math.sin(angle)
        inward, along = -du * math.cos(angle) - dv * math.sin(angle), dv * math.cos(angle) - du * math.sin(angle)
        distance2 = du * du + dv * dv + 0.1
        maps.append(torch.polar(1 / distance2, angle + torch.atan2(along, inward + 0.3)))
    stack = torch.stack(maps)
    return (stack / stack.abs().square().sum(0).sqrt()).to(torch.complex64)


def line_mask(height: int, width: int, acceleration: int, centre: int = 16, seed: int = 0) -> Tensor:
    """Columns of k-space that are measured: (height, width) float32 of 0 and 1, width/acceleration columns in all.

    The `centre` middle columns always, the rest at random with a density that falls towards the edge.
    """
    wanted = round(width / acceleration)
    check(wanted > centre, "acceleration", acceleration, f"width / acceleration above the {centre} columns of the centre")
    column = np.arange(width)
    middle = np.abs(column - (width - 1) / 2) < centre / 2
    density = np.where(middle, 0.0, (1 - np.abs(2 * column / width - 1)) ** 1.5 + 0.15)
    rng = np.random.default_rng(whole("seed", seed, 0))
    drawn = rng.choice(width, wanted - middle.sum(), replace=False, p=density / density.sum())
    line = middle.astype(np.float32)
    line[drawn] = 1
    return torch.from_numpy(line).expand(height, width).clone()


def pixel_mask(height: int, width: int, keep: float = 0.2, seed: int = 0) -> Tensor:
    """Pixels that are measured: (1, height, width) float32 of 0 and 1, the fraction `keep` of them, at random.

    The stream is the mask's own: neither `measure` nor a generator of torch's or NumPy's that has the same seed draws from it.
    """
    rng = np.random.default_rng(np.random.SeedSequence(whole("seed", seed, 0), spawn_key=tuple(b"pixel_mask")))
    return torch.from_numpy((rng.random((1, height, width)) < keep).astype(np.float32))


def measure(operator: Operator, x: Tensor, mask: Tensor | None = None, seed: int = 0) -> Tensor:
    """y = mask (A x + noise): noise of the std that the operator says in every real component.

    seed: of torch's generator on the CPU, so that a mask that was drawn from it takes another, or it chooses among the noise.
    """
    clean = operator.forward(x)
    parts = torch.view_as_real(clean) if clean.is_complex() else clean
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(parts.shape, generator=generator, dtype=torch.float32, device="cpu").to(clean.device)
    y = clean + operator.stds(clean) * (torch.view_as_complex(noise) if clean.is_complex() else noise)
    return y if mask is None else y * mask
