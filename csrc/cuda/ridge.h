// The gradient of a ridge energy of one image by one block, in shared memory; contract in alps_fast/ops/ridge_grad.py.
//
//     z = W x,  v = z sum_j w_j / (1 + |z|^2 r_j),  G_s = q_s x_s + W^T v + D^T G_{s+1}
//
// The pyramid x_s lies in planes with zeros around them, so no loop of filters asks where the image ends; G_s beside it. FILTERS
// filters meet a band of rows at a time: their responses v go into a ring of rows, which keeps those that the next band needs,
// so each response is computed once and all of them never lie anywhere. The ring lies over the coarser scales: at the end of
// G_s these have been read. A thread takes PIXELS neighbours in two rows, or one of two channels, for FILTERS responses, and
// PIXELS x ROWS neighbours of G for as many sums, so that multiply-adds take more cycles than the shared memory, whose reads are
// 16 bytes wide. The order of every sum is fixed; bands decide no bit.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "../common/log1p.h"
#include "kernels.h"
#include "lanes.h"
#include "launch.h"

namespace alps::cuda {

constexpr int THREADS = 256;  // of a block
constexpr int PIXELS = 4, FILTERS = 4;
constexpr int ROWS = 4;       // of G a thread sums at a time, where a plane has that many for every thread
constexpr int SIDE = 7;       // of the filters; smaller ones have zeros around them, larger ones no kernel
constexpr int MARGIN = SIDE / 2;
constexpr int TAPS = 8;       // floats of a filter's row
constexpr int COLUMNS = 4;    // zeros beside a row, on either side
constexpr int WINDOW = PIXELS + 2 * COLUMNS;
constexpr int MOST_LEVELS = 12;
constexpr int POTENTIAL = 8;  // numbers of two potentials of a filter
static_assert(THREADS % 32 == 0, "whole warps");

template <int CHANNELS>
constexpr int BLOCKS = 2 / CHANNELS;  // of a multiprocessor: two channels in 128 registers make ptxas spill
static_assert(MARGIN >= 2 && MARGIN <= COLUMNS, "D reads two zeros after an image, filters MARGIN on each side");
static_assert(PIXELS == 4 && FILTERS == 4 && COLUMNS % 4 == 0 && TAPS % 4 == 0 && TAPS >= SIDE, "all is read as float4");

struct RidgeLevel {
  int height, width;
  int stride, plane;      // floats of a row and of a channel of x, with the zeros
  int g_stride, g_plane;  // of G, whose rows end at a multiple of PIXELS
  int x, g, ring;         // where they begin: x with its zeros, the ring that of `rows` rows
  int band, rows;         // rows of G at a time, and of responses that they need
};

struct RidgeLayout {  // of a block's shared memory, in floats; it begins with the layout itself and the warps' sums
  int bank, potentials, planes, end, floats, filters;
  RidgeLevel level[MOST_LEVELS];
};

__host__ __device__ inline int round_up(int x, int to) { return (x + to - 1) / to * to; }

constexpr int SUMS = sizeof(RidgeLayout) / sizeof(float);  // where the warps' sums, in double, begin
constexpr int HEAD = (SUMS + 2 * THREADS / 32 + 3) / 4 * 4;
static_assert(SUMS % 2 == 0, "doubles are aligned");

// The layout within `most` floats; floats is 0 where there is none.
__host__ __device__ inline void lay_out(const RidgeEnergy& e, const RidgeImages& images, int most, RidgeLayout& l) {
  l.floats = 0;
  const int64_t channels = images.channels, pairs = (e.potentials + 1) / 2, pixels = int64_t(images.height) * images.width;
  if (e.side > SIDE || e.levels > MOST_LEVELS || e.count > most || pixels > most) return;
  l.filters = round_up(e.count, FILTERS);
  int64_t at = HEAD;
  l.bank = static_cast<int>(at);
  at += SIDE * TAPS * l.filters;
  l.potentials = static_cast<int>(at < most ? at : most);
  at += POTENTIAL * pairs * l.filters;
  l.planes = static_cast<int>(at < most ? at : most);
  int height = images.height, width = images.width;
  for (int s = 0; s < e.levels; ++s) {
    RidgeLevel& level = l.level[s];
    const int stride = round_up(width, PIXELS) + 2 * COLUMNS;
    level.height = height, level.width = width;
    level.stride = stride, level.plane = (height + 2 * MARGIN) * stride;
    level.g_stride = stride - 2 * COLUMNS, level.g_plane = height * level.g_stride;
    level.x = static_cast<int>(at < most ? at : most);
    at += channels * level.plane;
    level.g = static_cast<int>(at < most ? at : most);
    at += channels * level.g_plane;
    level.ring = static_cast<int>(at < most ? at : most);
    height = (height + 1) / 2, width = (width + 1) / 2;
  }
  if (at > most) return;
  l.end = static_cast<int>(at);
  for (int s = 0; s < e.scales; ++s) {  // bands with a tile for every thread, or as high as memory allows, and all alike
    RidgeLevel& level = l.level[s];
    const int row = static_cast<int>(FILTERS * channels * level.stride), strips = level.g_stride / PIXELS;
    const int free = ((most - level.ring) / row - 2 * MARGIN) / ROWS * ROWS, full = THREADS / strips * ROWS;
    int band = full < ROWS ? ROWS : full;
    if (band > free) band = free;
    if (band < ROWS) return;
    level.band = round_up((level.height + (level.height + band - 1) / band - 1) / ((level.height + band - 1) / band), ROWS);
    level.rows = level.band + 2 * MARGIN;
    if (level.ring + row * level.rows > at) at = level.ring + row * level.rows;
  }
  l.floats = static_cast<int>(at);
}

template <int COUNT>
__device__ __forceinline__ void read(const float* from, float (&to)[COUNT]) {
  ALPS_UNROLL
  for (int i = 0; i < COUNT; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    to[i] = four.x, to[i + 1] = four.y, to[i + 2] = four.z, to[i + 3] = four.w;
  }
}

__device__ __forceinline__ void write(const float (&from)[4], float* to) {
  *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
}

__device__ __forceinline__ void clear(float* memory, int from, int to) {  // both multiples of four
  for (int i = from + 4 * threadIdx.x; i < to; i += 4 * THREADS) write({0, 0, 0, 0}, memory + i);
}

template <int CHANNELS>
class RidgeBlock {
 public:
  // Every thread of the block, before anything else of it; the first image may be put in place when it returns.
  __device__ RidgeBlock(float* memory, const RidgeEnergy& energy, const RidgeImages& images, int most)
      : memory_(memory), energy_(energy), layout_(*reinterpret_cast<RidgeLayout*>(memory)), images_(images.images) {
    if (threadIdx.x == 0) lay_out(energy, images, most, *reinterpret_cast<RidgeLayout*>(memory));
    __syncthreads();
    clear(memory_, layout_.planes, layout_.level[0].g);
    __syncthreads();
  }

