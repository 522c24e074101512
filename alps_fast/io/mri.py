"""k-space as samplers want it: maps that add up to one, an image of the size that the prior knows, and the noise that it has."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import check_positive
from .kspace import KSpace, check_consistent

if TYPE_CHECKING:
    from ..operators import CartesianMRI

ASSUMED = 0.02  # noise_std, of the scale, where data do not tell
DAMPING = 0.1  # noise_std of the rough image whose size is the scale: AᴴA of the maps below is at most 1
PEAK = 0.999  # quantile of the rough image's magnitude that is its size
OUTER = 10  # one in so many samples, those farthest from the middle, tells of the noise
FEWEST = 100  # numbers to tell it from
FADED = 1.15  # what the ring inside them may exceed them by, else there is signal in both
RAYLEIGH = math.sqrt(2 * math.log(2))  # median of |n| where real and imaginary part of n have standard deviation one


class ScaledKSpace(NamedTuple):
    """y = A x + noise in units of the prior.

    y: (coils, H, W) k-space divided by `scale`. operator: A, whose maps add up to one, with its noise_std in the same units.
    scale: the magnitude, in units of the k-space given and of maps that add up to one, that the prior takes for 1.
    noise_std: of the k-space given, in its units. noise_from: "given", "estimated" or "assumed".
    """

    y: Tensor
    operator: CartesianMRI
    scale: float
    noise_std: float
    noise_from: str


def scaled_kspace(data: KSpace, noise_std: float | None = None, scale: float | None = None) -> ScaledKSpace:
    """What `read_kspace` read, made ready for `alps_fast.sample`; times `scale` images are in units of the k-space.

        S_c ← S_c / √Σ|S|²,   y ← y / scale,   η = noise_std / scale

    However maps were normalised, the image is then √Σ|S|² times what they mean by it: as bright, and as noisy, for all of them.

    Args:
        data: k-space, maps or None, mask.
        noise_std: standard deviation of the noise in real and imaginary part each, in units of the k-space; None: estimated by
            `kspace_noise`, or, where that cannot tell, assumed to be 2 % of the scale.
        scale: magnitude that the prior is to take for 1; None: that of a damped least-squares image, at its 99.9 % quantile.

    Raises:
        ArgumentError: naming the argument, also where k-space and mask contradict each other, as `read_kspace` would have said.
    """
    from ..operators import CartesianMRI

    kspace, maps, mask = data.kspace, data.maps, data.mask
    check_consistent(kspace, mask)
    maps = None if maps is None else normalised_maps(maps)
    if scale is None:
        energy = float(kspace.abs().double().square().sum() / kspace.shape[-1] / kspace.shape[-2]) ** 0.5 or 1.0
        rough = CartesianMRI(mask, maps, noise_std=DAMPING)
        image = rough.project(rough.adjoint(kspace / energy) / DAMPING**2, 1.0).abs().flatten()
        scale = energy * float(image.sort().values[math.ceil(PEAK * len(image)) - 1])
    check_positive("scale", scale)
    noise_from = "given"
    if noise_std is None:
        noise_std, noise_from = kspace_noise(kspace, mask, at_most=ASSUMED * scale), "estimated"
    if noise_std is None:
        noise_std, noise_from = ASSUMED * scale, "assumed"
    check_positive("noise_std", noise_std)
    operator = CartesianMRI(mask, maps, noise_std=noise_std / scale)
    return ScaledKSpace(kspace / scale, operator, scale, noise_std, noise_from)


def normalised_maps(maps: Tensor) -> Tensor:
    """Maps (coils, H, W) over √Σ_c |S_c|², zero where all are zero."""
    root = (maps / maps.abs().max()).abs().square().sum(0).sqrt() * maps.abs().max()
    return torch.where(root > 0, maps / root, 0)


def kspace_noise(kspace: Tensor, mask: Tensor, at_most: float = 0.0) -> float | None:
    """Standard deviation of the noise in real and imaginary part each, of k-space (coils, H, W) measured where mask (H, W) is 1.

    From the median magnitude of the tenth of the samples that is farthest from the middle, root mean square over coils. None
    where too few were measured, where the median is 0, or where the tenth inside is larger, as it is where both hold signal;
    but what is found there bounds the noise from above, and is taken where it is below `at_most`.
    """
    height, width = mask.shape
    y, x = (2 * torch.arange(n, device="cpu") / n - 1 for n in (height, width))
    measured = mask.flatten() > 0
    radius = (y[:, None].square() + x.square()).flatten()[measured]
    samples = kspace.flatten(1)[:, measured][:, radius.argsort()].abs()
    count = samples.shape[1] // OUTER
    if count * len(samples) < FEWEST:
        return None
    outer, inner = (float((part.median(1).values / RAYLEIGH).square().mean().sqrt())
                    for part in (samples[:, -count:], samples[:, -2 * count:-count]))
    return outer if outer > 0 and (inner < FADED * outer or outer < at_most) else None
