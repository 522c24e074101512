// A vector of lanes for the instruction set that this file is compiled for; see csrc/common/philox.h.
//
// Operators are those of the compilers' vector types. `quads` numbers the lanes so that a transpose inside the 128-bit
// parts alone, `in_order`, turns the four normals of every quad into four vectors of elements in order: lane 4 p + k holds
// quad (parts) k + p.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AMX_BF16__)
#define ALPS_ISA amx
#elif defined(__AVX512BF16__)
#define ALPS_ISA avx512bf16
#elif defined(__AVX512F__)
#define ALPS_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define ALPS_ISA avx2
#else
#define ALPS_ISA portable
#endif

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#define ALPS_INLINE static inline __attribute__((always_inline))

namespace alps::ALPS_ISA {

template <class To, class From>
ALPS_INLINE To bit_cast(From from) {
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

#if defined(__AVX512F__)

struct Lanes {
  static constexpr int width = 16;
  typedef float F __attribute__((vector_size(64)));
  typedef int32_t I __attribute__((vector_size(64)));
  typedef uint32_t U __attribute__((vector_size(64)));

  ALPS_INLINE U quads() { return U{0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15}; }
  ALPS_INLINE F broadcast(float x) { return (F)_mm512_set1_ps(x); }
  ALPS_INLINE F fma(F a, F b, F c) { return (F)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
  ALPS_INLINE F sqrt(F x) { return (F)_mm512_sqrt_ps((__m512)x); }
  ALPS_INLINE F to_float(U x) { return (F)_mm512_cvtepu32_ps((__m512i)x); }
  ALPS_INLINE F to_float(I x) { return (F)_mm512_cvtepi32_ps((__m512i)x); }
  ALPS_INLINE U bits(F x) { return (U)x; }
  ALPS_INLINE F from_bits(U x) { return (F)x; }
  struct Halves { U even, odd; };  // of 64-bit parts; the upper word of each is anything
  ALPS_INLINE U upper(U x) { return (U)_mm512_shuffle_epi32((__m512i)x, (_MM_PERM_ENUM)0xF5); }
  ALPS_INLINE Halves split(U x) { return {x, upper(x)}; }
  ALPS_INLINE Halves product(Halves x, uint32_t m) {
    const __m512i factor = _mm512_set1_epi32((int)m);
    return {(U)_mm512_mul_epu32((__m512i)x.even, factor), (U)_mm512_mul_epu32((__m512i)x.odd, factor)};
  }
  ALPS_INLINE Halves high(Halves x) { return {upper(x.even), upper(x.odd)}; }
  ALPS_INLINE Halves mix(Halves x, Halves y, uint32_t k) { return {x.even ^ y.even ^ k, x.odd ^ y.odd ^ k}; }
  ALPS_INLINE U join(Halves x) {
    const __m512i odd = _mm512_shuffle_epi32((__m512i)x.odd, (_MM_PERM_ENUM)0xA0);
    return (U)_mm512_mask_blend_epi32(0xAAAA, (__m512i)x.even, odd);
  }
  ALPS_INLINE F load(const float* in) { return (F)_mm512_loadu_ps(in); }
  ALPS_INLINE void save(F x, float* out) { _mm512_storeu_ps(out, (__m512)x); }
  ALPS_INLINE void in_order(F n[4]) {
    const __m512d a = (__m512d)_mm512_unpacklo_ps((__m512)n[0], (__m512)n[1]);
    const __m512d b = (__m512d)_mm512_unpackhi_ps((__m512)n[0], (__m512)n[1]);
    const __m512d c = (__m512d)_mm512_unpacklo_ps((__m512)n[2], (__m512)n[3]);
    const __m512d d = (__m512d)_mm512_unpackhi_ps((__m512)n[2], (__m512)n[3]);
    n[0] = (F)_mm512_unpacklo_pd(a, c);
    n[1] = (F)_mm512_unpackhi_pd(a, c);
    n[2] = (F)_mm512_unpacklo_pd(b, d);
    n[3] = (F)_mm512_unpackhi_pd(b, d);
  }
};

#elif defined(__AVX2__) && defined(__FMA__)

struct Lanes {
  static constexpr int width = 8;
  typedef float F __attribute__((vector_size(32)));
  typedef int32_t I __attribute__((vector_size(32)));
  typedef uint32_t U __attribute__((vector_size(32)));

  ALPS_INLINE U quads() { return U{0, 2, 4, 6, 1, 3, 5, 7}; }
  ALPS_INLINE F broadcast(float x) { return (F)_mm256_set1_ps(x); }
  ALPS_INLINE F fma(F a, F b, F c) { return (F)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
  ALPS_INLINE F sqrt(F x) { return (F)_mm256_sqrt_ps((__m256)x); }
  ALPS_INLINE F to_float(I x) { return (F)_mm256_cvtepi32_ps((__m256i)x); }
  ALPS_INLINE F to_float(U x) {  // both halves are exact, so the fma rounds once
    return fma(to_float((I)(x >> 16)), broadcast(65536.0f), to_float((I)(x & 0xFFFFu)));
  }
  ALPS_INLINE U bits(F x) { return (U)x; }
  ALPS_INLINE F from_bits(U x) { return (F)x; }
  struct Halves { U even, odd; };  // of 64-bit parts; the upper word of each is anything
  ALPS_INLINE U upper(U x) { return (U)_mm256_shuffle_epi32((__m256i)x, 0xF5); }
  ALPS_INLINE Halves split(U x) { return {x, upper(x)}; }
  ALPS_INLINE Halves product(Halves x, uint32_t m) {
    const __m256i factor = _mm256_set1_epi32((int)m);
    return {(U)_mm256_mul_epu32((__m256i)x.even, factor), (U)_mm256_mul_epu32((__m256i)x.odd, factor)};
  }
  ALPS_INLINE Halves high(Halves x) { return {upper(x.even), upper(x.odd)}; }
  ALPS_INLINE Halves mix(Halves x, Halves y, uint32_t k) { return {x.even ^ y.even ^ k, x.odd ^ y.odd ^ k}; }
  ALPS_INLINE U join(Halves x) {
    const __m256i odd = _mm256_shuffle_epi32((__m256i)x.odd, 0xA0);
    return (U)_mm256_blend_epi32((__m256i)x.even, odd, 0xAA);
  }
  ALPS_INLINE F load(const float* in) { return (F)_mm256_loadu_ps(in); }
  ALPS_INLINE void save(F x, float* out) { _mm256_storeu_ps(out, (__m256)x); }
  ALPS_INLINE void in_order(F n[4]) {
    const __m256d a = (__m256d)_mm256_unpacklo_ps((__m256)n[0], (__m256)n[1]);
    const __m256d b = (__m256d)_mm256_unpackhi_ps((__m256)n[0], (__m256)n[1]);
    const __m256d c = (__m256d)_mm256_unpacklo_ps((__m256)n[2], (__m256)n[3]);
    const __m256d d = (__m256d)_mm256_unpackhi_ps((__m256)n[2], (__m256)n[3]);
    n[0] = (F)_mm256_unpacklo_pd(a, c);
    n[1] = (F)_mm256_unpackhi_pd(a, c);
    n[2] = (F)_mm256_unpacklo_pd(b, d);
    n[3] = (F)_mm256_unpackhi_pd(b, d);
  }
};

#else

struct Lanes {  // one lane: what every processor has; the compiler is free to widen the loop around it
  static constexpr int width = 1;
  using F = float;
  using I = int32_t;
  using U = uint32_t;

  ALPS_INLINE U quads() { return 0; }
  ALPS_INLINE F broadcast(float x) { return x; }
  ALPS_INLINE F fma(F a, F b, F c) { return __builtin_fmaf(a, b, c); }
  ALPS_INLINE F sqrt(F x) { return __builtin_sqrtf(x); }
  ALPS_INLINE F to_float(U x) { return static_cast<float>(x); }
  ALPS_INLINE F to_float(I x) { return static_cast<float>(x); }
  ALPS_INLINE U bits(F x) { return bit_cast<U>(x); }
  ALPS_INLINE F from_bits(U x) { return bit_cast<F>(x); }
  ALPS_INLINE void mul_wide(U x, uint32_t m, U& high, U& low) {
    const uint64_t product = static_cast<uint64_t>(x) * m;
    high = static_cast<U>(product >> 32);
    low = static_cast<U>(product);
  }
  ALPS_INLINE F load(const float* in) { return *in; }
  ALPS_INLINE void save(F x, float* out) { *out = x; }
  ALPS_INLINE void in_order(F*) {}
};

// c + a b and c - a b in the compiler's vectors: fused where that is one instruction, as of NEON; else each operation rounds.
#if defined(__FP_FAST_FMAF)
template <class V>
ALPS_INLINE V plus_product(V a, V b, V c) {
  for (unsigned i = 0; i < sizeof(V) / sizeof(float); ++i) c[i] = __builtin_fmaf(a[i], b[i], c[i]);
  return c;
}
template <class V>
ALPS_INLINE V minus_product(V a, V b, V c) {
  return plus_product(-a, b, c);
}
#else
template <class V>
ALPS_INLINE V plus_product(V a, V b, V c) {
  return c + a * b;
}
template <class V>
ALPS_INLINE V minus_product(V a, V b, V c) {
  return c - a * b;
}
#endif

#endif

// Threads for so many pieces of work: none without one.
ALPS_INLINE int team(int threads, int64_t pieces) {
  return pieces >= threads ? threads : pieces > 1 ? static_cast<int>(pieces) : 1;
}

constexpr int64_t STRIDE = 4 * Lanes::width;  // elements of one vector of quads

}  // namespace alps::ALPS_ISA
