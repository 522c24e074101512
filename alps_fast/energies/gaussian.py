"""Priors in closed form, smoothed exactly by t: what samplers are judged against."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import check
from ..layout import Placed
from .base import Energy


def own(value: float | Tensor, dtype: torch.dtype | None) -> Tensor:
    """A copy as a tensor, where it is one on its device."""
    return torch.as_tensor(value, dtype=dtype, device=getattr(value, "device", "cpu")).detach().clone()


class GaussianEnergy(Energy):
    """x ~ N(μ, s²) pixel by pixel: E(x, t) = t² Σ (x − μ)²/(2 (s² + t²)).

    Args:
        mean, std: numbers, or real tensors that broadcast to (C', H, W) with C' real channels.
    """

    unit = False

    def __init__(self, mean: float | Tensor = 0.0, std: float | Tensor = 1.0):
        self.mean, self.std = (own(v, torch.float32 if type(v) is float else None) for v in (mean, std))
        for name, value in (("mean", self.mean), ("std", self.std)):
            check(value.ndim <= 3 and value.numel() > 0 and not value.is_complex(), name,
                  f"{value.dtype} of shape {tuple(value.shape)}", "a number, or a real tensor that broadcasts to (C', H, W)")
        check(bool((self.std > 0).all()) and bool(self.std.isfinite().all()), "std", std, "finite numbers > 0")
        check(bool(self.mean.isfinite().all()), "mean", mean, "finite numbers")
        self.spread, self.finest = float(self.std.max()), 0.1 * float(self.std.min())
        self._placed = Placed(self.mean, self.std)

    def curvature(self, t: float) -> float:
        return t * t / (float(self.std.detach().min()) ** 2 + t * t)

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        grad = self._grad(x, t)
        centred = x - self._placed.like(x)[0]
        return 0.5 * centred.mul_(grad).flatten(1).sum(1), grad

    def _grad(self, x: Tensor, t: float) -> Tensor:
        mean, std = self._placed.like(x)
        return (x - mean).mul_(t * t / (std**2 + t * t))


class GaussianMixtureEnergy(Energy):
    """x ~ Σ_k w_k N(μ_k, s_k² I), one component a whole image: E(x, t) = −t² log Σ_k w_k N(x; μ_k, (s_k² + t²) I).

    Args:
        weights: (K,) positive, normalised here.
        means: (K, C', H, W), or anything that broadcasts to it, such as (K, 1, 1, 1).
        stds: (K,) positive.
    """

    unit = False

    def __init__(self, weights: Tensor, means: Tensor, stds: Tensor):
        self.weights, self.means, self.stds = (own(v, torch.float64) for v in (weights, means, stds))
        check(self.weights.ndim == 1 and self.weights.numel() > 0 and bool((self.weights > 0).all()), "weights", self.weights,
              "(K,) numbers > 0")
        count = len(self.weights)
        check(self.means.ndim == 4 and len(self.means) == count and self.means.numel() > 0, "means",
              f"shape {tuple(self.means.shape)}", f"({count}, C, H, W)")
        check(self.stds.shape == (count,) and bool((self.stds > 0).all()), "stds", self.stds, f"({count},) numbers > 0")
        self.weights = self.weights / self.weights.sum()
        self.spread, self.finest = self._spread(), 0.1 * float(self.stds.min())
        self._placed, self._stds = Placed(self.weights.log(), self.means), Placed(self.stds)

    def _spread(self) -> float:
        """√(max s_k² + λ), λ the largest variance, along a direction, of the means as they were given."""
        means = self.means.flatten(1)
        centred = self.weights.sqrt()[:, None] * (means - self.weights @ means)
        between = float(torch.linalg.eigvalsh(centred @ centred.T)[-1])
        return math.sqrt(float(self.stds.max()) ** 2 + max(between, 0.0))

    def curvature(self, t: float) -> float:
        return t * t / (float(self.stds.min()) ** 2 + t * t)  # the mixture's Hessian only subtracts a covariance

    def _value_and_grad(self, x: Tensor, t: float) -> tuple[Tensor, Tensor]:
        (logs, means), (stds,) = self._placed.like(x), self._stds.like(x.new_empty(0, dtype=torch.float64))
        variance = (stds**2 + t * t).to(x.dtype)
        centred = x[:, None] - means
        squares = (centred * centred).flatten(2).sum(2)
        count = x[0].numel()
        logs = logs - 0.5 * count * torch.log(2 * math.pi * variance) - 0.5 * squares / variance
        share = torch.softmax(logs, 1) / variance
        grad = t * t * torch.einsum("nk,nkchw->nchw", share, centred)
        return -t * t * torch.logsumexp(logs, 1), grad
