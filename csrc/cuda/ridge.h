// The gradient of a ridge energy: its arithmetic, and one image by one block, in shared memory; ridge_grad.cu has it in tiles,
// with the same bits. Contract in alps_fast/ops/ridge_grad.py.
//
//     z = W x,  v = z sum_j w_j / (1 + |z|^2 r_j),  G_s = q_s x_s + W^T v + D^T G_{s+1}
//
// The pyramid x_s lies in planes with zeros around them, so no loop of filters asks where the image ends; G_s beside it. FILTERS
// filters meet a band of rows at a time: their responses v go into a ring of rows, which keeps those that the next band needs,
// so each response is computed once and all of them never lie anywhere. The ring lies over what has been read of the coarser
// scales: all but G_{s+1}, which therefore comes before x_{s+1}. A thread takes PIXELS neighbours in two rows, or one of two
// channels, for FILTERS responses, and PIXELS x ROWS neighbours of G for as many sums, so that multiply-adds take more cycles
// than the shared memory, whose reads are 16 bytes wide. The order of every sum is fixed: filters of a pixel FILTERS at a time,
// what the coarser scale adds last; bands decide no bit.
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

struct RidgeLayout {  // of a block's shared memory, in floats; it begins with the layout itself
  int bank, potentials, planes, end, floats, filters;
  RidgeLevel level[MOST_LEVELS];
};

__host__ __device__ inline int round_up(int x, int to) { return (x + to - 1) / to * to; }

constexpr int HEAD = (sizeof(RidgeLayout) / sizeof(float) + 3) / 4 * 4;

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
    const int64_t of_g = channels * level.g_plane, of_x = channels * level.plane, g = s ? at : at + of_x, x = s ? at + of_g : at;
    level.x = static_cast<int>(x < most ? x : most);
    level.g = static_cast<int>(g < most ? g : most);
    if (s) l.level[s - 1].ring = static_cast<int>(x < most ? x : most);
    at += of_g + of_x;
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

// x_{s+1} = D x_s: 2 (1 3 3 1)/8 along both axes; at(u, v) is x_s in row 2 row - 1 + u and column 2 column - 1 + v.
template <class At>
__device__ __forceinline__ float down_at(const At& at) {
  float sum = 0;
  ALPS_UNROLL
  for (int u = 0; u < 4; ++u)
    sum = __fmaf_rn(u == 1 || u == 2 ? 3.0f : 1.0f, __fmaf_rn(3.0f, at(u, 1) + at(u, 2), at(u, 0) + at(u, 3)), sum);
  return sum * 0.03125f;
}

// g + D^T G_{s+1}; a pixel meets two rows and two columns of the coarser scale, the nearer of them threefold. at(row, column) is
// G_{s+1}, of that height and width.
template <class At>
__device__ __forceinline__ float with_coarser(float g, int row, int column, int height, int width, const At& at) {
  const int y = row / 2 + (row % 2 ? 1 : -1), x = column / 2 + (column % 2 ? 1 : -1);
  const bool has_column = 0 <= x && x < width;
  const auto across = [&](int from) { return __fmaf_rn(3.0f, at(from, column / 2), has_column ? at(from, x) : 0.0f); };
  const float other = 0 <= y && y < height ? across(y) : 0.0f;
  return __fmaf_rn(__fmaf_rn(3.0f, across(row / 2), other), 0.03125f, g);
}

