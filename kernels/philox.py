"""Device functions: Philox4x32-10 and the normals made of it, by the recipe of csrc/common/philox.h, bit for bit.

Only integer operations, conversions, +, x, fma and the correctly rounded square root, so that every backend has the
same bits; a product that feeds a sum is an fma, which leaves a compiler nothing to contract.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def philox4x32(c0, c1, c2, c3, k0, k1):
    """Four words of 32 bits for counter (c0, c1, c2, c3) and key (k0, k1), all uint32 of one shape ([Philox])."""
    for _ in tl.static_range(10):
        h0 = tl.umulhi(c0, 0xD2511F53)
        h1 = tl.umulhi(c2, 0xCD9E8D57)
        l0 = c0 * 0xD2511F53
        l1 = c2 * 0xCD9E8D57
        c0 = h1 ^ c1 ^ k0
        c1 = l1
        c2 = h0 ^ c3 ^ k1
        c3 = l0
        k0 += 0x9E3779B9
        k1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def uniform(word):
    """u = word 2⁻³² + 2⁻³³ in (0, 1]."""
    return tl.fma(word.to(tl.float32), 2.3283064365386963e-10, 1.1641532182693481e-10)


@triton.jit
def box_muller(r0, r1):
    """√(−2 ln u(r0)) (cos, sin)(2π r1 / 2³²)."""
    b = uniform(r0).to(tl.uint32, bitcast=True)
    e = (b - 0x3F3504F3).to(tl.int32, bitcast=True) >> 23  # u = 2^e (1 + f), 1 + f in [√½, √2)
    f = (b - (e << 23).to(tl.uint32, bitcast=True)).to(tl.float32, bitcast=True) - 1.0
    z = f * f
    p = tl.fma(f, 7.0376836292e-2, -1.1514610310e-1)
    p = tl.fma(p, f, 1.1676998740e-1)
    p = tl.fma(p, f, -1.2420140846e-1)
    p = tl.fma(p, f, 1.4249322787e-1)
    p = tl.fma(p, f, -1.6668057665e-1)
    p = tl.fma(p, f, 2.0000714765e-1)
    p = tl.fma(p, f, -2.4999993993e-1)
    p = tl.fma(p, f, 3.3333331174e-1)
    log1p = tl.fma(f * z, p, tl.fma(z, -0.5, f))
    radius = tl.sqrt_rn(tl.fma(e.to(tl.float32), 0.693147180559945, log1p) * -2.0)

    quarter = (r1 + 0x20000000) >> 30  # the angle is quarter π/2 + a, |a| <= π/4
    a = (r1 - (quarter << 30)).to(tl.int32, bitcast=True).to(tl.float32) * 1.4629180792671596e-9
    w = a * a
    s = tl.fma(tl.fma(w, -1.9515295891e-4, 8.3321608736e-3), w, -1.6666654611e-1)
    c = tl.fma(tl.fma(w, 2.443315711809948e-5, -1.388731625493765e-3), w, 4.166664568298827e-2)
    s = tl.fma(s, a * w, a).to(tl.uint32, bitcast=True)
    c = tl.fma(c, w * w, tl.fma(w, -0.5, 1.0)).to(tl.uint32, bitcast=True)
    swap = tl.where((quarter & 1) != 0, s ^ c, 0)
    cosine = (c ^ swap ^ (((quarter + 1) & 2) << 30)).to(tl.float32, bitcast=True)
    sine = (s ^ swap ^ ((quarter & 2) << 30)).to(tl.float32, bitcast=True)
    return radius * cosine, radius * sine


@triton.jit
def id_at(ids, row):
    """A row of an op's `ids`: what is counted of the chain, and its measurement, int64."""
    at = ids + row + row
    return tl.load(at), tl.load(at + 1)


@triton.jit
def counted_words(zero, chain, key0, key1, step, tag):
    """The last three words of the counter, and the key, of the shape of zero."""
    counted, measurement = chain
    ahead = step.to(tl.uint32) + (counted >> 32).to(tl.uint32)
    above = tag.to(tl.uint32) + (measurement.to(tl.uint32) << 8)
    return (zero + ahead, zero + counted.to(tl.uint32), zero + above, zero + key0.to(tl.uint32), zero + key1.to(tl.uint32))


@triton.jit
def half_turn(chain):
    """What a MIRRORED chain's angles are changed by, which gives minus its numbers; else 0."""
    return chain[1].to(tl.uint32) & 0x80000000


@triton.jit
def normals(quads, chain, key0, key1, step, tag):
    """Normals (4 len(quads),) of these quads of a chain's image, in order; quads uint32, chain of `id_at`, the other words
    scalars."""
    c1, c2, c3, k0, k1 = counted_words(tl.zeros_like(quads), chain, key0, key1, step, tag)
    r0, r1, r2, r3 = philox4x32(quads, c1, c2, c3, k0, k1)
    turn = half_turn(chain)
    n0, n1 = box_muller(r0, r1 ^ turn)
    n2, n3 = box_muller(r2, r3 ^ turn)
    return tl.interleave(tl.interleave(n0, n2), tl.interleave(n1, n3))


@triton.jit
def step_noise(quads, chain, key0, key1, step, AVERAGED: tl.constexpr):
    """ξ of one Langevin step: R_step, or (R_step + R_{step+1})/√2 ([LM])."""
    tag = tl.full((), 1, tl.uint32)
    xi = normals(quads, chain, key0, key1, step, tag)
    if AVERAGED:
        xi = (xi + normals(quads, chain, key0, key1, step.to(tl.uint32) + 1, tag)) * 0.70710678118654752
    return xi


@triton.jit
def pairs(pair, chain, key0, key1, step, tag):
    """Normals 2 pair and 2 pair + 1 of each chain's image; pair uint32, chain of `id_at` in a shape that fits it, the others
    scalars."""
    c1, c2, c3, k0, k1 = counted_words(tl.zeros_like(pair), chain, key0, key1, step, tag)
    r0, r1, r2, r3 = philox4x32(pair >> 1, c1, c2, c3, k0, k1)
    second = (pair & 1) != 0
    return box_muller(tl.where(second, r2, r0), tl.where(second, r3, r1) ^ half_turn(chain))


@triton.jit
def step_pairs(pair, chain, key0, key1, step, AVERAGED: tl.constexpr):
    """ξ of one Langevin step, as `step_noise`, two numbers for each pair."""
    tag = tl.full((), 1, tl.uint32)
    real, imaginary = pairs(pair, chain, key0, key1, step, tag)
    if AVERAGED:
        then = pairs(pair, chain, key0, key1, step.to(tl.uint32) + 1, tag)
        real, imaginary = (real + then[0]) * 0.70710678118654752, (imaginary + then[1]) * 0.70710678118654752
    return real, imaginary
