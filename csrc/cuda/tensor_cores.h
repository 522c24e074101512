// Products of matrices by a whole warp on tensor cores: bfloat16, or numbers in two pieces of float16, in, float32 sums. A build
// for the CPU brings its own functions of these names (tests/host_cuda).
//
// With g = lane / 4 and t = lane % 4, a lane holds of A (16 x 16) rows g and g + 8 at columns 2t, 2t + 1, 2t + 8, 2t + 9, of B
// (16 x 8) the same rows of column g, and of the sums (16 x 8) rows g and g + 8 at columns 2t, 2t + 1.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace alps {

// Two float32 numbers in two pieces of float16 each: the nearest, and the nearest to what is left.
struct Halves {
  uint32_t high, low;
};

}  // namespace alps

#if !defined(__CUDACC__)
#include <host_tensor_cores.h>
#else

namespace alps {

// Two numbers as bfloat16, to nearest, the first in the low half.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// Two numbers as float16, to nearest, the first in the low half.
__device__ __forceinline__ uint32_t pack_f16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

__device__ __forceinline__ float2 of_f16(uint32_t packed) {
  float2 pair;
  asm("{\n\t.reg .f16 low, high;\n\tmov.b32 {low, high}, %2;\n\tcvt.f32.f16 %0, low;\n\tcvt.f32.f16 %1, high;\n\t}"
      : "=f"(pair.x), "=f"(pair.y)
      : "r"(packed));
  return pair;
}

// A of 16 x 16 from shared memory: lane l gives the 16 bytes of row l % 16 that begin at column l / 16 * 8.
__device__ __forceinline__ void load_matrix(const void* row, uint32_t (&a)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
               : "r"(static_cast<uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");  // what it reads changes between barriers
}

__device__ __forceinline__ void load_matrices(const void* first, const void* second, uint32_t (&a)[2][4]) {
  load_matrix(first, a[0]);
  load_matrix(second, a[1]);
}

__device__ __forceinline__ void multiply_add(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, float (&sum)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// sum[i] += a[i] b for two A and Q B of 16 x 16.
template <int Q>
__device__ __forceinline__ void multiply_add(const uint32_t (&a)[2][4], const uint4 (&b)[Q], float (&sum)[2][2 * Q][4]) {
#pragma unroll
  for (int q = 0; q < Q; ++q)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      multiply_add(a[i], b[q].x, b[q].y, sum[i][2 * q]);
      multiply_add(a[i], b[q].z, b[q].w, sum[i][2 * q + 1]);
    }
}

// The products of two pairs of float16.
__device__ __forceinline__ uint32_t times_f16(uint32_t a, uint32_t b) {
  uint32_t product;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(product) : "r"(a), "r"(b));
  return product;
}

__device__ __forceinline__ void multiply_add_f16(uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1,
                                                 float (&sum)[4]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Sixteen complex terms of eight sums, nearly as of float32 numbers: real parts are rows 0 to 7 of A, imaginary ones the others,
// of B two registers each. sum += a b, or a's adjoint b: real parts of row g, then imaginary ones. Tensor cores cut off what a sum
// has no bits for: so only these products are summed there, small ones first, and what they come to is added to nearest.
template <bool ADJOINT>
__device__ __forceinline__ void multiply_add_complex(const Halves (&a)[4], uint4 high, uint4 low, float (&sum)[4]) {
  float of_real[4] = {}, of_imaginary[4] = {};
  multiply_add_f16(a[0].low, a[1].low, a[2].low, a[3].low, high.x, high.y, of_real);
  multiply_add_f16(a[0].low, a[1].low, a[2].low, a[3].low, high.z, high.w, of_imaginary);
  multiply_add_f16(a[0].high, a[1].high, a[2].high, a[3].high, low.x, low.y, of_real);
  multiply_add_f16(a[0].high, a[1].high, a[2].high, a[3].high, low.z, low.w, of_imaginary);
  multiply_add_f16(a[0].high, a[1].high, a[2].high, a[3].high, high.x, high.y, of_real);
  multiply_add_f16(a[0].high, a[1].high, a[2].high, a[3].high, high.z, high.w, of_imaginary);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    sum[i] += of_real[i];
    sum[2 + i] += of_imaginary[i];
    if constexpr (ADJOINT) {
      sum[i] += of_imaginary[2 + i];
      sum[2 + i] -= of_real[2 + i];
    } else {
      sum[i] -= of_imaginary[2 + i];
      sum[2 + i] += of_real[2 + i];
    }
  }
}

}  // namespace alps

#endif

namespace alps {

constexpr float FINER = 1 << 11;
constexpr uint32_t FINER_F16 = 0x68006800;  // a pair

// Low pieces `finer` times what they are: 22 bits from 2^-14 to 65504 and units of 2^-36 below ([Ootomo]), or by 1, which leaves
// both in one unit, from 2^-2 and of 2^-24.
__device__ __forceinline__ Halves halves(float first, float second, float finer = FINER) {
  const uint32_t high = pack_f16(first, second);
  const float2 there = of_f16(high);
  return {high, pack_f16(finer * (first - there.x), finer * (second - there.y))};
}

__device__ __forceinline__ float2 joined(Halves of) {
  const float2 high = of_f16(of.high), low = of_f16(of.low);
  return make_float2(__fmaf_rn(low.x, 1 / FINER, high.x), __fmaf_rn(low.y, 1 / FINER, high.y));
}

// halves(…, 1) of FINER times numbers of no more than 16, in an instruction less than products before.
__device__ __forceinline__ Halves finer_halves(float first, float second) {
  const uint32_t high = times_f16(pack_f16(first, second), FINER_F16);
  const float2 there = of_f16(high);
  return {high, pack_f16(__fmaf_rn(FINER, first, -there.x), __fmaf_rn(FINER, second, -there.y))};
}

}  // namespace alps
