"""DeepInverse's samplers beside ours, and beside exact draws, where posteriors are known in closed form.

All are given the exact E[x₀|x_t] of the prior, `DRAWS` chains a measurement, and images as DeepInverse wants them: in [0, 1], so
that the largest number of all truths is 0 or 1. DPS, DiffPIR and DDRM are run as they are set by default; of DPS also its other
guidance, which says that the noise of x_t adds to η. ULA has the exact score, and steps of 1/L.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from alps_fast import sample
from alps_fast.errors import check
from alps_fast.operators import CircularBlur, Inpainting

from . import peers
from .closed_forms import HEIGHT, WIDTH, Figures, Prior, Problem, exact, images, judged, problem, real_rows

OPERATORS = ("Denoising", "Inpainting", "CircularBlur")  # of which DeepInverse has the singular values, as DDRM asks for
DRAWS = 19  # the truth is among the 18 inner of 20 in 90 % of all cases
ULA_STEPS = 1000
ULA_T = 0.01  # in standard deviations of the prior's narrowest direction, by how much its score is smoothed


class Cell(NamedTuple):
    """Of a sampler. coverage: of the range that all but the lowest and the highest rank of `DRAWS` draws leave. The mean of
    `figures` is that of endlessly many chains. gradients: E[x₀|x_t] a chain."""

    prior: str
    operator: str
    sampler: str
    coverage: float
    figures: Figures
    gradients: int


class Denoiser(torch.nn.Module):
    """E[x₀|x_t] of images in [0, 1] that stand for numbers from −reach to reach; counts how often it is asked."""

    def __init__(self, prior: Prior, reach: float):
        super().__init__()
        self.reach, self.calls = reach, 0
        self.log_weights = torch.from_numpy(prior.weights).log()
        self.means, self.variances = images(prior.means).double(), images(prior.stds).double().square()

    def forward(self, x: Tensor, sigma: Tensor | float, *_: object, **__: object) -> Tensor:
        """x (N, 1, H, W); sigma one number, in units of x."""
        self.calls += 1
        t2 = (2.0 * self.reach * float(torch.as_tensor(sigma).flatten()[0])) ** 2
        off = (self.reach * (2.0 * x.double() - 1.0))[:, None] - self.means  # (N, K, 1, H, W)
        total = self.variances + t2
        logs = self.log_weights - 0.5 * (off.square() / total + total.log()).flatten(2).sum(2)
        each = self.means + self.variances / total * off
        mean = (torch.softmax(logs, 1)[..., None, None, None] * each).sum(1)
        return (0.5 * (mean / self.reach + 1.0)).to(x.dtype)


def physics_of(deepinv: Any, given: Problem, reach: float) -> tuple[Any, Tensor]:
    """DeepInverse's operator on images in [0, 1], and what it measures of the truths; checked against ours."""
    ours, eta = given.operator, given.operator.noise_std / (2.0 * reach)
    noise, shape = deepinv.physics.GaussianNoise(eta), (1, HEIGHT, WIDTH)
    if isinstance(ours, Inpainting):
        theirs = deepinv.physics.Inpainting(shape, mask=ours.forward(torch.ones(1, *shape))[0], noise_model=noise)
    elif isinstance(ours, CircularBlur):
        impulse = torch.zeros(1, *shape)
        impulse[..., HEIGHT // 2, WIDTH // 2] = 1.0
        theirs = deepinv.physics.BlurFFT(shape, filter=ours.forward(impulse), noise_model=noise)
    else:
        theirs = deepinv.physics.Denoising(noise)
    x = images(given.truth)
    torch.testing.assert_close(theirs.A(x), ours.forward(x), rtol=1e-4, atol=1e-4)
    return theirs, 0.5 * (given.y / reach + ours.forward(torch.ones(1, *shape)))


def samplers(deepinv: Any, denoiser: Denoiser, given: Problem) -> dict[str, Callable[[Tensor, Any], Tensor]]:
    """Each of (y, physics) -> images in [0, 1]."""
    eta = given.operator.noise_std / (2.0 * denoiser.reach)
    fidelity = deepinv.optim.L2(sigma=eta)

    def ula(y: Tensor, physics: Any) -> Tensor:
        narrowest = float(given.prior.stds.min()) / (2.0 * denoiser.reach)
        step = 1.0 / (eta**-2 + narrowest**-2)
        chain = deepinv.sampling.ULAIterator({"step_size": step, "alpha": 1.0, "sigma": ULA_T * narrowest})
        state, prior = {"x": physics.A_adjoint(y).double()}, deepinv.optim.ScorePrior(denoiser)
        with torch.no_grad():
            for i in range(ULA_STEPS):
                state = chain(state, y, physics, fidelity, prior, i)
        return state["x"]

    return {
        "DPS": deepinv.sampling.DPS(denoiser),
        "DPS, annealed guidance": deepinv.sampling.DPS(denoiser, guidance="annealed"),
        "DiffPIR": deepinv.sampling.DiffPIR(denoiser, fidelity, sigma=eta),
        "DDRM": deepinv.sampling.DDRM(denoiser),
        "ULA, exact score": ula,
    }


def exact_draws(given: Problem, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The exact means (M, n), and DRAWS draws (DRAWS, M, n)."""
    g, known = np.random.default_rng(seed), exact(given.prior, given.matrix, given.operator.noise_std, given.rows)
    count, n = given.truth.shape
    roots = np.linalg.cholesky(known.covariances)
    each = known.means + np.einsum("kij,dmj->dkmi", roots, g.normal(size=(DRAWS, count, n)))
    mode = (g.random((DRAWS, count)) > np.cumsum(known.weights, 0)[:, None]).sum(0)
    return known.mean, np.take_along_axis(each, mode[:, None, :, None], 1)[:, 0]


def cells(prior_name: str, operator_name: str, count: int, seed: int = 0) -> Iterator[Cell]:
    """Exact draws, ours, and theirs on `count` measurements."""
    deepinv = peers.deepinv()
    given = problem(prior_name, operator_name, count, seed)
    n = given.truth.shape[1]

    def cell(name: str, mean: np.ndarray, draws: np.ndarray, gradients: int, error: float) -> Cell:
        rank = (draws < given.truth).sum(0)
        return Cell(prior_name, operator_name, name, float(((rank > 0) & (rank < DRAWS)).mean()),
                    judged(given, mean, draws, error), gradients)

    yield cell("exact draws", *exact_draws(given, seed + 1), 0, 0.0)
    found = sample(given.y, given.operator, given.prior.energy, chains=DRAWS, pairs=False, seed=seed + 2, progress=False)
    draws = real_rows(found.samples.flatten(0, 1)).reshape(count, DRAWS, n).swapaxes(0, 1)
    spread = real_rows(found.chain_means.flatten(0, 1)).reshape(count, DRAWS, n).var(1, ddof=1).mean()
    yield cell("alps_fast", real_rows(found.mean), draws, found.gradients, float(spread) / DRAWS)
    reach = float(np.abs(given.truth).max())
    denoiser = Denoiser(given.prior, reach)
    physics, y = physics_of(deepinv, given, reach)
    for name, run in samplers(deepinv, denoiser, given).items():
        torch.manual_seed(seed + 3)
        denoiser.calls = 0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecations inside
            x = run(y.repeat_interleave(DRAWS, 0), physics)
        draws = reach * (2.0 * real_rows(x).reshape(count, DRAWS, n).swapaxes(0, 1) - 1.0)
        yield cell(name, draws.mean(0), draws, denoiser.calls, float(draws.var(0, ddof=1).mean()) / DRAWS)


def table(count: int) -> Iterator[Cell]:
    """Every prior under OPERATORS.

    Raises:
        ArgumentError: DeepInverse is not installed.
    """
    check(importlib.util.find_spec("deepinv") is not None, "--peers", "no deepinv here", "pip install 'alps_fast[peers]'")
    return (cell for prior in ("Gaussian", "mixture") for operator in OPERATORS for cell in cells(prior, operator, count))
