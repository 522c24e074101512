"""langevin_sense, langevin_sense_cg: one Langevin step for multi-coil Cartesian MRI.

    AᴴA = Σ_c S̄_c Fᴴ M F S_c

Centred transforms need no shifts here: they cancel in AᴴA once the mask is rolled to torch.fft order. Where the mask
varies along one axis only, the transform along the other cancels too, and AᴴA is one Hermitian n × n matrix a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import check
from ..layout import as_complex, as_real
from ._alike import fft, inverse_fft, power, product
from ._cg import WINDOW, conjugate_gradients, in_graphs, looked, warn_of_max_iter
from ._dispatch import Op, dispatch, implements, stream_on
from ._langevin import check_like, check_step, check_stream, complex_dtype, right_hand_side, unit_noise
from ._memory import empty_like
from ._packed import packed_once
from .langevin_fourier import has_fast_transform
from .philox_normal import NO_NOISE, counters

# Chains a matrix product. A product rounds according to its shape, and a chain must not feel how many run beside it,
# so the shape is fixed and the last block is padded. 32 columns cost 1.3 times what one does (64 lines of 64², one core).
COLUMNS = 32

CACHE = 1 << 17  # coil samples a CPU works on at a time: 1 MB stays in L2, 2.8 times faster for 32 rows of 8 × 128²


def _to_lines(state: Tensor, axis: int) -> Tensor:
    """(N, H, W, 2) -> (lines, n, COLUMNS) complex, zeros where there is no chain."""
    lines = as_complex(state)[..., 0].permute((2, 1, 0) if axis == 0 else (1, 2, 0))
    out = lines.new_zeros(*lines.shape[:2], COLUMNS)
    out[..., :len(state)] = lines
    return out


def _from_lines(lines: Tensor, axis: int, count: int) -> Tensor:
    """The inverse of `_to_lines` for the first `count` chains."""
    image = lines[..., :count].permute((2, 1, 0) if axis == 0 else (2, 0, 1))
    return as_real(image[..., None])


@implements("langevin_sense", "torch")
def langevin_sense_reference(
    x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, chains: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition."""
    r = right_hand_side(x, grad, b, lin, w)
    gain = 1 / (eigenvalues[..., None] * inv_eta2 + lam)
    mean, x_new = torch.empty_like(x), torch.empty_like(x)
    if noise != NO_NOISE:
        xi = unit_noise(x, x.shape, chains, noise, seed, step, xi)
        spread = (eigenvalues[..., None] * inv_eta2 + noise_lam).rsqrt()
    for first in range(0, len(x), COLUMNS):
        rows = slice(first, first + COLUMNS)
        block = r[rows]
        coefficients = (u.mH @ _to_lines(block, axis)).mul_(gain)
        if xi is None or noise == NO_NOISE:
            mean[rows] = x_new[rows] = _from_lines(u @ coefficients, axis, len(block))
            continue
        noisy = coefficients + _to_lines(xi[rows], axis).mul_(spread)
        both = u @ torch.cat([coefficients, noisy], -1)
        mean[rows] = _from_lines(both[..., :COLUMNS], axis, len(block))
        x_new[rows] = _from_lines(both[..., COLUMNS:], axis, len(block))
    return x_new, mean


