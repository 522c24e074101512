"""What is said of a method's draws beside the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from alps_fast.metrics import coverage, psnr, ssim
from alps_fast.posterior import Posterior
from alps_fast.student import student

from ..levy import crps
from .perceptual import st_lpips
from .problems import Problem
from .target import Target, discrepancy

LEVELS = (0.5, 0.9)
FIGURES = ("psnr mean", "psnr draw", "ssim", "st-lpips", "cover 50", "cover 90", "crps", "ksd")


class Draws(NamedTuple):
    """x: (m, C, H, W) real. posterior: where they are ours, what knows which of them are pairs. target: what the method says that
    they are of, where that has a score."""

    x: Tensor
    posterior: Posterior | None = None
    target: Target | None = None


def interval(x: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Student's, of independent draws x (m, …): mean ± q s √(1 + 1/m)."""
    m, mean = len(x), x.mean(0)
    half = x.std(0) * (1 + 1 / m) ** 0.5 * float(student(level, torch.tensor(float(m - 1))))
    return mean - half, mean + half


def figures(draws: Draws, problem: Problem) -> dict[str, float | None]:
    """By name of `FIGURES`; None for what a single estimate does not have.

    PSNR counts |error|² of a complex pixel once; SSIM is that of magnitudes. ST-LPIPS is one draw's, of photographs, where
    `perceptual` has what it needs. Intervals are mean ± q s √(1 + 1/m), q Student's
    with m − 1 degrees of freedom and s the standard deviation of m draws, and `Posterior.interval` where draws are pairs. CRPS is
    the fair one of independent draws. "ksd" is D² of `target.discrepancy`, where the method has a target.
    """
    x, truth = draws.x.double().cpu(), problem.truth.double().cpu()
    m, mean = len(x), x.mean(0, keepdim=True)

    def decibel(estimate: Tensor) -> float:
        error = (estimate - truth).square().sum(1).sqrt().numpy()
        return psnr(error, np.zeros_like(error), problem.peak)

    def magnitude(v: Tensor) -> np.ndarray:
        return (v.square().sum(1).sqrt() if v.shape[1] == 2 else v[:, 0])[0].numpy()

    found: dict[str, float | None] = dict.fromkeys(FIGURES)
    found["psnr mean"], found["psnr draw"] = decibel(mean), decibel(x[:1])
    found["ssim"] = ssim(magnitude(mean), magnitude(truth), problem.peak)
    if problem.domain == "natural":
        found["st-lpips"] = st_lpips(draws.x[0].cpu(), problem.truth[0].cpu())
    if m == 1:
        return found
    for level in LEVELS:
        if draws.posterior is None:
            low, high = interval(x, level)
        else:
            low, high = (torch.cat([v.real, v.imag]) if v.is_complex() else v for v in draws.posterior.interval(level))
        found[f"cover {100 * level:.0f}"] = coverage(low.cpu().numpy(), high.cpu().numpy(), truth[0].numpy())
    pairs = draws.posterior is not None and draws.posterior.pairs
    independent = x[::2] if pairs else x
    if draws.target is not None:
        found["ksd"] = discrepancy(draws.x, draws.target, problem, pairs)
    found["crps"] = float(crps(independent.numpy(), truth[0].numpy()).mean())
    return found
