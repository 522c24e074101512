"""langevin_fourier: one Langevin step for blur, single-coil MRI and super-resolution, by FFT."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..errors import check
from ..layout import as_complex, as_real
from ._alike import fft, inverse_fft, power, product
from ._compiled import Kernel, compiled
from ._dispatch import Op, chosen, dispatch, implements, leaves, resolved, slower
from ._reused_memory import empty_like
from ._step import (
    as_drawn,
    at_level,
    at_once,
    check_like,
    check_operators,
    check_step,
    check_stream,
    complex_dtype,
    on_host,
    one_by_one,
    right_hand_side,
    tell_of_turns,
    unit_noise,
)
from .philox_normal import NO_NOISE


def normal_power(v: Tensor, h: Tensor, factor: int, inv_eta2: float, lam: float, exponent: float) -> Tensor:
    """(AᴴA inv_eta2 + lam)^exponent v for spectra v (..., H, W), A = decimation by `factor` after the transfer h (H, W).

    The factor² frequencies that alias onto one low frequency form a group on which AᴴA is a aᴴ, a = h̄/factor:
    the eigenvalue is ‖a‖² inv_eta2 + lam along a, lam across it.
    """
    if factor == 1:
        return v * (power(h) * inv_eta2 + lam) ** exponent
    height, width = h.shape
    groups = (factor, height // factor, factor, width // factor)
    v, a = v.unflatten(-1, groups[2:]).unflatten(-3, groups[:2]), torch.conj_physical(h).view(groups) / factor
    energy = power(a).sum((-4, -2), keepdim=True)
    unit = a / energy.sqrt().clamp_min(torch.finfo(energy.dtype).tiny)
    dual = torch.conj_physical(unit)  # not conj(): inside an op called from a traced graph torch 2.13 drops its lazy bit

    def along(u: Tensor) -> Tensor:
        return product(unit, product(dual, u).sum((-4, -2), keepdim=True))

    head = along(v)
    rest = v - head
    rest = rest - along(rest)  # once more: lam^exponent may be 1e8 times the other gain, and its rounding would pass as data
    out = head * (energy * inv_eta2 + lam) ** exponent + rest * lam**exponent
    return out.flatten(-4, -3).flatten(-2, -1)


def channels_first(state: Tensor, is_complex: bool) -> Tensor:
    """State (N, H, W, C') as contiguous images (N, C, H, W)."""
    return (as_complex(state) if is_complex else state).movedim(-1, 1).contiguous()


def channels_last(image: Tensor) -> Tensor:
    """Images (N, C, H, W), real or complex, as a state (N, H, W, C') in memory of its own."""
    last = image.movedim(1, -1)
    return as_real(last) if last.is_complex() else last.contiguous()


@implements("langevin_fourier", "torch")
def langevin_fourier_reference(
    x: Tensor, grad: Tensor, b: Tensor, h: Tensor, factor: int, is_complex: bool, ids: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition."""
    lam, lin, w, inv_eta2, noise_lam = at_level(level, lam, lin, w, inv_eta2, noise_lam)
    if h.ndim == 3:
        return one_by_one(len(h), lambda k, x, grad, b, ids, xi: langevin_fourier_reference(
            x, grad, b, h[k], factor, is_complex, ids, lam, lin, w, inv_eta2, noise_lam, noise, seed, step, xi), x, grad, b,
            ids, xi)
    r = channels_first(right_hand_side(x, grad, b, lin, w), is_complex)
    mean = normal_power(fft(r), h, factor, inv_eta2, lam, -1.0)
    if noise == NO_NOISE:
        m = inverse_fft(mean)
        m = channels_last(m if is_complex else m.real)
        return m.clone(), m
    xi = channels_first(unit_noise(x, x.shape, ids, noise, seed, step, xi), is_complex)
    if is_complex:
        spread = normal_power(xi, h, factor, inv_eta2, noise_lam, -0.5)
        m = inverse_fft(mean)
        return channels_last(m + inverse_fft(spread)), channels_last(m)
    # both are spectra of real images, so one inverse FFT serves the two
    spread = normal_power(fft(xi), h, factor, inv_eta2, noise_lam, -0.5)
    both = inverse_fft(mean + 1j * spread)
    return channels_last(both.real + both.imag), channels_last(both.real)


LARGEST_PRIME = {"cpu": 1021, "cuda": 7}  # among the factors of what csrc/cpu/fft.cpp and csrc/cuda/fft.cuh transform


@functools.cache
def largest_prime(n: int) -> int:
    """The largest prime factor of n, 1 of 1."""
    largest, prime = 1, 2
    while prime * prime <= n:
        while n % prime == 0:
            largest, n = prime, n // prime
        prime += 1
    return max(largest, n)


def without_transform(height: int, width: int, backend: str) -> str | None:
    """Why a backend's kernels do not transform images of this size; None where they do."""
    for side in (height, width):
        if largest_prime(side) > LARGEST_PRIME[backend]:
            return (f"{backend!r} has no transform of {side} numbers, which have a prime factor above {LARGEST_PRIME[backend]} "
                    f"(images {height} x {width})")
    return None


# prime factors, (of one side, of both), above which torch's transforms are quicker than the CPU's (docs/performance.md)
SLOW_PRIMES = {True: (800, 600), False: (LARGEST_PRIME["cpu"], 900)}  # of complex images, and of real ones


def quicker(backend: str, x: Tensor, factor: int, is_complex: bool) -> str:
    """`backend`, or torch where "auto" would take the CPU's kernel for a size that it is slower for, which is told.

    With decimation it is slower for none.
    """
    height, width = x.shape[1:3]
    primes, (of_one, of_both) = (largest_prime(height), largest_prime(width)), SLOW_PRIMES[is_complex]
    slow = max(primes) > of_one or min(primes) > of_both
    if not slow or max(primes) > LARGEST_PRIME["cpu"] or x.device.type != "cpu" or x.dtype != torch.float32 or factor > 1:
        return backend
    if chosen(backend) != "auto" or resolved(backend, x.device) != "cpu":
        return backend
    slower(f"langevin_fourier: 'cpu' is slower than 'torch' for images {height} x {width}, whose sides have large prime factors; "
           "'torch' ran it")
    return "torch"


@compiled("langevin_fourier", cpu="float32 and sides without a prime factor above 1021",
          cuda="float32, no decimation and sides without a prime factor above 7 that fit shared memory")
def _langevin_fourier(
    kernel: Kernel, x: Tensor, grad: Tensor, b: Tensor, h: Tensor, factor: int, is_complex: bool, ids: Tensor, lam: float,
    lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    rows, height, width, channels = x.shape
    if x.dtype != torch.float32 or (factor > 1 and kernel.backend == "cuda"):
        return NotImplemented
    if why := without_transform(height, width, kernel.backend):
        return leaves(why)
    operators, measurements, after, mean = len(h) if h.ndim == 3 else 1, len(b), empty_like(x), empty_like(x)
    ids, noise, xi = as_drawn(x, ids, noise, xi)
    if not kernel(locals(), x.device):
        return leaves(f"images {height} x {width} do not fit the shared memory of this GPU")
    return after, mean


@Op
def langevin_fourier(
    x: Tensor, grad: Tensor, b: Tensor, h: Tensor, factor: int, is_complex: bool, ids: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None, backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One Langevin step for A = D_factor F⁻¹ diag(h) F: circular convolution, then every factor-th pixel is kept.

        m = P(lam)(b + lin x − w ∇E),    x⁺ = m + P(noise_lam)^{1/2} ξ,    P(l) = (AᴴA inv_eta2 + l)⁻¹

    P is diagonal in Fourier space for factor 1; else AᴴA has rank one on each group of factor² aliased frequencies
    and both P and its symmetric root are closed forms. Exact in both cases.

    Args:
        x, grad, b, ids, lam, lin, w, inv_eta2, noise_lam, noise, seed, step, level, backend: as in `langevin_pixel`.
        h: (H, W) transfer, complex of the precision of x, frequency zero first (torch.fft order); the spectrum of a
            real kernel unless `is_complex`. (M, H, W): one for each M-th of the rows, in order.
        factor: decimation, >= 1, dividing H and W.
        is_complex: whether C' = 2C real channels are C complex ones.
        xi: (N, H, W, C') to use for ξ. Complex images: ξ counts orthonormal Fourier coefficients, torch.fft order, laid
            out like the image. Real images: ξ counts pixels.

    Returns:
        (x⁺, m), each (N, H, W, C').

    Raises:
        ArgumentError: naming the argument.

    Source: [ALPS]; the closed form follows from the matrix inversion lemma on each alias group.
    """
    check_step(x, grad, b, ids, lam, lin, w, inv_eta2, noise_lam, noise, xi, x.shape, level)
    check_stream(x.shape[1:].numel(), step, noise, xi)
    height, width, channels = x.shape[1:]
    check_like("h", h, (*h.shape[:h.ndim - 2], height, width)[-3:], complex_dtype(x.dtype), x.device)
    fits = factor >= 1 and height % factor == 0 and width % factor == 0
    check(fits, "factor", factor, f"a divisor of the image size {height} x {width}")
    check(not is_complex or channels % 2 == 0, "x", f"{channels} real channels", "an even number where is_complex")
    (lam, lin, w, inv_eta2, noise_lam), level = on_host(level, lam, lin, w, inv_eta2, noise_lam)
    backend = quicker(backend, x, factor, is_complex)

    def of(h: Tensor, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, xi: Tensor | None) -> tuple[Tensor, Tensor]:
        return dispatch("langevin_fourier", backend, x.device, x, grad, b, h, factor, is_complex, ids, lam, lin, w, inv_eta2,
                        noise_lam, noise, seed, step, xi, level)

    if h.ndim > 2:
        check_operators(len(h), b)
    if h.ndim == 2 or at_once(backend, x):
        return of(h, x, grad, b, ids, xi)
    tell_of_turns("langevin_fourier", backend, len(h), x)
    return one_by_one(len(h), lambda k, *rows: of(h[k], *rows), x, grad, b, ids, xi)


@langevin_fourier.register_fake
def _(x: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)