// `filters` filters of a scale from `first` on, TAPS floats a row of each, and what slopes and energies need of its potentials,
// two of them at a time: w0/(1 + u r0) + w1/(1 + u r1) is over one denominator. By `threads` threads, of which this is `thread`.
__device__ __forceinline__ void stage_filters(const RidgeEnergy& e, int s, int64_t image, int64_t images, int first, int filters,
                                              float* bank, float* potentials, int thread, int threads) {
  const int edge = (SIDE - e.side) / 2, pairs = (e.potentials + 1) / 2;
  for (int i = thread; i < filters * SIDE * TAPS; i += threads) {
    const int k = first + i / TAPS / SIDE, dy = i / TAPS % SIDE - edge, dx = i % TAPS - edge;
    const bool inside = k < e.count && 0 <= dy && dy < e.side && 0 <= dx && dx < e.side;
    bank[i] = inside ? e.filters[((int64_t(s) * e.count + k) * e.side + dy) * e.side + dx] : 0.0f;
  }
  for (int i = thread; i < pairs * filters; i += threads) {
    const int k = first + i % filters, pair = i / filters;
    float w[2] = {0, 0}, r[2] = {0, 0}, weight[2] = {0, 0};
    ALPS_UNROLL
    for (int j = 0; j < 2; ++j)
      if (2 * pair + j < e.potentials && k < e.count) {
        const int64_t row = int64_t(s) * e.potentials + 2 * pair + j;
        w[j] = e.w[(e.w_of_each_image ? row * images + image : row) * e.count + k];
        r[j] = e.r[(e.r_of_each_image ? row * images + image : row) * e.count + k];
        weight[j] = 0.5f * w[j] / r[j];
      }
    const float values[POTENTIAL] = {w[0] + w[1], __fmaf_rn(w[0], r[1], w[1] * r[0]), r[0] + r[1], r[0] * r[1],
                                     r[0], r[1], weight[0], weight[1]};
    ALPS_UNROLL
    for (int v = 0; v < POTENTIAL; ++v) potentials[(pair * POTENTIAL + v) * filters + i % filters] = values[v];
  }
}

template <int CHANNELS>
constexpr int AT_ONCE = 2 / CHANNELS;  // rows of responses of a thread

