// What runs on while threads go on: copies into shared memory, and the kernel before; and a barrier of some warps of a block. A
// build for the CPU brings its own functions of these names (tests/host_cuda).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#if !defined(__CUDACC__)
#include <host_asynchronous.h>
#else

namespace alps {

// Sixteen bytes into shared memory.
__device__ __forceinline__ void copy_16(void* shared, const void* global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(shared))),
               "l"(__cvta_generic_to_global(global))
               : "memory");
}

// Sixteen bytes past L1, asked for here and not where they are needed, to which compilers move a load.
__device__ __forceinline__ uint4 read_now(const uint4* global) {
  uint4 v;
  asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(global)) : "memory");
  return v;
}

// These sixteen bytes come to the L2 cache, for who reads them soon and has no registers for them yet.
__device__ __forceinline__ void ask_ahead(const uint4* global) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(global)));
}

// What nobody writes while the kernel runs; the 256 bytes around it come to the L2 cache, for others that ask for them soon.
__device__ __forceinline__ float4 read_around(const float4* global) {
  float4 v;
  asm("ld.global.nc.L2::256B.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(global));
  return v;
}

__device__ __forceinline__ float2 read_around(const float2* global) {
  float2 v;
  asm("ld.global.nc.L2::256B.v2.f32 {%0, %1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(global));
  return v;
}

// Until all that this thread copies is there; other threads see it after a barrier.
__device__ __forceinline__ void copies_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Of `threads` of a block, whole warps, that have this number from 1 on.
__device__ __forceinline__ void team_barrier(int number, int threads) {
  asm volatile("barrier.sync %0, %1;" ::"r"(number), "r"(threads) : "memory");
}

// Whatever the kernels before in the stream wrote; what is before it may run beside the last of them (launch.h: launch_early).
__device__ __forceinline__ void kernels_before_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// The next kernel may begin, up to its own wait, when all blocks are here.
__device__ __forceinline__ void next_kernel_may_begin() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

}  // namespace alps

#endif
