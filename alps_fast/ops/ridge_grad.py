"""ridge_grad: value and gradient of a ridge energy on an image pyramid.

    x_0 = x − μ,  x_s = D x_{s−1},  z_sk = W_sk * x_s
    E  = Σ_{s<Q} ½ q_s ‖x_s‖² + Σ_{s<S} Σ_jkp w_sjk φ(|z_skp|² r_sjk)/r_sjk,   φ(u) = ½ log(1 + u)
    ∇E = Σ_s D^sᵀ [ q_s x_s + Σ_k W_skᵀ ( z_sk Σ_j w_sjk/(1 + |z_sk|² r_sjk) ) ]

D correlates with 2 · (1 3 3 1)/8 ⊗ (1 3 3 1)/8 and keeps every second pixel, ‖D‖ = 1; images are zero outside.
|z|² sums over the channels of a pixel: a complex image (two channels) meets the modulus of its filter responses,
so E does not change with a global phase.

Shapes: x (N, C, H, W); filters: per scale (K, 1, k, k), k odd; weights, r: (S, J, N or 1, K); q (Q, N or 1), Q >= S: the
quadratic term reaches coarser scales than the filters; μ (1,).
Returns (∇E (N, C, H, W), E (N,)), or an empty E where the value is not wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import check, refused
from ._compiled import Kernel, compiled, first_kernel
from ._dispatch import Op, dispatch, implements, leaves
from ._pack_once import packed_once
from ._reused_memory import empty_like, laid_out
from ._step import FLOATS, check_kind, described


def _taps(x: Tensor) -> Tensor:
    h = x.new_full((4,), 0.125)  # filled on the device: a step waits for no copy
    h[1:3].fill_(0.375)
    return 2 * (h[:, None] * h[None, :])[None, None]


def down(x: Tensor) -> Tensor:
    """D x for x (N, 1, H, W): (N, 1, ⌈H/2⌉, ⌈W/2⌉)."""
    return F.conv2d(F.pad(x, (1, 1 + x.shape[3] % 2, 1, 1 + x.shape[2] % 2)), _taps(x), stride=2)


def down_transposed(y: Tensor, height: int, width: int) -> Tensor:
    """Dᵀ y for an image of the given size."""
    return F.conv_transpose2d(y, _taps(y), stride=2)[:, :, 1:height + 1, 1:width + 1]


@implements("ridge_grad", "torch")
def ridge_grad_reference(x: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
                         want_value: bool = True) -> tuple[Tensor, Tensor]:
    """The definition; differentiable in everything, which is how ridge energies are distilled."""
    n, c = x.shape[:2]
    levels = [(x - mu).flatten(0, 1)[:, None]]
    for _ in q[1:]:
        levels.append(down(levels[-1]))
    value: Tensor = torch.zeros(n, dtype=x.dtype, device=x.device)
    grad: Tensor | None = None
    for s in reversed(range(len(q))):
        level = levels[s]
        image = level.unflatten(0, (n, c))
        scaled = q[s][:, None, None, None, None] * image
        if want_value:
            value = value + 0.5 * (scaled * image).flatten(1).sum(1)
        here = scaled.flatten(0, 1)
        if s < len(filters):
            bank = filters[s]
            z = F.conv2d(level, bank, padding=bank.shape[-1] // 2).unflatten(0, (n, c))
            square = (z * z).sum(1, keepdim=True)
            slope: Tensor | None = None
            for ws, rs in zip(weights[s], r[s], strict=True):
                ws, rs = ws[:, None, :, None, None], rs[:, None, :, None, None]
                u = 1 + square * rs
                if want_value:
                    value = value + (0.5 * ws / rs * torch.log(u)).expand(n, *u.shape[1:]).flatten(1).sum(1)
                slope = ws / u if slope is None else slope + ws / u
            here = here + F.conv_transpose2d((z * slope).flatten(0, 1), bank, padding=bank.shape[-1] // 2)
        grad = here if grad is None else here + down_transposed(grad, *level.shape[2:])
    assert grad is not None
    return grad.reshape(x.shape), value if want_value else value[:0].clone()


def stacked(filters: Sequence[Tensor]) -> Tensor:
    """(S, K, 1, k, k), smaller filters with zeros around them."""
    side = max(bank.shape[-1] for bank in filters)
    return torch.stack([F.pad(bank, [(side - bank.shape[-1]) // 2] * 4) for bank in filters])


def of_energy(bank: Tensor, weights: Tensor, r: Tensor, q: Tensor, mu: Tensor) -> dict[str, Any]:
    """What the compiled kernels take beside images, the filters of all scales in one tensor; nothing here waits for a device."""
    filters, weights, r, q, mu = bank, *(v.contiguous() for v in (weights, r, q, mu))
    scales, filters_a_scale, _, side, _ = bank.shape
    potentials, levels = weights.shape[1], len(q)
    weights_of_each_image, r_of_each_image, q_of_each_image = weights.shape[2] > 1, r.shape[2] > 1, q.shape[1] > 1
    return locals()


def has_kernel(dtype: torch.dtype, channels: int, largest: int = 0) -> bool:
    """Whether the compiled kernels take images like these, the largest of their sizes countable in 32 bits."""
    return dtype == torch.float32 and channels in (1, 2) and largest < 1 << 31


def too_much(backend: str, energy: dict[str, Any]) -> str:
    """Why a kernel that takes such images does not take this energy."""
    return f"{backend!r} has no kernel for an energy of {energy['potentials']} potentials and {energy['side']} taps a row"


@compiled("ridge_grad", of_energy, cpu="float32 images of one or two channels",
          cuda="float32 images of one or two channels, filters of at most seven taps a row")
def _ridge_grad(kernel: Kernel, x: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
                want_value: bool = True) -> tuple[Tensor, Tensor]:
    """On CUDA in tiles, for images of any size; not for filters of more than seven taps a row."""
    images, channels_of_image, height, width = x.shape
    if x.numel() == 0 or not has_kernel(x.dtype, channels_of_image, channels_of_image * height * width):
        return NotImplemented
    x = laid_out(x)
    grad, value = empty_like(x), x.new_empty(images if want_value else 0)
    energy = of_energy(packed_once(stacked, filters), weights, r, q, mu)
    return (grad, value) if kernel(locals() | energy, x.device) else leaves(too_much(kernel.backend, energy))


def ridge_grad_bytes(shape: Sequence[int], filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
                     backend: str, device: torch.device) -> int:
    """Of the memory that the kernel for this device works in for images of this shape (N, C, H, W); 0: it has none."""
    kernel = first_kernel("ridge_grad", backend, device)
    images, channels_of_image, height, width = shape
    if kernel is None or not has_kernel(weights.dtype, channels_of_image):
        return 0
    x = grad = value = None
    energy = of_energy(packed_once(stacked, filters), weights, r, q, mu)
    return kernel.bytes(locals() | energy, device)


def check_ridge(x: Tensor, rows: tuple[int, ...], filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor,
                mu: Tensor) -> None:
    """All of them must fit each other and the dtype and device of x; `rows`: what may stand for N in their shapes."""
    check(len(filters) > 0 and filters[0].ndim == 4, "filters", f"{len(filters)} scales", "at least one (K, 1, k, k)")
    scales, count, n = len(filters), filters[0].shape[0], " or ".join(map(str, rows))
    for bank in filters:
        if bank.ndim != 4 or bank.shape[:2] != (count, 1) or bank.shape[2] != bank.shape[3] or bank.shape[3] % 2 != 1:
            raise refused("filters", f"shape {tuple(bank.shape)}", f"({count}, 1, k, k), k odd")
        check_kind("filters", bank, x)
    if weights.ndim != 4 or weights.shape[0] != scales or weights.shape[2] not in rows or weights.shape[3] != count:
        raise refused("weights", f"shape {tuple(weights.shape)}", f"({scales}, J, {n}, {count})")
    if r.ndim != 4 or r.shape[:2] != weights.shape[:2] or r.shape[2] not in rows or r.shape[3] != count:
        raise refused("r", f"shape {tuple(r.shape)}", f"({scales}, {weights.shape[1]}, {n}, {count})")
    if q.ndim != 2 or q.shape[0] < scales or q.shape[1] not in rows:
        raise refused("q", f"shape {tuple(q.shape)}", f"(Q, {n}), Q >= {scales}")
    if mu.shape != (1,):
        raise refused("mu", f"shape {tuple(mu.shape)}", "(1,)")
    for name, v in (("weights", weights), ("r", r), ("q", q), ("mu", mu)):
        check_kind(name, v, x)


@Op
def ridge_grad(x: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
               want_value: bool = True, backend: str = "auto") -> tuple[Tensor, Tensor]:
    """(∇E, E) of a ridge energy; the formulas are the module's.

    Args:
        x: (N, C, H, W) float32 or float64, in any memory format; what follows has its dtype and device.
        filters: a scale (K, 1, k, k) each, k odd. weights, r: (S, J, N or 1, K), r > 0. q: (Q, N or 1), Q >= S. mu: (1,).
        want_value: whether E is wanted. backend: one of `alps_fast.ops._dispatch.NAMES`.

    Returns:
        (∇E (N, C, H, W), E (N,), or (0,) where it is not wanted).

    Raises:
        ArgumentError: naming the argument.

    Source: docs/design.md §1.
    """
    check(x.ndim == 4 and x.dtype in FLOATS, "x", described(x), "(N, C, H, W), float32 or float64")
    check_ridge(x, (1, x.shape[0]), filters, weights, r, q, mu)
    with torch.no_grad():
        grad, value = dispatch("ridge_grad", backend, x.device, x, filters, weights, r, q, mu, want_value)
    return grad.contiguous(), value


@ridge_grad.register_fake
def _(x: Tensor, filters: Sequence[Tensor], weights: Tensor, r: Tensor, q: Tensor, mu: Tensor,
      want_value: bool = True, backend: str = "auto") -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape[0] if want_value else 0)
