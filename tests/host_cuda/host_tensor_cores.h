// csrc/cuda/tensor_cores.h on the CPU: what lanes hold goes round the warp by collectives, products are summed in double.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace alps {

inline float of_bf16(uint32_t bits) { return __uint_as_float(bits << 16); }

inline uint32_t pack_bf16(float low, float high) {
  const auto rounded = [](float x) {
    const uint32_t bits = __float_as_uint(x);
    return x == x ? (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16 : 0x7fffu;
  };
  return rounded(low) | rounded(high) << 16;
}

inline uint32_t pack_f16(float low, float high) {
  const auto rounded = [](float x) -> uint32_t {
    const uint32_t bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (x != x) return 0x7fffu;
    if (size >= 0x477ff000u) return sign | 0x7c00u;  // 65520
    if (size < 0x38800000u) return sign | uint32_t(std::nearbyint(std::fabs(x) * 0x1p24f));  // 2^-14
    return sign | (((size + 0xfffu + (size >> 13 & 1u)) >> 13) - (112u << 10));
  };
  return rounded(low) | rounded(high) << 16;
}

inline float of_f16(uint16_t bits) {
  const uint32_t exponent = bits >> 10 & 31u, fraction = bits & 0x3ffu, sign = uint32_t(bits & 0x8000u) << 16;
  const float small = fraction * 0x1p-24f;
  const uint32_t size = exponent == 0 ? __float_as_uint(small) : (exponent == 31 ? 255u : exponent + 112u) << 23 | fraction << 13;
  return __uint_as_float(sign | size);
}

inline float2 of_f16(uint32_t packed) { return {of_f16(uint16_t(packed)), of_f16(uint16_t(packed >> 16))}; }

// Of two matrices A at once, so that lanes wait for each other once.
inline void load_matrices(const void* first, const void* second, uint32_t (&a)[2][4]) {
  const auto offset = [](const void* row) { return static_cast<uint64_t>(static_cast<const char*>(row) - host_cuda::shared_memory); };
  const uint64_t* rows = host_cuda::exchange(host_cuda::FULL, offset(first) | offset(second) << 32);
  const unsigned lane = host_cuda::lane();
  for (unsigned i = 0; i < 4; ++i)
    for (unsigned k = 0; k < 2; ++k) {
      const char* const row = host_cuda::shared_memory + static_cast<uint32_t>(rows[8 * i + lane / 4] >> 32 * k);
      a[k][i] = reinterpret_cast<const uint32_t*>(row)[lane % 4];
    }
}

inline void load_matrix(const void* row, uint32_t (&a)[4]) {
  uint32_t twice[2][4];
  load_matrices(row, row, twice);
  std::memcpy(a, twice[0], sizeof a);
}

template <int Q>
struct Held {
  uint32_t a[2][4];
  uint4 b[Q];
};

// A lane's part of the products, on its own copies: not watched, and optimised, because it is most of what a test computes.
template <int Q>
[[gnu::noinline, gnu::optimize("O3"), gnu::no_sanitize("address", "undefined", "thread")]] void multiply_add_copies(
    const Held<Q>* const (&of_rows)[4], const Held<Q>* const (&of_columns)[2][4], float (&sum)[2][2 * Q][4]) {
  float rows[4][16], columns[2 * Q][2][16];
  for (unsigned k = 0; k < 16; ++k) {
    const unsigned word = k / 8, from = k % 8 / 2, shift = k % 2 * 16;
    for (unsigned row = 0; row < 4; ++row)
      rows[row][k] = of_bf16(of_rows[from]->a[row / 2][2 * word + row % 2] >> shift & 0xffffu);
    for (unsigned q = 0; q < Q; ++q)
      for (unsigned e = 0; e < 2; ++e) {
        const uint4& b = of_columns[e][from]->b[q];
        columns[2 * q][e][k] = of_bf16((word ? b.y : b.x) >> shift & 0xffffu);
        columns[2 * q + 1][e][k] = of_bf16((word ? b.w : b.z) >> shift & 0xffffu);
      }
  }
  for (unsigned i = 0; i < 2; ++i)
    for (unsigned column = 0; column < 2 * Q; ++column)
      for (unsigned v = 0; v < 4; ++v) {
        double total = sum[i][column][v];
        for (unsigned k = 0; k < 16; ++k) total += double(rows[2 * i + v / 2][k]) * columns[column][v % 2][k];
        sum[i][column][v] = static_cast<float>(total);
      }
}

template <int Q>
void multiply_add(const uint32_t (&a)[2][4], const uint4 (&b)[Q], float (&sum)[2][2 * Q][4]) {
  static Held<Q> slots[2][1024];
  static unsigned turns[1024];
  const unsigned rank = host_cuda::rank(), lane = host_cuda::lane(), g = lane / 4, t = lane % 4;
  Held<Q>* const row = slots[turns[rank]++ % 2];  // of two: nobody is two collectives ahead of a lane
  std::memcpy(row[rank].a, a, sizeof a);
  std::memcpy(row[rank].b, b, sizeof b);
  host_cuda::exchange(host_cuda::FULL, 0);
  const Held<Q>*of_rows[4], *of_columns[2][4];
  for (unsigned from = 0; from < 4; ++from) {
    of_rows[from] = row + rank - lane + 4 * g + from;
    for (unsigned e = 0; e < 2; ++e) of_columns[e][from] = row + rank - lane + 4 * (2 * t + e) + from;
  }
  multiply_add_copies<Q>(of_rows, of_columns, sum);
}

struct Sixteen {  // numbers of a row of A or of a column of B
  uint32_t pairs[8];
};

inline const std::vector<float> ALL_F16 = [] {
  std::vector<float> all(1 << 16);
  for (uint32_t bits = 0; bits < all.size(); ++bits) all[bits] = of_f16(uint16_t(bits));
  return all;
}();

// Two rows by two columns, in the order of a lane's sums, cut off at what a float32 has bits for. Likewise not watched.
[[gnu::noinline, gnu::optimize("O3"), gnu::no_sanitize("address", "undefined", "thread")]] inline void cut_off_products_of(
    const Sixteen (&rows)[2], const Sixteen (&columns)[2], float (&sums)[4], bool add) {
  double a[2][16], b[2][16];
  for (int i = 0; i < 2; ++i)
    for (int k = 0; k < 16; ++k) {
      a[i][k] = ALL_F16[rows[i].pairs[k / 2] >> k % 2 * 16 & 0xffffu];
      b[i][k] = ALL_F16[columns[i].pairs[k / 2] >> k % 2 * 16 & 0xffffu];
    }
  for (int e = 0; e < 4; ++e) {
    double total = add ? sums[e] : 0;
    for (int k = 0; k < 16; ++k) total += a[e / 2][k] * b[e % 2][k];
    const float nearest = static_cast<float>(total);
    sums[e] = std::fabs(nearest) > std::fabs(total) ? std::nextafterf(nearest, 0) : nearest;
  }
}

inline uint32_t times_f16(uint32_t a, uint32_t b) {
  const float2 x = of_f16(a), y = of_f16(b);
  return pack_f16(x.x * y.x, x.y * y.y);
}

struct HeldHalves {
  Halves a[4];
  uint4 high, low;
};

template <bool ADJOINT>
void multiply_add_complex(const Halves (&a)[4], uint4 high, uint4 low, float (&sum)[4]) {
  static HeldHalves slots[2][1024];
  static unsigned turns[1024];
  const unsigned rank = host_cuda::rank(), lane = host_cuda::lane(), g = lane / 4, t = lane % 4;
  HeldHalves* const row = slots[turns[rank]++ % 2];
  std::memcpy(row[rank].a, a, sizeof a);
  row[rank].high = high, row[rank].low = low;
  host_cuda::exchange(host_cuda::FULL, 0);
  Sixteen high_a[2], low_a[2], high_b[2][2], low_b[2][2];  // of B real parts, then imaginary ones
  for (unsigned from = 0; from < 4; ++from) {
    const HeldHalves& of_row = row[rank - lane + 4 * g + from];
    for (unsigned k = 0; k < 4; ++k) {
      high_a[k % 2].pairs[k / 2 * 4 + from] = of_row.a[k].high;
      low_a[k % 2].pairs[k / 2 * 4 + from] = of_row.a[k].low;
    }
    for (unsigned e = 0; e < 2; ++e) {
      const HeldHalves& of_column = row[rank - lane + 4 * (2 * t + e) + from];
      const auto put = [&](Sixteen(&b)[2][2], const uint4& v) {
        b[0][e].pairs[from] = v.x, b[0][e].pairs[4 + from] = v.y;
        b[1][e].pairs[from] = v.z, b[1][e].pairs[4 + from] = v.w;
      };
      put(high_b, of_column.high), put(low_b, of_column.low);
    }
  }
  float of[2][4] = {};
  for (unsigned i = 0; i < 2; ++i) {
    cut_off_products_of(low_a, high_b[i], of[i], true);
    cut_off_products_of(high_a, low_b[i], of[i], true);
    cut_off_products_of(high_a, high_b[i], of[i], true);
  }
  for (unsigned i = 0; i < 2; ++i) {
    sum[i] += of[0][i];
    sum[2 + i] += of[1][i];
    sum[i] += ADJOINT ? of[1][2 + i] : -of[1][2 + i];
    sum[2 + i] += ADJOINT ? -of[0][2 + i] : of[0][2 + i];
  }
}

}  // namespace alps
