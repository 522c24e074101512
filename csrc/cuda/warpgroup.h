// Products of matrices by a warpgroup, four warps on end from a multiple of four, on Hopper's tensor cores: bfloat16 in shared
// memory, or float16 with A in registers, float32 sums. A build for the CPU brings its own functions of these names
// (tests/host_cuda).
//
// Eight rows of A by eight of its columns are 128 bytes on end, a row sixteen of them; so are eight columns of B by eight of its
// rows. Of the sums, and of A in registers, warp w of a warpgroup holds rows 16 w ... 16 w + 15, as of mma.sync (tensor_cores.h).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#if !defined(__CUDACC__)
#include <host_warpgroup.h>
#else

namespace alps {

// PTX ISA, "matrix descriptor", without a swizzle: where the first eights begin, the bytes to the next eight of k, and to the next
// eight rows of A or columns of B.
__device__ __forceinline__ uint64_t describe(const void* matrix, int along_k, int across) {
  return (static_cast<uint64_t>(__cvta_generic_to_shared(matrix)) & 0x3ffff) >> 4 | static_cast<uint64_t>(along_k >> 4) << 16 |
         static_cast<uint64_t>(across >> 4) << 32;
}

// What ordinary instructions of this thread wrote to shared memory, for products of any thread after the next barrier.
__device__ __forceinline__ void publish_to_products() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

// sum += a b, of 64 x 16 by 16 x 64; it and those up to `products_end` run on until `products_wait`.
__device__ __forceinline__ void multiply_add(uint64_t a, uint64_t b, float (&v)[8][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, %32, %33, 1, 1, 1, 0, 0;"
      : "+f"(v[0][0]), "+f"(v[0][1]), "+f"(v[0][2]), "+f"(v[0][3]), "+f"(v[1][0]), "+f"(v[1][1]), "+f"(v[1][2]), "+f"(v[1][3]),
        "+f"(v[2][0]), "+f"(v[2][1]), "+f"(v[2][2]), "+f"(v[2][3]), "+f"(v[3][0]), "+f"(v[3][1]), "+f"(v[3][2]), "+f"(v[3][3]),
        "+f"(v[4][0]), "+f"(v[4][1]), "+f"(v[4][2]), "+f"(v[4][3]), "+f"(v[5][0]), "+f"(v[5][1]), "+f"(v[5][2]), "+f"(v[5][3]),
        "+f"(v[6][0]), "+f"(v[6][1]), "+f"(v[6][2]), "+f"(v[6][3]), "+f"(v[7][0]), "+f"(v[7][1]), "+f"(v[7][2]), "+f"(v[7][3])
      : "l"(a), "l"(b));
}

// The same of 64 x 16 by 16 x 16.
__device__ __forceinline__ void multiply_add(uint64_t a, uint64_t b, float (&v)[2][4]) {
  asm volatile("wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 {%0, %1, %2, %3, %4, %5, %6, %7}, %8, %9, 1, 1, 1, 0, 0;"
               : "+f"(v[0][0]), "+f"(v[0][1]), "+f"(v[0][2]), "+f"(v[0][3]), "+f"(v[1][0]), "+f"(v[1][1]), "+f"(v[1][2]),
                 "+f"(v[1][3])
               : "l"(a), "l"(b));
}

// The same of float16, with A in registers, which stay as they are until `products_wait`; what was there is forgotten unless ADD.
template <bool ADD>
__device__ __forceinline__ void multiply_held(const uint32_t (&a)[4], uint64_t b, float (&v)[8][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, {%32, %33, %34, %35}, %36, %37, 1, 1, 0;"
      : "+f"(v[0][0]), "+f"(v[0][1]), "+f"(v[0][2]), "+f"(v[0][3]), "+f"(v[1][0]), "+f"(v[1][1]), "+f"(v[1][2]), "+f"(v[1][3]),
        "+f"(v[2][0]), "+f"(v[2][1]), "+f"(v[2][2]), "+f"(v[2][3]), "+f"(v[3][0]), "+f"(v[3][1]), "+f"(v[3][2]), "+f"(v[3][3]),
        "+f"(v[4][0]), "+f"(v[4][1]), "+f"(v[4][2]), "+f"(v[4][3]), "+f"(v[5][0]), "+f"(v[5][1]), "+f"(v[5][2]), "+f"(v[5][3]),
        "+f"(v[6][0]), "+f"(v[6][1]), "+f"(v[6][2]), "+f"(v[6][3]), "+f"(v[7][0]), "+f"(v[7][1]), "+f"(v[7][2]), "+f"(v[7][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(ADD));
}

template <bool ADD>
__device__ __forceinline__ void multiply_held(const uint32_t (&a)[4], uint64_t b, float (&v)[2][4]) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {%0, %1, %2, %3, %4, %5, %6, %7}, {%8, %9, %10, %11}, %12, %13, 1, 1, 0;"
      : "+f"(v[0][0]), "+f"(v[0][1]), "+f"(v[0][2]), "+f"(v[0][3]), "+f"(v[1][0]), "+f"(v[1][1]), "+f"(v[1][2]), "+f"(v[1][3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(ADD));
}

template <int N>
__device__ __forceinline__ void not_read_before(float (&v)[N][4]) {
#pragma unroll
  for (int j = 0; j < N; ++j) asm volatile("" : "+f"(v[j][0]), "+f"(v[j][1]), "+f"(v[j][2]), "+f"(v[j][3])::"memory");
}

__device__ __forceinline__ void products_end() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

// Until all products are in their sums, which are these.
template <int... N>
__device__ __forceinline__ void products_wait(float (&... sums)[N][4]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  (not_read_before(sums), ...);
}

#endif

}  // namespace alps

#endif
