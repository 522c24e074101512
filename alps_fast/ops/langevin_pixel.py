"""langevin_pixel: one Langevin step where AᴴA is diagonal in pixels (denoising, inpainting)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._compiled import Kernel, compiled
from ._dispatch import Op, dispatch, implements
from ._reused_memory import empty_like
from ._step import (
    as_drawn,
    at_level,
    by_measurement,
    check_diagonal,
    check_step,
    check_stream,
    on_host,
    right_hand_side,
    unit_noise,
)
from .philox_normal import NO_NOISE


@implements("langevin_pixel", "torch")
def langevin_pixel_reference(
    x: Tensor, grad: Tensor, b: Tensor, a: Tensor, ids: Tensor, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition."""
    lam, lin, w, inv_eta2, noise_lam = at_level(level, lam, lin, w, inv_eta2, noise_lam)
    a = a[:, None]  # beside the chains of a measurement
    r = by_measurement(right_hand_side(x, grad, b, lin, w), b)
    mean = r.div_(a * inv_eta2 + lam)
    if noise == NO_NOISE:
        return mean.flatten(0, 1).clone(), mean.flatten(0, 1)
    xi = by_measurement(unit_noise(x, x.shape, ids, noise, seed, step, xi), b)
    return torch.addcmul(mean, xi, (a * inv_eta2 + noise_lam).rsqrt()).flatten(0, 1), mean.flatten(0, 1)


@compiled("langevin_pixel", cpu="float32", cuda="float32")
def _langevin_pixel(
    kernel: Kernel, x: Tensor, grad: Tensor, b: Tensor, a: Tensor, ids: Tensor, lam: float, lin: float, w: float,
    inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    rows, height, width, channels = x.shape
    pixels, measurements = height * width, len(b)
    if x.dtype != torch.float32 or (kernel.backend == "cuda" and max(rows, pixels * channels) >= 1 << 31):  # it counts in 32 bits
        return NotImplemented
    a_of_each_measurement, a_of_each_channel = len(a) > 1, a.shape[3] == channels
    after, mean = empty_like(x), empty_like(x)
    ids, noise, xi = as_drawn(x, ids, noise, xi)
    kernel(locals(), x.device)
    return after, mean


@Op
def langevin_pixel(
    x: Tensor, grad: Tensor, b: Tensor, a: Tensor, ids: Tensor, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None, level: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One Langevin step for AᴴA = diag(a), elementwise.

        m = (b + lin x − w ∇E) / (a inv_eta2 + lam),    x⁺ = m + ξ / √(a inv_eta2 + noise_lam)

    Args:
        x, grad: (N, H, W, C') contiguous states, float32 or float64; grad is ∇E(x, t).
        b: (B, H, W, C'), B dividing N: the data Aᴴy inv_eta2; row n of x belongs to measurement n // (N/B).
        a: (1|B, H, W, 1|C') diagonal of AᴴA, >= 0, dtype of x.
        ids: (N,) or (N, 2) int64, of chains and measurements, as `ops.philox_normal` takes them.
        lam, lin, w, inv_eta2, noise_lam: level scalars, see `_scalars.StepScalars`; lam, noise_lam > 0.
        noise: NO_NOISE (x⁺ = m), INDEPENDENT or AVERAGED, see `ops.philox_normal.step_noise`; seed, step: its stream.
        level: (5,) of the dtype and on the device of x, a row of `ops._step.table`: lam, lin, w, inv_eta2 and noise_lam in
            place of the numbers, which are not looked at then. A GPU's kernels read it there: so one graph serves all levels.
        xi: (N, H, W, C') to use for ξ in place of Philox; ξ is counted in pixels, state order.
        backend: one of `alps_fast.ops._dispatch.NAMES`.

    Returns:
        (x⁺, m), each (N, H, W, C'), neither an alias of an input.

    Raises:
        ArgumentError: naming the argument.

    Source: [ALPS] eq. of the preconditioned step; [LM] for the averaged noise.
    """
    check_step(x, grad, b, ids, lam, lin, w, inv_eta2, noise_lam, noise, xi, x.shape, level)
    check_stream(x.shape[1:].numel(), step, noise, xi)
    check_diagonal(a, x, b)
    (lam, lin, w, inv_eta2, noise_lam), level = on_host(level, lam, lin, w, inv_eta2, noise_lam)
    return dispatch("langevin_pixel", backend, x.device, x, grad, b, a, ids, lam, lin, w, inv_eta2, noise_lam, noise, seed,
                    step, xi, level)


@langevin_pixel.register_fake
def _(x: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)
