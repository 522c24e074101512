// One CUDA thread as a lane (csrc/common/philox.h): intrinsics that round to nearest and are never contracted.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace alps {

struct Thread {
  using F = float;
  using I = int32_t;
  using U = uint32_t;

  static __device__ __forceinline__ F broadcast(float x) { return x; }
  static __device__ __forceinline__ F fma(F a, F b, F c) { return __fmaf_rn(a, b, c); }
  static __device__ __forceinline__ F fnma(F a, F b, F c) { return __fmaf_rn(-a, b, c); }
  // Rounded as __fsqrt_rn rounds where x is 0 or 2^-96 to 2^96, by its own steps; its look whether x is, with what follows
  // where it is not, takes longer than they do.
  static __device__ __forceinline__ F sqrt(F x) {
#if defined(__CUDACC__)
    float inverse;
    asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(fmaxf(x, 0x1p-96f)));
    const float root = x * inverse;
    return __fmaf_rn(__fmaf_rn(-root, root, x), 0.5f * inverse, root);
#else
    return __fsqrt_rn(x);
#endif
  }
  static __device__ __forceinline__ F to_float(U x) { return __uint2float_rn(x); }
  static __device__ __forceinline__ F to_float(I x) { return __int2float_rn(x); }
  static __device__ __forceinline__ U bits(F x) { return __float_as_uint(x); }
  static __device__ __forceinline__ F from_bits(U x) { return __uint_as_float(x); }
  static __device__ __forceinline__ void mul_wide(U x, uint32_t m, U& high, U& low) {
    high = __umulhi(x, m);
    low = x * m;
  }
};

}  // namespace alps
