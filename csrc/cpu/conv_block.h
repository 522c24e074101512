// The multiplications of conv_grad: a block of pixels by 32 output channels, summed over taps and input channels.
//
//   out[p][n] = Σ_tap Σ_k a[taps[tap] + p STRIDE + k] w[tap][k][n]
//
// Where products run beside the vector units, `between` is called as often as 32 input channels are done, for work on an
// earlier block's sums: they have reached the cache by then, and the vector units would stand idle.
//
// Pixels lie channels last, so a tap is an offset and nothing is ever rearranged. Every sum runs over taps, then channels,
// whatever block its pixel falls into: a pixel's result does not depend on where blocks begin.
#pragma once

#include "../common/philox.h"
#include "lanes.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace alps::ALPS_ISA {

constexpr int64_t COLUMNS = 32;  // output channels of a block; weights are packed in so many

// Everything in float32. Weights [tap][k][32].
struct Single {
  using T = float;
  using Kept = float;
#if defined(__AVX512F__)
  static constexpr int64_t ROWS = 12, LANES = 16;  // 24 sums, 2 weights: 26 of 32 registers
#elif defined(__AVX2__) && defined(__FMA__)
  static constexpr int64_t ROWS = 6, LANES = 8;  // 12 sums, 2 weights, 1 pixel: 15 of 16 registers
#else
  static constexpr int64_t ROWS = 6, LANES = 4;
#endif
  static constexpr int64_t INPUT = 16;  // channels of an unshuffled image, padded
  typedef float V __attribute__((vector_size(4 * LANES)));

  ALPS_INLINE V load_vector(const float* in) {
    V out;
    std::memcpy(&out, in, sizeof out);
    return out;
  }
  ALPS_INLINE V fma(V a, V b, V c) {
#if defined(__AVX512F__)
    return (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__) && defined(__FMA__)
    return (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return plus_product(a, b, c);
#endif
  }

  template <int64_t STRIDE, int64_t K, class Between>
  ALPS_INLINE void block(const float* a, const int64_t* taps, int64_t count, const float* w, float* out, Between) {
    for (int64_t column = 0; column < COLUMNS; column += 2 * LANES) {
      V sum[ROWS][2] = {};
      for (int64_t tap = 0; tap < count; ++tap) {
        const float* at = a + taps[tap];
        const float* wt = w + tap * K * COLUMNS + column;
        for (int64_t k = 0; k < K; ++k) {
          const V w0 = load_vector(wt + k * COLUMNS), w1 = load_vector(wt + k * COLUMNS + LANES);
          ALPS_UNROLL
          for (int64_t p = 0; p < ROWS; ++p) {
            const V pixel = V{} + at[p * STRIDE + k];
            sum[p][0] = fma(pixel, w0, sum[p][0]);
            sum[p][1] = fma(pixel, w1, sum[p][1]);
          }
        }
      }
      ALPS_UNROLL
      for (int64_t p = 0; p < ROWS; ++p) std::memcpy(out + p * COLUMNS + column, sum[p], sizeof sum[p]);
    }
  }

  ALPS_INLINE Lanes::F load(const float* in) { return Lanes::load(in); }
  ALPS_INLINE void save(Lanes::F x, float* out) { Lanes::save(x, out); }
  ALPS_INLINE Lanes::F load_kept(const float* in) { return Lanes::load(in); }
  ALPS_INLINE void save_kept(Lanes::F x, float* out) { Lanes::save(x, out); }
  ALPS_INLINE void put(float x, float* out) { *out = x; }
  static void begin() {}
  static void end() {}
};

#if defined(__AVX512BF16__)

// What bfloat16 paths keep between layers.
struct Stored {
  using T = uint16_t;
  using Kept = uint8_t;  // of a number in [0, 1]; 1/255 is bfloat16's own rounding near 1

