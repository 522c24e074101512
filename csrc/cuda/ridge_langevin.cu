// `count` Langevin steps of a ridge energy in one launch: a block takes one image of a chain through all of them, its pyramid
// in shared memory. Contract in alps_fast/ops/ridge_langevin.py; the gradient is ridge.h's, the step has langevin_pixel's
// roundings.
//
// The state's channels are groups of the energy's, each group an image of its own; noise counts elements of the whole state, so
// a thread takes the quads of the state, and of each the elements that are of its image.
#include "pixel_step.h"
#include "ridge.h"

namespace alps::cuda {

struct RidgeState {  // where the step's arrays lie
  const float *x, *b, *a, *xi;
  const int64_t* chains;
  float *after, *mean;
  int64_t each, a_stride;  // chains of a measurement, floats from its a to the next
  int channels, count, noise;
  bool a_of_each_channel;
};

__device__ __forceinline__ void draw(int noise, const Stream& random, int64_t chain, uint32_t quad, float (&xi)[4]) {
  if (noise == AVERAGED) step_noise<AVERAGED>(random, chain, quad, xi);
  else step_noise<INDEPENDENT>(random, chain, quad, xi);
}

template <int CHANNELS>
__global__ void __launch_bounds__(THREADS, BLOCKS<CHANNELS>)
    ridge_langevin_kernel(const __grid_constant__ RidgeEnergy energy, const __grid_constant__ RidgeImages images,
                          const __grid_constant__ RidgeState s, PixelLevel level, int most) {
  RidgeBlock<CHANNELS> block(shared_floats(), energy, images, most);
  const int groups = s.channels / CHANNELS, first = static_cast<int>(blockIdx.x % groups) * CHANNELS;
  const int n = images.height * images.width * s.channels;
  const int64_t row = blockIdx.x / groups, measurement = row / s.each, rows = images.images / groups;
  const float *const b = s.b + measurement * n, *const a = s.a + measurement * s.a_stride;
  const float* state = s.x + row * n;
  float *const after = s.after + row * n, *const mean = s.mean + row * n;
  const int64_t chain = s.chains[row];
  const float mu = *energy.mu;
  for (int i = threadIdx.x; i < images.height * images.width * CHANNELS; i += THREADS) {
    const int pixel = i / CHANNELS, c = i % CHANNELS;
    block.x(c, pixel / images.width, pixel % images.width) = state[pixel * s.channels + first + c] - mu;
  }
  for (int k = 0; k < s.count; ++k, ++level.random.step, state = after) {
    block.gradient(blockIdx.x, false);
    const float* const xi = s.noise == GIVEN ? s.xi + (k * rows + row) * n : nullptr;
    for (int quad = threadIdx.x; 4 * quad < n; quad += THREADS) {
      float noise[4] = {};
      if (s.noise == INDEPENDENT || s.noise == AVERAGED) draw(s.noise, level.random, chain, static_cast<uint32_t>(quad), noise);
      ALPS_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int e = 4 * quad + i, pixel = e / s.channels, c = e % s.channels - first;
        if (e >= n || c < 0 || c >= CHANNELS) continue;
        const int y = pixel / images.width, x = pixel % images.width;
        const float diagonal = a[s.a_of_each_channel ? e : pixel];
        const float m = mean_of(level, state[e], block.g(c, y, x), b[e], gain_of(level, diagonal));
        if (s.noise == GIVEN) noise[i] = xi[e];
        const float next = s.noise == NO_NOISE ? m : __fmaf_rn(noise[i], spread_of(level, diagonal), m);
        if (k + 1 == s.count) mean[e] = m;
        after[e] = next;
        block.x(c, y, x) = next - mu;
      }
    }
  }
}

void ridge_langevin(const RidgeLangevin& s, cudaStream_t stream) {
  const PixelStep& step = s.step;
  if (s.images.images == 0) return;
  const int channels = static_cast<int>(step.channels);
  const RidgeState state = {step.x, step.b, step.a, step.xi, step.chains, step.after, step.mean, step.rows / step.measurements,
                            step.a_of_each_measurement ? step.pixels * (step.a_of_each_channel ? channels : 1) : 0, channels,
                            static_cast<int>(s.count), step.noise, step.a_of_each_channel};
  with_ridge_block("ridge_langevin", s.energy, s.images, [&](auto of_image, int most, int floats) {
    launch("ridge_langevin", ridge_langevin_kernel<of_image()>, dim3(static_cast<unsigned>(s.images.images)),
           dim3(THREADS), sizeof(float) * static_cast<size_t>(floats), stream, s.energy, s.images, state, level_of(step), most);
  });
}

}  // namespace alps::cuda
