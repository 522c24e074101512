// `count` Langevin steps of a ridge energy, one launch: a block takes an image of a chain through all of them, its pyramid in
// shared memory where that fits, else in a workspace of the block. Contract in alps_fast/ops/ridge_langevin.py.
//
// The state's C' channels are groups of `channels`, each an image of its own to the energy; the noise counts elements of the
// whole state, so a thread draws the quad that its element lies in.
#include "kernels.h"
#include "launch.h"
#include "noise.h"
#include "ridge_block.h"

namespace alps::cuda {

struct StepLevel {
  float lam, lin, minus_w, inv_eta2, noise_lam;
  Stream random;
};

template <int NOISE>
__device__ __forceinline__ float element_noise(const Stream& random, uint32_t chain, uint32_t element) {
  float quad[4];
  step_noise<NOISE>(random, chain, element >> 2, quad);
  const uint32_t word = element & 3;
  return word == 0 ? quad[0] : word == 1 ? quad[1] : word == 2 ? quad[2] : quad[3];
}

__device__ __forceinline__ float draw(int noise, const Stream& random, uint32_t chain, uint32_t element, const float* given) {
  if (noise == GIVEN) return *given;
  return noise == AVERAGED ? element_noise<AVERAGED>(random, chain, element) : element_noise<INDEPENDENT>(random, chain, element);
}

template <int SIDE, int CHANNELS, bool SHARED>
__global__ void __launch_bounds__(THREADS, 1)
    ridge_langevin_kernel(const float* __restrict__ x, const float* __restrict__ b, const float* __restrict__ a,
                          const float* __restrict__ xi, const int64_t* __restrict__ chains, float* after, float* mean,
                          float* workspace, const float* __restrict__ filters, const float* __restrict__ w,
                          const float* __restrict__ r, const float* __restrict__ q, int64_t each, int state_channels,
                          int a_channels, int64_t a_stride, int noise, int count, int64_t images, RidgeEnergy energy,
                          Layout layout, StepLevel level) {
  float* memory = SHARED ? shared_floats() : workspace + int64_t(blockIdx.x) * layout.total;
  energy.filters = filters, energy.w = w, energy.r = r, energy.q = q;
  const Plane& top = layout.planes[0];
  const int pixels = top.height * top.width, groups = state_channels / CHANNELS;
  for (int64_t image = blockIdx.x; image < images; image += gridDim.x) {
    const int64_t row = image / groups, measurement = row / each, state = row * pixels * state_channels;
    const int channel = static_cast<int>(image % groups) * CHANNELS;
    const uint32_t chain = static_cast<uint32_t>(chains[row]);
    __syncthreads();  // the image before is done with the memory
    clear(memory, layout);
    for (int i = threadIdx.x; i < pixels; i += THREADS)
      for (int c = 0; c < CHANNELS; ++c) {
        const int64_t e = state + int64_t(i) * state_channels + channel + c;
        memory[layout.x[0] + c * top.size + top.origin + i / top.width * top.stride + i % top.width] = x[e] - energy.mu;
        after[e] = x[e];
      }
    for (int k = 0; k < count; ++k) {
      ridge_gradient<SIDE, CHANNELS, false>(memory, layout, energy, image);
      Stream random = level.random;
      random.step += k;
      for (int i = threadIdx.x; i < pixels; i += THREADS)
        for (int c = 0; c < CHANNELS; ++c) {
          const int element = i * state_channels + channel + c, at = c * top.size + top.origin + i / top.width * top.stride + i % top.width;
          const int64_t e = state + element, data = measurement * pixels * state_channels + element;
          const float diagonal = a[measurement * a_stride + (a_channels > 1 ? element : i)];
          const float right = __fmaf_rn(level.minus_w, memory[layout.g[0] + at], __fmaf_rn(level.lin, after[e], b[data]));
          const float m = right * (1.0f / __fmaf_rn(diagonal, level.inv_eta2, level.lam));
          float next = m;
          if (noise != NO_NOISE) {
            const float spread = 1.0f / __fsqrt_rn(__fmaf_rn(diagonal, level.inv_eta2, level.noise_lam));
            const int64_t all = images / groups * pixels * state_channels;
            next = __fmaf_rn(draw(noise, random, chain, element, xi + k * all + e), spread, m);
          }
          after[e] = next;
          if (k + 1 == count) mean[e] = m;
          memory[layout.x[0] + at] = next - energy.mu;
        }
    }
  }
}

template <int SIDE, int CHANNELS>
static void run(const RidgeSteps& s, cudaStream_t stream) {
  const Layout layout = layout_of(s.energy, s.shape);
  const size_t bytes = sizeof(float) * static_cast<size_t>(layout.total);
  const bool shared = s.workspace == nullptr;
  const int64_t n = int64_t(s.shape.height) * s.shape.width * s.state_channels;
  const StepLevel level = {s.lam, s.lin, -s.w, s.inv_eta2, s.noise_lam, make_stream(s.seed, s.step, LANGEVIN)};
  launch("ridge_langevin", shared ? ridge_langevin_kernel<SIDE, CHANNELS, true> : ridge_langevin_kernel<SIDE, CHANNELS, false>,
         dim3(blocks_for(s.shape.images, MAX_BLOCKS, 1)), dim3(THREADS), shared ? bytes : 0, stream, s.x, s.b, s.a, s.xi, s.chains,
         s.after, s.mean, s.workspace, s.energy.filters, s.energy.w, s.energy.r, s.energy.q, s.rows / s.measurements,
         s.state_channels, s.a_of_each_channel ? s.state_channels : 1,
         s.a_of_each_measurement ? (s.a_of_each_channel ? n : n / s.state_channels) : 0, s.noise, s.count, s.shape.images, s.energy,
         layout, level);
}

void ridge_langevin(const RidgeSteps& s, cudaStream_t stream) {
  if (s.shape.images == 0) return;
  check_ridge("ridge_langevin", s.energy, s.shape);
  ALPS_FOR_RIDGE(run, s.energy.side, s.shape.channels, s, stream);
}

}  // namespace alps::cuda
