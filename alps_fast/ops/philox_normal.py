"""philox_normal: counter-based standard normals, the same bits on every backend."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import check, refused
from ._compiled import Kernel, compiled
from ._dispatch import Op, dispatch, implements

LANGEVIN, MEASUREMENT, METROPOLIS, LEAP = 1, 2, 3, 4  # streams: the tag word of the counter
NO_NOISE, INDEPENDENT, AVERAGED = 0, 1, 2  # what a Langevin step adds, see step_noise
GIVEN = 3  # what kernels take for noise that comes as an array

MASK = 0xFFFFFFFF
TAG_BITS = 8  # of the counter's last word; above them stands the measurement's index
MEASUREMENTS = 1 << 32 - TAG_BITS
MIRRORED = 1 << 31  # of a row's measurement: minus the numbers of the chain without it; half a turn of a 32-bit angle
CHUNK = 1 << 14  # quads at a time: the temporaries of one chunk stay in cache


def _float32(*values: float) -> tuple[float, ...]:
    return tuple(torch.tensor(values, dtype=torch.float32, device="cpu").tolist())


LOG = _float32(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1,
               -1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1)
SIN = _float32(-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
COS = _float32(2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
LN2, TURN = _float32(0.693147180559945, 6.283185307179586 / 2**32)  # TURN: radians in one step of a 32-bit angle


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four words of 32 bits, as int64 tensors, for each counter ([Philox])."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57  # wraps modulo 2^64, which leaves the bits right
        c0, c1, c2, c3 = (p1 >> 32 & MASK) ^ c1 ^ k0, p1 & MASK, (p0 >> 32 & MASK) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def fma32(a: Tensor | float, b: Tensor, c: Tensor | float) -> Tensor:
    """a·b + c rounded once to float32, for float32 tensors, and floats that are float32 values.

    The product of two float32 is exact in float64. Their sum with c is rounded to odd there (of the two float64
    around the exact sum, the one with an odd last bit), and 53 bits rounded to odd round to 24 as the exact sum does.
    """
    product = b.double() * (a.double() if isinstance(a, Tensor) else a)
    term = c.double() if isinstance(c, Tensor) else c
    total = product + term
    back = total - product
    error = (product - (total - back)) + (term - back)  # exact: Knuth's two-sum
    bits = total.view(torch.int64)
    towards = (error * total).sign_().to(torch.int64)  # +1: the exact sum lies further from zero
    return (bits + towards * (~bits & 1)).view(torch.float64).float()


def horner32(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    """Polynomial in x, highest power first, by `fma32`."""
    value: Tensor | float = coefficients[0]
    for coefficient in coefficients[1:]:
        value = fma32(value, x, coefficient)
    assert isinstance(value, Tensor)
    return value


def uniform(word: Tensor) -> Tensor:
    """u = fma(word, 2⁻³², 2⁻³³) in (0, 1], float32."""
    return fma32(2.0**-32, word.float(), 2.0**-33)


def box_muller(r0: Tensor, r1: Tensor) -> tuple[Tensor, Tensor]:
    """Two normals √(−2 ln u)·(cos θ, sin θ) of two 32-bit words, by operations that IEEE 754 rounds correctly alone."""
    bits = uniform(r0).view(torch.int32)
    e = (bits - 0x3F3504F3) >> 23
    f = (bits - (e << 23)).view(torch.float32) - 1
    z = f * f
    log = fma32(LN2, e.float(), fma32(f * z, horner32(LOG, f), fma32(-0.5, z, f)))
    radius = (-2 * log).double().sqrt().float()  # correctly rounded; torch's own float32 sqrt (MKL) is not always

    quarter = (r1 + (1 << 29)) >> 30
    a = (r1 - (quarter << 30)).float() * TURN
    w = a * a
    sin = fma32(horner32(SIN, w), a * w, a)
    cos = fma32(horner32(COS, w), w * w, fma32(-0.5, w, 1.0))
    odd = (quarter & 1).bool()
    sin, cos = torch.where(odd, cos, sin), torch.where(odd, sin, cos)
    sin = torch.where((quarter & 2).bool(), -sin, sin)
    cos = torch.where((quarter + 1 & 2).bool(), -cos, cos)
    return radius * cos, radius * sin


def counters(ids: Tensor) -> Tensor:
    """An op's `ids` as kernels read them, (N, 2), contiguous and a row at a time on 16 bytes."""
    rows = (ids if ids.ndim == 2 else torch.stack([ids, torch.zeros_like(ids)], 1)).contiguous()
    return rows.clone() if rows.storage_offset() % 2 else rows


def streams(ids: Tensor) -> int:
    """How many of an op's `ids` have noise of their own; a mirrored one has that of the other."""
    return len(torch.unique(counters(ids) & ~MIRRORED, dim=0))


def words(ids: Tensor, step: int, tag: int) -> tuple[Tensor, Tensor, Tensor]:
    """The last three words of the counter, of rows of `counters`."""
    counted, measurement = ids.unbind(1)
    return step + (counted >> 32) & MASK, counted & MASK, tag + (measurement << TAG_BITS) & MASK


