"""What is to be restored: photographs and MR images that were never trained on, seen through ten operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from torch import Tensor

from alps_fast import data
from alps_fast.distill.data import icbm152
from alps_fast.distill.evaluate import brain_slice, held_out
from alps_fast.operators import CartesianMRI, CircularBlur, Inpainting, Operator, SuperResolution

COILS = 4
TUNING_PLANES = (75, 115)  # of the volume's third axis; those of the table are the 95th and of other axes


@dataclass(frozen=True)
class Problem:
    """y = A x + N(0, η²) in every real component, and the linear algebra of A on real tensors, which is all that methods see.

    Images are (N, C, H, W) real, of MRI C = 2; data (N, m) real. truth: (1, C, H, W). peak: the range that PSNR is of.
    """

    row: str
    domain: str
    operator: Operator
    measured: Tensor
    truth: Tensor
    peak: float

    def on(self, device: torch.device | str) -> Problem:
        """The same there; operators follow what they are given."""
        return replace(self, measured=self.measured.to(device), truth=self.truth.to(device))

    @property
    def eta(self) -> float:
        return self.operator.noise_std

    @property
    def y(self) -> Tensor:
        """(1, m)."""
        return real(self.measured[None])

    def A(self, x: Tensor) -> Tensor:
        """A x, (N, m)."""
        if self.operator.is_complex:
            x = torch.complex(x[:, :1], x[:, 1:])
        return real(self.operator.forward(x))

    def At(self, v: Tensor) -> Tensor:
        """Aᵀ v of data (N, m)."""
        shape = len(v), *self.measured.shape
        data = torch.view_as_complex(v.reshape(*shape, 2)) if self.measured.is_complex() else v.reshape(shape)
        x = self.operator.adjoint(data)
        return torch.cat([x.real, x.imag], 1) if x.is_complex() else x

    def normal(self, x: Tensor) -> Tensor:
        """AᵀA x."""
        if self.operator.is_complex:
            z = self.operator.normal(torch.complex(x[:, :1], x[:, 1:]))
            return torch.cat([z.real, z.imag], 1)
        return self.operator.normal(x)

    def solve(self, rhs: Tensor, lam: float) -> Tensor:
        """(AᵀA/η² + lam)⁻¹ rhs of images."""
        return self.operator.solve_state(rhs.movedim(1, -1).contiguous(), self.eta**-2, lam).movedim(-1, 1)

    def posterior(self, centre: Tensor, std: float) -> Tensor:
        """A draw of N(x; centre, std²) N(y; A x, η²), normalised, for every image of centre: by perturbing and solving."""
        data = self.y / self.eta + torch.randn(len(centre), self.y.shape[1], device=centre.device)
        return self.solve(self.At(data) / self.eta + (centre / std + torch.randn_like(centre)) / std, std**-2)


def real(v: Tensor) -> Tensor:
    """Data of a batch as (N, m) real."""
    return (torch.view_as_real(v) if v.is_complex() else v).flatten(1)


# --- images --------------------------------------------------------------------------------------------------------

@cache
def photographs(tuning: bool) -> list[Tensor]:
    """(1, H, W) in [−1, 1]: six that are held out, or the one that is shipped."""
    return [data.photograph()] if tuning else [image[0] for image in held_out("natural")]


@cache
def brains(tuning: bool) -> list[Tensor]:
    """(2, H, W), magnitudes up to 1: slices of ICBM152, others for tuning."""
    if not tuning:
        return [image[0] for image in held_out("brain")]
    volume = icbm152()
    return [brain_slice(volume[:, :, index], torch.Generator().manual_seed(index)) for index in TUNING_PLANES]


def crop(domain: str, index: int, side: int, tuning: bool) -> Tensor:
    """Image `index`: (1, C, side, side) of the pictures by turns, at a place of its own that is not plain."""
    pictures = brains(tuning) if domain == "brain" else photographs(tuning)
    picture, rng = pictures[index % len(pictures)], np.random.default_rng((index, tuning))
    while True:
        i, j = (int(rng.integers(size - side + 1)) for size in picture.shape[-2:])
        found = picture[None, :, i:i + side, j:j + side]
        if float(found.square().sum(1).sqrt().std()) > 0.1:
            return found.contiguous()


# --- operators -----------------------------------------------------------------------------------------------------

def inpainting(eta: float) -> Callable[[int], Operator]:
    """One pixel in five at random."""
    return lambda side: Inpainting(data.pixel_mask(side, side, keep=0.2), eta)


def box(side: int) -> Operator:
    """A square of three eighths of the side is missing in the middle."""
    mask = torch.ones(1, side, side)
    low, high = side * 5 // 16, side * 11 // 16
    mask[:, low:high, low:high] = 0
    return Inpainting(mask, 0.05)


def bicubic(factor: int) -> Tensor:
    """The kernel that bicubic reduction averages with, (4 factor, 4 factor), sum one: Keys' with a = −½, `factor` wide."""
    u = ((torch.arange(4 * factor, dtype=torch.float64) - 2 * factor + 0.5) / factor).abs()
    line = torch.where(u < 1, 1.5 * u**3 - 2.5 * u**2 + 1, -0.5 * u**3 + 2.5 * u**2 - 4 * u + 2)
    return torch.outer(line, line) / line.sum() ** 2


