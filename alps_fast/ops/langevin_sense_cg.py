"""langevin_sense_cg: one Langevin step for multi-coil Cartesian MRI with any mask, by conjugate gradients.

    AᴴA = Σ_c S̄_c Fᴴ M F S_c

Centred transforms need no shifts here: they cancel in AᴴA once the mask is rolled to torch.fft order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import check
from ..layout import as_complex, as_real
from ._alike import fft, inverse_fft, power, product
from ._cg import WINDOW, applied, conjugate_gradients, in_graphs, looked, warn_of_max_iter
from ._compiled import Kernel, compiled
from ._dispatch import Op, dispatch, implements, leaves, stream_on
from ._pack_once import packed_once
from ._reused_memory import empty_like
from ._step import (
    as_drawn,
    at_level,
    check_like,
    check_operators,
    check_step,
    check_stream,
    complex_dtype,
    on_host,
    one_by_one,
    one_complex_channel,
    perturbed_and_solved,
    right_hand_side,
    root,
    tell_of_turns,
    unit_noise,
)
from .langevin_fourier import without_transform
from .philox_normal import NO_NOISE

CACHE = 1 << 17  # coil samples a CPU works on at a time: 1 MB stays in L2, 2.8 times faster for 32 rows of 8 × 128²


def sense_normal(x: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """Σ_c S̄_c Fᴴ M F S_c x for states (N, H, W, 2); maps (coils, H, W), mask (H, W) in torch.fft order."""
    rows = max(1, CACHE // maps.numel()) if x.device.type == "cpu" else max(1, len(x))
    plain, turned = _numbers(maps)

    def normal(image: Tensor) -> Tensor:
        real, imaginary = (image[..., k:k + 1].expand_as(image).contiguous()[:, None] for k in (0, 1))
        coils = torch.view_as_complex((real * plain).add_(imaginary * turned))
        return sense_adjoint(fft(coils), maps, mask)

    return torch.cat([normal(part) for part in x.split(rows)])


def sense_adjoint(samples: Tensor, maps: Tensor, mask: Tensor) -> Tensor:
    """Σ_c S̄_c Fᴴ M k_c as a state, of k-space (N, coils, H, W) in torch.fft order."""
    coils = torch.view_as_real(inverse_fft(samples * mask))
    real, imaginary = ((coils * numbers).sum(1) for numbers in _numbers(maps))
    return torch.stack([v[..., 0] + v[..., 1] for v in (real, imaginary)], -1)


def _numbers(maps: Tensor) -> tuple[Tensor, Tensor]:
    """S and i S as real numbers (coils, H, W, 2): with them a product is one of real numbers, see `_alike.product`."""
    return torch.view_as_real(maps.resolve_conj()), torch.view_as_real(maps * 1j)


def sense_spectrum(maps: Tensor, mask: Tensor) -> Tensor:
    """The diagonal of F AᴴA Fᴴ, (H, W): AᴴA as nearly as a circular convolution can be.

        d(k) = Σ_q mask(q) Σ_c |(F S_c)(q − k)|² / (H W)
    """
    total = power(fft(maps)).sum(0)
    correlation = product(torch.fft.fft2(mask), torch.conj_physical(torch.fft.fft2(total)))
    return torch.fft.ifft2(correlation).real.clamp_min(0) / mask.numel()


def sense_solve(rhs: Tensor, start: Tensor, maps: Tensor, mask: Tensor, inv_eta2: float, shift: Tensor, error: float,
                max_iter: int) -> Tensor:
    """(AᴴA inv_eta2 + shift)⁻¹ rhs for states, shift (N,), by `conjugate_gradients`.

    The preconditioner is, where some map is not zero, C⁻¹ = ((D inv_eta2 + shift) shift)^{-1/2}, D = `sense_spectrum`, between
    transforms; elsewhere 1/shift, which is exact. The root because D is but the mean of AᴴA around a frequency: gains by D itself
    spread the eigenvalues of what the mask left out as far as they bring those of what it kept together.
    """
    wide = shift[:, None, None, None]
    gain = 1 / ((sense_spectrum(maps, mask) * inv_eta2 + wide[..., 0]) * wide[..., 0]).sqrt()
    seen = (maps != 0).any(0).to(rhs.dtype)[None, ..., None]

    def apply(p: Tensor) -> Tensor:
        return sense_normal(p, maps, mask) * inv_eta2 + p * wide

    def precondition(r: Tensor) -> Tensor:
        inside = as_real(inverse_fft(fft(as_complex((r * seen).contiguous())[..., 0]) * gain)[..., None])
        return torch.where(seen > 0, inside, r / wide)

    return conjugate_gradients(apply, rhs, start, error, max_iter, precondition)


@implements("langevin_sense_cg", "torch")
def langevin_sense_cg_reference(
    x: Tensor, grad: Tensor, b: Tensor, maps: Tensor, mask: Tensor, ids: Tensor, lam: float, lin: float, w: float,
    inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, tol: float, max_iter: int, joint: bool = False,
    xi: Tensor | None = None, level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition."""
    lam, lin, w, inv_eta2, noise_lam = at_level(level, lam, lin, w, inv_eta2, noise_lam)
    drawn = None
    if noise != NO_NOISE:
        eps = unit_noise(x, (len(x), 1 + len(maps), *x.shape[1:]), ids, noise, seed, step, xi)
        samples = sense_adjoint(torch.view_as_complex(eps[:, 1:]), maps, mask)
        drawn = samples * root(inv_eta2) + eps[:, 0] * root(noise_lam)

    def solve(rhs: Tensor, start: Tensor, shift: Tensor) -> Tensor:
        return sense_solve(rhs, start, maps, mask, inv_eta2, shift, tol * math.sqrt(x.shape[1:].numel()), max_iter)

    rhs = right_hand_side(x, grad, b, lin, w)
    if joint and drawn is not None:
        rhs, drawn = rhs + drawn, None
    return perturbed_and_solved(x, rhs, drawn, lam, noise_lam, solve)


