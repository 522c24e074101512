"""Circular blur: A is diagonal in Fourier space."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import check, check_positive
from ..layout import beside
from ..ops._alike import each, product
from ..ops._scalars import StepScalars
from ..ops.langevin_fourier import langevin_fourier
from .base import Operator, check_finite, check_image

LONGEST = 8192.0  # pixels across a blur; wider than images are, and what is made of it fits in memory


def gaussian_psf(std: float, name: str = "std") -> Tensor:
    """exp(−r²/(2 std²)) on pixels up to 4 std from the centre, sum one, float64; std in pixels.

    Raises:
        ArgumentError: naming `name`.
    """
    std = check_positive(name, std, 0.0, LONGEST / 8)
    radius = math.ceil(4 * std)
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64, device="cpu") / std).square())
    psf = torch.outer(line, line)
    return psf / psf.sum()


def check_psf(name: str, psf: Tensor) -> None:
    """`psf` must be a real tensor (h, w), or (M, h, w) of them, of finite numbers, none all zero."""
    ok = isinstance(psf, Tensor) and psf.ndim in (2, 3) and psf.numel() > 0 and not psf.is_complex()
    check(ok, name, f"shape {tuple(psf.shape)}" if isinstance(psf, Tensor) else type(psf).__name__,
          "a real tensor (h, w), or (M, h, w)")
    check_finite(name, psf)
    check(bool((psf != 0).flatten(-2).any(-1).all()), name, "all zero", "a kernel that is not zero")


def motion_psf(length: float, angle: float, name: str = "length") -> Tensor:
    """A segment of this length (pixels), `angle` degrees counter-clockwise from the W axis, sum one, float64.

    Points 1/16 pixel apart or closer are shared bilinearly among their four neighbours.
    """
    length = check_positive(name, length, 0.0, LONGEST)
    check(math.isfinite(angle), "angle", angle, "a finite number of degrees")
    radius = math.ceil(length / 2)
    along = torch.linspace(-length / 2, length / 2, 2 * math.ceil(8 * length) + 1, dtype=torch.float64, device="cpu")
    rows = radius - along * math.sin(math.radians(angle))
    columns = radius + along * math.cos(math.radians(angle))
    grid = torch.arange(2 * radius + 1, dtype=torch.float64, device="cpu")
    psf = (1 - (grid - rows[:, None]).abs()).clamp_min(0).T @ (1 - (grid - columns[:, None]).abs()).clamp_min(0)
    return psf / psf.sum()


class CircularBlur(Operator):
    """y = psf ∗ x + noise, circular convolution; every channel has the same psf.

    The centre of the psf is its pixel (h // 2, w // 2); a psf larger than the image wraps around. Measurements have
    the shape of the image, (C, H, W) or (B, C, H, W), any size; the transfer is computed once a size.

    Args:
        psf: (h, w) real, used as given (sum one keeps the brightness). (M, h, w): one a measurement; y is then a batch of M.
        noise_std: η > 0, in image units, in every real component; (M,) one a measurement.
        is_complex: whether images are complex.

    Raises:
        ArgumentError: naming the argument.
    """

    factor = 1  # of the decimation after the blur, see SuperResolution

    takes_rows = True

    def __init__(self, psf: Tensor, noise_std: float | Tensor, *, is_complex: bool = False):
        super().__init__(noise_std)
        self.is_complex = is_complex
        check_psf("psf", psf)
        self.psf = psf.detach().clone()
        self._agree(psf=psf if psf.ndim == 3 else None)
        self._transfers: dict[tuple[int, int, torch.dtype, torch.device], tuple[Tensor, Tensor]] = {}

    @classmethod
    def gaussian(cls, std: float, noise_std: float, *, is_complex: bool = False) -> CircularBlur:
        """Gaussian blur of this standard deviation in pixels, cut off at 4 std."""
        return cls(gaussian_psf(std), noise_std, is_complex=is_complex)

    @classmethod
    def motion(cls, length: float, angle: float, noise_std: float, *, is_complex: bool = False) -> CircularBlur:
        """Motion blur of this length in pixels, `angle` degrees counter-clockwise from the W axis."""
        return cls(motion_psf(length, angle), noise_std, is_complex=is_complex)

    def transfer(self, height: int, width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
        """h (H, W), complex `dtype`: the spectrum of the psf around pixel (0, 0), formed in double; or (M, H, W)."""
        return self._of_rows(self._made(height, width, dtype, device)[0])

    def _of_rows(self, transfers: Tensor) -> Tensor:
        return transfers[0] if self.measurements is None else self._mine(transfers)

    def _made(self, height: int, width: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Transfers (1|M, H, W) of A, and those of W^{1/2} A."""
        key = height, width, dtype, device
        if key not in self._transfers:
            psf = self.psf.double().cpu().view(-1, *self.psf.shape[-2:])
            rows = (torch.arange(psf.shape[1], device="cpu") - psf.shape[1] // 2) % height
            columns = (torch.arange(psf.shape[2], device="cpu") - psf.shape[2] // 2) % width
            kernel = psf.new_zeros(len(psf), height, width)
            for one, k in zip(psf, kernel, strict=True):
                k.index_put_((rows[:, None], columns), one, accumulate=True)
            with torch.inference_mode(False):  # it outlives the mode it is first asked for in
                plain = torch.stack([torch.fft.fft2(k) for k in kernel])
                white = plain if self._roots is None else plain * self._roots.tensors[0].view(-1, 1, 1)
                made = plain.to(device, dtype)
                self._transfers[key] = made, made if white is plain else white.to(device, dtype)
        return self._transfers[key]

    def forward(self, x: Tensor) -> Tensor:
        """psf ∗ x."""
        self._check_size("x", x)
        self._counted("x", x, x.ndim == 4)
        return self._filter(x, conj=False)

    def adjoint(self, y: Tensor) -> Tensor:
        """Correlation of y with the psf."""
        check_image(y, self.is_complex, "y")
        self._counted("y", y, y.ndim == 4)
        return self._filter(y, conj=True)

    def normal(self, x: Tensor) -> Tensor:
        """AᴴA x."""
        return self.adjoint(self.forward(x))

    def check_measurement(self, y: Tensor) -> Tensor:
        """y as (B, C, H, W)."""
        check_image(y, self.is_complex, "y")
        self._counted("y", y, y.ndim == 4, exact=True)
        check_finite("y", y)
        return self.whitened(y if y.ndim == 4 else y[None])

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(C, H, W) of the image."""
        return y.shape[-3], y.shape[-2] * self.factor, y.shape[-1] * self.factor

    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, xi: Tensor | None = None,
                 backend: str = "auto") -> tuple[Tensor, Tensor]:
        """`ops.langevin_fourier`; xi counts Fourier coefficients of complex images, pixels of real ones."""
        h = self._of_rows(self._made(x.shape[1], x.shape[2], x.dtype.to_complex(), x.device)[1])
        return langevin_fourier(x.contiguous(), grad.contiguous(), b.contiguous(), h, self.factor, self.is_complex, ids,
                                **vars(s), xi=xi, backend=backend)

    def _filter(self, x: Tensor, conj: bool) -> Tensor:
        h = self.transfer(x.shape[-2], x.shape[-1], x.dtype.to_complex(), x.device)
        h = h.conj() if conj else h
        images = x.reshape(-1, *x.shape[-2:])
        h = beside(h, images) if h.ndim == 3 else h
        images = each(torch.fft.ifft2, product(each(torch.fft.fft2, images), h)).view(x.shape)
        return images if self.is_complex else images.real.contiguous()  # torch's own for real images hangs on its threads

    def _check_size(self, name: str, image: Tensor) -> None:
        check_image(image, self.is_complex, name)
        ok = all(n % self.factor == 0 for n in image.shape[-2:])
        check(ok, name, f"shape {tuple(image.shape)}", f"height and width that {self.factor} divides")
