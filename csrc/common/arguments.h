// The arguments of ops that have a CPU and a CUDA kernel: pointers to the memory of the one or the other, and numbers.
#pragma once

#include <cstdint>

#include "philox.h"

namespace alps {

enum Noise { NO_NOISE, INDEPENDENT, AVERAGED, GIVEN };  // the first three as in alps_fast/ops/philox_normal.py

struct PixelStep {  // contract: alps_fast/ops/langevin_pixel.py; GIVEN takes the noise from xi
  const float *x, *grad, *b, *a, *xi;
  const Chain* chains;
  float *after, *mean;
  int64_t rows, measurements, pixels, channels;
  bool a_of_each_measurement, a_of_each_channel;
  float lam, lin, w, inv_eta2, noise_lam;
  int noise;
  uint64_t seed;
  uint32_t step;
};

struct SenseStep {  // contract: alps_fast/ops/langevin_sense.py; u and eigenvalues of every line, n numbers each
  const float *x, *grad, *b, *u, *eigenvalues, *xi;
  const Chain* chains;
  float *after, *mean;
  int64_t rows, measurements, lines, n;
  int axis;
  float lam, lin, w, inv_eta2, noise_lam;
  int noise;
  uint64_t seed;
  uint32_t step;
};

struct FourierStep {  // contract: alps_fast/ops/langevin_fourier.py, factor 1; height and width have no prime factor above 7
  const float *x, *grad, *b, *h, *xi;
  const Chain* chains;
  float *after, *mean;
  int64_t rows, measurements, height, width, channels;
  bool is_complex;
  float lam, lin, w, inv_eta2, noise_lam;
  int noise;
  uint64_t seed;
  uint32_t step;
};

constexpr int CG_WINDOW = 8;  // iterations between looks at the error, as in alps_fast/ops/_cg.py
constexpr double CG_EPS = 0x1p-23;

struct SenseCgStep {  // contract: alps_fast/ops/langevin_sense.py; spectrum is sense_spectrum, error the sqrt(e^T M e) allowed
  const float *x, *grad, *b, *maps, *mask, *spectrum, *xi;
  const Chain* chains;
  float *after, *mean;
  int64_t rows, measurements, coils, height, width;
  float lam, lin, w, inv_eta2, noise_lam;
  int noise;
  uint64_t seed;
  uint32_t step;
  double error;
  int64_t max_iter;
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
