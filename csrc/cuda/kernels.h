// The CUDA kernels, as the bindings call them: device pointers, sizes, and the caller's stream. They synchronise nothing.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../common/arguments.h"

namespace alps::cuda {

struct RidgePlaces {  // where x and the gradient of image i lie, in floats: at i / groups rows and i % groups groups
  int64_t groups, row;
  int group, channel, pixel;
};

// What ops take, and what their hosts add to it.
struct RidgeGrad : alps::RidgeGrad {
  RidgePlaces places;
  float* workspace;
};

struct ConvGrad : alps::ConvGrad {
  void* workspace;
  bool pairs;  // of neighbours lie on 8 bytes; conv_grad sees to it
};

void philox_normal(const PhiloxNormal& normals, cudaStream_t stream);
void langevin_pixel(const PixelStep& step, cudaStream_t stream);
int64_t langevin_fourier_workspace(const FourierStep& step);  // floats; -1: no kernel for images of this size
void langevin_fourier(const FourierStep& step, float* workspace, cudaStream_t stream);
bool langevin_sense_fits(const SenseStep& step);  // false: no kernel for lines of this length
void langevin_sense(const SenseStep& step, cudaStream_t stream);
struct SenseCgMemory {
  int64_t floats, doubles;  // -1: no kernel for images of this size; the doubles begin as ones
};
SenseCgMemory langevin_sense_cg_memory(const SenseCgStep& step);
// Iterations iteration + 1 ... end of every system that has not stopped, and before the first what they begin with; `iteration`
// ends a window. The first five doubles of a system are its state: r z, and last whether it goes on. More than one window can be
// asked for where a graph is captured from the stream: there they are a loop, which ends when all systems have stopped.
void langevin_sense_cg_iterate(const SenseCgStep& step, int64_t iteration, int64_t end, float* floats, double* doubles,
                               cudaStream_t stream);
void langevin_sense_cg_finish(const SenseCgStep& step, const double* doubles, cudaStream_t stream);
void moments(const Moments& moments, cudaStream_t stream);
// On the tensor cores of a warpgroup or of a warp, with weights packed for these; what is not in bfloat16 a warpgroup's alone.
bool conv_has_warpgroups();  // the current device, and what is compiled for it
int64_t conv_grad_workspace(const ConvGrad& gradient, bool warpgroups);  // bytes; -1: no room in the device's blocks
void conv_grad(ConvGrad gradient, bool warpgroups, cudaStream_t stream);
int64_t ridge_workspace(const RidgeEnergy& energy, const RidgeImages& images);  // floats; -1: no kernel for such an energy
void ridge_grad(const RidgeGrad& gradient, cudaStream_t stream);
int64_t ridge_langevin_workspace(const RidgeLangevin& steps);  // likewise
void ridge_langevin(const RidgeLangevin& steps, float* workspace, cudaStream_t stream);

}  // namespace alps::cuda
