"""A scan without a truth: χ², and whether samples that were held out are where the posterior predicts them.

One in TENTH of the samples outside the calibration is withheld. What is measured there is A x + noise, so a draw of the
posterior, seen through A with noise added, is a draw of the prediction.
"""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor

import alps_fast as af
from alps_fast import io, mri
from alps_fast.operators import CartesianMRI
from alps_fast.student import student

from .figures import Estimate
from .problems import Problem

TENTH = 10
CALIBRATION = 24


class Scan(NamedTuple):
    """of: what reconstructions see. held: (H, W) mask of what they do not. y: all that was measured, in the prior's units."""

    of: Problem
    held: Tensor
    y: Tensor
    words: tuple[str, ...]


def scan(path: Path) -> Scan:
    """The first slice of a file, with ESPIRiT maps and the noise that it tells."""
    prepared = mri.prepare(io.open_kspace(path)[0], [mri.estimate_maps])
    found = io.scaled_kspace(prepared.data)
    mask = found.operator.mask
    height, width = mask.shape
    held = (mask > 0) & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(0)) < 1 / TENTH)
    top, left = (n // 2 - CALIBRATION // 2 for n in (height, width))
    held[top:top + CALIBRATION, left:left + CALIBRATION] = 0
    operator = CartesianMRI(mask * ~held, found.operator.maps, noise_std=found.operator.noise_std)

    def judge(image: Tensor) -> float:
        return misfit(image, held.float(), found.y, operator)

    words = (*prepared.words, f"noise_std {found.operator.noise_std:.3g} of the brightest pixels, {found.noise_from}")
    return Scan(Problem(found.y, operator, judge), held.float(), found.y, words)


def misfit(image: Tensor, mask: Tensor, y: Tensor, operator: CartesianMRI) -> float:
    """χ² a datum where mask is 1, ‖M(F S x − y)‖²/(η² n)."""
    left = (CartesianMRI(mask, operator.maps, noise_std=operator.noise_std).forward(image) - y) * mask
    return float(left.abs().square().sum() / (2 * operator.noise_std**2 * mask.sum() * len(y)))


def figures(of: Scan, found: Estimate) -> dict[str, float | None]:
    """χ² of what was seen, and of what was held out; without error 1, and more by what the estimate, maps or noise are off."""
    own = of.of.operator
    return {"setting": found.setting, "rhat": found.rhat, "chi2 seen": misfit(found.image, own.mask, of.y, own),
            "chi2 held": misfit(found.image, of.held, of.y, own)}


def prediction(of: Scan, name: str, chains: int, draws: int) -> tuple[Estimate, dict[str, float | None]]:
    """MMSE by `draws` runs of chains and how many held-out samples lie in the intervals that they predict.

    Of every real and imaginary part: mean ± √(q² V (1 + 1/n) + z² η²), V the variance of the chains' predictions A x, n chains, q
    Student's quantile, as V is estimated, and z the normal one, as η is not; pairs are not used, so that chains are independent.
    """
    from .methods import prior

    own = of.of.operator
    post = af.sample(of.of.y, own, prior(name), chains=chains, draws=draws, pairs=False, progress=False)
    seen = CartesianMRI(of.held, own.maps, noise_std=own.noise_std).forward(post.samples)
    parts, data = torch.view_as_real(seen), torch.view_as_real(of.y)
    mean, variance = parts.mean(0), parts.var(0)
    told: dict[str, float | None] = {}
    inside = of.held.bool()
    spread = (variance * (1 + 1 / chains) + own.noise_std**2).sqrt()
    for level in (0.5, 0.9):
        q, z = float(student(level, torch.tensor(float(chains - 1)))), NormalDist().inv_cdf((1 + level) / 2)
        half = (q**2 * variance * (1 + 1 / chains) + (z * own.noise_std) ** 2).sqrt()
        told[f"held-out cover {100 * level:.0f}"] = float(((data - mean).abs() <= half)[:, inside].float().mean())
    told["predicted / error"] = float((spread.square()[:, inside].mean() / (data - mean).square()[:, inside].mean()).sqrt())
    return Estimate(post.mean, post.std, chi2=float(post.chi2)), told
