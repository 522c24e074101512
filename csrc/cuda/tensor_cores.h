// Products of matrices by a whole warp on tensor cores: bfloat16 in, float32 sums. A build for the CPU brings its own functions
// of these names (tests/host_cuda).
//
// With g = lane / 4 and t = lane % 4, a lane holds of A (16 x 16) rows g and g + 8 at columns 2t, 2t + 1, 2t + 8, 2t + 9, of B
// (16 x 8) the same rows of column g, and of the sums (16 x 8) rows g and g + 8 at columns 2t, 2t + 1.
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

}  // namespace alps

#endif
