"""Held-out denoising PSNR of teachers, energies and BM3D side by side: the tables of the model cards.

    x = x₀ + t n, the same n for all;  PSNR = 10 log₁₀(peak² / mean |D(x, t) − x₀|²)

peak is 1 for brain images (|x| ≤ 1, the mean over complex pixels) and 2 for photographs in [−1, 1]; BM3D gets
each real channel and the true t. Images: ICBM152 T1 slices of three orientations; the photographs in `HELD_OUT`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .data import HELD_OUT, icbm152, random_phase

LEVELS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
Denoiser = Callable[[Tensor, float], Tensor]


def held_out(domain: str) -> list[Tensor]:
    """Clean images (1, C', H, W) that no training has seen."""
    return _held_out_brain() if domain == "brain" else _held_out_natural()


def _held_out_brain() -> list[Tensor]:
    volume, generator = icbm152(), torch.Generator().manual_seed(2026)
    return [brain_slice(plane, generator)[None] for plane in (volume[:, :, 95], volume[:, 120, :], volume[85, :, :])]


def brain_slice(plane: np.ndarray, generator: torch.Generator) -> Tensor:
    """(2, H, W): magnitudes (H, W), cut where there is nothing around them, with a smooth phase."""
    rows, columns = np.nonzero(plane.any(1))[0], np.nonzero(plane.any(0))[0]
    x = torch.from_numpy(plane[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].copy())
    phase = random_phase(1, max(x.shape), generator)[0, :x.shape[0], :x.shape[1]]
    return torch.stack([x * phase.cos(), x * phase.sin()])


def _held_out_natural() -> list[Tensor]:
    import skimage
    import sklearn.datasets

    folders = (Path(skimage.__file__).parent / "data", Path(sklearn.datasets.__file__).parent / "images")
    out = []
    for name in HELD_OUT:
        path = next(p for folder in folders for p in folder.glob(f"{name}.*") if p.suffix in (".png", ".jpg"))
        image = Image.open(path).convert("L")
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        pixels = np.asarray(square.resize((192, 192), Image.Resampling.LANCZOS), dtype=np.float32)
        out.append(torch.from_numpy(pixels / 127.5 - 1)[None, None])
    return out


def bm3d_denoiser(x: Tensor, t: float) -> Tensor:
    """BM3D of each real channel, given the true noise level (package bm3d, default profile)."""
    import bm3d

    planes = [torch.from_numpy(np.ascontiguousarray(bm3d.bm3d(plane.numpy(), t))).float() for plane in x.flatten(0, 1)]
    return torch.stack(planes).reshape(x.shape)


def psnr_table(domain: str, denoisers: Mapping[str, Denoiser], levels: tuple[float, ...] = LEVELS) -> dict[str, list[float]]:
    """PSNR in dB, averaged over the held-out images, per denoiser and level."""
    return psnr_of(held_out(domain), denoisers, 1.0 if domain == "brain" else 2.0, levels)


def psnr_of(images: Sequence[Tensor], denoisers: Mapping[str, Denoiser], peak: float,
            levels: tuple[float, ...] = LEVELS) -> dict[str, list[float]]:
    """The same of images (1, C', H, W), `peak` their range; of one complex channel where that is 1."""
    rows: dict[str, list[float]] = {name: [] for name in denoisers}
    for t in levels:
        sums = dict.fromkeys(denoisers, 0.0)
        for index, clean in enumerate(images):
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1000 + index))
            for name, denoiser in denoisers.items():
                with torch.no_grad():
                    error = denoiser(clean + t * noise, t) - clean
                pixels = error[0, 0].numel() if peak == 1.0 else error.numel()
                sums[name] += 10 * math.log10(peak**2 * pixels / float((error * error).sum()))
        for name in denoisers:
            rows[name].append(sums[name] / len(images))
    return rows


def markdown_table(rows: Mapping[str, list[float]], levels: tuple[float, ...] = LEVELS) -> str:
    """The table as a model card shows it."""
    lines = ["| t | " + " | ".join(rows) + " |", "|---" * (len(rows) + 1) + "|"]
    lines += [f"| {t:g} | " + " | ".join(f"{rows[name][i]:.2f}" for name in rows) + " |" for i, t in enumerate(levels)]
    return "\n".join(lines)
