// The CPU kernels. Every .cpp beside this file is compiled once an instruction set, into that namespace (setup.py).
#pragma once

#include <cstdint>

#define ALPS_CPU_KERNELS                                                                                    \
  void philox_normal(const int64_t* chains, int64_t rows, int64_t n, uint64_t seed, uint32_t step,          \
                     uint32_t tag, float* out, int threads);

namespace alps {
namespace portable { ALPS_CPU_KERNELS }
#if defined(__x86_64__)
namespace avx2 { ALPS_CPU_KERNELS }
namespace avx512 { ALPS_CPU_KERNELS }
#endif
}  // namespace alps
