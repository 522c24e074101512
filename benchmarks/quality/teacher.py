"""The one diffusion model that every method is given, which counts how often it is asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from alps_fast.energies.compact import CompactNet, edm_coefficients
from alps_fast.energies.store import load_teacher
from alps_fast.energies.symmetric import network_of
from alps_fast.ops.conv_grad import network

TRAINED = (0.005, 100.0)  # noise levels that it is asked about; others are taken for the nearest


class Teacher(nn.Module):
    """D(x, σ), the mean of images given x = x₀ + σ n, for x (N, C, H, W) real and σ a number, () or (N,).

    The shipped teacher of a domain, asked once and not in its eight orientations, in bfloat16 from its first convolution to its
    last: the same for all.

    `evaluations` counts images that it was asked about, and once more each image that a gradient was taken through.
    """

    def __init__(self, domain: str, device: torch.device | str = "cpu"):
        super().__init__()
        found = network_of(load_teacher(f"{domain}-teacher"))
        assert isinstance(found, CompactNet)
        self.sigma_data, self.blocks, self.evaluations = found.sigma_data, found.blocks, 0
        found.to(device)
        self.weights = [w.detach().to(torch.bfloat16) for w in found.weights()]
        self.film = found.film_vectors

    def forward(self, x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
        """D(x, σ)."""
        levels = torch.as_tensor(sigma, dtype=torch.float32, device=x.device).flatten().expand(len(x)).clamp(*TRAINED)
        scale, shift = (v.detach().to(torch.bfloat16) for v in self.film(levels))
        x = x.float().contiguous(memory_format=torch.channels_last)
        with torch.autocast(x.device.type, torch.bfloat16):
            out = network(x, self.weights, scale, shift, edm_coefficients(levels, self.sigma_data), self.blocks)[0]
        out = out.contiguous()
        self.evaluations += len(x)
        if out.requires_grad:
            out.register_hook(self._counted)
        return out

    def _counted(self, gradient: Tensor) -> None:
        self.evaluations += len(gradient)
