// Vectors for arithmetic whose bits need not be those of other instruction sets: as Lanes, but never a single lane, and
// with a product taken away.
#pragma once

#include "../common/philox.h"
#include "lanes.h"

namespace alps::ALPS_ISA {

#if defined(__AVX512F__)

struct Wide : Lanes {
  ALPS_INLINE F fnma(F a, F b, F c) { return (F)_mm512_fnmadd_ps((__m512)a, (__m512)b, (__m512)c); }  // c - a b
  ALPS_INLINE F turned(const float* batch, int) {  // the vector at `v` of a batch of 16, its halves changed about
    const __m512 x = _mm512_loadu_ps(batch);
    return (F)_mm512_shuffle_f32x4(x, x, 0x4E);
  }
  template <bool UPPER>  // the vector at `v` of a batch of 16 made of the lower halves of two, or of the upper ones
  ALPS_INLINE F halves(const float* first, const float* second, int) {
    return (F)_mm512_shuffle_f32x4(_mm512_loadu_ps(first), _mm512_loadu_ps(second), UPPER ? 0xEE : 0x44);
  }
  ALPS_INLINE void split(const float* pairs, F& first, F& second) {  // of a vector of pairs, the first ones and the second ones
    const __m512 a = _mm512_loadu_ps(pairs), b = _mm512_loadu_ps(pairs + 16);
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    first = (F)_mm512_permutex2var_ps(a, even, b);
    second = (F)_mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b);
  }
  template <class In>
  ALPS_INLINE F parts(const In& in) {  // four floats each from in(0), in(1), ...
    __m512 x = _mm512_castps128_ps512(_mm_loadu_ps(in(0)));
    x = _mm512_insertf32x4(x, _mm_loadu_ps(in(1)), 1);
    x = _mm512_insertf32x4(x, _mm_loadu_ps(in(2)), 2);
    return (F)_mm512_insertf32x4(x, _mm_loadu_ps(in(3)), 3);
  }
};

#elif defined(__AVX2__) && defined(__FMA__)

struct Wide : Lanes {
  ALPS_INLINE F fnma(F a, F b, F c) { return (F)_mm256_fnmadd_ps((__m256)a, (__m256)b, (__m256)c); }
  ALPS_INLINE F turned(const float* batch, int v) { return load(batch + (v ^ 8)); }
  template <bool UPPER>
  ALPS_INLINE F halves(const float* first, const float* second, int v) {
    return load((v < 8 ? first : second) + v % 8 + (UPPER ? 8 : 0));
  }
  ALPS_INLINE void split(const float* pairs, F& first, F& second) {
    const __m256 a = _mm256_loadu_ps(pairs), b = _mm256_loadu_ps(pairs + 8);
    const __m256 low = _mm256_permute2f128_ps(a, b, 0x20), high = _mm256_permute2f128_ps(a, b, 0x31);
    first = (F)_mm256_shuffle_ps(low, high, 0x88);
    second = (F)_mm256_shuffle_ps(low, high, 0xDD);
  }
  template <class In>
  ALPS_INLINE F parts(const In& in) {
    return (F)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(in(0))), _mm_loadu_ps(in(1)), 1);
  }
};

#else

struct Wide {
  static constexpr int width = 4;
  typedef float F __attribute__((vector_size(16)));

  ALPS_INLINE F broadcast(float x) { return F{x, x, x, x}; }
  ALPS_INLINE F fma(F a, F b, F c) { return plus_product(a, b, c); }
  ALPS_INLINE F fnma(F a, F b, F c) { return minus_product(a, b, c); }
  ALPS_INLINE F load(const float* in) {
    F x;
    std::memcpy(&x, in, sizeof x);
    return x;
  }
  ALPS_INLINE void save(F x, float* out) { std::memcpy(out, &x, sizeof x); }
  ALPS_INLINE F turned(const float* batch, int v) { return load(batch + (v ^ 8)); }
  template <bool UPPER>
  ALPS_INLINE F halves(const float* first, const float* second, int v) {
    return load((v < 8 ? first : second) + v % 8 + (UPPER ? 8 : 0));
  }
  ALPS_INLINE void split(const float* pairs, F& first, F& second) {
    first = F{pairs[0], pairs[2], pairs[4], pairs[6]};
    second = F{pairs[1], pairs[3], pairs[5], pairs[7]};
  }
  template <class In>
  ALPS_INLINE F parts(const In& in) {
    return load(in(0));
  }
  ALPS_INLINE void in_order(F n[4]) {
    for (int i = 1; i < 4; ++i)
      for (int j = 0; j < i; ++j) {
        const float x = n[i][j];
        n[i][j] = n[j][i];
        n[j][i] = x;
      }
  }
};

#endif

// out(j)[i] = in(i)[j] for SIDE x SIDE floats; in and out give the address of a row.
template <int SIDE, class In, class Out>
ALPS_INLINE void transpose(const In& in, const Out& out) {
  static_assert(SIDE % Wide::width == 0 && SIDE % 4 == 0, "whole vectors");
  for (int i = 0; i < SIDE; i += Wide::width)
    for (int j = 0; j < SIDE; j += 4) {
      Wide::F n[4];
      ALPS_UNROLL
      for (int k = 0; k < 4; ++k) n[k] = Wide::parts([&](int p) { return in(i + 4 * p + k) + j; });
      Wide::in_order(n);
      ALPS_UNROLL
      for (int k = 0; k < 4; ++k) Wide::save(n[k], out(j + k) + i);
    }
}

}  // namespace alps::ALPS_ISA
