// The CPU kernels. Every .cpp beside this file is compiled once an instruction set, into that namespace (setup.py).
#pragma once

#include <cstdint>

namespace alps {

enum Noise { NO_NOISE, INDEPENDENT, AVERAGED, GIVEN };  // the first three as in alps_fast/ops/philox_normal.py

struct PixelStep {  // contract: alps_fast/ops/langevin_pixel.py; GIVEN takes the noise from xi
  const float *x, *grad, *b, *a, *xi;
  const int64_t* chains;
  float *after, *mean;
  int64_t rows, measurements, pixels, channels;
  bool a_of_each_measurement, a_of_each_channel;
  float lam, lin, w, inv_eta2, noise_lam;
  int noise;
  uint64_t seed;
  uint32_t step;
};

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

template <class T>
struct Moments {  // contract: alps_fast/ops/moments.py; the state before, the rows, the state after
  const int64_t* count;
  const T *mean, *m2, *x;
  const bool* keep;
  int64_t *count_after;
  T *mean_after, *m2_after;
  int64_t groups, rows, n;
};

}  // namespace alps

#define ALPS_CPU_KERNELS                                                                                    \
  void philox_normal(const int64_t* chains, int64_t rows, int64_t n, uint64_t seed, uint32_t step,          \
                     uint32_t tag, float* out, int threads);                                                \
  void langevin_pixel(const PixelStep& step, int threads);                                                  \
  void moments(const Moments<float>& moments, int threads);                                                 \
  void moments(const Moments<double>& moments, int threads);                                                \
  void conv_grad(const ConvGrad& conv_grad, int threads);

namespace alps {
namespace portable { ALPS_CPU_KERNELS }
#if defined(__x86_64__)
namespace avx2 { ALPS_CPU_KERNELS }
namespace avx512 { ALPS_CPU_KERNELS }
namespace amx { void conv_grad(const ConvGrad& conv_grad, int threads); }  // the other kernels multiply no matrices
#endif
}  // namespace alps
