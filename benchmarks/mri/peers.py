"""What people use now: zero filling, CG-SENSE, SigPy, BART.

Settings are swept and the best by the truth is taken, which nobody who reconstructs a scan can do: a row says what a method could
reach. Of a scan the best by samples that were held out.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alps_fast.io.bart import read_cfl, write_cfl

from .figures import Estimate
from .problems import Problem

ITERATIONS = 30  # of CG-SENSE at most; the best of them is taken
LAMBDAS = (0.003, 0.01, 0.03)  # where sweeps begin, in units below; they go on by thirds until the best is not at an end
NO_BART = "needs BART: apt-get install bart"
NO_SIGPY = "needs SigPy: pip install 'alps_fast[mri]'"


def conjugate(apply: Callable[[Tensor], Tensor], rhs: Tensor, iterations: int) -> Iterator[Tensor]:
    """Plain conjugate gradients from zero: every iterate."""
    x, r = torch.zeros_like(rhs), rhs
    p, squares = r, (r.abs() ** 2).sum()
    for _ in range(iterations):
        q = apply(p)
        alpha = squares / (p.conj() * q).sum().real
        x, r = x + alpha * p, r - alpha * q
        last, squares = squares, (r.abs() ** 2).sum()
        p = r + squares / last * p
        yield x


def best(of: Problem, images: Iterator[tuple[float, Tensor]]) -> Estimate:
    """The image that is least off, and its setting."""
    setting, image = min(images, key=lambda one: of.judge(one[1]))
    return Estimate(image, setting=setting)


def zero_filled(of: Problem) -> Estimate:
    """Aᴴy."""
    return Estimate(of.operator.adjoint(of.y))


def cg_sense(of: Problem) -> Estimate:
    """Conjugate gradients on AᴴA x = Aᴴy, stopped after the best number of iterations."""
    steps = conjugate(of.operator.normal, of.operator.adjoint(of.y), ITERATIONS)
    return best(of, ((float(i + 1), x) for i, x in enumerate(steps)))


def swept(of: Problem, settings: tuple[float, ...], make: Callable[[float], Tensor]) -> Estimate:
    """The best setting of those given and, where that is the first or last, of one beyond, until it is neither."""
    found = {setting: make(setting) for setting in settings}
    for _ in range(4):
        chosen = best(of, iter(sorted(found.items())))
        beyond = {min(found): min(found) / 3, max(found): max(found) * 3}.get(chosen.setting or 0.0)
        if beyond is None or len(settings) < 2:
            break
        found[beyond] = make(beyond)
    return best(of, iter(sorted(found.items())))._replace(tried=len(found))


def sigpy_app(name: str) -> Callable[[Problem, tuple[float, ...]], Estimate]:
    """SigPy's TotalVariationRecon or L1WaveletRecon; k-space is scaled so that the peak of Aᴴy is 1, as λ counts there."""
    def run(of: Problem, settings: tuple[float, ...]) -> Estimate:
        from sigpy.mri import app

        size = float(of.operator.adjoint(of.y).abs().max())
        y, maps, mask = (of.y / size).numpy(), of.maps.numpy(), of.mask.expand(of.y.shape[-2:]).numpy()

        def make(lamda: float) -> Tensor:
            with np.errstate(all="ignore"):
                found = getattr(app, name)(y, maps, lamda, weights=mask, show_pbar=False).run()
            return torch.from_numpy(np.asarray(found))[None] * size
        return swept(of, settings, make)
    return run


def bart_pics(of: Problem, settings: tuple[float, ...]) -> Estimate:
    """`bart pics -R W`, l1 of wavelets; by ADMM, which came nearer to the truth here than the FISTA that is BART's default.

    BART scales k-space itself, and images back with -S. Where a side is no multiple of four its centred transform has another
    phase than ours, one number for all of k-space, which is taken out.
    """
    with tempfile.TemporaryDirectory() as folder:
        at = Path(folder)
        y = of.y * of.mask  # BART takes for measured what is not zero
        write_cfl(at / "y", y.permute(1, 2, 0)[:, :, None].numpy())
        write_cfl(at / "maps", of.maps.permute(1, 2, 0)[:, :, None].numpy())

        def make(lamda: float) -> Tensor:
            command = ["bart", "pics", "-S", "-m", "-i", "30", "-R", f"W:3:0:{lamda:g}", "y", "maps", "x"]
            subprocess.run(command, cwd=at, check=True, capture_output=True)
            found = torch.from_numpy(np.array(read_cfl(at / "x.cfl", "x")).reshape(of.y.shape[-2:]))[None]
            turn = (of.operator.forward(found).conj() * y).sum()
            return found * turn / turn.abs()
        return swept(of, settings, make)


def missing(method: str) -> str | None:
    """What a method lacks here, and how to get it; None where it can run."""
    if method.startswith("BART"):
        return None if shutil.which("bart") else NO_BART
    if method.startswith("SigPy"):
        try:
            import sigpy.mri.app  # noqa: F401
        except ImportError:
            return NO_SIGPY
    return None
