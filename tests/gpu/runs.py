"""Whole runs: first call, second, third and fourth (plain, then captured, then replayed), and memory; beside the published loop.

python runs.py first|rest|NAME ...
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from common import DEVICE, ON_GPU, emit, in_children
from torch import Tensor, nn

import alps_fast as af
from alps_fast import data
from alps_fast.bench import bench_alps
from alps_fast.energies import DenoiserEnergy, Energy
from alps_fast.operators import Operator

LEVELS, STEPS = 50 if ON_GPU else 2, 5  # as published
NOISE = 0.05


class UNet(nn.Module):
    """In the place of a user's network: 4 scales, 2 residual blocks each, GroupNorm, about 55 M parameters."""

    def __init__(self, channels: int = 3, width: int = 128 if ON_GPU else 8, scales: tuple[int, ...] = (1, 2, 2, 4)):
        super().__init__()
        widths = [width * s for s in scales]

        def block(before: int, after: int) -> nn.Module:
            return nn.Sequential(nn.GroupNorm(8, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1),
                                 nn.GroupNorm(8, after), nn.SiLU(), nn.Conv2d(after, after, 3, padding=1))

        self.head, self.tail = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 3, padding=1)
        before = [width, *widths[:-1]]
        self.down = nn.ModuleList(block(a, b) for a, b in zip(before, widths, strict=True))
        self.more = nn.ModuleList(block(b, b) for b in widths)
        self.up = nn.ModuleList(block(b + a, a) for a, b in reversed(list(zip(before, widths, strict=True))))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        h, skips = self.head(x), []
        for down, more in zip(self.down, self.more, strict=True):
            skips.append(h)
            h = down(h)
            h = nn.functional.avg_pool2d(h + more(h), 2)
        for up in self.up:
            h = up(torch.cat([nn.functional.interpolate(h, scale_factor=2), skips.pop()], 1))
        return self.tail(h)


def synchronize() -> None:
    if ON_GPU:
        torch.cuda.synchronize()


def timed(run: Callable[[], object]) -> float:
    synchronize()
    began = time.perf_counter()
    run()
    synchronize()
    return time.perf_counter() - began


def calls(name: str, op: Operator, energy: Energy, y: Tensor, chains: int, levels: int = LEVELS) -> None:
    """Milliseconds a step of four calls of one sampler and of the first of another, what memory the fourth took, and was told."""
    # two levels from 100 to 0.1 are too far apart for a network: its chains run away
    schedule = af.Schedule(levels=levels, steps=STEPS) if levels >= 10 else af.Schedule(100.0, 10.0, levels, STEPS)

    def new() -> af.Sampler:
        return af.Sampler(op, energy, chains=chains, schedule=schedule, progress=False)

    sampler, y, steps, broken = new(), y.to(DEVICE), levels * STEPS, 0
    ms = []
    for _ in range(4):
        if ON_GPU:
            torch.cuda.reset_peak_memory_stats()
        post = None

        def run() -> None:
            nonlocal post
            post = sampler(y)

        ms.append(1e3 * timed(run) / steps)
        assert post is not None
        broken += len(post.broken)
    peak, reserved = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if ON_GPU else (0, 0)
    other = 1e3 * timed(lambda: new()(y)) / steps
    emit("run", case=name, chains=chains, steps=steps, ms_step_1=ms[0], ms_step_2=ms[1], ms_step_3=ms[2], ms_step_4=ms[3],
         ms_step_1_of_another=other, told_GB=sampler.memory(y) / 2**30,
         chain_steps_s=1e3 * chains / ms[3], graphs=len(sampler._graphs.recorded), why_not=sampler._graphs.why_not,
         peak_GB=peak / 2**30, reserved_GB=reserved / 2**30, broken=broken)


def inpainting(side: int) -> tuple[Operator, Tensor]:
    """Two pixels in five of noise, three channels."""
    op = af.operators.Inpainting(data.pixel_mask(side, side, keep=0.4), noise_std=NOISE)
    return op, op.forward(torch.rand(3, side, side) * 2 - 1)


def inpaint(prior: str | Energy, name: str, chains: int, side: int, levels: int = LEVELS) -> None:
    op, y = inpainting(side)
    energy = af.energies.load(prior, precision="fast") if isinstance(prior, str) else prior
    calls(f"inpaint {side}x{side}x3 {name}", op, energy, y, chains, levels)


