// `count` Langevin steps of a ridge energy in one launch: a block takes one image of a chain through all of them, its pyramid
// in shared memory. Contract in alps_fast/ops/ridge_langevin.py; the gradient is ridge.h's, the step has langevin_pixel's
// roundings.
//
// The state's channels are groups of the energy's, each group an image of its own; noise counts elements of the whole state, so
// a thread takes the quads of the state, and of each the elements that are of its image. Between steps the image stays in shared
// memory where it finds room beside the pyramid, else in x+.
#include "pixel_step.h"
#include "ridge.h"
#include "vectors.h"

namespace alps::cuda {

struct RidgeState {  // where the step's arrays lie
  const float *x, *b, *a, *xi;
  const Chain* chains;
  float *after, *mean;
  int64_t each, a_stride;  // chains of a measurement, floats from its a to the next
  int channels, count, noise;
  bool a_of_each_channel;
  bool wide;      // b and xi are read 16 bytes at a time: the state is whole quads
  bool in_quads;  // and so is all else, and written: the image has the whole state, its rows whole quads
  int spare;      // where the image stays in shared memory between steps, in floats; 0: it has no room there
};

__device__ __forceinline__ void draw(int noise, const Stream& random, const Chain& chain, uint32_t quad, float (&xi)[4]) {
  if (noise == AVERAGED) step_noise<AVERAGED>(random, chain, quad, xi);
  else step_noise<INDEPENDENT>(random, chain, quad, xi);
}

// Neighbours in a row of each channel in shared memory, from or to the order of the state, wide: no bank is met twice.
template <int CHANNELS>
__device__ __forceinline__ void take_quad(const RidgeBlock<CHANNELS>& block, int y, int x, float (&v)[4]) {
  if constexpr (CHANNELS == 1) {
    read(&block.g(0, y, x), v);
  } else {
    const float2 first = *reinterpret_cast<const float2*>(&block.g(0, y, x));
    const float2 second = *reinterpret_cast<const float2*>(&block.g(1, y, x));
    v[0] = first.x, v[1] = second.x, v[2] = first.y, v[3] = second.y;
  }
}

template <int CHANNELS>
__device__ __forceinline__ void put_quad(const RidgeBlock<CHANNELS>& block, int y, int x, const float (&v)[4]) {
  if constexpr (CHANNELS == 1) {
    write(v, &block.x(0, y, x));
  } else {
    *reinterpret_cast<float2*>(&block.x(0, y, x)) = make_float2(v[0], v[2]);
    *reinterpret_cast<float2*>(&block.x(1, y, x)) = make_float2(v[1], v[3]);
  }
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
  const float* const begin_of_state = s.x + row * n;
  float *const after = s.after + row * n, *const mean = s.mean + row * n;
  float* const between = s.spare ? shared_floats() + s.spare : after;  // steps but the last leave the image here
  const auto kept = [&](int e, int c, int pixel) { return s.spare ? pixel * CHANNELS + c : e; };  // an element's place there
  const Chain chain = s.chains[row];
  const float mu = *energy.mu;
  const auto each_number = [&](auto&& use) {  // of the image, neighbours by neighbours
    for (int i = threadIdx.x; i < images.height * images.width * CHANNELS; i += THREADS) use(i, i % CHANNELS, i / CHANNELS);
  };
  each_number([&](int i, int c, int pixel) {
    const float here = begin_of_state[pixel * s.channels + first + c];
    block.x(c, pixel / images.width, pixel % images.width) = here - mu;
    if (s.spare) between[i] = here;
  });
  const float* state = s.spare ? between : begin_of_state;
  for (int k = 0; k < s.count; ++k, ++level.random.step, state = between) {
    block.gradient(blockIdx.x);
    const bool last = k + 1 == s.count;
    const float* const xi = s.noise == GIVEN ? s.xi + (k * rows + row) * n : nullptr;
    for (int quad = threadIdx.x; 4 * quad < n; quad += THREADS) {
      float noise[4] = {}, now[4] = {}, slope[4] = {}, data[4] = {}, diagonal[4] = {}, m[4], next[4];
      if (s.noise == INDEPENDENT || s.noise == AVERAGED) draw(s.noise, level.random, chain, static_cast<uint32_t>(quad), noise);
      const int begin = 4 * quad, row_of = begin / CHANNELS / images.width, column_of = begin / CHANNELS % images.width;
      const auto each = [&](auto&& use) {  // of the quad's elements, those that are of this image
        ALPS_UNROLL
        for (int i = 0; i < 4; ++i) {
          const int e = begin + i, pixel = e / s.channels, c = e % s.channels - first;
          if (e < n && 0 <= c && c < CHANNELS) use(i, e, c, pixel);
        }
      };
      if (s.wide) {
        read(b + begin, data);
        if (s.noise == GIVEN) read(xi + begin, noise);
      }
      if (s.in_quads) {
        read(state + begin, now);
        if (CHANNELS == 1 || s.a_of_each_channel) {
          read(a + begin, diagonal);
        } else {
          const float2 two = *reinterpret_cast<const float2*>(a + begin / 2);
          diagonal[0] = diagonal[1] = two.x, diagonal[2] = diagonal[3] = two.y;
        }
        take_quad(block, row_of, column_of, slope);
      } else {
        each([&](int i, int e, int c, int pixel) {
          now[i] = state[kept(e, c, pixel)], diagonal[i] = a[s.a_of_each_channel ? e : pixel];
          slope[i] = block.g(c, pixel / images.width, pixel % images.width);
          if (s.wide) return;
          data[i] = b[e];
          if (s.noise == GIVEN) noise[i] = xi[e];
        });
      }
      ALPS_UNROLL
      for (int i = 0; i < 4; ++i) {
        m[i] = mean_of(level, now[i], slope[i], data[i], gain_of(level, diagonal[i]));
        next[i] = s.noise == NO_NOISE ? m[i] : __fmaf_rn(noise[i], spread_of(level, diagonal[i]), m[i]);
        now[i] = next[i] - mu;
      }
      if (s.in_quads) {
        if (last) write(m, mean + begin);
        write(next, (last ? after : between) + begin);
        put_quad(block, row_of, column_of, now);
      } else {
        each([&](int i, int e, int c, int pixel) {
          between[kept(e, c, pixel)] = next[i];
          block.x(c, pixel / images.width, pixel % images.width) = last ? m[i] : now[i];
        });
      }
    }
  }
  if (s.in_quads) return;
  __syncthreads();
  each_number([&](int i, int c, int pixel) {
    mean[pixel * s.channels + first + c] = block.x(c, pixel / images.width, pixel % images.width);
    if (s.spare) after[pixel * s.channels + first + c] = between[i];
  });
}

bool ridge_fits(const RidgeEnergy& energy, const RidgeImages& images) {
  RidgeLayout layout;
  lay_out(energy, images, shared_floats_of_device("ridge_fits"), layout);
  return layout.floats != 0;
}

// The workspace: that of the gradient, the gradient, and a state.
static int64_t floats_of_state(const PixelStep& s) { return (s.rows * s.pixels * s.channels + 3) / 4 * 4; }

int64_t ridge_langevin_workspace(const RidgeLangevin& s) {
  const int64_t floats = ridge_workspace(s.energy, s.images);
  return floats < 0 ? floats : floats + 2 * floats_of_state(s.step);
}

static void in_tiles(const RidgeLangevin& s, cudaStream_t stream) {
  PixelStep step = s.step;
  const int of_image = s.images.channels, channels = static_cast<int>(step.channels);
  float* const grad = s.workspace + ridge_workspace(s.energy, s.images);
  float* const between = grad + floats_of_state(step);
  step.grad = grad;
  for (int64_t left = s.count; left > 0; --left, ++step.step) {
    step.after = left % 2 ? s.step.after : between;  // the last is
    ridge_grad({{s.energy, s.images, step.x, grad, nullptr}, {channels / of_image, step.pixels * channels, of_image, 1, channels},
                s.workspace}, stream);
    langevin_pixel(step, stream);
    step.x = step.after;
    if (step.noise == GIVEN) step.xi += step.rows * step.pixels * channels;
  }
}

void ridge_langevin(const RidgeLangevin& s, cudaStream_t stream) {
  const PixelStep& step = s.step;
  if (s.images.images == 0) return;
  if (s.workspace) return in_tiles(s, stream);
  const int channels = static_cast<int>(step.channels);
  const bool wide = s.images.height * s.images.width * channels % 4 == 0 && on_16_bytes(step.b, step.xi);
  const bool in_quads = wide && channels == s.images.channels && s.images.width * channels % 4 == 0 &&
                        on_16_bytes(step.x, step.a, step.after, step.mean);
  RidgeState state = {step.x, step.b, step.a, step.xi, step.chains, step.after, step.mean, step.rows / step.measurements,
                      step.a_of_each_measurement ? step.pixels * (step.a_of_each_channel ? channels : 1) : 0, channels,
                      static_cast<int>(s.count), step.noise, step.a_of_each_channel, wide, in_quads, 0};
  with_ridge_block("ridge_langevin", s.energy, s.images, [&](auto of_image, int most, int floats) {
    const int numbers = s.images.height * s.images.width * s.images.channels;
    state.spare = numbers <= most - floats ? floats : 0;
    const size_t shared = sizeof(float) * static_cast<size_t>(floats + (state.spare ? numbers : 0));
    launch("ridge_langevin", ridge_langevin_kernel<of_image()>, dim3(static_cast<unsigned>(s.images.images)), dim3(THREADS),
           shared, stream, s.energy, s.images, state, level_of(step), most);
  });
}

}  // namespace alps::cuda
