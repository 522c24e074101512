"""The compact network ψ(x, t): a norm-free U-Net of one width, shaped so that a whole pass fuses.

    D(x, t) = c_skip x + c_out F(c_in x; ln t)                          [EDM] eq. 7 and table 1

F works on 2x2 pixel-unshuffled images, so its finest convolutions already run at half resolution with all
channels full, and every inner convolution is width -> width. At a fixed t the FiLM vectors are constants, and
what remains is convolutions, biases and φ: what `ops.conv_grad` runs and defines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import check, check_positive, whole
from ..ops.conv_grad import network
from .features import level_features


def edm_coefficients(t: Tensor, sigma_data: float) -> Tensor:
    """(3, N): c_skip = σ_d²/(t²+σ_d²), c_out = t σ_d/√(t²+σ_d²), c_in = 1/√(t²+σ_d²) of [EDM] table 1, for t (N,)."""
    total = t * t + sigma_data * sigma_data
    return torch.stack([sigma_data * sigma_data / total, t * sigma_data * total.rsqrt(), total.rsqrt()])


class Block(nn.Module):
    """The parameters of h + W2 φ(a * W1 h + b) + b2; a and b come from FiLM."""

    def __init__(self, width: int):
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1)


class CompactNet(nn.Module):
    """ψ(x, t) for real images of `channels` channels (complex images count two).

    Args:
        channels: real channels of the image.
        width: channels of every inner layer.
        blocks: residual blocks at 1/2, 1/4 and 1/8 resolution; the first two counts are spent twice,
            on the way down and on the way up.
        sigma_data: standard deviation of the data, for the EDM scales.
    """

    FEATURES = 32

    def __init__(self, channels: int = 1, width: int = 64, blocks: tuple[int, int, int] = (3, 3, 4),
                 sigma_data: float = 0.5):
        super().__init__()
        check(isinstance(blocks, Sequence) and len(blocks) == 3, "blocks", blocks, "three numbers")
        fine, middle, coarse = self.blocks = tuple(whole("blocks", count, 0) for count in blocks)
        self.channels, self.width = whole("channels", channels, 1), whole("width", width, 1)
        self.sigma_data = check_positive("sigma_data", sigma_data)
        count = 2 * fine + 2 * middle + coarse
        self.head = nn.Conv2d(4 * channels, width, 3, padding=1)
        self.body = nn.ModuleList(Block(width) for _ in range(count))
        self.down = nn.ModuleList(nn.Conv2d(width, width, 2, stride=2) for _ in range(2))
        self.up = nn.ModuleList(nn.Conv2d(width, 4 * width, 1) for _ in range(2))
        self.tail = nn.Conv2d(width, 4 * channels, 3, padding=1)
        self.film = nn.Sequential(nn.Linear(self.FEATURES, 2 * self.FEATURES), nn.SiLU(),
                                  nn.Linear(2 * self.FEATURES, count * 2 * width))
        if not self.tail.weight.is_meta:  # where weights will be loaded: torch would import its compiler to draw none, in 1.5 s
            self._initialise()

    def _initialise(self) -> None:
        for block in self.body:
            nn.init.kaiming_normal_(block.first.weight, nonlinearity="relu")
            nn.init.kaiming_normal_(block.second.weight, nonlinearity="relu")
            with torch.no_grad():
                block.second.weight *= 1.0 / math.sqrt(len(self.body))
        for conv in self.up:
            nn.init.normal_(conv.weight, std=1.0 / math.sqrt(self.width))
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)
        nn.init.normal_(self.film[2].weight, std=0.02)
        nn.init.zeros_(self.film[2].bias)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"channels": self.channels, "width": self.width, "blocks": list(self.blocks), "sigma_data": self.sigma_data}

    def weights(self) -> list[Tensor]:
        """The convolutions' tensors in the order of `ops.conv_grad`."""
        body = [p for b in self.body for p in (b.first.weight, b.second.weight, b.second.bias)]
        joints = [p for conv in (*self.down, *self.up) for p in (conv.weight, conv.bias)]
        return [self.head.weight, self.head.bias, *body, *joints, self.tail.weight, self.tail.bias]

    def film_weights(self) -> list[Tensor]:
        """The tensors that make scales and shifts of t."""
        return list(self.film.parameters())

    def film_vectors(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Scale 1 + a and shift b of every block for t (N,), each (blocks, N, width); in the dtype and on the device of t."""
        first, bias, second, shift = (v.to(t) for v in self.film_weights())
        v = F.linear(F.silu(F.linear(level_features(t, self.FEATURES), first, bias)), second, shift)
        v = v.view(t.shape[0], len(self.body), 2, self.width).permute(1, 2, 0, 3)
        return 1.0 + v[:, 0], v[:, 1]

    def forward(self, x: Tensor, t: float | Tensor) -> Tensor:
        """ψ(x, t) for x (N, C, H, W) and t a number or (N,)."""
        t = torch.as_tensor(t, dtype=x.dtype, device=x.device).expand(x.shape[0])
        coefficients = edm_coefficients(t, self.sigma_data)
        return network(x, self.weights(), *self.film_vectors(t), coefficients, self.blocks)[0]