def _spectrum_of(maps_and_mask: Sequence[Tensor]) -> Tensor:
    return sense_spectrum(*maps_and_mask).contiguous()


@compiled("langevin_sense_cg", cpu="float32 and sides without a prime factor above 1021",
          cuda="float32 and sides without a prime factor above 7")
def _langevin_sense_cg(
    kernel: Kernel, x: Tensor, grad: Tensor, b: Tensor, maps: Tensor, mask: Tensor, ids: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, tol: float, max_iter: int, joint: bool = False,
    xi: Tensor | None = None, level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    rows, measurements, coils, (height, width) = len(x), len(b), len(maps), mask.shape
    if x.dtype != torch.float32:
        return NotImplemented
    if why := without_transform(height, width, kernel.backend):
        return leaves(why)
    after, mean, spectrum = empty_like(x), empty_like(x), packed_once(_spectrum_of, (maps, mask))
    ids, noise, xi = as_drawn(x, ids, noise, xi)
    error = tol * math.sqrt(2 * height * width)
    arguments = kernel.packed(locals())
    if kernel.backend == "cuda":
        return (after, mean) if _iterated(kernel, arguments, x, noise, max_iter) else NotImplemented
    count: int = kernel.call("", arguments, torch.get_num_threads())
    applied(lambda: abs(count))
    if count < 0:
        warn_of_max_iter(max_iter)
    return after, mean


def _iterated(kernel: Kernel, arguments: bytes, x: Tensor, noise: int, max_iter: int) -> bool:
    """The CUDA kernels of a step, window by window; False where there are none for such images."""
    with stream_on(x.device) as stream:
        floats, doubles = kernel.call("_memory", arguments) if len(x) > 0 else (-1, -1)
        if floats < 0:
            return False
        images, sums = x.new_empty(floats), torch.ones(doubles, dtype=torch.float64, device=x.device)
        systems = len(x) if noise == NO_NOISE else 2 * len(x)
        goes_on = sums[:5 * systems].view(systems, 5)[:, 4]
        noted, captured = in_graphs(x.device), torch.cuda.is_current_stream_capturing()
        most = max_iter if captured else WINDOW  # a graph looks by itself
        for iteration in range(0, max_iter, most):
            kernel.call("_iterate", arguments, iteration, min(iteration + most, max_iter), images.data_ptr(), sums.data_ptr(),
                        stream)
            if captured:
                noted.masked_fill_(goes_on.any(), max_iter)
                break
            if not looked(goes_on.any()):
                break
        else:
            warn_of_max_iter(max_iter)
        kernel.call("_finish", arguments, sums.data_ptr(), stream)
    return True


@Op
def langevin_sense_cg(
    x: Tensor, grad: Tensor, b: Tensor, maps: Tensor, mask: Tensor, ids: Tensor, lam: float, lin: float, w: float,
    inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, tol: float = 0.01, max_iter: int = 1000,
    joint: bool = False, xi: Tensor | None = None, level: Tensor | None = None, backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One Langevin step for SENSE with any mask, by conjugate gradients; the noise by perturb-and-solve.

        m = P(lam)(b + lin x − w ∇E),    x⁺ = m + P(noise_lam)(√inv_eta2 Aᴴε₁ + √noise_lam ε₂),
        P(l) = (AᴴA inv_eta2 + l)⁻¹,     ξ = (ε₂, ε₁)

    Both systems of every chain are solved in one batch, m starting from x (so that a step stopped early still lowers
    the quadratic it minimises), each with step sizes of its own, preconditioned by a root of the circular convolution nearest
    to AᴴA (`sense_solve`). A system stops once its error e is about tol posterior standard deviations, root mean square over the
    n real unknowns: eᵀP⁻¹e <= tol² n, see `conjugate_gradients`. The noise then lacks the share tol² of its variance.

    Args:
        x, grad, b, ids, lam, lin, w, inv_eta2, noise_lam, noise, seed, step, level, backend: as in `langevin_pixel`;
            states (N, H, W, 2), one complex channel.
        maps: (coils, H, W) coil sensitivities, complex of the precision of x.
        mask: (H, W) of zeros and ones in torch.fft order (frequency zero first), dtype of x. maps (M, coils, H, W) and mask
            (M, H, W): those of each M-th of the rows, in order.
        tol: error allowed, see above, > 0. max_iter: iterations at most, a warning where they do not suffice; what a CUDA
            graph replays warns at the end of the next `Sampler` run.
        joint: whether x⁺ alone is wanted, under noise_lam = lam: one system, started from x, in place of two, and m is of no use.
            The CUDA kernels solve both all the same.
        xi: (N, 1 + coils, H, W, 2) to use for ξ: first ε₂ in pixels, then ε₁ for the samples of every coil, torch.fft
            order. With Philox, one stream runs through all of it in this order.

    Returns:
        (x⁺, m), each (N, H, W, 2).

    Raises:
        ArgumentError: naming the argument.

    Source: docs/design.md §5; [PULA] perturbs and solves likewise.
    """
    height, width = one_complex_channel(x)
    coils = maps.shape[-3] if maps.ndim > 3 else len(maps)
    shape = (len(x), 1 + coils, height, width, 2)
    check_step(x, grad, b, ids, lam, lin, w, inv_eta2, noise_lam, noise, xi, shape, level)
    check_stream(math.prod(shape[1:]), step, noise, xi)
    check(maps.shape[:-3] == mask.shape[:-2], "mask", f"shape {tuple(mask.shape)}", f"one for maps {tuple(maps.shape)}")
    for k in range(len(maps) if maps.ndim == 4 else 1):
        check_like("maps", maps[k] if maps.ndim == 4 else maps, (coils, height, width), complex_dtype(x.dtype), x.device)
        check_like("mask", mask[k] if mask.ndim == 3 else mask, (height, width), x.dtype, x.device)
    check(math.isfinite(tol) and tol > 0, "tol", tol, "a finite number > 0")
    check(max_iter >= 1, "max_iter", max_iter, "at least 1")
    (lam, lin, w, inv_eta2, noise_lam), level = on_host(level, lam, lin, w, inv_eta2, noise_lam)
    check(not joint or level is not None or noise_lam == lam, "joint", f"it with noise_lam = {noise_lam}",
          f"it with noise_lam = lam, {lam}")

    def of(maps: Tensor, mask: Tensor, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor,
           xi: Tensor | None) -> tuple[Tensor, Tensor]:
        return dispatch("langevin_sense_cg", backend, x.device, x, grad, b, maps, mask, ids, lam, lin, w, inv_eta2, noise_lam,
                        noise, seed, step, tol, max_iter, joint, xi, level)

    if maps.ndim == 3:
        return of(maps, mask, x, grad, b, ids, xi)
    check_operators(len(maps), b)
    tell_of_turns("langevin_sense_cg", backend, len(maps), x)
    return one_by_one(len(maps), lambda k, *rows: of(maps[k], mask[k], *rows), x, grad, b, ids, xi)


@langevin_sense_cg.register_fake
def _(x: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)
