// Gradient and value of a ridge energy, an image a block; contract in alps_fast/ops/ridge_grad.py, arithmetic in ridge.h.
#include "ridge.h"

namespace alps::cuda {

template <int CHANNELS>
__global__ void __launch_bounds__(THREADS, BLOCKS<CHANNELS>)
    ridge_grad_kernel(const __grid_constant__ RidgeEnergy energy, const __grid_constant__ RidgeImages images,
                      const float* __restrict__ x, float* __restrict__ grad, float* __restrict__ value, int most) {
  float* memory = shared_floats();
  RidgeBlock<CHANNELS> block(memory, energy, images, most);
  const int pixels = images.height * images.width;
  const int64_t image = blockIdx.x, begin = image * CHANNELS * pixels;
  const float mu = *energy.mu;
  for (int i = threadIdx.x; i < CHANNELS * pixels; i += THREADS)
    block.x(i / pixels, i % pixels / images.width, i % images.width) = x[begin + i] - mu;
  double part = block.gradient(image, value != nullptr);
  for (int i = threadIdx.x; i < CHANNELS * pixels; i += THREADS)
    grad[begin + i] = block.g(i / pixels, i % pixels / images.width, i % images.width);
  if (value == nullptr) return;
  ALPS_UNROLL
  for (int by = 16; by > 0; by /= 2) part += __shfl_xor_sync(0xffffffffu, part, by);
  double* sums = reinterpret_cast<double*>(memory + SUMS);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = part;
  __syncthreads();
  if (threadIdx.x == 0) {
    double sum = 0;
    for (int i = 0; i < THREADS / 32; ++i) sum += sums[i];
    value[image] = static_cast<float>(sum);
  }
}

void ridge_grad(const RidgeGrad& s, cudaStream_t stream) {
  if (s.images.images == 0) return;
  with_ridge_block("ridge_grad", s.energy, s.images, [&](auto channels, int most, int floats) {
    launch("ridge_grad", ridge_grad_kernel<channels()>, dim3(static_cast<unsigned>(s.images.images)), dim3(THREADS),
           sizeof(float) * static_cast<size_t>(floats), stream, s.energy, s.images, s.x, s.grad, s.value, most);
  });
}

bool ridge_fits(const RidgeEnergy& energy, const RidgeImages& images) {
  RidgeLayout layout;
  lay_out(energy, images, shared_floats_of_device("ridge_fits"), layout);
  return layout.floats != 0;
}

}  // namespace alps::cuda
