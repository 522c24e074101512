"""Small problems whose posterior is known: every operator, under a Gaussian prior."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alps_fast.energies.gaussian import GaussianEnergy
from alps_fast.layout import from_state, to_state
from alps_fast.operators import CartesianMRI, CircularBlur, Denoising, Inpainting, LinearOperator, Operator, SuperResolution

S, MU = 0.5, 0.2  # the Gaussian prior


class Published(GaussianEnergy):
    """The Gaussian without its bound, so that L = 1 as published and the preconditioner is not the exact covariance."""

    def curvature(self, t: float) -> None:
        return None


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def coil_maps(coils: int, height: int, width: int) -> Tensor:
    g = generator(5)
    return torch.complex(*(torch.randn(2, coils, height, width, generator=g) / math.sqrt(2 * coils)).unbind())


def operators() -> dict[str, tuple[Operator, tuple[int, int, int]]]:
    """Every operator, with the (C, H, W) of a small image for it."""
    g = generator(1)
    lines, plane = torch.tensor([1, 0, 1, 1, 0, 1.0]), (torch.rand(6, 5, generator=g) < 0.5).float()
    matrix = torch.randn(12, 30, generator=g) / math.sqrt(12)
    linear = LinearOperator(lambda x: x.flatten(1) @ matrix.T, lambda y: (y @ matrix).view(-1, 1, 6, 5), 0.2, (1, 6, 5))
    return {
        "denoising": (Denoising(0.3), (2, 5, 3)),
        "inpainting": (Inpainting(plane, 0.2), (1, 6, 5)),
        "blur": (CircularBlur.gaussian(1.0, 0.1), (1, 6, 5)),
        "superresolution": (SuperResolution(2, 0.1, blur=0.8), (1, 6, 4)),
        "mri one coil": (CartesianMRI(plane, noise_std=0.2), (1, 6, 5)),
        "mri 1-D": (CartesianMRI(lines, coil_maps(3, 6, 5), noise_std=0.2, axis=0), (1, 6, 5)),
        "mri 2-D": (CartesianMRI(plane, coil_maps(2, 6, 5), noise_std=0.2), (1, 6, 5)),
        "linear": (linear, (1, 6, 5)),
    }


OPERATORS = operators()


def gaussian_posterior(op: Operator, y: Tensor, shape: tuple[int, int, int], t: float) -> tuple[Tensor, Tensor]:
    """Mean (n,) and covariance (n, n), float64, of the state's numbers; A is applied to every basis vector."""
    _, height, width = shape
    n = math.prod(shape) * (2 if op.is_complex else 1)
    basis = torch.eye(n).view(n, height, width, -1)
    forward = op.forward(from_state(basis, op.is_complex)).flatten(1)
    forward = torch.view_as_real(forward).flatten(1) if forward.is_complex() else forward
    a, prior = forward.T.double(), S * S + t * t
    b = op.adjoint_state(op.check_measurement(y)).flatten().double() / op.noise_std**2
    covariance = torch.linalg.inv(a.T @ a / op.noise_std**2 + torch.eye(n, dtype=torch.float64) / prior)
    return covariance @ (b + MU / prior), covariance


def measure(op: Operator, shape: tuple[int, int, int], seed: int = 3) -> Tensor:
    g = generator(seed)
    x = MU + S * torch.randn(shape, generator=g, dtype=torch.complex64 if op.is_complex else torch.float32)
    clean = op.forward(x)
    return clean + op.noise_std * torch.randn(clean.shape, generator=g, dtype=clean.dtype)


def agrees(samples: Tensor, mmse: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Samples whitened by the exact posterior have mean 0 and covariance 1, and so has the MMSE estimate its mean, within
    Monte Carlo error: ‖mean‖² n/d = 1 ± 3 √(2/d), ‖S − I‖² = (d² + d)/n within 30 %, trace/d = 1 ± 4 √(2/nd)."""
    x = to_state(samples).flatten(1).double()
    n, d = x.shape
    root = torch.linalg.cholesky(covariance)

    def whiten(v: Tensor) -> Tensor:
        return torch.linalg.solve_triangular(root, (v - mean).T, upper=False).T

    z = whiten(x)
    spread = z.T @ z / n
    assert float(z.mean(0).square().sum()) * n / d < 1 + 3 * math.sqrt(2 / d)
    assert abs(float(spread.diagonal().mean()) - 1) < 4 * math.sqrt(2 / (n * d)) + 0.004  # 0.4 %: what annealing leaves
    assert float((spread - torch.eye(d)).square().sum()) < 1.3 * (d * d + d) / n
    off = whiten(to_state(mmse[None]).flatten(1).double())
    assert float(off.square().sum()) * n / d < 1 + 3 * math.sqrt(2 / d)