// Responses of FILTERS filters at PIXELS neighbours in AT_ONCE rows; `at` is x MARGIN rows and COLUMNS before, from where `rows`
// rows may be read. Two rows of filters at a time: then no register moves.
template <int CHANNELS>
__device__ __forceinline__ void respond_to(const float* at, int stride, int plane, int rows, const float* taps,
                                           float (&z)[AT_ONCE<CHANNELS>][CHANNELS][FILTERS][PIXELS]) {
  constexpr int T = AT_ONCE<CHANNELS>;
  float window[T][CHANNELS][WINDOW];
  if constexpr (T == 2) read(at, window[1][0]);
#pragma unroll 2
  for (int dy = 0; dy < SIDE; ++dy, taps += TAPS) {
    if constexpr (T == 2) {
      ALPS_UNROLL
      for (int i = 0; i < WINDOW; ++i) window[0][0][i] = window[1][0][i];
      at += stride;
      if (dy + 1 < rows) read(at, window[1][0]);  // no row has that one but one that nobody wants
    } else {
      ALPS_UNROLL
      for (int c = 0; c < CHANNELS; ++c) read(at + c * plane, window[0][c]);
      at += stride;
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
}

// 1/x to an ulp or so, for x that is neither denormal nor above 2^126.
__device__ __forceinline__ float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return 1.0f / x;
#endif
}

// z sum_j w_j / (1 + |z|^2 r_j) for the first `inside` pixels, zero for the others; adds their energy where that is wanted.
template <int CHANNELS>
__device__ __forceinline__ void scale_by_slopes(float (&z)[CHANNELS][FILTERS][PIXELS], const float* potentials, int filters,
                                                int count, int inside, bool want_value, double& energy) {
  float square[FILTERS][PIXELS], slope[FILTERS][PIXELS] = {}, sum = 0;
  ALPS_UNROLL
  for (int f = 0; f < FILTERS; ++f)
    ALPS_UNROLL
    for (int p = 0; p < PIXELS; ++p) {
      square[f][p] = z[0][f][p] * z[0][f][p];
      if constexpr (CHANNELS == 2) square[f][p] = __fmaf_rn(z[1][f][p], z[1][f][p], square[f][p]);
    }
#pragma unroll 1
  for (int j = 0; j < count; j += 2, potentials += POTENTIAL * filters) {
    float above[2][FILTERS], below[2][FILTERS];
    ALPS_UNROLL
    for (int k = 0; k < 2; ++k) read(potentials + k * filters, above[k]), read(potentials + (2 + k) * filters, below[k]);
    ALPS_UNROLL
    for (int f = 0; f < FILTERS; ++f)
      ALPS_UNROLL
      for (int p = 0; p < PIXELS; ++p) {
        const float under = __fmaf_rn(square[f][p], __fmaf_rn(square[f][p], below[1][f], below[0][f]), 1.0f);
        const float over = __fmaf_rn(square[f][p], above[1][f], above[0][f]);
        const float finite = under < 0x1p120f ? under : 0x1p120f;  // no square may make an infinity of it
          slope[f][p] = __fmaf_rn(over, reciprocal(finite), slope[f][p]);
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

// Adds the transposed filters at PIXELS neighbours in R rows; read_row(f, v, window) reads the row of filter f's responses that
// is v - MARGIN below the first, from COLUMNS before on, for v = 0, 1, ...
template <int R, class ReadRow>
__device__ __forceinline__ void gather_to(const float* taps, float (&sum)[R][PIXELS], const ReadRow& read_row) {
#pragma unroll 1
  for (int f = 0; f < FILTERS; ++f, taps += SIDE * TAPS) {
    float window[R][WINDOW];  // of R rows of responses, row v at v % R
    ALPS_UNROLL
    for (int v = 0; v < SIDE + R - 1; ++v) {
      read_row(f, v, window[v % R]);
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

  __device__ void gradient(int64_t image) {  // every thread
    if (energy_.levels > 1) clear(memory_, layout_.level[1].g, layout_.end);
    __syncthreads();
    for (int s = 0; s + 1 < energy_.levels; ++s) {
      down(layout_.level[s], layout_.level[s + 1]);
      __syncthreads();
    }
    for (int s = energy_.levels - 1; s >= 0; --s) {
      const RidgeLevel& level = layout_.level[s];
      const float q = energy_.q[energy_.q_of_each_image ? s * images_ + image : s];
      each_pixel(level, [&](int channel, int row, int column, float& g) {
        g = q * memory_[level.x + channel * level.plane + (row + MARGIN) * level.stride + COLUMNS + column];
      });
      if (s < energy_.scales) {
        stage_filters(energy_, s, image, images_, 0, layout_.filters, memory_ + layout_.bank, memory_ + layout_.potentials,
                      threadIdx.x, THREADS);
        __syncthreads();
        clear(memory_, level.ring, level.ring + FILTERS * CHANNELS * level.rows * level.stride);
        for (int first = 0; first < layout_.filters; first += FILTERS)
          for (int y = 0; y < level.height; y += level.band) {
            const int end = y + level.band < level.height ? y + level.band : level.height;
            __syncthreads();
            respond(level, first, y ? y + MARGIN : -MARGIN, end + MARGIN);
            __syncthreads();
            if (level.height * level.g_stride <= THREADS * PIXELS) gather<1>(level, first, y, end);
            else gather<ROWS>(level, first, y, end);
          }
      }
      __syncthreads();
      if (s + 1 == energy_.levels) continue;
      const RidgeLevel& coarser = layout_.level[s + 1];
      each_pixel(level, [&](int channel, int row, int column, float& g) {
        const float* const at = memory_ + coarser.g + channel * coarser.g_plane;
        g = with_coarser(g, row, column, coarser.height, coarser.width,
                         [&](int y, int x) { return at[y * coarser.g_stride + x]; });
      });
      __syncthreads();
    }
  }

 private:
  __device__ void down(const RidgeLevel& from, const RidgeLevel& to) {
    for (int i = threadIdx.x; i < CHANNELS * to.height * to.width; i += THREADS) {
      const int column = i % to.width, row = i / to.width % to.height, channel = i / to.width / to.height;
      const float* at = memory_ + from.x + channel * from.plane + (2 * row - 1 + MARGIN) * from.stride + COLUMNS + 2 * column - 1;
      memory_[to.x + channel * to.plane + (row + MARGIN) * to.stride + COLUMNS + column] =
          down_at([&](int u, int v) { return at[u * from.stride + v]; });
    }
  }

  // Calls use(channel, row, column, g) for the pixels of a level and of G.
  template <class Use>
  __device__ __forceinline__ void each_pixel(const RidgeLevel& level, const Use& use) {
    for (int i = threadIdx.x; i < CHANNELS * level.height * level.width; i += THREADS) {
      const int column = i % level.width, row = i / level.width % level.height, channel = i / level.width / level.height;
      use(channel, row, column, memory_[level.g + channel * level.g_plane + row * level.g_stride + column]);
    }
  }

  __device__ float* ring_at(const RidgeLevel& level, int row, int column) {
    return memory_ + level.ring + (row + MARGIN) % level.rows * level.stride + COLUMNS + column;
  }

  // Responses times slopes of rows [from, to) into the ring, zeros outside the image.
  __device__ void respond(const RidgeLevel& level, int first, int from, int to) {
    constexpr int T = AT_ONCE<CHANNELS>;
    const int strips = level.g_stride / PIXELS, ring_plane = level.rows * level.stride;
    const int begin = from < 0 ? 0 : from, inside = to < level.height ? to : level.height, end = inside < begin ? begin : inside;
    double none = 0;
    for (int i = threadIdx.x; i < strips * (begin - from + to - end); i += THREADS) {
      const int row = i / strips < begin - from ? from + i / strips : end + i / strips - (begin - from);
      float* const out = ring_at(level, row, i % strips * PIXELS);
      ALPS_UNROLL
      for (int f = 0; f < FILTERS * CHANNELS; ++f) write({0, 0, 0, 0}, out + f * ring_plane);
    }
    for (int i = threadIdx.x; i < strips * ((end - begin + T - 1) / T); i += THREADS) {
      const int row = begin + i / strips * T, column = i % strips * PIXELS;
      float z[T][CHANNELS][FILTERS][PIXELS] = {};
      respond_to<CHANNELS>(memory_ + level.x + row * level.stride + column, level.stride, level.plane,
                           level.height + 2 * MARGIN - row, memory_ + layout_.bank + first * SIDE * TAPS, z);
      ALPS_UNROLL
      for (int t = 0; t < T; ++t) {
        if (row + t >= end) continue;
        scale_by_slopes<CHANNELS>(z[t], memory_ + layout_.potentials + first, layout_.filters, energy_.potentials,
                                  level.width - column, false, none);
        float* const out = ring_at(level, row + t, column);
        ALPS_UNROLL
        for (int f = 0; f < FILTERS; ++f)
          ALPS_UNROLL
          for (int c = 0; c < CHANNELS; ++c) write(z[t][c][f], out + (f * CHANNELS + c) * ring_plane);
      }
    }
  }

  // Adds the transposed filters of the ring's responses to rows [from, to) of G, R rows of a strip a thread.
  template <int R>
  __device__ void gather(const RidgeLevel& level, int first, int from, int to) {
    const int strips = level.g_stride / PIXELS, ring_plane = level.rows * level.stride;
    const int tiles = strips * ((to - from + R - 1) / R);
    for (int i = threadIdx.x; i < CHANNELS * tiles; i += THREADS) {
      const int channel = i / tiles, row = from + i % tiles / strips * R, column = i % strips * PIXELS, begin = row % level.rows;
      const float* ring = memory_ + level.ring + channel * ring_plane + column;
      float sum[R][PIXELS] = {};  // of these filters, before it meets the sum of the others: that loses less
      int slot = begin;
      gather_to<R>(memory_ + layout_.bank + first * SIDE * TAPS, sum, [&](int f, int v, float (&window)[WINDOW]) {
        if (v == 0) slot = begin;
        read(ring + f * CHANNELS * ring_plane + slot * level.stride, window);
        if (++slot == level.rows) slot = 0;
      });
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
