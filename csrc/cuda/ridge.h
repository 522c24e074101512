// The arithmetic of a ridge energy's gradient; ridge_grad.cu has the tiles. Contract in alps_fast/ops/ridge_grad.py.
//
//     z = W x,  v = z sum_j w_j / (1 + |z|^2 r_j),  G_s = q_s x_s + W^T v + D^T G_{s+1}
//
// FILTERS filters meet the rows of a tile at a time. A thread takes PIXELS neighbours in two rows, or one of two channels, for
// FILTERS responses, and PIXELS x ROWS neighbours of G for as many sums, so that multiply-adds take more cycles than the shared
// memory, whose reads are 16 bytes wide. The order of every sum is fixed: filters of a pixel FILTERS at a time, what the coarser
// scale adds last.
#pragma once

#include <cstdint>

#include "../common/log1p.h"
#include "kernels.h"
#include "lanes.h"

namespace alps::cuda {

constexpr int PIXELS = 4, FILTERS = 4;
constexpr int ROWS = 4;       // of G a thread sums at a time, at most
constexpr int SIDE = 7;       // of the filters; smaller ones have zeros around them, larger ones no kernel
constexpr int MARGIN = SIDE / 2;
constexpr int TAPS = 8;       // floats of a filter's row
constexpr int COLUMNS = 4;    // zeros beside a row, on either side
constexpr int WINDOW = PIXELS + 2 * COLUMNS;
constexpr int MOST_LEVELS = 12;
constexpr int POTENTIAL = 8;  // numbers of two potentials of a filter
static_assert(MARGIN >= 2 && MARGIN <= COLUMNS, "D reads two zeros after an image, filters MARGIN on each side");
static_assert(PIXELS == 4 && FILTERS == 4 && COLUMNS % 4 == 0 && TAPS % 4 == 0 && TAPS >= SIDE, "all is read as float4");

__host__ __device__ inline int round_up(int x, int to) { return (x + to - 1) / to * to; }

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

// FILTERS filters of a scale from `first` on, TAPS floats a row of each, and what slopes and energies need of its potentials,
// two of them at a time: w0/(1 + u r0) + w1/(1 + u r1) is over one denominator. By `threads` threads, of which this is `thread`.
__device__ __forceinline__ void stage_filters(const RidgeEnergy& e, int s, int64_t image, int64_t images, int first, float* bank,
                                              float* potentials, int thread, int threads) {
  const int edge = (SIDE - e.side) / 2, pairs = (e.potentials + 1) / 2;
  for (int i = thread; i < FILTERS * SIDE * TAPS; i += threads) {
    const int k = first + i / TAPS / SIDE, dy = i / TAPS % SIDE - edge, dx = i % TAPS - edge;
    const bool inside = k < e.count && 0 <= dy && dy < e.side && 0 <= dx && dx < e.side;
    bank[i] = inside ? e.filters[((int64_t(s) * e.count + k) * e.side + dy) * e.side + dx] : 0.0f;
  }
  for (int i = thread; i < pairs * FILTERS; i += threads) {
    const int k = first + i % FILTERS, pair = i / FILTERS;
    float w[2] = {0, 0}, r[2] = {0, 0}, weight[2] = {0, 0};
    ALPS_UNROLL
    for (int j = 0; j < 2; ++j)
      if (2 * pair + j < e.potentials && k < e.count) {
        const int64_t row = int64_t(s) * e.potentials + 2 * pair + j;
        w[j] = e.weights[(e.weights_of_each_image ? row * images + image : row) * e.count + k];
        r[j] = e.r[(e.r_of_each_image ? row * images + image : row) * e.count + k];
        weight[j] = 0.5f * w[j] / r[j];
      }
    const float values[POTENTIAL] = {w[0] + w[1], __fmaf_rn(w[0], r[1], w[1] * r[0]), r[0] + r[1], r[0] * r[1],
                                     r[0], r[1], weight[0], weight[1]};
    ALPS_UNROLL
    for (int v = 0; v < POTENTIAL; ++v) potentials[(pair * POTENTIAL + v) * FILTERS + i % FILTERS] = values[v];
  }
}

template <int CHANNELS>
constexpr int AT_ONCE = 2 / CHANNELS;  // rows of responses of a thread

// Responses of FILTERS filters at PIXELS neighbours in AT_ONCE rows; `at` is x MARGIN rows and COLUMNS before. Two rows of
// filters at a time: then no register moves.
template <int CHANNELS>
__device__ __forceinline__ void respond_to(const float* at, int stride, int plane, const float* taps,
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
      read(at, window[1][0]);
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
__device__ __forceinline__ void scale_by_slopes(float (&z)[CHANNELS][FILTERS][PIXELS], const float* potentials, int count,
                                                int inside, bool want_value, double& energy) {
  float square[FILTERS][PIXELS], slope[FILTERS][PIXELS] = {}, sum = 0;
  ALPS_UNROLL
  for (int f = 0; f < FILTERS; ++f)
    ALPS_UNROLL
    for (int p = 0; p < PIXELS; ++p) {
      square[f][p] = z[0][f][p] * z[0][f][p];
      if constexpr (CHANNELS == 2) square[f][p] = __fmaf_rn(z[1][f][p], z[1][f][p], square[f][p]);
    }
#pragma unroll 1
  for (int j = 0; j < count; j += 2, potentials += POTENTIAL * FILTERS) {
    float above[2][FILTERS], below[2][FILTERS];
    ALPS_UNROLL
    for (int k = 0; k < 2; ++k) read(potentials + k * FILTERS, above[k]), read(potentials + (2 + k) * FILTERS, below[k]);
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
        read(potentials + (4 + k) * FILTERS, r), read(potentials + (6 + k) * FILTERS, weight);
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

}  // namespace alps::cuda
