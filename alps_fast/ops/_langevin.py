"""What the Langevin ops share: their checks, the right-hand side of the projection, and the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import check
from .philox_normal import AVERAGED, INDEPENDENT, MASK, NO_NOISE, step_noise


def check_step(x: Tensor, grad: Tensor, b: Tensor, chains: Tensor, lam: float, lin: float, w: float, inv_eta2: float,
               noise_lam: float, noise: int, xi: Tensor | None, xi_shape: Sequence[int]) -> None:
    """The arguments every Langevin op has: x, grad (N, H, W, C'), b (B, H, W, C') with B dividing N, chains (N,)."""
    check_state("x", x, x)
    check_state("grad", grad, x)
    check(grad.shape == x.shape, "grad", f"shape {tuple(grad.shape)}", f"the shape of x, {tuple(x.shape)}")
    check_state("b", b, x)
    fits = b.shape[1:] == x.shape[1:] and len(b) > 0 and len(x) % len(b) == 0
    check(fits, "b", f"shape {tuple(b.shape)}", f"(B, *{tuple(x.shape[1:])}) with B dividing {len(x)}")
    check(chains.shape == x.shape[:1] and chains.dtype == torch.int64 and chains.device == x.device, "chains",
          f"{chains.dtype} of shape {tuple(chains.shape)} on {chains.device}", f"int64 of shape ({len(x)},) on {x.device}")
    for name, value in (("lin", lin), ("w", w)):
        check(math.isfinite(value), name, value, "a finite number")
    for name, value in (("lam", lam), ("noise_lam", noise_lam)):
        check(math.isfinite(value) and value > 0, name, value, "a finite number > 0")
    check(math.isfinite(inv_eta2) and inv_eta2 >= 0, "inv_eta2", inv_eta2, "a finite number >= 0")
    check(noise in (NO_NOISE, INDEPENDENT, AVERAGED), "noise", noise, "NO_NOISE, INDEPENDENT or AVERAGED")
    if xi is not None:
        check(tuple(xi.shape) == tuple(xi_shape) and xi.device == x.device and not xi.is_complex(), "xi",
              f"{xi.dtype} of shape {tuple(xi.shape)} on {xi.device}", f"real, of shape {tuple(xi_shape)} on {x.device}")


def check_stream(numbers: int, step: int, noise: int, xi: Tensor | None) -> None:
    """The step, the one after it where that is drawn from too, and the quads of an image must fit their counter words."""
    drawn = noise != NO_NOISE and xi is None
    check(0 <= step <= MASK - (drawn and noise == AVERAGED), "step", step, "an integer in [0, 2**32), as the step after it")
    check(not drawn or 0 < numbers <= 1 << 34, "x", f"{numbers} numbers an image", "1 to 2**34")


def check_state(name: str, value: Tensor, x: Tensor) -> None:
    """`value` must be a contiguous float32 or float64 state (N, H, W, C') of the dtype and on the device of x."""
    ok = value.ndim == 4 and value.is_contiguous() and value.dtype == x.dtype and value.device == x.device
    check(ok and value.dtype in (torch.float32, torch.float64), name,
          f"{value.dtype} of shape {tuple(value.shape)}, strides {value.stride()} on {value.device}",
          "a contiguous state (N, H, W, C'), float32 or float64, all states alike")


def check_like(name: str, value: Tensor, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
    """`value` must have this shape, dtype and device, and be contiguous."""
    ok = tuple(value.shape) == tuple(shape) and value.dtype == dtype and value.device == device and value.is_contiguous()
    check(ok, name, f"{value.dtype} of shape {tuple(value.shape)}, strides {value.stride()} on {value.device}",
          f"{dtype} of shape {tuple(shape)} on {device}, contiguous")


def by_measurement(rows: Tensor, b: Tensor) -> Tensor:
    """View of rows (N, ...) as (B, N/B, ...): row n belongs to measurement n // (N/B)."""
    return rows.unflatten(0, (len(b), -1))


def right_hand_side(x: Tensor, grad: Tensor, b: Tensor, lin: float, w: float) -> Tensor:
    """b + lin x − w ∇E, a new tensor (N, H, W, C')."""
    return torch.add(b[:, None], by_measurement(x, b), alpha=lin).flatten(0, 1).sub_(grad, alpha=w)


def unit_noise(x: Tensor, shape: Sequence[int], chains: Tensor, noise: int, seed: int, step: int, xi: Tensor | None) -> Tensor:
    """ξ of this shape (N, ...) in the dtype of x: `xi` if given, else Philox's (the same bits on every backend)."""
    if xi is None:
        xi = step_noise(chains, math.prod(shape[1:]), seed, step, noise).view(*shape)
    return xi.to(x.dtype)


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """complex64 for float32, complex128 for float64."""
    return torch.complex128 if dtype == torch.float64 else torch.complex64
