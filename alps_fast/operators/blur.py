"""Blur that does not wrap around: borders cut off, or continued by what is inside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import check, check_choice, check_positive, sides
from ..ops._modes import ordinary
from ..ops._scalars import StepScalars
from ..ops._step import check_step, check_stream, right_hand_side, unit_noise
from .base import Operator, check_finite, check_image
from .fourier import check_psf, gaussian_psf
from .linear import LinearOperator

PADDINGS = {"valid": None, "reflect": "reflect", "replicate": "replicate", "zeros": "constant"}
SEVERAL = "those of each measurement by LinearOperator(…, measurements=M), of as many Blurs"
SEPARABLE = 1e-6  # of the psf's norm that may be left of it, and is left out, where it is taken for an outer product


class Blur(Operator):
    """y = psf ∗ x + noise without wrapping around; every channel has the same psf.

    The centre of the psf is its pixel (h // 2, w // 2). Where it is an outer product of two, as a Gaussian or a box is, so is A
    with its borders, and P is exact by two small eigendecompositions, whatever the padding:

        AᴴA = (U_h ⊗ U_w) diag(λ_h ⊗ λ_w) (U_h ⊗ U_w)ᴴ,      a step asks A for nothing

    For other kernels, such as motion, conjugate gradients solve as in `LinearOperator`, in some t/η products with A a step. A
    chosen schedule therefore anneals η beside t (`Schedule.eta_ratio`); a step then takes 13 of them on average at η = 0.02, and
    35 at 0.005. A circulant preconditioner is no cure, since what lies at the border is what they look for (docs/design.md §5).
    `CircularBlur` is exact for any kernel, with borders that wrap around.

    A batch has one psf and one noise_std. Where each measurement has its own, `LinearOperator(…, measurements=M)` takes `forward`
    and `adjoint` of as many of these.

    Args:
        psf: (h, w) real, used as given (sum one keeps the brightness).
        noise_std: η > 0, in image units, in every real component.
        image_shape: (C, H, W) of the image.
        padding: what lies outside: "valid": y is (C, H − h + 1, W − w + 1), all that hangs on the image alone; "reflect",
            "replicate", "zeros": y is (C, H, W), and the image is continued by its mirror image (the outermost pixel once), by
            its outermost pixel, or by zeros.
        is_complex: whether images are complex.
        tol, max_iter: of conjugate gradients, as `LinearOperator` takes them.

    Raises:
        ArgumentError: naming the argument.
    """

    def __init__(self, psf: Tensor, noise_std: float, image_shape: tuple[int, int, int], *, padding: str = "valid",
                 is_complex: bool = False, tol: float = 0.01, max_iter: int = 1000):
        super().__init__(noise_std)
        check(self._roots is None, "noise_std", "a tensor", f"a number; {SEVERAL}")
        check_choice("padding", padding, tuple(PADDINGS))
        check_psf("psf", psf)
        check(psf.ndim == 2, "psf", f"shape {tuple(psf.shape)}", f"a real tensor (h, w); {SEVERAL}")
        channels, height, width = sides(image_shape)
        for size, side in zip((height, width), psf.shape, strict=True):
            least = side // 2 + 1 if padding == "reflect" else side if padding == "valid" else 1
            check(size >= least, "psf", f"shape {tuple(psf.shape)}", f"one that fits {height} x {width} pixels with {padding!r}")
        self.psf, self.padding, self.is_complex = psf.detach().double().cpu(), padding, is_complex
        self._shape = channels, height, width
        self._linear = LinearOperator(self.forward, self._turned, noise_std, self._shape, is_complex=is_complex, tol=tol,
                                      max_iter=max_iter)
        self.tol, self.max_iter = check_positive("tol", tol), max_iter
        left, values, right = torch.linalg.svd(self.psf)
        self.separable = bool(values[1:].norm() <= SEPARABLE * values.norm())
        lines = left[:, 0] * values[0].sqrt(), right[0] * values[0].sqrt()
        self._matrices = tuple(self._line(line, size) for line, size in zip(lines, (height, width), strict=True))
        self._bases: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    @classmethod
    def gaussian(cls, std: float, noise_std: float, image_shape: tuple[int, int, int], *, padding: str = "valid",
                 is_complex: bool = False) -> Blur:
        """Gaussian blur of this standard deviation in pixels, cut off at 4 std."""
        return cls(gaussian_psf(std), noise_std, image_shape, padding=padding, is_complex=is_complex)

    @property
    def iterative(self) -> bool:
        """Where the psf is no outer product."""
        return not self.separable

    def forward(self, x: Tensor) -> Tensor:
        """psf ∗ x."""
        self._check("x", x, self._shape)
        if x.is_complex():
            return torch.complex(self.forward_real(x.real), self.forward_real(x.imag))
        return self.forward_real(x)

    def forward_real(self, x: Tensor) -> Tensor:
        """The same of real images."""
        planes = self._continued(x.reshape(-1, 1, *x.shape[-2:]))
        kernel = self.psf.flip(0, 1).to(x.device, x.dtype)[None, None]
        out = F.conv2d(planes, kernel)
        return out.view(*x.shape[:-2], *out.shape[-2:])

    def adjoint(self, y: Tensor) -> Tensor:
        """Aᴴ y."""
        self._check("y", y, self._measured)
        return self._turned(y)

    def normal(self, x: Tensor) -> Tensor:
        """AᴴA x."""
        return self.adjoint(self.forward(x))

    def check_measurement(self, y: Tensor) -> Tensor:
        """y as (B, C, h, w)."""
        self._check("y", y, self._measured)
        check_finite("y", y)
        return y if y.ndim == 4 else y[None]

    def image_shape(self, y: Tensor) -> tuple[int, int, int]:
        """(C, H, W) of the image."""
        return self._shape

    def centre(self, y: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """As every operator's."""
        return super().centre(y, inv_eta2, lam) if self.separable else self._linear.centre(y, inv_eta2, lam)

    def solve_state(self, rhs: Tensor, inv_eta2: float, lam: float) -> Tensor:
        """(AᴴA inv_eta2 + lam)⁻¹ rhs."""
        if not self.separable:
            return self._linear.solve_state(rhs, inv_eta2, lam)
        u, v, values = self._basis(rhs)
        return _from(u, v, _to(u, v, rhs) / (values * inv_eta2 + lam))

    def langevin(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, xi: Tensor | None = None,
                 backend: str = "auto") -> tuple[Tensor, Tensor]:
        """On torch, whatever the backend; xi (N, H, W, C') counts eigenvectors, else it is `LinearOperator`'s."""
        if not self.separable:
            return self._linear.langevin(x, grad, b, ids, s, xi=xi, backend=backend)
        x, grad, b = x.contiguous(), grad.contiguous(), b.contiguous()
        check_step(x, grad, b, ids, s.lam, s.lin, s.w, s.inv_eta2, s.noise_lam, s.noise, xi, x.shape)
        check_stream(x.shape[1:].numel(), s.step, s.noise, xi)
        u, v, values = self._basis(x)
        mean = _to(u, v, right_hand_side(x, grad, b, s.lin, s.w)) / (values * s.inv_eta2 + s.lam)
        m = _from(u, v, mean)
        if not s.noise:
            return m.clone(), m
        xi = unit_noise(x, x.shape, ids, s.noise, s.seed, s.step, xi).movedim(-1, 1)
        return _from(u, v, torch.addcmul(mean, xi, (values * s.inv_eta2 + s.noise_lam).rsqrt())), m

    def advance(self, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, s: StepScalars, *, backend: str = "auto") -> Tensor:
        """x⁺; where conjugate gradients solve, from one system."""
        if self.separable:
            return super().advance(x, grad, b, ids, s, backend=backend)
        return self._linear.advance(x, grad, b, ids, s, backend=backend)

    def _basis(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """U_h (H, H), U_w (W, W) and λ_h λ_wᵀ (H, W), formed in double."""
        key = x.dtype, x.device
        if key not in self._bases:
            with torch.inference_mode(False):  # they outlive the mode that they are first asked for in
                (h, u), (w, v) = (torch.linalg.eigh(a.T @ a) for a in self._matrices)
                values = torch.outer(h.clamp_min(0), w.clamp_min(0))
                self._bases[key] = u.to(x.device, x.dtype), v.to(x.device, x.dtype), values.to(x.device, x.dtype)
        return self._bases[key]

    def _line(self, psf: Tensor, size: int) -> Tensor:
        """A along one axis, (rows, size): what `forward` does to lines of that axis."""
        basis = self._continued(torch.eye(size, dtype=torch.float64, device=psf.device)[:, None, :, None], len(psf), 1)
        return F.conv2d(basis, psf.flip(0)[None, None, :, None])[:, 0, :, 0].T

    def _continued(self, planes: Tensor, height: int | None = None, width: int | None = None) -> Tensor:
        """Planes (N, 1, H, W) with what a psf of this size sees outside."""
        if self.padding == "valid":
            return planes
        h, w = self.psf.shape if height is None or width is None else (height, width)
        return F.pad(planes, (w - 1 - w // 2, w // 2, h - 1 - h // 2, h // 2), mode=PADDINGS[self.padding] or "")

    def _turned(self, y: Tensor) -> Tensor:
        """Aᴴ y, as autograd has it of `forward`, which is linear."""
        if y.is_complex():
            return torch.complex(self._turned(y.real), self._turned(y.imag))
        with torch.inference_mode(False), torch.enable_grad():
            at = torch.zeros(*y.shape[:-2], *self._shape[1:], dtype=y.dtype, device=y.device, requires_grad=True)
            return torch.autograd.grad(self.forward_real(at), at, ordinary(y).detach())[0]

    @property
    def _measured(self) -> tuple[int, int, int]:
        """(C, h, w) of a measurement."""
        channels, height, width = self._shape
        if self.padding != "valid":
            return self._shape
        return channels, height - self.psf.shape[0] + 1, width - self.psf.shape[1] + 1

    def _check(self, name: str, image: Tensor, shape: tuple[int, int, int]) -> None:
        check_image(image, self.is_complex, name)
        check(tuple(image.shape[-3:]) == shape, name, f"shape {tuple(image.shape)}", f"{shape} or (B, *{shape})")


def _to(u: Tensor, v: Tensor, state: Tensor) -> Tensor:
    """Coefficients (N, C', H, W) of states."""
    return torch.stack([u.T @ image @ v for image in state.movedim(-1, 1)])


def _from(u: Tensor, v: Tensor, coefficients: Tensor) -> Tensor:
    """States of coefficients."""
    return torch.stack([u @ image @ v.T for image in coefficients]).movedim(1, -1).contiguous()
