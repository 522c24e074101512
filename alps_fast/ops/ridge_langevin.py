"""ridge_langevin: whole Langevin steps of a ridge energy where AᴴA is diagonal in pixels, `count` a call."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import check, refused
from ._compiled import Kernel, compiled
from ._dispatch import Op, dispatch, implements, leaves
from ._pack_once import packed_once
from ._reused_memory import empty_like
from ._step import as_drawn, check_diagonal, check_step, check_stream, described, on_host
from .langevin_pixel import langevin_pixel_reference
from .ridge_grad import check_ridge, has_kernel, of_energy, ridge_grad_reference, stacked, too_much


@implements("ridge_langevin", "torch")
def ridge_langevin_reference(
    x: Tensor, b: Tensor, a: Tensor, ids: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
    channels: int, lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int,
    count: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition: `ridge_grad` and `langevin_pixel` in turn."""
    mean = x
    for k in range(count):
        images = x.movedim(-1, 1)
        grad = ridge_grad_reference(images.reshape(-1, channels, *images.shape[2:]), filters, weights, r, q, mu,
                                    want_value=False)[0]
        grad = grad.reshape(images.shape).movedim(1, -1)
        x, mean = langevin_pixel_reference(x, grad, b, a, ids, lam, lin, w, inv_eta2, noise_lam, noise, seed, step + k,
                                           None if xi is None else xi[k], level)
    return x.contiguous(), mean.contiguous()


@compiled("ridge_langevin", of_energy, cpu="float32 images of one or two channels",
          cuda="float32 images of one or two channels, filters of at most seven taps a row")
def _ridge_langevin(
    kernel: Kernel, x: Tensor, b: Tensor, a: Tensor, ids: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor,
    q: Tensor, mu: Tensor, channels: int, lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int,
    seed: int, step: int, count: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """On CUDA the launches of `ridge_grad` and of `langevin_pixel` for each step."""
    channels_of_image, (rows, height, width, channels) = channels, x.shape
    images, pixels, measurements = rows * (channels // channels_of_image), height * width, len(b)
    if x.numel() == 0 or not has_kernel(x.dtype, channels_of_image, max(rows * channels, 2 * pixels * channels, count)):
        return NotImplemented
    a_of_each_measurement, a_of_each_channel = len(a) > 1, a.shape[3] == channels
    grad, after, mean = None, empty_like(x), empty_like(x)
    ids, noise, xi = as_drawn(x, ids, noise, xi)
    energy = of_energy(packed_once(stacked, filters), weights, r, q, mu)
    return (after, mean) if kernel(locals() | energy, x.device) else leaves(too_much(kernel.backend, energy))


@Op
def ridge_langevin(
    x: Tensor, b: Tensor, a: Tensor, ids: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
    channels: int, lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int,
    count: int, xi: Tensor | None = None, level: Tensor | None = None, backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """`count` Langevin steps with noise of steps step … step + count − 1, all at one level.

        ∇E of `ops.ridge_grad`, then  m = (b + lin x − w ∇E) / (a inv_eta2 + lam),  x⁺ = m + ξ / √(a inv_eta2 + noise_lam)

    Args:
        x, b, a, ids, lam, lin, w, inv_eta2, noise_lam, noise, seed, step, level: as `ops.langevin_pixel` takes them.
        filters, weights, r, q, mu: as `ops.ridge_grad` takes them, for one t.
        channels: real channels of the energy's image, dividing C'; each group of them is an image of its own.
        count: steps, >= 1.
        xi: (count, N, H, W, C') to use for ξ in place of Philox.

    Returns:
        (x⁺, m) of the last step, each (N, H, W, C').

    Raises:
        ArgumentError: naming the argument.

    Source: [ALPS]; docs/design.md §1 and 3.
    """
    check_step(x, x, b, ids, lam, lin, w, inv_eta2, noise_lam, noise, None, x.shape, level)
    check_diagonal(a, x, b)
    check(count >= 1, "count", count, "an integer >= 1")
    for k in (step, step + count - 1):
        check_stream(x.shape[1:].numel(), k, noise, xi)
    check(channels >= 1 and x.shape[-1] % channels == 0, "channels", channels, f"a divisor of the state's {x.shape[-1]} channels")
    check_ridge(x, (1, len(x) * x.shape[-1] // channels), filters, weights, r, q, mu)
    if xi is not None and (xi.shape != (count, *x.shape) or xi.device != x.device or xi.is_complex()):
        raise refused("xi", described(xi), f"real, of shape {(count, *x.shape)} on {x.device}")
    (lam, lin, w, inv_eta2, noise_lam), level = on_host(level, lam, lin, w, inv_eta2, noise_lam)
    with torch.no_grad():
        return dispatch("ridge_langevin", backend, x.device, x, b, a, ids, filters, weights, r, q, mu, channels, lam, lin, w,
                        inv_eta2, noise_lam, noise, seed, step, count, xi, level)


@ridge_langevin.register_fake
def _(x: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)
