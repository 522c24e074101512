// Gradient and value of a ridge energy, an image a block; contract in alps_fast/ops/ridge_grad.py, arithmetic in ridge_block.h.
#include "kernels.h"
#include "launch.h"
#include "ridge_block.h"

namespace alps::cuda {

template <int SIDE, int CHANNELS, bool SHARED>
__global__ void __launch_bounds__(THREADS, 1)
    ridge_grad_kernel(const float* __restrict__ x, float* __restrict__ grad, float* __restrict__ value, float* workspace,
                      const float* __restrict__ filters, const float* __restrict__ w, const float* __restrict__ r,
                      const float* __restrict__ q, int64_t images, RidgeEnergy energy, Layout layout) {
  float* memory = SHARED ? shared_floats() : workspace + int64_t(blockIdx.x) * layout.total;
  energy.filters = filters, energy.w = w, energy.r = r, energy.q = q;
  const Plane& top = layout.planes[0];
  const int pixels = top.height * top.width;
  for (int64_t image = blockIdx.x; image < images; image += gridDim.x) {
    __syncthreads();  // the image before is done with the memory
    clear(memory, layout);
    for (int c = 0; c < CHANNELS; ++c)
      for (int i = threadIdx.x; i < pixels; i += THREADS)
        memory[layout.x[0] + c * top.size + top.origin + i / top.width * top.stride + i % top.width] =
            x[(image * CHANNELS + c) * pixels + i] - energy.mu;
    float part = ridge_gradient<SIDE, CHANNELS, true>(memory, layout, energy, image);
    for (int c = 0; c < CHANNELS; ++c)
      for (int i = threadIdx.x; i < pixels; i += THREADS)
        grad[(image * CHANNELS + c) * pixels + i] =
            memory[layout.g[0] + c * top.size + top.origin + i / top.width * top.stride + i % top.width];
#pragma unroll
    for (int by = 16; by > 0; by /= 2) part += __shfl_xor_sync(0xffffffffu, part, by);
    if (threadIdx.x % 32 == 0) memory[layout.sums + threadIdx.x / 32] = part;
    __syncthreads();
    if (threadIdx.x == 0) {
      float sum = 0;
      for (int i = 0; i < THREADS / 32; ++i) sum += memory[layout.sums + i];
      value[image] = sum;
    }
  }
}

template <int SIDE, int CHANNELS>
static void run(const RidgeGradient& s, cudaStream_t stream) {
  const Layout layout = layout_of(s.energy, s.shape);
  const size_t bytes = sizeof(float) * static_cast<size_t>(layout.total);
  const bool shared = s.workspace == nullptr;
  launch("ridge_grad", shared ? ridge_grad_kernel<SIDE, CHANNELS, true> : ridge_grad_kernel<SIDE, CHANNELS, false>,
         dim3(blocks_for(s.shape.images, MAX_BLOCKS, 1)), dim3(THREADS), shared ? bytes : 0, stream, s.x, s.grad, s.value,
         s.workspace, s.energy.filters, s.energy.w, s.energy.r, s.energy.q, s.shape.images, s.energy, layout);
}

void ridge_grad(const RidgeGradient& s, cudaStream_t stream) {
  if (s.shape.images == 0) return;
  check_ridge("ridge_grad", s.energy, s.shape);
  ALPS_FOR_RIDGE(run, s.energy.side, s.shape.channels, s, stream);
}

int64_t ridge_workspace(const RidgeEnergy& energy, const RidgeShape& shape) {
  check_ridge("ridge_workspace", energy, shape);
  int device = 0, most = 0;
  check_cuda("ridge_workspace", cudaGetDevice(&device));
  check_cuda("ridge_workspace", cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  const int64_t total = layout_of(energy, shape).total;
  if (total * int64_t(sizeof(float)) <= most) return 0;
  return total * (shape.images < MAX_BLOCKS ? shape.images : MAX_BLOCKS);
}

}  // namespace alps::cuda