  // The finest x - mu, for the caller to fill before gradient(), and G, valid after it and until the next.
  __device__ float& x(int channel, int row, int column) const {
    const RidgeLevel& l = layout_.level[0];
    return memory_[l.x + channel * l.plane + (row + MARGIN) * l.stride + COLUMNS + column];
  }
  __device__ const float& g(int channel, int row, int column) const {
    const RidgeLevel& l = layout_.level[0];
    return memory_[l.g + channel * l.g_plane + row * l.g_stride + column];
  }

  // Every thread; returns its part of the energy, 0 where that is not wanted.
  __device__ double gradient(int64_t image, bool want_value) {
    double energy = 0;
    if (energy_.levels > 1) clear(memory_, layout_.level[1].x, layout_.end);
    __syncthreads();
    for (int s = 0; s + 1 < energy_.levels; ++s) {
      down(layout_.level[s], layout_.level[s + 1]);
      __syncthreads();
    }
    for (int s = energy_.levels - 1; s >= 0; --s) {
      const RidgeLevel& level = layout_.level[s];
      begin(s, energy_.q[energy_.q_of_each_image ? s * images_ + image : s], want_value, energy);
      if (s < energy_.scales) {
        stage(s, image);
        __syncthreads();
        clear(memory_, level.ring, level.ring + FILTERS * CHANNELS * level.rows * level.stride);
        for (int first = 0; first < layout_.filters; first += FILTERS)
          for (int y = 0; y < level.height; y += level.band) {
            const int end = y + level.band < level.height ? y + level.band : level.height;
            __syncthreads();
            respond(level, first, y ? y + MARGIN : -MARGIN, end + MARGIN, want_value, energy);
            __syncthreads();
            if (level.height * level.g_stride <= THREADS * PIXELS) gather<1>(level, first, y, end);
            else gather<ROWS>(level, first, y, end);
          }
      }
      __syncthreads();
    }
    return energy;
  }