@implements("philox_normal", "torch")
def philox_normal_reference(ids: Tensor, n: int, seed: int, step: int, tag: int) -> Tensor:
    """The definition; about 15 passes over memory an fma, so use it where nothing faster can run."""
    quads, ids = -(-n // 4), counters(ids)
    out = torch.empty(len(ids) * quads, 4, dtype=torch.float32, device=ids.device)
    for first in range(0, len(out), CHUNK):
        part = torch.arange(first, min(first + CHUNK, len(out)), device=ids.device)
        rows = ids[part // quads]
        r0, r1, r2, r3 = philox4x32((part % quads, *words(rows, step, tag)), (seed & MASK, seed >> 32 & MASK))
        turn = rows[:, 1] & MIRRORED
        torch.stack((*box_muller(r0, r1 ^ turn), *box_muller(r2, r3 ^ turn)), 1, out=out[first:first + CHUNK])
    return out.view(len(ids), quads * 4)[:, :n].contiguous()


@compiled("philox_normal", cpu="", cuda="")
def _philox_normal(kernel: Kernel, ids: Tensor, n: int, seed: int, step: int, tag: int) -> Tensor:
    ids, rows = counters(ids), len(ids)
    out = torch.empty(rows, n, dtype=torch.float32, device=ids.device)
    kernel(locals(), ids.device)
    return out


@Op
def philox_normal(ids: Tensor, n: int, seed: int, step: int, tag: int = LANGEVIN, backend: str = "auto") -> Tensor:
    """Standard normals R_step of every chain's image, a pure function of (seed, step, tag, measurement, chain, element).

        element e of chain c of measurement m: Box–Muller of Philox4x32-10(counter = (e >> 2, step, c, tag + 2⁸ m),
        key = (seed_lo, seed_hi)), words 0, 1 -> elements 0, 1 of the quad; words 2, 3 -> elements 2, 3

    Args:
        ids: (N,) or (N, 2) int64, contiguous. First chain indices in [0, 2³²), and in the high 32 bits what is added to
            step: so a CUDA graph, which holds step as it was captured, counts on by an addition on the device. Then the
            indices of their measurements in [0, 2²⁴), 0 where there are none, plus MIRRORED for minus these numbers.
        n: normals a chain, the numbers of an image of the layout (H, W, C') in order; 0 < n <= 2³⁴.
        seed: 64 bits (negative stands for its two's complement). step: in [0, 2³²). tag: stream, in [0, 2⁸).
        backend: one of `alps_fast.ops._dispatch.NAMES`.

    Returns:
        (N, n) float32, bit-identical on every backend; variance one in every real channel; |R| < 6.8.

    Raises:
        ArgumentError: naming the argument.

    Source: [Philox]; recipe of the normals in csrc/common/philox.h.
    """
    if ids.dtype != torch.int64 or ids.shape[1:] not in ((), (2,)) or ids.ndim == 0 or not ids.is_contiguous():
        raise refused("ids", f"{ids.dtype} of shape {tuple(ids.shape)}, strides {ids.stride()}",
                      "a contiguous int64 tensor (N,) or (N, 2)")
    check(0 < n <= 1 << 34, "n", n, "1 to 2**34")
    check(0 <= step <= MASK, "step", step, "an integer in [0, 2**32)")
    check(0 <= tag < 1 << TAG_BITS, "tag", tag, "an integer in [0, 2**8)")
    return dispatch("philox_normal", backend, ids.device, ids, n, seed, step, tag)


@philox_normal.register_fake
def _(ids: Tensor, n: int, seed: int, step: int, tag: int = LANGEVIN, backend: str = "auto") -> Tensor:
    return ids.new_empty((ids.shape[0], n), dtype=torch.float32)


def step_noise(ids: Tensor, n: int, seed: int, step: int, noise: int, backend: str = "auto") -> Tensor:
    """The noise ξ of one Langevin step, (N, n) float32: R_step if INDEPENDENT, (R_step + R_{step+1})/√2 if AVERAGED ([LM])."""
    check(noise in (INDEPENDENT, AVERAGED), "noise", noise, f"INDEPENDENT ({INDEPENDENT}) or AVERAGED ({AVERAGED})")
    xi = philox_normal(ids, n, seed, step, LANGEVIN, backend)
    if noise == AVERAGED:
        xi = xi.add_(philox_normal(ids, n, seed, step + 1, LANGEVIN, backend)).mul_(0.5**0.5)
    return xi


def philox_uniform(ids: Tensor, seed: int, step: int, tag: int = METROPOLIS) -> Tensor:
    """One uniform a chain in (0, 1], (N,) float32: word 0 of quad 0."""
    return philox_uniforms(ids, seed, step, tag, 0)[:, 0]


def philox_uniforms(ids: Tensor, seed: int, step: int, tag: int, quad: int) -> Tensor:
    """Four uniforms a chain in (0, 1], (N, 4) float32: the words of a quad. A mirrored row has those of the other."""
    counter = torch.full_like(ids.view(len(ids), -1)[:, 0], quad), *words(counters(ids), step, tag)
    return torch.stack([uniform(word) for word in philox4x32(counter, (seed & MASK, seed >> 32 & MASK))], 1)
