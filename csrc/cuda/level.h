// The scalars of a step's level: arguments of the launch, or a row in the device's memory, so that one graph serves all levels.
#pragma once

#include <cuda_runtime.h>

#include "../common/arguments.h"

namespace alps::cuda {

// Each is read where it is used, by a load that the compiler neither moves to the top of a kernel nor keeps: arguments are operands
// of instructions, and numbers read once and held would take registers all through it. The row lies in L1 then.
template <int I>
__device__ __forceinline__ float scalar_of(const float* row, float otherwise) {
#ifdef __CUDA_ARCH__
  float value;
  asm volatile(
      "{\n\t.reg .pred from_row;\n\tsetp.ne.u64 from_row, %1, 0;\n\tmov.f32 %0, %3;\n\t@from_row ld.global.f32 %0, [%1+%2];\n\t}"
      : "=f"(value) : "l"(row), "n"(4 * I), "f"(otherwise));
  return value;
#else
  return row ? row[I] : otherwise;
#endif
}

// Of a `Step`, or of what a kernel takes of one.
template <class S>
__device__ __forceinline__ float lam_of(const S& s) { return scalar_of<0>(s.level, s.lam); }
template <class S>
__device__ __forceinline__ float lin_of(const S& s) { return scalar_of<1>(s.level, s.lin); }
template <class S>
__device__ __forceinline__ float w_of(const S& s) { return scalar_of<2>(s.level, s.w); }
template <class S>
__device__ __forceinline__ float inv_eta2_of(const S& s) { return scalar_of<3>(s.level, s.inv_eta2); }
template <class S>
__device__ __forceinline__ float noise_lam_of(const S& s) { return scalar_of<4>(s.level, s.noise_lam); }

}  // namespace alps::cuda
