"""A Langevin step, whatever its operator: the checks of its arguments, the right-hand side of the projection, and the noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import check, refused
from ._dispatch import chosen, resolved, slower
from .philox_normal import AVERAGED, GIVEN, INDEPENDENT, MASK, NO_NOISE, counters, step_noise

FLOATS = (torch.float32, torch.float64)


def check_step(x: Tensor, grad: Tensor, b: Tensor, ids: Tensor, lam: float, lin: float, w: float, inv_eta2: float,
               noise_lam: float, noise: int, xi: Tensor | None, xi_shape: Sequence[int], level: Tensor | None = None) -> None:
    """The arguments every Langevin op has: x, grad (N, H, W, C'), b (B, H, W, C') with B dividing N, ids (N,) or (N, 2)."""
    check_state("x", x, x)
    check_state("grad", grad, x)
    check_state("b", b, x)
    shape, rows = x.shape, len(x)
    if 0 in shape[1:]:
        raise refused("x", f"shape {tuple(shape)}", "images of a pixel and a channel at least")
    if grad.shape != shape:
        raise refused("grad", f"shape {tuple(grad.shape)}", f"the shape of x, {tuple(shape)}")
    if b.shape[1:] != shape[1:] or len(b) == 0 or rows % len(b) != 0:
        raise refused("b", f"shape {tuple(b.shape)}", f"(B, *{tuple(shape[1:])}) with B dividing {rows}")
    if ids.shape not in ((rows,), (rows, 2)) or ids.dtype != torch.int64 or ids.device != x.device:
        raise refused("ids", f"{ids.dtype} of shape {tuple(ids.shape)} on {ids.device}",
                      f"int64 of shape ({rows},) or ({rows}, 2) on {x.device}")
    if level is None:
        check_level(lam, lin, w, inv_eta2, noise_lam)
    else:
        check_like("level", level, (5,), x.dtype, x.device)
    check(noise in (NO_NOISE, INDEPENDENT, AVERAGED), "noise", noise, "NO_NOISE, INDEPENDENT or AVERAGED")
    if xi is not None and (tuple(xi.shape) != tuple(xi_shape) or xi.device != x.device or xi.is_complex()):
        raise refused("xi", f"{xi.dtype} of shape {tuple(xi.shape)} on {xi.device}",
                      f"real, of shape {tuple(xi_shape)} on {x.device}")


def check_level(lam: float, lin: float, w: float, inv_eta2: float, noise_lam: float) -> None:
    """The scalars of a level."""
    check(math.isfinite(lin), "lin", lin, "a finite number")
    check(math.isfinite(w), "w", w, "a finite number")
    check(math.isfinite(lam) and lam > 0, "lam", lam, "a finite number > 0")
    check(math.isfinite(noise_lam) and noise_lam > 0, "noise_lam", noise_lam, "a finite number > 0")
    check(math.isfinite(inv_eta2) and inv_eta2 >= 0, "inv_eta2", inv_eta2, "a finite number >= 0")


def table(levels: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """lam, lin, w, inv_eta2 and noise_lam of every step, (steps, 5) of the dtype and on the device of `like`; a row is a `level`.

    Raises:
        ArgumentError: naming the scalar.
    """
    for level in levels:
        check_level(*level)
    return torch.tensor(levels, dtype=torch.float64, device="cpu").view(-1, 5).to(like.device, like.dtype)


def at_level(level: Tensor | None, *numbers: float) -> tuple[Any, ...]:
    """lam, lin, w, inv_eta2, noise_lam for a reference: the numbers, or those of the row as tensors, for which nobody waits."""
    return numbers if level is None else level.unbind()


def on_host(level: Tensor | None, *numbers: float) -> tuple[Sequence[float], Tensor | None]:
    """The numbers and the row for kernels: where the row lies on the CPU, its numbers, and no row."""
    return (level.tolist(), None) if level is not None and level.device.type == "cpu" else (numbers, level)


def root(v: float | Tensor) -> float | Tensor:
    """√v of a scalar of `at_level`."""
    return v.sqrt() if isinstance(v, Tensor) else math.sqrt(v)


def check_stream(numbers: int, step: int, noise: int, xi: Tensor | None) -> None:
    """The step, the one after it where that is drawn from too, and the quads of an image must fit their counter words."""
    drawn = noise != NO_NOISE and xi is None
    check(0 <= step <= MASK - (drawn and noise == AVERAGED), "step", step, "an integer in [0, 2**32), as the step after it")
    if drawn and numbers > 1 << 34:
        raise refused("x", f"{numbers} numbers an image", "at most 2**34")


def check_state(name: str, value: Tensor, x: Tensor) -> None:
    """`value` must be a contiguous float32 or float64 state (N, H, W, C') of the dtype and on the device of x."""
    dtype = value.dtype
    if not (value.ndim == 4 and value.is_contiguous() and dtype in FLOATS and dtype == x.dtype and value.device == x.device):
        raise refused(name, described(value), "a contiguous state (N, H, W, C'), float32 or float64, all states alike")


def check_diagonal(a: Tensor, x: Tensor, b: Tensor) -> None:
    """a, the diagonal of AᴴA: (1|B, H, W, 1|C') like the state x (N, H, W, C') with b (B, H, W, C')."""
    check_state("a", a, x)
    if len(a) not in (1, len(b)) or a.shape[1:3] != x.shape[1:3] or a.shape[3] not in (1, x.shape[3]):
        raise refused("a", f"shape {tuple(a.shape)}", f"(1 or {len(b)}, {x.shape[1]}, {x.shape[2]}, 1 or {x.shape[3]})")


def one_complex_channel(x: Tensor) -> tuple[int, int]:
    """The height and width of a state x, which must be (N, H, W, 2)."""
    check(x.ndim == 4 and x.shape[-1] == 2, "x", f"shape {tuple(x.shape)}", "(N, H, W, 2)")
    return x.shape[1], x.shape[2]


def check_like(name: str, value: Tensor, shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> None:
    """`value` must have this shape, dtype and device, and be contiguous."""
    if value.shape != tuple(shape) or value.dtype != dtype or value.device != device or not value.is_contiguous():
        raise refused(name, described(value), f"{dtype} of shape {tuple(shape)} on {device}, contiguous")


def check_kind(name: str, value: Tensor, x: Tensor) -> None:
    """`value` must have the dtype and device of x."""
    if value.dtype != x.dtype or value.device != x.device:
        raise refused(name, f"{value.dtype} on {value.device}", f"{x.dtype} on {x.device}, as x")


def described(value: Tensor) -> str:
    """A tensor, for an error."""
    return f"{value.dtype} of shape {tuple(value.shape)}, strides {value.stride()} on {value.device}"


def check_operators(operators: int, b: Tensor) -> None:
    """Rows must belong to so many operators, each to equally many."""
    check(operators > 0 and len(b) % operators == 0, "b", f"{len(b)} rows", f"a multiple of {operators}")


def at_once(backend: str, x: Tensor) -> bool:
    """Whether the backend takes rows of several operators in one call, by an op that can."""
    return resolved(backend, x.device) in ("cpu", "torch")


def tell_of_turns(op: str, backend: str, operators: int, x: Tensor) -> None:
    """Tell of rows of several operators that run one operator after another, where it takes longer and nobody named the backend.

    A GPU is less busy then, and so are threads that have no row of the one operator.
    """
    name, idle = resolved(backend, x.device), x.device.type != "cpu" or len(x) < operators * torch.get_num_threads()
    if operators > 1 and idle and chosen(backend) == "auto":
        slower(f"{op}: {name!r} takes one operator a call; those of several measurements run one after another, more slowly")


def one_by_one(operators: int, step: Callable[..., tuple[Tensor, Tensor]], x: Tensor, grad: Tensor, b: Tensor, ids: Tensor,
               xi: Tensor | None) -> tuple[Tensor, Tensor]:
    """A step of rows that have so many operators, in order and of equally many rows: step(k, x, grad, b, ids, xi) of each."""
    rows, of_b = len(x) // operators, len(b) // operators

    def part(k: int) -> tuple[Tensor, Tensor]:
        here = slice(k * rows, (k + 1) * rows)
        return step(k, x[here], grad[here], b[k * of_b:(k + 1) * of_b], ids[here], None if xi is None else xi[here])

    after, mean = zip(*map(part, range(operators)), strict=True)
    return torch.cat(after), torch.cat(mean)


def by_measurement(rows: Tensor, b: Tensor) -> Tensor:
    """View of rows (N, ...) as (B, N/B, ...): row n belongs to measurement n // (N/B)."""
    return rows.unflatten(0, (len(b), -1))


def right_hand_side(x: Tensor, grad: Tensor, b: Tensor, lin: float | Tensor, w: float | Tensor) -> Tensor:
    """b + lin x − w ∇E, a new tensor (N, H, W, C')."""
    if isinstance(lin, Tensor) or isinstance(w, Tensor):
        return (b[:, None] + by_measurement(x, b) * lin).flatten(0, 1).sub_(grad * w)
    return torch.add(b[:, None], by_measurement(x, b), alpha=lin).flatten(0, 1).sub_(grad, alpha=w)


def unit_noise(x: Tensor, shape: Sequence[int], ids: Tensor, noise: int, seed: int, step: int, xi: Tensor | None) -> Tensor:
    """ξ of this shape (N, ...) in the dtype of x: `xi` if given, else Philox's (the same bits on every backend)."""
    if xi is None:
        xi = step_noise(ids.contiguous(), math.prod(shape[1:]), seed, step, noise).view(*shape)
    return xi.to(x.dtype)


def perturbed_and_solved(x: Tensor, rhs: Tensor, drawn: Tensor | None, lam: float | Tensor,
                         noise_lam: float | Tensor, solve: Callable[[Tensor, Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(m + P(noise_lam) drawn, m), m = P(lam) rhs, of one batch of systems; m starts from x. Without noise: (m, m).

    solve: (rhs, start, shift) -> P(shift) rhs, shift (N,).
    """
    start, shift = x, x.new_ones(len(x)) * lam
    if drawn is None:
        mean = solve(rhs, start, shift)
        return mean.clone(), mean
    solved = solve(torch.cat([rhs, drawn]), torch.cat([start, torch.zeros_like(x)]),
                   torch.cat([shift, torch.ones_like(shift) * noise_lam]))
    return solved[:len(x)] + solved[len(x):], solved[:len(x)].clone()


def as_drawn(x: Tensor, ids: Tensor, noise: int, xi: Tensor | None) -> tuple[Tensor, int, Tensor | None]:
    """ids, noise and xi as kernels read them: xi alone where it is GIVEN, else none."""
    if xi is None or noise == NO_NOISE:
        return counters(ids), noise, None
    return counters(ids), GIVEN, xi.to(x.dtype).contiguous()


def complex_dtype(dtype: torch.dtype) -> torch.dtype:
    """complex64 for float32, complex128 for float64."""
    return torch.complex128 if dtype == torch.float64 else torch.complex64