@implements("langevin_sense", "cpu", "float32")
def _langevin_sense_cpu(
    x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, chains: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if x.dtype != torch.float32:
        return NotImplemented
    from alps_fast import _cpu

    after, mean = empty_like(x), empty_like(x)
    chains, given = counters(chains), None if xi is None else xi.to(x.dtype).contiguous()
    _cpu.langevin_sense(
        x=x.data_ptr(), grad=grad.data_ptr(), b=b.data_ptr(), u=u.data_ptr(), eigenvalues=eigenvalues.data_ptr(),
        xi=0 if given is None else given.data_ptr(), chains=chains.data_ptr(), after=after.data_ptr(), mean=mean.data_ptr(),
        rows=len(x), measurements=len(b), lines=len(u), n=u.shape[1], axis=axis, lam=lam, lin=lin, w=w, inv_eta2=inv_eta2,
        noise_lam=noise_lam, noise=noise, seed=seed, step=step, threads=torch.get_num_threads())
    return after, mean


@implements("langevin_sense", "cuda", "float32 and lines that fit shared memory")
def _langevin_sense_cuda(
    x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, chains: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if x.dtype == torch.float32:
        from alps_fast import _cuda

        after, mean = torch.empty_like(x), torch.empty_like(x)
        chains, given = counters(chains), None if xi is None else xi.to(x.dtype).contiguous()
        with stream_on(x.device) as stream:
            if _cuda.langevin_sense(
                    x=x.data_ptr(), grad=grad.data_ptr(), b=b.data_ptr(), u=u.data_ptr(), eigenvalues=eigenvalues.data_ptr(),
                    xi=0 if given is None else given.data_ptr(), chains=chains.data_ptr(), after=after.data_ptr(),
                    mean=mean.data_ptr(), rows=len(x), measurements=len(b), lines=len(u), n=u.shape[1], axis=axis, lam=lam,
                    lin=lin, w=w, inv_eta2=inv_eta2, noise_lam=noise_lam, noise=noise, seed=seed, step=step, stream=stream):
                return after, mean
    return NotImplemented


@Op
def langevin_sense(
    x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, chains: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One Langevin step where AᴴA is one Hermitian matrix U Λ Uᴴ a line: SENSE with a mask along one axis.

        r = b + lin x − w ∇E;  a line:  m = U g Uᴴ r,  x⁺ = U (g Uᴴ r + √g' ξ),
        g = 1/(Λ inv_eta2 + lam),  g' = 1/(Λ inv_eta2 + noise_lam)

    Args:
        x, grad, b, chains, lam, lin, w, inv_eta2, noise_lam, noise, seed, step, backend: as in `langevin_pixel`;
            states (N, H, W, 2), one complex channel.
        u: (lines, n, n) unitary, eigenvectors in columns, complex of the precision of x.
        eigenvalues: (lines, n) >= 0, dtype of x.
        axis: 0: lines run along H, n = H, one for each of W columns; 1: along W, n = W, one for each of H rows.
        xi: (N, H, W, 2) to use for ξ. ξ counts eigenvectors and is laid out like the image: coefficient k of line l
            stands where pixel k of line l does.

    Returns:
        (x⁺, m), each (N, H, W, 2).

    Raises:
        ArgumentError: naming the argument.

    Source: docs/design.md §5; [LM] for the averaged noise.
    """
    check_step(x, grad, b, chains, lam, lin, w, inv_eta2, noise_lam, noise, xi, x.shape)
    check_stream(x.shape[1:].numel(), step, noise, xi)
    height, width = _one_complex_channel(x)
    check(axis in (0, 1), "axis", axis, "0 (lines along H) or 1 (lines along W)")
    lines, n = (width, height) if axis == 0 else (height, width)
    check_like("u", u, (lines, n, n), complex_dtype(x.dtype), x.device)
    check_like("eigenvalues", eigenvalues, (lines, n), x.dtype, x.device)
    return dispatch("langevin_sense", backend, x.device, x, grad, b, u, eigenvalues, axis, chains, lam, lin, w, inv_eta2,
                    noise_lam, noise, seed, step, xi)


@langevin_sense.register_fake
def _(x: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


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
    """The diagonal of F AᴴA Fᴴ, (H, W): AᴴA as nearly as a circular convolution can be, which preconditions it well.

        d(k) = Σ_q mask(q) Σ_c |(F S_c)(q − k)|² / (H W)
    """
    total = power(fft(maps)).sum(0)
    correlation = product(torch.fft.fft2(mask), torch.conj_physical(torch.fft.fft2(total)))
    return torch.fft.ifft2(correlation).real.clamp_min(0) / mask.numel()


def sense_solve(rhs: Tensor, start: Tensor, maps: Tensor, mask: Tensor, inv_eta2: float, shift: Tensor, error: float,
                max_iter: int) -> Tensor:
    """(AᴴA inv_eta2 + shift)⁻¹ rhs for states, shift (N,), by `conjugate_gradients`."""
    gain = 1 / (sense_spectrum(maps, mask) * inv_eta2 + shift[:, None, None])

    def apply(p: Tensor) -> Tensor:
        return sense_normal(p, maps, mask) * inv_eta2 + p * shift[:, None, None, None]

    def precondition(r: Tensor) -> Tensor:
        return as_real(inverse_fft(fft(as_complex(r)[..., 0]) * gain)[..., None])

    return conjugate_gradients(apply, rhs, start, error, max_iter, precondition)


@implements("langevin_sense_cg", "torch")
def langevin_sense_cg_reference(
    x: Tensor, grad: Tensor, b: Tensor, maps: Tensor, mask: Tensor, chains: Tensor, lam: float, lin: float, w: float,
    inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, tol: float, max_iter: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition."""
    rhs, start, shift = right_hand_side(x, grad, b, lin, w), x, x.new_full((len(x),), lam)
    if noise != NO_NOISE:
        eps = unit_noise(x, (len(x), 1 + len(maps), *x.shape[1:]), chains, noise, seed, step, xi)
        samples = sense_adjoint(torch.view_as_complex(eps[:, 1:]), maps, mask)
        rhs = torch.cat([rhs, samples * math.sqrt(inv_eta2) + eps[:, 0] * math.sqrt(noise_lam)])
        start = torch.cat([x, torch.zeros_like(x)])
        shift = torch.cat([shift, torch.full_like(shift, noise_lam)])

    solved = sense_solve(rhs, start, maps, mask, inv_eta2, shift, tol * math.sqrt(x[0].numel()), max_iter)
    mean = solved[:len(x)]
    if noise == NO_NOISE:
        return mean.clone(), mean
    return mean + solved[len(x):], mean.clone()


def _spectrum_of(maps_and_mask: Sequence[Tensor]) -> Tensor:
    return sense_spectrum(*maps_and_mask).contiguous()


@implements("langevin_sense_cg", "cpu", "float32 and sides without a prime factor above 7")
def _langevin_sense_cg_cpu(
    x: Tensor, grad: Tensor, b: Tensor, maps: Tensor, mask: Tensor, chains: Tensor, lam: float, lin: float, w: float,
    inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, tol: float, max_iter: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    height, width = mask.shape
    if x.dtype != torch.float32 or not (has_fast_transform(height) and has_fast_transform(width)):
        return NotImplemented
    from alps_fast import _cpu

    after, mean = empty_like(x), empty_like(x)
    chains, given = counters(chains), None if xi is None else xi.to(x.dtype).contiguous()
    spectrum = packed_once(_spectrum_of, (maps, mask))
    stopped = _cpu.langevin_sense_cg(
        x=x.data_ptr(), grad=grad.data_ptr(), b=b.data_ptr(), maps=maps.data_ptr(), mask=mask.data_ptr(),
        spectrum=spectrum.data_ptr(), xi=0 if given is None else given.data_ptr(), chains=chains.data_ptr(),
        after=after.data_ptr(), mean=mean.data_ptr(), rows=len(x), measurements=len(b), coils=len(maps), height=height,
        width=width, lam=lam, lin=lin, w=w, inv_eta2=inv_eta2, noise_lam=noise_lam, noise=noise, seed=seed, step=step,
        error=tol * math.sqrt(x[0].numel()), max_iter=max_iter, threads=torch.get_num_threads())
    if not stopped:
        warn_of_max_iter(max_iter)
    return after, mean


@implements("langevin_sense_cg", "cuda", "float32 and sides without a prime factor above 7")
def _langevin_sense_cg_cuda(
    x: Tensor, grad: Tensor, b: Tensor, maps: Tensor, mask: Tensor, chains: Tensor, lam: float, lin: float, w: float,
    inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, tol: float, max_iter: int, xi: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    height, width = mask.shape
    floats = doubles = -1
    if x.dtype == torch.float32 and len(x) > 0 and has_fast_transform(height) and has_fast_transform(width):
        from alps_fast import _cuda

        with stream_on(x.device):
            floats, doubles = _cuda.langevin_sense_cg_memory(rows=len(x), coils=len(maps), height=height, width=width,
                                                             noise=noise)
    if floats < 0:
        return NotImplemented
    after, mean, images = torch.empty_like(x), torch.empty_like(x), x.new_empty(floats)
    sums = torch.ones(doubles, dtype=torch.float64, device=x.device)
    systems = len(x) if noise == NO_NOISE else 2 * len(x)
    goes_on = sums[:5 * systems].view(systems, 5)[:, 4]
    chains, given = counters(chains), None if xi is None else xi.to(x.dtype).contiguous()
    spectrum, noted = packed_once(_spectrum_of, (maps, mask)), in_graphs(x.device)
    with stream_on(x.device) as stream:
        captured = torch.cuda.is_current_stream_capturing()
        at_once = max_iter if captured else WINDOW  # a graph looks by itself
        for iteration in range(0, max_iter, at_once):
            _cuda.langevin_sense_cg_iterate(
                x=x.data_ptr(), grad=grad.data_ptr(), b=b.data_ptr(), maps=maps.data_ptr(), mask=mask.data_ptr(),
                spectrum=spectrum.data_ptr(), xi=0 if given is None else given.data_ptr(), chains=chains.data_ptr(),
                after=after.data_ptr(), mean=mean.data_ptr(), floats=images.data_ptr(), doubles=sums.data_ptr(), rows=len(x),
                measurements=len(b), coils=len(maps), height=height, width=width, lam=lam, lin=lin, w=w, inv_eta2=inv_eta2,
                noise_lam=noise_lam, noise=noise, seed=seed, step=step, error=tol * math.sqrt(x[0].numel()),
                iteration=iteration, end=min(iteration + at_once, max_iter), stream=stream)
            if captured:
                noted.masked_fill_(goes_on.any(), max_iter)
                break
            if not looked(goes_on.any()):
                break
        else:
            warn_of_max_iter(max_iter)
        _cuda.langevin_sense_cg_finish(mean=mean.data_ptr(), after=after.data_ptr(), doubles=sums.data_ptr(), rows=len(x),
                                       numbers=x[0].numel(), noisy=noise != NO_NOISE, stream=stream)
    return after, mean


@Op
def langevin_sense_cg(
    x: Tensor, grad: Tensor, b: Tensor, maps: Tensor, mask: Tensor, chains: Tensor, lam: float, lin: float, w: float,
    inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, tol: float = 0.03, max_iter: int = 1000,
    xi: Tensor | None = None, backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One Langevin step for SENSE with any mask, by conjugate gradients; the noise by perturb-and-solve.

        m = P(lam)(b + lin x − w ∇E),    x⁺ = m + P(noise_lam)(√inv_eta2 Aᴴε₁ + √noise_lam ε₂),
        P(l) = (AᴴA inv_eta2 + l)⁻¹,     ξ = (ε₂, ε₁)

    Both systems of every chain are solved in one batch, m starting from x (so that a step stopped early still lowers
    the quadratic it minimises), each with step sizes of its own, preconditioned by the circular convolution nearest to
    AᴴA. A system stops once its error e is about tol posterior standard deviations, root mean square over the n real
    unknowns: eᵀP⁻¹e <= tol² n, see `conjugate_gradients`. The noise then lacks the share tol² of its variance.

    Args:
        x, grad, b, chains, lam, lin, w, inv_eta2, noise_lam, noise, seed, step, backend: as in `langevin_pixel`;
            states (N, H, W, 2), one complex channel.
        maps: (coils, H, W) coil sensitivities, complex of the precision of x.
        mask: (H, W) of zeros and ones in torch.fft order (frequency zero first), dtype of x.
        tol: error allowed, see above, > 0. max_iter: iterations at most, a warning where they do not suffice; what a CUDA
            graph replays warns at the end of the next `Sampler` run.
        xi: (N, 1 + coils, H, W, 2) to use for ξ: first ε₂ in pixels, then ε₁ for the samples of every coil, torch.fft
            order. With Philox, one stream runs through all of it in this order.

    Returns:
        (x⁺, m), each (N, H, W, 2).

    Raises:
        ArgumentError: naming the argument.

    Source: docs/design.md §5; [PULA] perturbs and solves likewise.
    """
    height, width = _one_complex_channel(x)
    shape = (len(x), 1 + len(maps), height, width, 2)
    check_step(x, grad, b, chains, lam, lin, w, inv_eta2, noise_lam, noise, xi, shape)
    check_stream(math.prod(shape[1:]), step, noise, xi)
    check_like("maps", maps, (len(maps), height, width), complex_dtype(x.dtype), x.device)
    check_like("mask", mask, (height, width), x.dtype, x.device)
    check(math.isfinite(tol) and tol > 0, "tol", tol, "a finite number > 0")
    check(max_iter >= 1, "max_iter", max_iter, "at least 1")
    return dispatch("langevin_sense_cg", backend, x.device, x, grad, b, maps, mask, chains, lam, lin, w, inv_eta2, noise_lam,
                    noise, seed, step, tol, max_iter, xi)


@langevin_sense_cg.register_fake
def _(x: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)


def _one_complex_channel(x: Tensor) -> tuple[int, int]:
    check(x.ndim == 4 and x.shape[-1] == 2, "x", f"shape {tuple(x.shape)}", "(N, H, W, 2)")
    return x.shape[1], x.shape[2]
