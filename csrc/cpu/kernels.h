// The CPU kernels. Every .cpp beside this file is compiled once an instruction set, into that namespace (setup.py).
#pragma once

#include <cstdint>

#include "../common/arguments.h"

namespace alps {

constexpr int MOST_BLOCKS = 64;

struct ConvGrad {  // contract: alps_fast/ops/conv_grad.py; weights and biases as _packed lays them out
  const float* x;
  const void* weights;
  const float *biases, *scale, *shift, *coefficients;
  float *grad, *value;
  int64_t images, channels, height, width, width_of_network;
  int blocks[3];
  bool level_of_each, in_tiles;
};

struct Ridge {  // what alps_fast/ops/ridge_grad.py takes beside the images
  const float* const* filters;  // one bank a scale, (count, side, side)
  const int64_t* sides;
  const float *w, *r, *q;
  int64_t scales, count, potentials, levels;
  bool w_of_each_image, r_of_each_image, q_of_each_image;
  float mu;
};

struct RidgeGrad {  // contract: alps_fast/ops/ridge_grad.py; value may be null
  Ridge ridge;
  const float* x;
  float *grad, *value;
  int64_t images, channels, height, width;
};

struct RidgeLangevin {  // contract: alps_fast/ops/ridge_langevin.py; the grad of `step` is not read
  Ridge ridge;
  PixelStep step;
  int64_t channels, height, width, count;
};

}  // namespace alps

#define ALPS_CPU_KERNELS                                                                                    \
  void philox_normal(const Chain* chains, int64_t rows, int64_t n, uint64_t seed, uint32_t step,            \
                     uint32_t tag, float* out, int threads);                                                \
  void langevin_pixel(const PixelStep& step, int threads);                                                  \
  void langevin_sense(const SenseStep& step, int threads);                                                  \
  void langevin_fourier(const FourierStep& step, int threads);                                              \
  bool langevin_sense_cg(const SenseCgStep& step, int threads);                                             \
  void moments(const Moments<float>& moments, int threads);                                                 \
  void moments(const Moments<double>& moments, int threads);                                                \
  void ridge_grad(const RidgeGrad& ridge_grad, int threads);                                                \
  int64_t ridge_grad_bytes(const RidgeGrad& ridge_grad, int threads);                                       \
  void ridge_langevin(const RidgeLangevin& ridge_langevin, int threads);                                     \
  void conv_grad(const ConvGrad& conv_grad, int threads);                                                   \
  int64_t conv_grad_bytes(const ConvGrad& conv_grad, int threads);

namespace alps {
namespace portable { ALPS_CPU_KERNELS }
#if defined(__x86_64__)
namespace avx2 { ALPS_CPU_KERNELS }
namespace avx512 { ALPS_CPU_KERNELS }
namespace amx {  // the other kernels multiply no matrices
void conv_grad(const ConvGrad& conv_grad, int threads);
int64_t conv_grad_bytes(const ConvGrad& conv_grad, int threads);
}
#endif
}  // namespace alps