def scattered(side: int, acceleration: int, centre: int) -> Tensor:
    """Points of k-space, denser towards the middle, which is measured whole."""
    u = np.abs(np.arange(side) - (side - 1) / 2) / (side / 2)
    density = np.where(np.maximum.outer(u, u) < centre / side, 1e9, (1 - np.maximum.outer(u, u)) ** 2 + 0.05).ravel()
    rng = np.random.default_rng(0)
    taken = np.argsort(rng.exponential(size=side**2) / density)[:round(side**2 / acceleration)]
    mask = np.zeros(side**2, dtype=np.float32)
    mask[taken] = 1
    return torch.from_numpy(mask.reshape(side, side))


def mri(mask: Callable[[int], Tensor]) -> Callable[[int], Operator]:
    """Four coils."""
    return lambda side: CartesianMRI(mask(side), data.coil_maps(COILS, side, side), noise_std=0.02)


ROWS: dict[str, Callable[[int], Operator]] = {
    "random .05": inpainting(0.05), "random .1": inpainting(0.1), "random .5": inpainting(0.5), "box": box,
    "Gaussian blur": lambda side: CircularBlur.gaussian(2.0, 0.05),
    "motion blur": lambda side: CircularBlur.motion(9, 30, 0.05),
    "super-resolution x4": lambda side: SuperResolution(4, 0.05, bicubic(4)),
    "MRI 1-D x2": mri(lambda side: data.line_mask(side, side, 2, side // 8)),
    "MRI 1-D x8": mri(lambda side: data.line_mask(side, side, 8, side // 16)),
    "MRI 2-D x6": mri(lambda side: scattered(side, 6, side // 8))}


def domain_of(row: str) -> str:
    """Which teacher knows its images."""
    return "brain" if row.startswith("MRI") else "natural"


def problem(row: str, index: int, side: int, tuning: bool = False) -> Problem:
    """Image `index` of a row, with noise of its own."""
    domain, operator = domain_of(row), ROWS[row](side)
    truth = crop(domain, index, side, tuning)
    image = torch.complex(*truth[0][:, None].unbind()) if operator.is_complex else truth[0]
    mask = getattr(operator, "mask", None)  # where nothing is measured there is no noise
    measured = data.measure(operator, image, None if mask is None else mask.float(), seed=1 + 2 * index + (not tuning))
    return Problem(row, domain, operator, measured, truth, 1.0 if domain == "brain" else 2.0)


def as_truth(image: Tensor) -> Tensor:
    """Images of ours (N, 1, H, W), complex or real, as real channels (N, C, H, W)."""
    return torch.cat([image.real, image.imag], 1) if image.is_complex() else image
