"""langevin_pixel: one Langevin step where AᴴA is diagonal in pixels (denoising, inpainting)."""

from __future__ import annotations

import torch
from torch import Tensor

from ._dispatch import Op, dispatch, implements, stream_on
from ._langevin import by_measurement, check_diagonal, check_step, check_stream, right_hand_side, unit_noise
from ._memory import empty_like
from .philox_normal import NO_NOISE, counters


@implements("langevin_pixel", "torch")
def langevin_pixel_reference(
    x: Tensor, grad: Tensor, b: Tensor, a: Tensor, chains: Tensor, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition."""
    a = a[:, None]  # beside the chains of a measurement
    r = by_measurement(right_hand_side(x, grad, b, lin, w), b)
    mean = r.div_(a * inv_eta2 + lam)
    if noise == NO_NOISE:
        return mean.flatten(0, 1).clone(), mean.flatten(0, 1)
    xi = by_measurement(unit_noise(x, x.shape, chains, noise, seed, step, xi), b)
    return torch.addcmul(mean, xi, (a * inv_eta2 + noise_lam).rsqrt()).flatten(0, 1), mean.flatten(0, 1)


@implements("langevin_pixel", "cpu", "float32")
def _langevin_pixel_cpu(
    x: Tensor, grad: Tensor, b: Tensor, a: Tensor, chains: Tensor, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if x.dtype != torch.float32:
        return NotImplemented
    from alps_fast import _cpu

    after, mean = empty_like(x), empty_like(x)
    chains, given = counters(chains), None if xi is None else xi.to(x.dtype).contiguous()
    _cpu.langevin_pixel(
        x=x.data_ptr(), grad=grad.data_ptr(), b=b.data_ptr(), a=a.data_ptr(), xi=0 if given is None else given.data_ptr(),
        chains=chains.data_ptr(), after=after.data_ptr(), mean=mean.data_ptr(), rows=len(x), measurements=len(b),
        pixels=x.shape[1] * x.shape[2], channels=x.shape[3], a_of_each_measurement=len(a) > 1,
        a_of_each_channel=a.shape[3] == x.shape[3], lam=lam, lin=lin, w=w, inv_eta2=inv_eta2, noise_lam=noise_lam, noise=noise,
        seed=seed, step=step, threads=torch.get_num_threads())
    return after, mean


@implements("langevin_pixel", "cuda", "float32")
def _langevin_pixel_cuda(
    x: Tensor, grad: Tensor, b: Tensor, a: Tensor, chains: Tensor, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if x.dtype != torch.float32 or max(len(x), x.shape[1:].numel()) >= 1 << 31:  # which the kernel counts in 32 bits
        return NotImplemented
    from alps_fast import _cuda

    after, mean = torch.empty_like(x), torch.empty_like(x)
    chains, given = counters(chains), None if xi is None else xi.to(x.dtype).contiguous()
    with stream_on(x.device) as stream:
        _cuda.langevin_pixel(
            x=x.data_ptr(), grad=grad.data_ptr(), b=b.data_ptr(), a=a.data_ptr(), xi=0 if given is None else given.data_ptr(),
            chains=chains.data_ptr(), after=after.data_ptr(), mean=mean.data_ptr(), rows=len(x), measurements=len(b),
            pixels=x.shape[1] * x.shape[2], channels=x.shape[3], a_of_each_measurement=len(a) > 1,
            a_of_each_channel=a.shape[3] == x.shape[3], lam=lam, lin=lin, w=w, inv_eta2=inv_eta2, noise_lam=noise_lam,
            noise=noise, seed=seed, step=step, stream=stream)
    return after, mean


@Op
def langevin_pixel(
    x: Tensor, grad: Tensor, b: Tensor, a: Tensor, chains: Tensor, lam: float, lin: float, w: float, inv_eta2: float,
    noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None, backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One Langevin step for AᴴA = diag(a), elementwise.

        m = (b + lin x − w ∇E) / (a inv_eta2 + lam),    x⁺ = m + ξ / √(a inv_eta2 + noise_lam)

    Args:
        x, grad: (N, H, W, C') contiguous states, float32 or float64; grad is ∇E(x, t).
        b: (B, H, W, C'), B dividing N: the data Aᴴy inv_eta2; row n of x belongs to measurement n // (N/B).
        a: (1|B, H, W, 1|C') diagonal of AᴴA, >= 0, dtype of x.
        chains: (N,) or (N, 2) int64, Philox chain indices and those of measurements, as `ops.philox_normal` takes them.
        lam, lin, w, inv_eta2, noise_lam: level scalars, see `_scalars.StepScalars`; lam, noise_lam > 0.
        noise: NO_NOISE (x⁺ = m), INDEPENDENT or AVERAGED, see `ops.philox_normal.step_noise`; seed, step: its stream.
        xi: (N, H, W, C') to use for ξ in place of Philox; ξ is counted in pixels, state order.
        backend: one of `alps_fast.ops._dispatch.NAMES`.

    Returns:
        (x⁺, m), each (N, H, W, C'), neither an alias of an input.

    Raises:
        ArgumentError: naming the argument.

    Source: [ALPS] eq. of the preconditioned step; [LM] for the averaged noise.
    """
    check_step(x, grad, b, chains, lam, lin, w, inv_eta2, noise_lam, noise, xi, x.shape)
    check_stream(x.shape[1:].numel(), step, noise, xi)
    check_diagonal(a, x, b)
    return dispatch("langevin_pixel", backend, x.device, x, grad, b, a, chains, lam, lin, w, inv_eta2, noise_lam, noise, seed,
                    step, xi)


@langevin_pixel.register_fake
def _(x: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)
