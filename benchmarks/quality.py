"""Restoration by several methods with one teacher: `python -m benchmarks.quality [--quick]`.

Every method is given the same denoiser, the shipped teacher of grey photographs asked once a call, and the same DeepInverse
physics with images in [0, 1]; ours goes through `integrations.DeepInverseSampler`. Images are crops of photographs that were
never trained on.
The others' settings are their libraries' defaults and were NOT tuned; what a row says of them is what a user gets at first.
eta counts in [−1, 1], as in [ALPS]; noise in [0, 1] is half of it.

Needs the extra `peers`. Still to come: azula's methods, tuning on other images, MRI, LPIPS, score-KSD.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import alps_fast as af
from alps_fast.distill.evaluate import held_out
from alps_fast.energies.store import load_teacher
from alps_fast.energies.symmetric import network_of
from alps_fast.integrations import DeepInverseSampler, from_deepinv
from alps_fast.metrics import coverage, psnr, ssim
from alps_fast.student import student

from .peers import deepinv

SIDE = 64
LEAST = 0.001  # level that the teacher is asked about: it has none at 0, where DDRM ends
ROWS = ("random .05", "random .1", "random .5", "box", "gaussian blur", "motion blur", "super-resolution x4")
COLUMNS = ("psnr mean", "psnr sample", "ssim", "evaluations", "seconds", "cover 50", "cover 90", "crps")


class Counted(nn.Module):
    """The teacher D(x, sigma) in [−1, 1], which counts images that it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.asked = network_of(load_teacher("natural-teacher")), 0
        self.requires_grad_(False)

    def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
        """D of x (N, 1, H, W) at sigma (N,)."""
        self.asked += len(x)
        out: Tensor = self.network(x, sigma)
        return out


class Unit(nn.Module):
    """The same as DeepInverse's denoisers are, in [0, 1]."""

    def __init__(self, teacher: Counted):
        super().__init__()
        self.teacher = teacher

    def forward(self, x: Tensor, sigma: Tensor | float, **_: Any) -> Tensor:
        """D of x (N, 1, H, W) at sigma: a number, or one an image."""
        levels = 2 * torch.as_tensor(sigma, dtype=torch.float32).flatten().expand(len(x)).clamp(min=LEAST)
        return (self.teacher(2 * x.float() - 1, levels) + 1) / 2


def crops(count: int) -> list[Tensor]:
    """(1, 1, SIDE, SIDE) of held-out photographs in [0, 1], by turns, at fixed places that are not plain."""
    rng, found = np.random.default_rng(0), list[Tensor]()
    photographs = [image.reshape(1, 1, *image.shape[-2:]) for image in held_out("natural")]
    while len(found) < count:
        image = photographs[len(found) % len(photographs)]
        i, j = (int(rng.integers(side - SIDE + 1)) for side in image.shape[-2:])
        crop = (image[..., i:i + SIDE, j:j + SIDE] + 1) / 2
        if float(crop.std()) > 0.05:
            found.append(crop.float())
    return found


def physics_of(dinv: Any, row: str) -> Any:
    """The DeepInverse physics of a row."""
    def noise(eta: float) -> dict[str, Any]:
        return {"noise_model": dinv.physics.GaussianNoise(eta / 2)}

    size, generator = (1, SIDE, SIDE), torch.Generator().manual_seed(0)
    if row.startswith("random"):
        mask = (torch.rand(size, generator=generator) < 0.2).float()
        return dinv.physics.Inpainting(size, mask=mask, **noise(float(row.split()[1])))
    if row == "box":
        mask = torch.ones(size)
        mask[:, 20:44, 20:44] = 0
        return dinv.physics.Inpainting(size, mask=mask, **noise(0.05))
    if row == "gaussian blur":
        return dinv.physics.BlurFFT(size, dinv.physics.functional.gaussian_blur(sigma=(2.0, 2.0)), **noise(0.05))
    if row == "motion blur":
        return dinv.physics.BlurFFT(size, af.operators.CircularBlur.motion(9, 30, 0.05).psf.float()[None, None], **noise(0.05))
    return dinv.physics.Downsampling(size, filter="bicubic", factor=4, **noise(0.05))


Method = Callable[[Tensor, Any, int], Tensor]  # y, physics, samples -> (samples, 1, H, W) in [0, 1]; one row: a single estimate