 private:
  // x_{s+1} = D x_s: 2 (1 3 3 1)/8 along both axes.
  __device__ void down(const RidgeLevel& from, const RidgeLevel& to) {
    for (int i = threadIdx.x; i < CHANNELS * to.height * to.width; i += THREADS) {
      const int column = i % to.width, row = i / to.width % to.height, channel = i / to.width / to.height;
      const float* at = memory_ + from.x + channel * from.plane + (2 * row - 1 + MARGIN) * from.stride + COLUMNS + 2 * column - 1;
      float sum = 0;
      ALPS_UNROLL
      for (int u = 0; u < 4; ++u, at += from.stride)
        sum = __fmaf_rn(u == 1 || u == 2 ? 3.0f : 1.0f, __fmaf_rn(3.0f, at[1] + at[2], at[0] + at[3]), sum);
      memory_[to.x + channel * to.plane + (row + MARGIN) * to.stride + COLUMNS + column] = sum * 0.03125f;
    }
  }

  // G_s = q_s x_s + D^T G_{s+1}; a pixel meets two rows and two columns of the coarser scale, the nearer of them threefold.
  __device__ void begin(int s, float q, bool want_value, double& energy) {
    const RidgeLevel& level = layout_.level[s];
    const bool coarser = s + 1 < energy_.levels;
    float sum = 0;
    for (int i = threadIdx.x; i < CHANNELS * level.height * level.width; i += THREADS) {
      const int column = i % level.width, row = i / level.width % level.height, channel = i / level.width / level.height;
      const float here = memory_[level.x + channel * level.plane + (row + MARGIN) * level.stride + COLUMNS + column];
      float g = q * here;
      if (want_value) sum = __fmaf_rn(0.5f * g, here, sum);
      if (coarser) {
        const RidgeLevel& from = layout_.level[s + 1];
        const float* coarse = memory_ + from.g + channel * from.g_plane;
        const int y = row / 2 + (row % 2 ? 1 : -1), x = column / 2 + (column % 2 ? 1 : -1);
        const bool has_column = 0 <= x && x < from.width;
        const auto across = [&](const float* at) {
          return __fmaf_rn(3.0f, at[column / 2], has_column ? at[x] : 0.0f);
        };
        const float other = 0 <= y && y < from.height ? across(coarse + y * from.g_stride) : 0.0f;
        g = __fmaf_rn(__fmaf_rn(3.0f, across(coarse + row / 2 * from.g_stride), other), 0.03125f, g);
      }
      memory_[level.g + channel * level.g_plane + row * level.g_stride + column] = g;
    }
    energy += static_cast<double>(sum);
  }

