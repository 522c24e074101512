// What the hosts of ridge_grad.cu and ridge_langevin.cu share; contract in alps_fast/ops/ridge_grad.py.
#pragma once

#include <cstdint>

namespace alps::cuda {

constexpr int MAX_LEVELS = 12;

struct RidgeEnergy {  // of one t, or of one an image
  const float* filters;  // (scales, side * side, count), count a multiple of 4; filters of no use are zeros
  const float *w, *r;    // (scales, potentials, 1 or images, count)
  const float* q;        // (levels, 1 or images)
  int side, scales, count, potentials, levels;
  int64_t w_images, r_images, q_images;
  float mu;
};

struct RidgeShape {
  int64_t images;  // each of them real or complex (1 or 2 channels)
  int channels, height, width;
};

struct RidgeGradient {  // workspace null: the planes of an image fit into shared memory, see ridge_workspace
  const float* x;
  float *grad, *value, *workspace;
  RidgeEnergy energy;
  RidgeShape shape;
};

struct RidgeSteps {  // contract: alps_fast/ops/ridge_langevin.py; GIVEN takes the noise from xi
  const float *x, *b, *a, *xi;
  const int64_t* chains;
  float *after, *mean, *workspace;
  int64_t rows, measurements;
  int state_channels;
  bool a_of_each_measurement, a_of_each_channel;
  float lam, lin, w, inv_eta2, noise_lam;
  int noise;
  uint64_t seed;
  uint32_t step;
  int count;
  RidgeEnergy energy;
  RidgeShape shape;
};

}  // namespace alps::cuda
