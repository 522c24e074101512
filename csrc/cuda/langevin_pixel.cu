// m = (b + lin x - w grad) gain,  x+ = m + xi spread,  gain = 1/(a inv_eta2 + lam), spread = 1/sqrt(a inv_eta2 + noise_lam);
// contract in alps_fast/ops/langevin_pixel.py; the roundings are those of csrc/cpu/langevin_pixel.cpp.
//
// Images have fewer than 2^31 numbers here, and pieces of work are fewer than 2^31: 64-bit divisions are calls.
// A thread takes one quad of the image for CHAIN_TILE chains of one measurement: gain, spread and b stay in its registers.
#include "kernels.h"
#include "launch.h"
#include "level.h"
#include "noise.h"
#include "vectors.h"

namespace alps::cuda {

constexpr int THREADS = 256;
constexpr int CHAIN_TILE = 4;             // b and a are then a sixth of what a thread reads, or less
constexpr int64_t MAX_BLOCKS = 4096;  // along the image; threads stride on where there are more quads
constexpr int64_t MAX_PIECES = 65535;  // limit of gridDim.y
constexpr int64_t MOST = 0x7fffffff;
static_assert(THREADS % 32 == 0, "whole warps");

template <int NOISE>  // unrolled; four rows, or two with noise drawn, make ptxas spill on some GPU
constexpr int ROWS_AT_ONCE = NOISE == NO_NOISE || NOISE == GIVEN ? 2 : 1;

struct PixelLevel {
  const float* level;  // as in `Step`
  float lam, lin, w, inv_eta2, noise_lam;
  Stream random;
};

static PixelLevel level_of(const PixelStep& s) {
  return {s.level, s.lam, s.lin, s.w, s.inv_eta2, s.noise_lam, make_stream(s.seed, s.step, LANGEVIN)};
}

enum Diagonal { OF_A_PIXEL, OF_AN_ELEMENT };

// `a` at the elements of a quad. Two channels or more: its elements lie in at most two pixels.
template <bool ALIGNED, int DIAGONAL>
__device__ __forceinline__ void load_diagonal(const float* a, uint32_t first, uint32_t n, uint32_t channels, float (&v)[4]) {
  if constexpr (DIAGONAL == OF_AN_ELEMENT) {
    load<ALIGNED>(a, first, n, v);
  } else {
    const uint32_t last = first + 3 < n ? first + 3 : n - 1, pixel = first / channels, edge = (pixel + 1) * channels;
    const float here = a[pixel], next = a[last < edge ? pixel : pixel + 1];
    ALPS_UNROLL
    for (int i = 0; i < 4; ++i) v[i] = first + i < edge ? here : next;
  }
}

template <int NOISE, bool ALIGNED, int DIAGONAL>
__global__ void __launch_bounds__(THREADS)
    langevin_pixel_kernel(const float* __restrict__ x, const float* __restrict__ grad, const float* __restrict__ b,
                          const float* __restrict__ a, const float* __restrict__ xi, const ChainId* __restrict__ ids,
                          float* __restrict__ after, float* __restrict__ mean, int64_t each, uint32_t groups, uint32_t pieces,
                          uint32_t n, uint32_t channels, int64_t a_stride, PixelLevel level) {
  for (uint32_t piece = blockIdx.y; piece < pieces; piece += gridDim.y) {
    const int64_t measurement = piece / groups, from = int64_t(piece % groups) * CHAIN_TILE;
    const int64_t begin = measurement * each + from, to = from + CHAIN_TILE;
    const int64_t end = measurement * each + (to < each ? to : each);
    for (uint32_t quad = blockIdx.x * THREADS + threadIdx.x; 4 * quad < n; quad += gridDim.x * THREADS) {
      const uint32_t first = 4 * quad;
      float data[4], diagonal[4], gain[4], spread[4];
      load<ALIGNED>(b + measurement * n, first, n, data);
      load_diagonal<ALIGNED, DIAGONAL>(a + measurement * a_stride, first, n, channels, diagonal);
      const float inv_eta2 = inv_eta2_of(level), lam = lam_of(level), noise_lam = NOISE == NO_NOISE ? lam : noise_lam_of(level);
      ALPS_UNROLL
      for (int i = 0; i < 4; ++i) {
        gain[i] = 1.0f / __fmaf_rn(diagonal[i], inv_eta2, lam);
        if constexpr (NOISE != NO_NOISE) spread[i] = 1.0f / __fsqrt_rn(__fmaf_rn(diagonal[i], inv_eta2, noise_lam));
      }
#pragma unroll ROWS_AT_ONCE<NOISE>
      for (int64_t row = begin; row < end; ++row) {
        float state[4], slope[4], noise[4], m[4];
        load<ALIGNED>(x + row * n, first, n, state);
        load<ALIGNED>(grad + row * n, first, n, slope);
        if constexpr (NOISE == GIVEN) load<ALIGNED>(xi + row * n, first, n, noise);
        else if constexpr (NOISE != NO_NOISE)
          step_noise<NOISE>(level.random, ids[row], quad, noise);
        const float lin = lin_of(level), w = w_of(level);
        ALPS_UNROLL
        for (int i = 0; i < 4; ++i) {
          m[i] = __fmaf_rn(-w, slope[i], __fmaf_rn(lin, state[i], data[i])) * gain[i];
          if constexpr (NOISE == NO_NOISE) state[i] = m[i];
          else state[i] = __fmaf_rn(noise[i], spread[i], m[i]);
        }
        store<ALIGNED>(mean + row * n, first, n, m);
        store<ALIGNED>(after + row * n, first, n, state);
      }
    }
  }
}

template <int NOISE, bool ALIGNED>
static auto kernel_of(bool of_a_pixel) {
  return of_a_pixel ? langevin_pixel_kernel<NOISE, ALIGNED, OF_A_PIXEL> : langevin_pixel_kernel<NOISE, ALIGNED, OF_AN_ELEMENT>;
}

template <int NOISE>
static void run(const PixelStep& s, cudaStream_t stream) {
  const int64_t n = s.pixels * s.channels, each = s.rows / s.measurements, groups = (each + CHAIN_TILE - 1) / CHAIN_TILE;
  const int64_t pieces = s.measurements * groups;
  if (n > MOST || pieces > MOST) throw std::invalid_argument("langevin_pixel: more than 2^31 - 1 numbers an image or chains");
  const bool of_a_pixel = !s.a_of_each_channel && s.channels > 1;
  const bool aligned = n % 4 == 0 && on_16_bytes(s.x, s.grad, s.b, s.xi, s.after, s.mean, of_a_pixel ? nullptr : s.a);
  const dim3 grid(blocks_for((n + 3) / 4, MAX_BLOCKS, THREADS), blocks_for(pieces, MAX_PIECES, 1));
  const int64_t a_stride = s.a_of_each_measurement ? (of_a_pixel ? s.pixels : n) : 0;
  launch("langevin_pixel", aligned ? kernel_of<NOISE, true>(of_a_pixel) : kernel_of<NOISE, false>(of_a_pixel), grid,
         dim3(THREADS), 0, stream, s.x, s.grad, s.b, s.a, s.xi, s.ids, s.after, s.mean, each, groups, pieces, n,
         s.channels, a_stride, level_of(s));
}

void langevin_pixel(const PixelStep& s, cudaStream_t stream) {
  if (s.rows == 0 || s.pixels * s.channels == 0) return;
  switch (s.noise) {
    case NO_NOISE: return run<NO_NOISE>(s, stream);
    case INDEPENDENT: return run<INDEPENDENT>(s, stream);
    case AVERAGED: return run<AVERAGED>(s, stream);
    default: return run<GIVEN>(s, stream);
  }
}

}  // namespace alps::cuda
