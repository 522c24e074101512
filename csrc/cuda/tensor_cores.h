// Products of matrices by a whole warp on tensor cores: bfloat16 or, in two parts, float32 in, float32 sums; numbers in two parts
// of float16. A build for the CPU brings its own functions of these names (tests/host_cuda).
//
// With g = lane / 4 and t = lane % 4, a lane holds of A (16 x 16) rows g and g + 8 at columns 2t, 2t + 1, 2t + 8, 2t + 9, of B
// (16 x 8) the same rows of column g, and of the sums (16 x 8) rows g and g + 8 at columns 2t, 2t + 1. Of float32 numbers A is
// 16 x 8, of which it holds (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4), and B 8 x 8: (t, g), (t + 4, g).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

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

// A float32 number as the sum of two of TF32, whose last 13 bits are not looked at: the nearest, and what is left.
struct Split {
  uint32_t high, low;
};

__device__ __forceinline__ Split split(float x) {
  const uint32_t high = (__float_as_uint(x) + 0x1000u) & 0xffffe000u;
  return {high, __float_as_uint(x - __uint_as_float(high))};
}

__device__ __forceinline__ void multiply_add_tf32(uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1,
                                                  float (&sum)[4]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// sum += a[0] b[0] + a[1] b[1], nearly as of float32 numbers. Tensor cores cut off what a sum has no bits for: so only these
// products are summed there, small ones first, and what they come to is added to nearest.
__device__ __forceinline__ void multiply_add(const Split (&a)[2][4], const Split (&b)[2][2], float (&sum)[4]) {
  float part[4] = {};
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    const Split(&v)[4] = a[s];
    multiply_add_tf32(v[0].low, v[1].low, v[2].low, v[3].low, b[s][0].high, b[s][1].high, part);
    multiply_add_tf32(v[0].high, v[1].high, v[2].high, v[3].high, b[s][0].low, b[s][1].low, part);
  }
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    const Split(&v)[4] = a[s];
    multiply_add_tf32(v[0].high, v[1].high, v[2].high, v[3].high, b[s][0].high, b[s][1].high, part);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) sum[i] += part[i];
}

}  // namespace alps

#endif

namespace alps {

// Two float32 numbers, each the nearest float16 and the nearest to FINER times what is left ([Ootomo]): 22 bits from 2^-14 to
// 65504, units of 2^-36 below.
struct Halves {
  uint32_t high, low;
};

constexpr float FINER = 1 << 11;

__device__ __forceinline__ Halves halves(float first, float second) {
  const uint32_t high = pack_f16(first, second);
  const float2 there = of_f16(high);
  return {high, pack_f16(FINER * (first - there.x), FINER * (second - there.y))};
}

__device__ __forceinline__ float2 joined(Halves of) {
  const float2 high = of_f16(of.high), low = of_f16(of.low);
  return make_float2(__fmaf_rn(low.x, 1 / FINER, high.x), __fmaf_rn(low.y, 1 / FINER, high.y));
}

}  // namespace alps