def methods(dinv: Any, teacher: Counted, steps: int) -> Iterator[tuple[str, Method]]:
    """Every method by its name; `steps` of the diffusions."""
    unit = Unit(teacher)
    priors = {"DiffusionPrior": af.energies.DiffusionPrior(teacher, channels=1),
              "denoiser": af.energies.load("natural-denoiser"), "ridge": af.energies.load("natural-ridge")}

    def ours(energy: Any) -> Method:
        def run(y: Tensor, physics: Any, samples: int) -> Tensor:
            model = DeepInverseSampler(energy, chains=samples, pairs=False)
            model.sample(y, physics, seed=0)
            if model.posterior is not None:
                teacher.asked = model.posterior.gradients * samples  # of priors that ask no teacher too
            return torch.cat([d["x"] for d in model.get_chain()])
        return run

    def mode(y: Tensor, physics: Any, samples: int) -> Tensor:
        eta = 2 * float(physics.noise_model.sigma)
        operator = from_deepinv(physics, noise_std=eta)
        wide = 2 * y - operator.forward(torch.ones(1, 1, SIDE, SIDE))
        found = af.map_estimate(wide, operator, priors["denoiser"], progress=False)
        teacher.asked = found.trace.numel() + 1
        return (found.image + 1) / 2

    def each(model: Callable[[Tensor, Any], Tensor]) -> Method:
        def run(y: Tensor, physics: Any, samples: int) -> Tensor:
            torch.manual_seed(0)
            return model(y.expand(samples, *y.shape[1:]).clone(), physics).float().detach()
        return run

    def diffpir(y: Tensor, physics: Any) -> Tensor:
        sigma = float(physics.noise_model.sigma)
        return dinv.sampling.DiffPIR(unit, dinv.optim.data_fidelity.L2(), sigma=sigma, max_iter=steps)(y, physics)

    def ula(y: Tensor, physics: Any, samples: int) -> Tensor:
        torch.manual_seed(0)
        sigma, level = float(physics.noise_model.sigma), 0.02
        sampler = dinv.sampling.sampling_builder(
            "ULA", dinv.optim.data_fidelity.L2(sigma=sigma), dinv.optim.ScorePrior(unit), max_iter=10 * steps,
            thinning=steps // 2, clip=(-1.0, 2.0),
            params_algo={"step_size": 0.5 / (sigma**-2 + level**-2), "alpha": 1.0, "sigma": level}, history_size=samples)
        sampler(y, physics)
        return torch.cat([d["x"] for d in sampler.get_chain()])

    for name, energy in priors.items():
        yield f"ours, {name}", ours(energy)
    yield "ours, MAP (denoiser)", mode
    yield "DPS", each(lambda y, physics: dinv.sampling.DPS(unit, num_steps=steps, dtype=torch.float32)(y, physics))
    yield "DiffPIR", each(diffpir)
    yield "DDRM", each(lambda y, physics: dinv.sampling.DDRM(unit, sigmas=np.linspace(1, 0, steps))(y, physics))
    yield "ULA", ula


def figures(x: Tensor, truth: Tensor, evaluations: float, seconds: float) -> list[float]:
    """A cell of `COLUMNS` from samples (m, 1, H, W); NaN for what a single estimate does not have."""
    m, mean, exact = len(x), x.mean(0)[0].double().numpy(), truth[0, 0].double().numpy()
    one = x[0, 0].double().numpy()
    found = [psnr(mean, exact, 1.0), psnr(one, exact, 1.0), ssim(mean, exact, 1.0) or np.nan, evaluations, seconds]
    if m == 1:
        return [*found, np.nan, np.nan, np.nan]
    spread = x[:, 0].double().std(0).numpy() * (1 + 1 / m) ** 0.5
    for level in (0.5, 0.9):
        half = spread * float(student(level, torch.tensor(float(m - 1))))
        found.append(coverage(mean - half, mean + half, exact))
    apart = (x[:, None] - x[None]).abs().sum((0, 1)) / (m * (m - 1))  # without bias in the number of samples
    return [*found, float(((x - truth).abs().mean(0) - apart / 2).mean())]


def table(rows: tuple[str, ...], images: int, samples: int, steps: int) -> dict[str, dict[str, list[float]]]:
    """Averages over the images, by row and method."""
    dinv = deepinv()
    if dinv is None:
        raise SystemExit("benchmarks.quality needs DeepInverse: pip install 'alps_fast[peers]'")
    teacher, truths, found = Counted(), crops(images), dict[str, dict[str, list[float]]]()
    for row in rows:
        physics = physics_of(dinv, row)
        found[row] = {}
        for name, method in methods(dinv, teacher, steps):
            if name == "DDRM" and not isinstance(physics, dinv.physics.DecomposablePhysics):
                continue
            cells = []
            for i, truth in enumerate(truths):
                torch.manual_seed(i)
                y = physics(truth)
                teacher.asked, began = 0, time.perf_counter()
                x = method(y, physics, samples)
                cells.append(figures(x, truth, teacher.asked / max(len(x), 1), time.perf_counter() - began))
            found[row][name] = np.mean(cells, 0).tolist()
    return found


def main() -> None:
    """Print a table a row of problems, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two images, four samples, 50 steps")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--samples", type=int, default=8, help="of every image")
    parser.add_argument("--steps", type=int, default=1000, help="of DPS, DiffPIR and DDRM; a tenth of ULA's")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    images, samples, steps = (2, 4, 50) if asked.quick else (asked.images, asked.samples, asked.steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = table(tuple(asked.rows), images, samples, steps)
    if asked.json:
        print(json.dumps(found))
        return
    for row, cells in found.items():
        print(f"\n{row}: {images} images, {samples} samples")
        print(f"{'':24}" + "".join(f"{name:>12}" for name in COLUMNS))
        for name, values in cells.items():
            print(f"{name:24}" + "".join(f"{v:12.4g}" for v in values))


if __name__ == "__main__":
    main()