  // The filters of a scale, TAPS floats a row of each, and what slopes and energies need of its potentials, two of them at a
  // time: w0/(1 + u r0) + w1/(1 + u r1) is over one denominator.
  __device__ void stage(int s, int64_t image) {
    const RidgeEnergy& e = energy_;
    const int filters = layout_.filters, edge = (SIDE - e.side) / 2, pairs = (e.potentials + 1) / 2;
    for (int i = threadIdx.x; i < filters * SIDE * TAPS; i += THREADS) {
      const int k = i / TAPS / SIDE, dy = i / TAPS % SIDE - edge, dx = i % TAPS - edge;
      const bool inside = k < e.count && 0 <= dy && dy < e.side && 0 <= dx && dx < e.side;
      memory_[layout_.bank + i] = inside ? e.filters[((int64_t(s) * e.count + k) * e.side + dy) * e.side + dx] : 0.0f;
    }
    for (int i = threadIdx.x; i < pairs * filters; i += THREADS) {
      const int k = i % filters, pair = i / filters;
      float w[2] = {0, 0}, r[2] = {0, 0}, weight[2] = {0, 0};
      ALPS_UNROLL
      for (int j = 0; j < 2; ++j)
        if (2 * pair + j < e.potentials && k < e.count) {
          const int64_t row = int64_t(s) * e.potentials + 2 * pair + j;
          w[j] = e.w[(e.w_of_each_image ? row * images_ + image : row) * e.count + k];
          r[j] = e.r[(e.r_of_each_image ? row * images_ + image : row) * e.count + k];
          weight[j] = 0.5f * w[j] / r[j];
        }
      const float values[POTENTIAL] = {w[0] + w[1], __fmaf_rn(w[0], r[1], w[1] * r[0]), r[0] + r[1], r[0] * r[1],
                                       r[0], r[1], weight[0], weight[1]};
      ALPS_UNROLL
      for (int v = 0; v < POTENTIAL; ++v) memory_[layout_.potentials + (pair * POTENTIAL + v) * filters + k] = values[v];
    }
  }

  __device__ float* ring_at(const RidgeLevel& level, int row, int column) {
    return memory_ + level.ring + (row + MARGIN) % level.rows * level.stride + COLUMNS + column;
  }

  // Responses times slopes of rows [from, to) into the ring, zeros outside the image.
  __device__ void respond(const RidgeLevel& level, int first, int from, int to, bool want_value, double& energy) {
    constexpr int T = 2 / CHANNELS;  // rows of a thread
    const int strips = level.g_stride / PIXELS, ring_plane = level.rows * level.stride;
    const int begin = from < 0 ? 0 : from, inside = to < level.height ? to : level.height, end = inside < begin ? begin : inside;
    for (int i = threadIdx.x; i < strips * (begin - from + to - end); i += THREADS) {
      const int row = i / strips < begin - from ? from + i / strips : end + i / strips - (begin - from);
      float* const out = ring_at(level, row, i % strips * PIXELS);
      ALPS_UNROLL
      for (int f = 0; f < FILTERS * CHANNELS; ++f) write({0, 0, 0, 0}, out + f * ring_plane);
    }
    for (int i = threadIdx.x; i < strips * ((end - begin + T - 1) / T); i += THREADS) {
      const int row = begin + i / strips * T, column = i % strips * PIXELS;
      const float* at = memory_ + level.x + row * level.stride + column;
      const float* taps = memory_ + layout_.bank + first * SIDE * TAPS;
      float z[T][CHANNELS][FILTERS][PIXELS] = {}, window[T][CHANNELS][WINDOW];
      if constexpr (T == 2) read(at, window[1][0]);
#pragma unroll 1
      for (int dy = 0; dy < SIDE; ++dy, taps += TAPS) {
        if constexpr (T == 2) {
          ALPS_UNROLL
          for (int i = 0; i < WINDOW; ++i) window[0][0][i] = window[1][0][i];
          at += level.stride;
          if (row + dy + 1 < level.height + 2 * MARGIN) read(at, window[1][0]);  // no row has that one but one past the image
        } else {
          ALPS_UNROLL
          for (int c = 0; c < CHANNELS; ++c) read(at + c * level.plane, window[0][c]);
          at += level.stride;
        }
        ALPS_UNROLL
        for (int f = 0; f < FILTERS; ++f) {
          float tap[TAPS];
          read(taps + f * SIDE * TAPS, tap);
          ALPS_UNROLL
          for (int dx = 0; dx < SIDE; ++dx)
            ALPS_UNROLL
            for (int p = 0; p < PIXELS * T * CHANNELS; ++p) {
              const int t = p / (PIXELS * CHANNELS), c = p / PIXELS % CHANNELS, i = p % PIXELS;
              z[t][c][f][i] = __fmaf_rn(tap[dx], window[t][c][COLUMNS - MARGIN + dx + i], z[t][c][f][i]);
            }
        }
      }
      ALPS_UNROLL
      for (int t = 0; t < T; ++t) {
        if (row + t >= end) continue;
        scale_by_slopes(z[t], memory_ + layout_.potentials + first, level.width - column, want_value, energy);
        float* const out = ring_at(level, row + t, column);
        ALPS_UNROLL
        for (int f = 0; f < FILTERS; ++f)
          ALPS_UNROLL
          for (int c = 0; c < CHANNELS; ++c) write(z[t][c][f], out + (f * CHANNELS + c) * ring_plane);
      }
    }
  }

