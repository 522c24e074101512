"""The trainable form of a ridge energy: filters, and a small net that turns t into weights, scales and gains."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..energies.features import level_features
from ..energies.ridge import RidgeEnergy, interpolate


class RidgeNet(nn.Module):
    """w, r, q of `ops.ridge_grad` at `KNOTS` values of t, linear in ln t between them.

    Args:
        channels: real channels of the image (2: complex, the potential sees the modulus).
        scales: S, pyramid levels with filters.
        levels: Q >= S, pyramid levels of the quadratic term; the coarsest pixel is 2^{Q−1} wide.
        count: K, filters a scale.
        side: k, odd; filters have zero mean, whatever the parameters.
        potentials: J, log potentials a filter; their weights may be negative.
    """

    FEATURES, HIDDEN, KNOTS = 32, 64, 64

    def __init__(self, channels: int = 1, scales: int = 4, levels: int = 7, count: int = 48, side: int = 7,
                 potentials: int = 2):
        super().__init__()
        self.channels, self.scales, self.levels = channels, scales, levels
        self.count, self.potentials = count, potentials
        self.register_buffer("knots", torch.linspace(math.log(0.01), math.log(100.0), self.KNOTS))
        self.raw = nn.Parameter(torch.randn(scales, count, 1, side, side) / side)
        self.mu = nn.Parameter(torch.zeros(1), requires_grad=channels == 1)  # a complex prior has no mean to favour
        self.table = nn.Sequential(nn.Linear(self.FEATURES, self.HIDDEN), nn.SiLU(),
                                   nn.Linear(self.HIDDEN, self.HIDDEN), nn.SiLU(),
                                   nn.Linear(self.HIDDEN, scales * 2 * potentials * count + levels + 1))
        with torch.no_grad():
            last = self.table[4]
            last.weight.mul_(0.1)
            bias = last.bias[:-levels - 1].view(2, scales, potentials, count)
            bias[0, :, 0], bias[0, :, 1:] = 0.1, 0.0
            bias[1] = torch.linspace(0.0, 1.5, potentials)[None, :, None]
            last.bias[-levels - 1] = 0.0

    def filters(self) -> Tensor:
        """(S, K, 1, k, k), zero mean."""
        return self.raw - self.raw.mean((-2, -1), keepdim=True)

    def tables(self) -> tuple[Tensor, Tensor, Tensor]:
        """w, r (T, S, J, K) and q (T, Q) at the knots.

        w = a t²/(t² + 0.05²)/(1 + t²/4²), so that ∇E = O(t²) as t → 0 and is linear as t → ∞; 1/√r = (t² + 0.02²)^½ e^u;
        q_0 = t²/(t² + e^2v), which is 1 for t far above the spread of the data, and q_s = −q_0 p_s, p a softmax with one
        share that nobody gets: there x − ∇E = Σ p_s (x blurred at scale s), and the quadratic term is positive.
        """
        t = self.knots.exp()
        out = self.table(level_features(t, self.FEATURES))
        a, u = out[:, :-self.levels - 1].view(len(t), 2, self.scales, self.potentials, self.count).unbind(1)
        square = (t * t)[:, None]
        wide = square[..., None, None]
        w = a * wide / ((wide + 0.05**2) * (1 + wide / 4**2))
        r = torch.exp(-2 * u.clamp(-6, 6)) / (wide + 0.02**2)
        floor = square / (square + torch.exp(2 * out[:, -self.levels - 1:-self.levels].clamp(-8, 8)))
        share = torch.softmax(out[:, -self.levels:], 1)
        return w, r, torch.cat([floor, -floor * share[:, 1:]], 1)

    def constants(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """w, r (S, J, N, K) and q (Q, N) for t (N,), as `ops.ridge_grad` takes them."""
        w, r, q = (interpolate(table, self.knots, t) for table in self.tables())
        return w.permute(1, 2, 0, 3), r.permute(1, 2, 0, 3), q.T

    @torch.no_grad()
    def bake(self) -> RidgeEnergy:
        """The energy, with its tables and their curvature bounds computed."""
        return RidgeEnergy(self.filters(), self.knots, *self.tables(), mu=float(self.mu), channels=self.channels,
                           channelwise=self.channels == 1)
