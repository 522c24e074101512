"""Train a teacher denoiser D(x, t) in EDM form on clean images.

    loss = λ(t) ‖D(x₀ + t n, t) − x₀‖²,   λ(t) = (t² + σ_d²)/(t σ_d)²        [EDM] eq. 8
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..energies.compact import CompactNet
from .data import Crops
from .images import Source
from .loop import bf16_is_fast, fit, training_noise


def edm_weight(t: Tensor, sigma_data: float) -> Tensor:
    """λ(t) = (t² + σ_d²)/(t σ_d)², which gives every noise level the same weight on F's output."""
    return (t * t + sigma_data**2) / (t * sigma_data) ** 2


def noisy_batch(crops: Source, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clean x₀, noisy x = x₀ + t n and t of one training step, a pure function of the step."""
    clean = crops.get(step)
    generator = torch.Generator().manual_seed(1_000_003 * (crops.seed + 1) + step)
    t = training_noise(clean.shape[0], generator)
    noisy = clean + t.view(-1, 1, 1, 1) * torch.randn(clean.shape, generator=generator)
    layout = torch.channels_last
    return clean.contiguous(memory_format=layout), noisy.contiguous(memory_format=layout), t


def train_teacher(domain: str, out: Path, *, steps: int = 10_000, batch: int = 16, size: int = 64, seed: int = 0,
                  sharp: float = 0.0, compile: bool = True, progress: bool = True) -> CompactNet:
    """Train and return a teacher for `domain`; resumes from `out/checkpoint.safetensors`.

    Args:
        domain: "brain" or "natural". out: folder of checkpoint and log. steps: of the optimiser, in all.
        batch, size: crops a step and their side in pixels. seed: of weights, crops and noise. sharp: as `Crops` takes it.
        compile: through torch.compile. progress: a bar on stderr.

    Raises:
        ArgumentError: the domain is unknown.
        FileNotFoundError, ImportError: the domain's images are not installed; says what to install.

    Source: [EDM] eq. 8 and table 1.
    """
    torch.manual_seed(seed)
    crops = Crops(domain, size=size, batch=batch, seed=seed, sharp=sharp)
    net = CompactNet(crops.channels).to(memory_format=torch.channels_last)
    run = torch.compile(net) if compile else net

    def loss(step: int) -> Tensor:
        clean, noisy, t = noisy_batch(crops, step)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16_is_fast()):
            denoised = run(noisy, t)
        return (edm_weight(t, net.sigma_data).view(-1, 1, 1, 1) * (denoised - clean) ** 2).mean()

    return fit(net, loss, steps, out, progress=progress, of={"kind": "teacher", "domain": domain})
