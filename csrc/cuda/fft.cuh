// Fourier transforms of n numbers, n without prime factors above 7, in a block's shared memory: in place, not normalised.
//
// Forward by decimation in frequency, which leaves frequency k at place[k], the digits of k in reverse; inverse by decimation in
// time, from there back to natural order. So a pass needs no second buffer, and a block takes as many sequences as its memory
// holds. Neighbouring threads take the same butterfly of neighbouring sequences, so the twiddles of a warp are one address; rows
// have an odd pitch and a gap after every 16 cells, so that none meet in a bank, nor where threads go along a row by strides.
#pragma once

#include "../common/butterfly.h"
#include "lanes.h"
#include "launch.h"

namespace alps::cuda {

struct Transform {
  uint32_t n, passes;
  uint64_t radices;  // four bits each, the first of the forward transform lowest
};

inline Transform transform_of(int64_t n) {
  Transform plan = {static_cast<uint32_t>(n), 0, 0};
  for (const int radix : radices_of(n)) plan.radices |= static_cast<uint64_t>(radix) << 4 * plan.passes++;
  return plan;
}

struct Divisor {  // of numbers a with a * by <= 2^32, by a multiplication
  __device__ explicit Divisor(uint32_t by) : by(by), reciprocal(0xffffffffu / by + 1) {}
  __device__ __forceinline__ uint32_t operator()(uint32_t a) const { return by == 1 ? a : __umulhi(a, reciprocal); }
  uint32_t by, reciprocal;
};

// What a transform looks up: exp(-2 pi i k / n), and where frequency k lies.
struct Tables {
  __device__ Tables(float2* memory, uint32_t n) : roots(memory), place(reinterpret_cast<uint16_t*>(memory + n)) {}
  float2* roots;
  uint16_t* place;
};

ALPS_CONSTANT int64_t table_bytes(int64_t n) { return (10 * n + 15) / 16 * 16; }

__device__ __forceinline__ void fill(const Tables& tables, const Transform& plan) {
  for (uint32_t k = threadIdx.x; k < plan.n; k += blockDim.x) {
    float cosine, sine;
    circle<Thread>(static_cast<uint32_t>(((static_cast<uint64_t>(k) << 32) + plan.n / 2) / plan.n), cosine, sine);
    tables.roots[k] = make_float2(cosine, -sine);
    uint32_t digits = k, place = 0, weight = plan.n;
    for (uint32_t i = 0; i < plan.passes; ++i) {
      const uint32_t radix = plan.radices >> 4 * i & 15, rest = digits / radix;
      weight /= radix;
      place += (digits - rest * radix) * weight;
      digits = rest;
    }
    tables.place[k] = static_cast<uint16_t>(place);
  }
}

// Where cell w of a row is, and what a row takes.
ALPS_CONSTANT uint32_t padded(uint32_t w) { return w + w / 16; }
ALPS_CONSTANT uint32_t pitch_of(uint32_t width) { return (padded(width - 1) + 1) | 1; }

struct Sequences {  // rows, or columns; which is known where this is inlined
  Divisor count;
  uint32_t pitch;
  bool rows;
  __device__ __forceinline__ uint32_t operator()(uint32_t sequence, uint32_t e) const {
    return rows ? sequence * pitch + padded(e) : padded(sequence) + e * pitch;
  }
};

__device__ __forceinline__ Sequences rows_of(uint32_t count, uint32_t pitch) { return {Divisor(count), pitch, true}; }
__device__ __forceinline__ Sequences columns_of(uint32_t count, uint32_t pitch) { return {Divisor(count), pitch, false}; }

__device__ __forceinline__ float2 times(float2 a, float2 b) {
  return make_float2(__fmaf_rn(-a.y, b.y, a.x * b.x), __fmaf_rn(a.y, b.x, a.x * b.y));
}

__device__ __forceinline__ float2 conjugate_times(float2 a, float2 b) {  // conj(a) b
  return make_float2(__fmaf_rn(a.y, b.y, a.x * b.x), __fmaf_rn(-a.y, b.x, a.x * b.y));
}

// Of the pass between blocks of R l elements and of l: sums over elements l apart, and their twiddles.
template <int R, bool INVERSE>
__device__ __forceinline__ void pass(const Sequences& all, const float2* roots, uint32_t n, uint32_t l, float2* data) {
  const Divisor by_l(l);
  const uint32_t count = all.count.by, stride = n / (l * R);
  for (uint32_t i = threadIdx.x; i < count * (n / R); i += blockDim.x) {
    const uint32_t t = all.count(i), q = i - t * count, block = by_l(t), p = t - block * l;
    const uint32_t first = block * l * R + p;
    float re[R], im[R];
    ALPS_UNROLL
    for (uint32_t j = 0; j < R; ++j) {
      float2 v = data[all(q, first + j * l)];
      if (INVERSE && l > 1 && j > 0) v = conjugate_times(roots[p * j * stride], v);
      re[j] = v.x, im[j] = v.y;
    }
    if (INVERSE) butterfly<Thread, R>(im, re);
    else butterfly<Thread, R>(re, im);
    ALPS_UNROLL
    for (uint32_t k = 0; k < R; ++k) {
      float2 v = make_float2(re[k], im[k]);
      if (!INVERSE && l > 1 && k > 0) v = times(roots[p * k * stride], v);
      data[all(q, first + k * l)] = v;
    }
  }
  __syncthreads();
}

// All threads of the block, after a barrier, and with one at the end.
template <bool INVERSE>
__device__ __forceinline__ void transform(const Transform& plan, const float2* roots, const Sequences& all, float2* data) {
  uint32_t l = INVERSE ? 1 : plan.n;
#pragma unroll 1
  for (uint32_t i = 0; i < plan.passes; ++i) {
    const uint32_t radix = plan.radices >> 4 * (INVERSE ? plan.passes - 1 - i : i) & 15;
    if (!INVERSE) l /= radix;
    switch (radix) {
      case 2: pass<2, INVERSE>(all, roots, plan.n, l, data); break;
      case 3: pass<3, INVERSE>(all, roots, plan.n, l, data); break;
      case 4: pass<4, INVERSE>(all, roots, plan.n, l, data); break;
      case 5: pass<5, INVERSE>(all, roots, plan.n, l, data); break;
      case 7: pass<7, INVERSE>(all, roots, plan.n, l, data); break;
      default: pass<8, INVERSE>(all, roots, plan.n, l, data);
    }
    if (INVERSE) l *= radix;
  }
}

}  // namespace alps::cuda