  // z sum_j w_j / (1 + |z|^2 r_j) for the first `inside` pixels, zero for the others.
  __device__ void scale_by_slopes(float (&z)[CHANNELS][FILTERS][PIXELS], const float* potentials, int inside, bool want_value,
                                  double& energy) {
    const int filters = layout_.filters;
    float square[FILTERS][PIXELS], slope[FILTERS][PIXELS] = {}, sum = 0;
    ALPS_UNROLL
    for (int f = 0; f < FILTERS; ++f)
      ALPS_UNROLL
      for (int p = 0; p < PIXELS; ++p) {
        square[f][p] = z[0][f][p] * z[0][f][p];
        if constexpr (CHANNELS == 2) square[f][p] = __fmaf_rn(z[1][f][p], z[1][f][p], square[f][p]);
      }
#pragma unroll 1
    for (int j = 0; j < energy_.potentials; j += 2, potentials += POTENTIAL * filters) {
      float above[2][FILTERS], below[2][FILTERS];
      ALPS_UNROLL
      for (int k = 0; k < 2; ++k) read(potentials + k * filters, above[k]), read(potentials + (2 + k) * filters, below[k]);
      ALPS_UNROLL
      for (int f = 0; f < FILTERS; ++f)
        ALPS_UNROLL
        for (int p = 0; p < PIXELS; ++p) {
          const float under = __fmaf_rn(square[f][p], __fmaf_rn(square[f][p], below[1][f], below[0][f]), 1.0f);
          const float over = __fmaf_rn(square[f][p], above[1][f], above[0][f]);
          slope[f][p] += __fdividef(over, under < 0x1p120f ? under : 0x1p120f);  // of which no square may make an infinity
        }
      if (want_value) {
        ALPS_UNROLL
        for (int k = 0; k < 2; ++k) {
          float r[FILTERS], weight[FILTERS];
          read(potentials + (4 + k) * filters, r), read(potentials + (6 + k) * filters, weight);
          ALPS_UNROLL
          for (int f = 0; f < FILTERS; ++f)
            ALPS_UNROLL
            for (int p = 0; p < PIXELS; p += 2) {  // one logarithm for two pixels, (1 + t)(1 + u) = 1 + (t + u + t u)
              const float t = p < inside ? square[f][p] * r[f] : 0, u = p + 1 < inside ? square[f][p + 1] * r[f] : 0;
              sum = __fmaf_rn(weight[f], log1p<Thread>(__fmaf_rn(t, u, t + u)), sum);
            }
        }
      }
    }
    energy += static_cast<double>(sum);
    ALPS_UNROLL
    for (int f = 0; f < FILTERS; ++f)
      ALPS_UNROLL
      for (int p = 0; p < PIXELS * CHANNELS; ++p)
        z[p / PIXELS][f][p % PIXELS] = p % PIXELS < inside ? z[p / PIXELS][f][p % PIXELS] * slope[f][p % PIXELS] : 0.0f;
  }

