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
void moments(const Moments<float>& moments, cudaStream_t stream);
void moments(const Moments<double>& moments, cudaStream_t stream);

}  // namespace alps::cuda
