"""A denoiser made as good on an image as on the same image turned or mirrored."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .compact import CompactNet

SYMMETRIES = 8  # of the square: four quarter turns, each with or without a mirror


def turned(x: Tensor, g: int) -> Tensor:
    """g x for images (N, C, H, W): g % 4 quarter turns, and for g >= 4 a mirror after them."""
    x = torch.rot90(x, g % 4, (2, 3))
    return x.flip(3) if g >= 4 else x


def turned_back(x: Tensor, g: int) -> Tensor:
    """g⁻¹ x."""
    return torch.rot90(x.flip(3) if g >= 4 else x, -(g % 4), (2, 3))


def network_of(teacher: nn.Module) -> nn.Module:
    """The network that a symmetric teacher asks eight times; any other teacher itself."""
    return teacher.denoiser if isinstance(teacher, SymmetricDenoiser) else teacher


class SymmetricDenoiser(nn.Module):
    """D̄(x, t) = ⅛ Σ_g g⁻¹ D(g x, t) over the eight symmetries of the square.

    Where images are as likely one way round as another, the mean squared error of D̄ is that of D less the variance of the
    eight answers, by Jensen's inequality. It costs eight evaluations, which a teacher can afford; a student pays them once,
    in training, where one g a step has the same expected gradient.

    Args:
        denoiser: D.
    """

    def __init__(self, denoiser: CompactNet):
        super().__init__()
        self.denoiser = denoiser

    def one(self, x: Tensor, t: Tensor, g: int) -> Tensor:
        """g⁻¹ D(g x, t), for g in 0 … 7."""
        return turned_back(self.denoiser(turned(x, g), t), g)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """D̄(x, t) for images (N, C, H, W) and t (N,)."""
        return torch.stack([self.one(x, t, g) for g in range(SYMMETRIES)]).mean(0)
