"""langevin_sense: one Langevin step for multi-coil Cartesian MRI with a mask along one axis.

    AᴴA = Σ_c S̄_c Fᴴ M F S_c

Centred transforms need no shifts here: they cancel in AᴴA. Where the mask varies along one axis only, the transform along the
other cancels too, and AᴴA is one Hermitian n × n matrix a line.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import check
from ..layout import as_complex, as_real
from ._compiled import Kernel, compiled
from ._dispatch import Op, dispatch, implements
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
    one_complex_channel,
    right_hand_side,
    tell_of_turns,
    unit_noise,
)
from .philox_normal import NO_NOISE

# Chains a matrix product. A product rounds according to its shape, and a chain must not feel how many run beside it,
# so the shape is fixed and the last block is padded. 32 columns cost 1.3 times what one does (64 lines of 64², one core).
COLUMNS = 32


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
    x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, ids: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The definition."""
    lam, lin, w, inv_eta2, noise_lam = at_level(level, lam, lin, w, inv_eta2, noise_lam)
    if u.ndim == 4:
        return one_by_one(len(u), lambda k, x, grad, b, ids, xi: langevin_sense_reference(
            x, grad, b, u[k], eigenvalues[k], axis, ids, lam, lin, w, inv_eta2, noise_lam, noise, seed, step, xi), x, grad, b,
            ids, xi)
    r = right_hand_side(x, grad, b, lin, w)
    gain = 1 / (eigenvalues[..., None] * inv_eta2 + lam)
    mean, x_new = torch.empty_like(x), torch.empty_like(x)
    if noise != NO_NOISE:
        xi = unit_noise(x, x.shape, ids, noise, seed, step, xi)
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


@compiled("langevin_sense", cpu="float32", cuda="float32 and lines that fit shared memory")
def _langevin_sense(
    kernel: Kernel, x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, ids: Tensor, lam: float,
    lin: float, w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    if x.dtype != torch.float32:
        return NotImplemented
    rows, measurements, (*many, lines, n) = len(x), len(b), eigenvalues.shape
    operators = math.prod(many)
    after, mean = empty_like(x), empty_like(x)
    ids, noise, xi = as_drawn(x, ids, noise, xi)
    return (after, mean) if kernel(locals(), x.device) else NotImplemented


@Op
def langevin_sense(
    x: Tensor, grad: Tensor, b: Tensor, u: Tensor, eigenvalues: Tensor, axis: int, ids: Tensor, lam: float, lin: float,
    w: float, inv_eta2: float, noise_lam: float, noise: int, seed: int, step: int, xi: Tensor | None = None,
    level: Tensor | None = None, backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """One Langevin step where AᴴA is one Hermitian matrix U Λ Uᴴ a line: SENSE with a mask along one axis.

        r = b + lin x − w ∇E;  a line:  m = U g Uᴴ r,  x⁺ = U (g Uᴴ r + √g' ξ),
        g = 1/(Λ inv_eta2 + lam),  g' = 1/(Λ inv_eta2 + noise_lam)

    Args:
        x, grad, b, ids, lam, lin, w, inv_eta2, noise_lam, noise, seed, step, level, backend: as in `langevin_pixel`;
            states (N, H, W, 2), one complex channel.
        u: (lines, n, n) unitary, eigenvectors in columns, complex of the precision of x.
        eigenvalues: (lines, n) >= 0, dtype of x. u (M, lines, n, n) and eigenvalues (M, lines, n): those of each M-th of the
            rows, in order.
        axis: 0: lines run along H, n = H, one for each of W columns; 1: along W, n = W, one for each of H rows.
        xi: (N, H, W, 2) to use for ξ. ξ counts eigenvectors and is laid out like the image: coefficient k of line l
            stands where pixel k of line l does.

    Returns:
        (x⁺, m), each (N, H, W, 2).

    Raises:
        ArgumentError: naming the argument.

    Source: docs/design.md §5; [LM] for the averaged noise.
    """
    check_step(x, grad, b, ids, lam, lin, w, inv_eta2, noise_lam, noise, xi, x.shape, level)
    check_stream(x.shape[1:].numel(), step, noise, xi)
    height, width = one_complex_channel(x)
    check(axis in (0, 1), "axis", axis, "0 (lines along H) or 1 (lines along W)")
    lines, n = (width, height) if axis == 0 else (height, width)
    check_like("u", u, (*u.shape[:u.ndim - 3], lines, n, n)[-4:], complex_dtype(x.dtype), x.device)
    check_like("eigenvalues", eigenvalues, (*u.shape[:u.ndim - 3], lines, n), x.dtype, x.device)
    (lam, lin, w, inv_eta2, noise_lam), level = on_host(level, lam, lin, w, inv_eta2, noise_lam)

    def of(u: Tensor, eigenvalues: Tensor, x: Tensor, grad: Tensor, b: Tensor, ids: Tensor,
           xi: Tensor | None) -> tuple[Tensor, Tensor]:
        return dispatch("langevin_sense", backend, x.device, x, grad, b, u, eigenvalues, axis, ids, lam, lin, w, inv_eta2,
                        noise_lam, noise, seed, step, xi, level)

    if u.ndim > 3:
        check_operators(len(u), b)
    if u.ndim == 3 or at_once(backend, x):
        return of(u, eigenvalues, x, grad, b, ids, xi)
    tell_of_turns("langevin_sense", backend, len(u), x)
    return one_by_one(len(u), lambda k, *rows: of(u[k], eigenvalues[k], *rows), x, grad, b, ids, xi)


@langevin_sense.register_fake
def _(x: Tensor, *_: object, **__: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(x)
