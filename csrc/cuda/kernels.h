// The CUDA kernels, as the bindings call them: device pointers, sizes, and the caller's stream. They synchronise nothing.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../common/arguments.h"

namespace alps::cuda {

void philox_normal(const int64_t* chains, int64_t rows, int64_t n, uint64_t seed, uint32_t step, uint32_t tag, float* out,
                   cudaStream_t stream);
void langevin_pixel(const PixelStep& step, cudaStream_t stream);
int64_t langevin_fourier_workspace(const FourierStep& step);  // floats; -1: no kernel for images of this size
void langevin_fourier(const FourierStep& step, float* workspace, cudaStream_t stream);
bool langevin_sense(const SenseStep& step, cudaStream_t stream);  // false: no kernel for lines of this length
struct SenseCgMemory {
  int64_t floats, doubles;  // -1: no kernel for images of this size; the doubles begin as ones
};
SenseCgMemory langevin_sense_cg_memory(const SenseCgStep& step);
// Iterations iteration + 1 ... end of every system that has not stopped, and before the first what they begin with. The first
// five doubles of a system are its state: r z, and last whether it goes on.
void langevin_sense_cg_iterate(const SenseCgStep& step, int64_t iteration, int64_t end, float* floats, double* doubles,
                               cudaStream_t stream);
void langevin_sense_cg_finish(float* mean, float* after, const double* doubles, int64_t rows, int64_t numbers, bool noisy,
                              cudaStream_t stream);
void moments(const Moments<float>& moments, cudaStream_t stream);
void moments(const Moments<double>& moments, cudaStream_t stream);

}  // namespace alps::cuda