  ALPS_INLINE Lanes::F load(const T* in) {
    return (Lanes::F)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in))), 16);
  }
  ALPS_INLINE void save(Lanes::F x, T* out) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), (__m256i)_mm512_cvtneps_pbh((__m512)x));
  }
  ALPS_INLINE Lanes::F load_kept(const Kept* in) {
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in)));
    return (Lanes::F)_mm512_cvtepi32_ps(bytes) * (1.0f / 255.0f);
  }
  ALPS_INLINE void save_kept(Lanes::F x, Kept* out) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32((__m512)(x * 255.0f))));
  }
  ALPS_INLINE void put(float x, T* out) {  // to nearest, ties to even
    const uint32_t bits = bit_cast<uint32_t>(x);
    *out = static_cast<T>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16);
  }
};

#if defined(__AMX_BF16__)

// bfloat16 in AMX tiles, sums in float32. Weights [tap][k / 32][column / 16][16 pairs of k][16 columns][2].
struct Bfloat16 : Stored {
  static constexpr int64_t ROWS = 32;
  static constexpr int64_t INPUT = 32;

  template <int64_t STRIDE, int64_t K, class Between>
  ALPS_INLINE void block(const T* a, const int64_t* taps, int64_t count, const T* w, float* out, Between between) {
    constexpr int64_t STEP = STRIDE * sizeof(T);
    __asm__ volatile("" : : : "memory");  // GCC's tile loads do not say that they read memory: store all before them
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t tap = 0; tap < count; ++tap) {
      for (int64_t k = 0; k < K / 32; ++k) {
        const T *at = a + taps[tap] + 32 * k, *weights = w + (tap * (K / 32) + k) * 1024;
        _tile_loadd(4, at, STEP);
        _tile_loadd(6, weights, 64);
        _tile_loadd(7, weights + 512, 64);
        _tile_loadd(5, at + 16 * STRIDE, STEP);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
        between();
      }
    }
    _tile_stored(0, out, 4 * COLUMNS);
    _tile_stored(1, out + 16, 4 * COLUMNS);
    _tile_stored(2, out + 16 * COLUMNS, 4 * COLUMNS);
    _tile_stored(3, out + 16 * COLUMNS + 16, 4 * COLUMNS);
  }

  static void begin() {  // a thread's tiles: eight of 16 rows of 64 bytes
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    __asm__ volatile("ldtilecfg %0" : : "m"(config));  // GCC 12's intrinsic says that it reads eight bytes of the 64
  }
  static void end() { _tile_release(); }
};

#else

// bfloat16 in pairs of input channels, sums in float32. Weights [tap][k / 2][32][2].
struct Bfloat16 : Stored {
  static constexpr int64_t ROWS = 12;  // 24 sums, 2 weights, 1 pixel: 27 of 32 registers; 14 loads for 24 products
  static constexpr int64_t INPUT = 16;

  template <int64_t STRIDE, int64_t K, class Between>
  ALPS_INLINE void block(const T* a, const int64_t* taps, int64_t count, const T* w, float* out, Between) {
    __m512 sum[ROWS][2];
    ALPS_UNROLL
    for (int64_t p = 0; p < ROWS; ++p) sum[p][0] = sum[p][1] = _mm512_setzero_ps();
    for (int64_t tap = 0; tap < count; ++tap) {
      const T* at = a + taps[tap];
      for (int64_t k = 0; k < K; k += 2, w += 2 * COLUMNS) {
        const __m512bh w0 = (__m512bh)_mm512_loadu_si512(w), w1 = (__m512bh)_mm512_loadu_si512(w + COLUMNS);
        ALPS_UNROLL
        for (int64_t p = 0; p < ROWS; ++p) {
          int32_t pair;
          std::memcpy(&pair, at + p * STRIDE + k, sizeof pair);
          const __m512bh pixel = (__m512bh)_mm512_set1_epi32(pair);
          sum[p][0] = _mm512_dpbf16_ps(sum[p][0], pixel, w0);
          sum[p][1] = _mm512_dpbf16_ps(sum[p][1], pixel, w1);
        }
      }
    }
    ALPS_UNROLL
    for (int64_t p = 0; p < ROWS; ++p) {
      _mm512_storeu_ps(out + p * COLUMNS, sum[p][0]);
      _mm512_storeu_ps(out + p * COLUMNS + 16, sum[p][1]);
    }
  }
  static void begin() {}
  static void end() {}
};

#endif
#endif

}  // namespace alps::ALPS_ISA
