// The CPU kernels. Every .cpp beside this file is compiled once an instruction set, into that namespace (setup.py).
#pragma once

#include <cstdint>

#include "../common/arguments.h"

namespace alps {

constexpr int MOST_BLOCKS = 64;

}  // namespace alps

// What each kernel returns, its op, what follows the op's name, and its arguments; beside these it takes the number of threads.
#define ALPS_CONV_KERNELS(KERNEL)         \
  KERNEL(void, conv_grad, , ConvGrad)     \
  KERNEL(int64_t, conv_grad, _bytes, ConvGrad) /* of the memory that conv_grad works in */

#define ALPS_CPU_KERNELS(KERNEL)                                                                      \
  KERNEL(void, philox_normal, , PhiloxNormal)                                                         \
  KERNEL(void, langevin_pixel, , PixelStep)                                                           \
  KERNEL(void, langevin_sense, , SenseStep)                                                           \
  KERNEL(void, langevin_fourier, , DecimatedFourierStep)                                              \
  KERNEL(int64_t, langevin_sense_cg, , SenseCgStep) /* applications of A^H A; negative where some solve did not end */ \
  KERNEL(void, moments, , Moments)                                                                    \
  KERNEL(void, ridge_grad, , RidgeGrad)                                                               \
  KERNEL(int64_t, ridge_grad, _bytes, RidgeGrad) /* of the memory that ridge_grad works in */         \
  KERNEL(void, ridge_langevin, , RidgeLangevin)

#define ALPS_DECLARED(Result, op, suffix, Arguments) Result op##suffix(const Arguments& arguments, int threads);

namespace alps {
namespace portable { ALPS_CPU_KERNELS(ALPS_DECLARED) ALPS_CONV_KERNELS(ALPS_DECLARED) }
#if defined(__x86_64__)
namespace avx2 { ALPS_CPU_KERNELS(ALPS_DECLARED) ALPS_CONV_KERNELS(ALPS_DECLARED) }
namespace avx512 { ALPS_CPU_KERNELS(ALPS_DECLARED) ALPS_CONV_KERNELS(ALPS_DECLARED) }
namespace avx512bf16 { ALPS_CONV_KERNELS(ALPS_DECLARED) }  // these two multiply bfloat16, and are avx512 in all else
namespace amx { ALPS_CONV_KERNELS(ALPS_DECLARED) }
#endif
}  // namespace alps