def slice_of(side: int, coils: int, lines: bool) -> tuple[af.operators.CartesianMRI, Tensor]:
    """The shipped brain at this size, a quarter of the lines or three points in ten."""
    mask = data.line_mask(side, side, 4, centre=side // 16) if lines else (torch.rand(side, side) < 0.3).float()
    op = af.operators.CartesianMRI(mask, maps=data.coil_maps(coils, side, side), noise_std=NOISE)
    parts = torch.view_as_real(data.brain()[0]).movedim(-1, 0)[None]
    brain = nn.functional.interpolate(parts, (side, side), mode="bilinear", antialias=True)[0].movedim(0, -1).contiguous()
    return op, data.measure(op, torch.view_as_complex(brain)[None], mask)


def mri(name: str, chains: int, side: int, coils: int, lines: bool = True) -> None:
    op, y = slice_of(side, coils, lines)
    if lines:
        emit("factors", case=f"{side}² {coils} coils",
             seconds=timed(lambda: op.factors(torch.complex64, torch.device(DEVICE))))
    energy = af.energies.load(name, precision="fast")
    calls(f"mri {side}² {coils} coils {name} {'1-D' if lines else '2-D'}", op, energy, y, chains)


def unet(chains: int, side: int, precision: str, compiled: bool = False) -> None:
    net: nn.Module = UNet().to(DEVICE)
    if compiled:
        net = torch.compile(net)  # type: ignore[assignment]
    x, t = torch.randn(chains, 3, side, side, device=DEVICE), torch.full((chains,), 1.0, device=DEVICE)
    energy = DenoiserEnergy(net, channels=3, precision=precision)
    energy.grad(x, 1.0)
    emit("network", case=f"U-Net {precision}{' compiled' if compiled else ''}, its gradient alone",
         ms=1e3 * min(timed(lambda: energy.grad(x, 1.0)) for _ in range(5)), t=float(t[0]))
    inpaint(energy, f"U-Net {precision}{' compiled' if compiled else ''}", chains, side, min(LEVELS, 10))


def published(name: str, chains: int, side: int) -> None:
    """The ALPS loop as it was published, in eager torch."""
    energy, device = af.energies.load(name, precision="fast"), torch.device(DEVICE)
    op, y = inpainting(side)
    y = y.to(device)
    b = op.adjoint(op.check_measurement(y)) / op.noise_std**2
    loop = bench_alps.PlainPixels(op, device), bench_alps.plain_gradient(energy, "fast")
    levels = min(LEVELS, 10)
    t = af.Schedule(levels=levels, steps=STEPS).t().tolist()
    ms = [1e3 * timed(lambda: bench_alps.plain_loop(*loop, energy.curvature, b, chains, t, STEPS)) / (levels * STEPS)
          for _ in range(2)]
    emit("run", case=f"published loop in eager torch, {name} {side}x{side}x3", chains=chains, ms_step_1=ms[0],
         ms_step_2=ms[1])


SMALL, LARGE = (64, 128) if ON_GPU else (16, 32)


def many(chains: int) -> int:
    return chains if ON_GPU else 1


FIRST = {
    "denoiser": lambda: inpaint("natural-denoiser", "natural-denoiser", many(64), SMALL),
    "ridge": lambda: inpaint("natural-ridge", "natural-ridge", many(64), SMALL),
    "mri ridge": lambda: mri("brain-ridge", many(16), LARGE, 8),
    "mri denoiser": lambda: mri("brain-denoiser", many(16), LARGE, 8),
    "mri 320": lambda: mri("brain-denoiser", many(16), 320 if ON_GPU else 32, 12),
    "mri 320 ridge": lambda: mri("brain-ridge", many(16), 320 if ON_GPU else 32, 12),
    "unet": lambda: unet(many(4), 256 if ON_GPU else 16, "fast"),
    "published": lambda: published("natural-denoiser", many(64), SMALL),
    "published ridge": lambda: published("natural-ridge", many(64), SMALL),
}
REST = {
    "mri cg": lambda: mri("brain-ridge", many(16), LARGE, 8, lines=False),
    "unet high": lambda: unet(many(4), 256 if ON_GPU else 16, "high"),
    "256": lambda: inpaint("natural-denoiser", "natural-denoiser", many(16), 256 if ON_GPU else 16),
    "one chain": lambda: inpaint("natural-denoiser", "natural-denoiser", 1, SMALL),
}
BY_NAME = {"unet compiled": lambda: unet(4, 256, "fast", True)}

if __name__ == "__main__":
    asked = sys.argv[1:]
    jobs = {"first": FIRST, "rest": REST}.get(asked[0]) or {name: (FIRST | REST | BY_NAME)[name] for name in asked}
    in_children(jobs.items(), 75)