  // Adds the transposed filters of the ring's responses to rows [from, to) of G, R rows of a strip a thread.
  template <int R>
  __device__ void gather(const RidgeLevel& level, int first, int from, int to) {
    const int strips = level.g_stride / PIXELS, ring_plane = level.rows * level.stride;
    const int tiles = strips * ((to - from + R - 1) / R);
    for (int i = threadIdx.x; i < CHANNELS * tiles; i += THREADS) {
      const int channel = i / tiles, row = from + i % tiles / strips * R, column = i % strips * PIXELS;
      const float* ring = memory_ + level.ring + channel * ring_plane + column;
      const float* taps = memory_ + layout_.bank + first * SIDE * TAPS;
      float sum[R][PIXELS] = {};  // of these filters, before it meets the sum of the others: that loses less
#pragma unroll 1
      for (int f = 0; f < FILTERS; ++f, ring += CHANNELS * ring_plane, taps += SIDE * TAPS) {
        float window[R][WINDOW];  // of R rows of responses, row v at v % R; the first is row - MARGIN
        int slot = row % level.rows;
        ALPS_UNROLL
        for (int v = 0; v < SIDE + R - 1; ++v) {
          read(ring + slot * level.stride, window[v % R]);
          if (++slot == level.rows) slot = 0;
          if (v < R - 1) continue;
          float tap[TAPS];
          read(taps + (SIDE + R - 2 - v) * TAPS, tap);
          ALPS_UNROLL
          for (int r = 0; r < R; ++r)
            ALPS_UNROLL
            for (int dx = 0; dx < SIDE; ++dx)
              ALPS_UNROLL
              for (int p = 0; p < PIXELS; ++p)
                sum[r][p] = __fmaf_rn(tap[dx], window[(v + 1 + r) % R][COLUMNS + MARGIN + p - dx], sum[r][p]);
        }
      }
      float* const out = memory_ + level.g + channel * level.g_plane + row * level.g_stride + column;
      ALPS_UNROLL
      for (int r = 0; r < R; ++r)
        if (row + r < to) {
          float so_far[PIXELS];
          read(out + r * level.g_stride, so_far);
          ALPS_UNROLL
          for (int p = 0; p < PIXELS; ++p) so_far[p] += sum[r][p];
          write(so_far, out + r * level.g_stride);
        }
    }
  }

  float* const memory_;
  const RidgeEnergy& energy_;
  const RidgeLayout& layout_;
  const int64_t images_;  // that tables of each image have
};

inline int shared_floats_of_device(const char* name) {  // that a block can have
  return static_cast<int>(this_device(name).shared / static_cast<int64_t>(sizeof(float)));
}

// Calls run(CHANNELS, most, floats): floats of shared memory that a block can have, and those that it needs.
template <class Run>
void with_ridge_block(const char* name, const RidgeEnergy& energy, const RidgeImages& images, const Run& run) {
  const int most = shared_floats_of_device(name);
  RidgeLayout layout;
  lay_out(energy, images, most, layout);
  if (layout.floats == 0) throw std::invalid_argument(std::string(name) + ": an image does not fit shared memory");
  if (images.channels == 1) run(std::integral_constant<int, 1>(), most, layout.floats);
  else run(std::integral_constant<int, 2>(), most, layout.floats);
}

}  // namespace alps::cuda
