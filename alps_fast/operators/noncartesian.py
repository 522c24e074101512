"""Non-Cartesian MRI: radial, spiral, any trajectory, through mri-nufft and finufft."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from ..errors import check, refused
from .base import check_finite
from .convolved import ConvolvedMRI, checked_maps

EPS = 1e-9  # relative error of a transform, which is of double precision


class NonCartesianMRI(ConvolvedMRI):
    """y_c(j) = 1/√(H W) Σ_r S_c(r) x(r) exp(−2πi k_j · r) + noise, r pixels from the middle (H // 2, W // 2); images (1, H, W).

    On the points of the Cartesian grid it is `CartesianMRI`. Forward and adjoint are finufft's; AᴴA is one convolution a coil, by
    FFTs on the doubled grid, whose spectrum is computed once. P_t by conjugate gradients, preconditioned by a power of
    the circular convolution nearest to AᴴA.

    There are no weights for density: the likelihood has none, as each sample has the noise it has. What gridding puts weights in
    place of, the inverse of AᴴA, is solved for.

    Measurements are (coils, samples) or (B, coils, samples) complex.

    Args:
        trajectory: (..., 2) real, k_j along H and W in cycles a pixel, within [−½, ½]; samples are taken in its order.
        maps: (coils, H, W) complex coil sensitivities, ones for one coil; (sets, coils, H, W) for images (sets, H, W).
        noise_std: η > 0, in units of y, in every real component.
        tol, max_iter: as `CartesianMRI` takes them.

    Raises:
        ArgumentError: naming the argument; mri-nufft or finufft is not installed.

    Source: Fessler et al., "Toeplitz-based iterative image reconstruction for MRI with correction for magnetic field
    inhomogeneity", 2005; Barnett et al., "A parallel nonuniform fast Fourier transform library", 2019.
    """

    def __init__(self, trajectory: Tensor, maps: Tensor, *, noise_std: float, tol: float = 0.01, max_iter: int = 1000):
        check(isinstance(trajectory, Tensor) and trajectory.is_floating_point() and trajectory.ndim > 1
              and trajectory.shape[-1] == 2 and trajectory.numel() > 0, "trajectory",
              f"{trajectory.dtype} of shape {tuple(trajectory.shape)}" if isinstance(trajectory, Tensor) else
              type(trajectory).__name__, "a real tensor (samples, 2)")
        check_finite("trajectory", trajectory)
        largest = float(trajectory.abs().max())
        check(largest <= 0.5, "trajectory", f"{largest:.3g} in it", "cycles a pixel, within [-0.5, 0.5]: divide radians by 2 pi, "
              "and cycles a field of view by the number of pixels")
        maps = checked_maps(maps)
        self.trajectory = trajectory.detach().double().cpu().reshape(-1, 2)
        height, width = maps.shape[-2:]
        self._transform = _nufft(self.trajectory, (height, width), maps.shape[1])
        ones = torch.ones(1, 1, len(self.trajectory), dtype=torch.complex128, device="cpu")
        kernel = _back(_nufft(self.trajectory, (2 * height, 2 * width), 1), ones)[0] * 2 / math.sqrt(height * width)
        kernel[0], kernel[:, 0] = 0, 0  # differences of H and W pixels, which no two pixels have
        super().__init__(maps, torch.fft.fft2(torch.fft.ifftshift(kernel)).real.contiguous(), noise_std, tol, max_iter)

    @property
    def measured(self) -> tuple[int, ...]:
        """(coils, samples)."""
        return self.maps.shape[1], len(self.trajectory)

    def _encode(self, coils: Tensor) -> Tensor:
        found = torch.from_numpy(self._transform.op(coils.detach().cpu().to(torch.complex128)[None].numpy()))[0]
        return (found * _unnormalised(self._transform)).to(coils.device, coils.dtype)

    def _decode(self, y: Tensor) -> Tensor:
        return _back(self._transform, y.detach().cpu().to(torch.complex128)[None]).to(y.device, y.dtype)


def _nufft(trajectory: Tensor, shape: tuple[int, int], coils: int) -> Any:
    """mri-nufft's operator on one thread: on more finufft adds up samples in whatever order they come."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that cycles a pixel become radians, as they should
            from mrinufft import get_operator

            return get_operator("finufft")(trajectory.numpy(), shape, n_coils=coils, squeeze_dims=False, eps=EPS, nthreads=1)
    except (ImportError, ValueError) as error:  # the latter where mri-nufft finds no finufft
        raise refused("trajectory", f"one, and {error}", "mri-nufft and finufft: pip install 'alps_fast[noncartesian]'") from None


def _unnormalised(transform: Any) -> float:
    """What makes of mri-nufft's scale that of an orthonormal transform."""
    return float(transform.norm_factor) / math.sqrt(math.prod(transform.shape))


def _back(transform: Any, y: Tensor) -> Tensor:
    """The adjoint, (coils, H, W), of y (1, coils, samples)."""
    return torch.from_numpy(transform.adj_op(y.contiguous().numpy()))[0] * _unnormalised(transform)
