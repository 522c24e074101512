// The gradient of a ridge energy of one image by one block: pyramid, filters, slopes, transposed filters, pyramid back.
//
//     z = W x,  v = z sum_j w_j / (1 + |z|^2 r_j),  G_s = q_s x_s + W^T v + D^T G_{s+1}
//
// Every level of x and of G, and the responses v of FILTERS filters at a time, are planes with zeros around them, so no loop
// asks where the image ends. A thread works on strips of PIXELS neighbours: a row of its window is a few 16-byte loads, that
// serve PIXELS * FILTERS * SIDE products from registers, and the coefficients of FILTERS filters are one 16-byte broadcast.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "ridge.h"

namespace alps::cuda {

constexpr int THREADS = 512;
constexpr int64_t MAX_BLOCKS = 1024;  // a block strides on where there are more images
constexpr int PIXELS = 4;
constexpr int FILTERS = 4;
static_assert(PIXELS == 4 && FILTERS == 4, "strips and coefficients are float4");

inline __host__ __device__ int rounded_up(int x, int to) { return (x + to - 1) / to * to; }

struct Plane {  // one level of the pyramid
  int height, width, stride, size, origin;
};

struct Layout {  // floats of a block
  Plane planes[MAX_LEVELS];
  int x[MAX_LEVELS], g[MAX_LEVELS];  // where the channels of a level begin
  int v, bank, slopes, sums, total;
};

inline int margin_of(int side) { return side / 2 < 2 ? 2 : side / 2; }  // 2 for D

inline Layout layout_of(const RidgeEnergy& energy, const RidgeShape& shape) {
  Layout l = {};
  const int margin = margin_of(energy.side), columns = rounded_up(margin, 4);
  int height = shape.height, width = shape.width, at = 0;
  for (int s = 0; s < energy.levels; ++s) {
    const int stride = rounded_up(width, PIXELS) + 2 * columns;
    l.planes[s] = {height, width, stride, (height + 2 * margin) * stride, margin * stride + columns};
    l.x[s] = at;
    l.g[s] = at += shape.channels * l.planes[s].size;
    at += shape.channels * l.planes[s].size;
    height = (height + 1) / 2, width = (width + 1) / 2;
  }
  l.v = at;
  l.bank = at += FILTERS * shape.channels * l.planes[0].size;
  l.slopes = at += energy.side * energy.side * energy.count;
  l.sums = at += 2 * energy.potentials * energy.count;
  l.total = at + THREADS / 32;
  return l;
}

__device__ __forceinline__ void add_product(float (&sum)[PIXELS], float coefficient, const float* window) {
#pragma unroll
  for (int p = 0; p < PIXELS; ++p) sum[p] = __fmaf_rn(coefficient, window[p], sum[p]);
}

template <int COUNT>
__device__ __forceinline__ void read_window(const float* from, float (&window)[COUNT]) {
#pragma unroll
  for (int i = 0; i < COUNT; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(from + i);
    window[i] = four.x, window[i + 1] = four.y, window[i + 2] = four.z, window[i + 3] = four.w;
  }
}

__device__ __forceinline__ void read_coefficients(const float* from, float (&c)[FILTERS]) { read_window<FILTERS>(from, c); }

// x_{s+1} = D x_s: 2 (1 3 3 1)/8 along both axes.
static __device__ void down(const float* fine, const Plane& from, float* coarse, const Plane& to) {
  for (int i = threadIdx.x; i < to.height * to.width; i += THREADS) {
    const int y = i / to.width, x = i % to.width;
    const float* corner = fine + from.origin + (2 * y - 1) * from.stride + 2 * x - 1;
    float sum = 0;
#pragma unroll
    for (int u = 0; u < 4; ++u) {
      const float* row = corner + u * from.stride;
      const float across = __fmaf_rn(3.0f, row[1] + row[2], row[0] + row[3]);
      sum = __fmaf_rn(u == 1 || u == 2 ? 3.0f : 1.0f, across, sum);
    }
    coarse[to.origin + y * to.stride + x] = sum * 0.03125f;
  }
}

// (D^T g)(y, x): two rows and two columns of the coarse level meet a pixel.
static __device__ float up(const float* coarse, const Plane& plane, int y, int x) {
  const int i = (y + 1) >> 1, j = (x + 1) >> 1;                // taps u = (y + 1) % 2 here, u + 2 one before
  const float near_y = y % 2 ? 1 : 3, near_x = x % 2 ? 1 : 3;  // h[0] or h[1]; one before it h[2] or h[3]
  const float* at = coarse + plane.origin + i * plane.stride + j;
  const float* before = at - plane.stride;
  const float here = __fmaf_rn(near_x, at[0], (4 - near_x) * at[-1]);
  const float there = __fmaf_rn(near_x, before[0], (4 - near_x) * before[-1]);
  return __fmaf_rn(near_y, here, (4 - near_y) * there) * 0.03125f;
}

// What a thread adds to the energy is added to `value`, where there is one.
template <int SIDE, int CHANNELS, bool VALUE>
__device__ void responses(const float* x, const Plane& plane, const float* bank, const float* slopes, int count, int potentials,
                          int first, float* v, float& value) {
  constexpr int MARGIN = SIDE / 2, COLUMNS = ((MARGIN < 2 ? 2 : MARGIN) + 3) / 4 * 4, WINDOW = 2 * COLUMNS + PIXELS;
  const int strips = (plane.width + PIXELS - 1) / PIXELS;
  for (int i = threadIdx.x; i < strips * plane.height; i += THREADS) {
    const int row = i / strips, column = i % strips * PIXELS, here = plane.origin + row * plane.stride + column;
    float z[CHANNELS][FILTERS][PIXELS] = {};
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
#pragma unroll 1
      for (int dy = 0; dy < SIDE; ++dy) {
        float window[WINDOW];
        read_window(x + c * plane.size + here + (dy - MARGIN) * plane.stride - COLUMNS, window);
#pragma unroll
        for (int dx = 0; dx < SIDE; ++dx) {
          float coefficient[FILTERS];
          read_coefficients(bank + (dy * SIDE + dx) * count + first, coefficient);
#pragma unroll
          for (int f = 0; f < FILTERS; ++f) add_product(z[c][f], coefficient[f], window + COLUMNS - MARGIN + dx);
        }
      }
#pragma unroll
    for (int f = 0; f < FILTERS; ++f) {
      float slope[PIXELS] = {};
#pragma unroll
      for (int p = 0; p < PIXELS; ++p) {
        float square = 0;
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) square = __fmaf_rn(z[c][f][p], z[c][f][p], square);
        for (int j = 0; j < potentials; ++j) {
          const float w = slopes[2 * j * count + first + f], r = slopes[(2 * j + 1) * count + first + f];
          const float u = __fmaf_rn(square, r, 1.0f);
          slope[p] += w / u;
          if (VALUE && column + p < plane.width) value = __fmaf_rn(0.5f * w / r, logf(u), value);
        }
        if (column + p >= plane.width) slope[p] = 0;  // zeros around the image
      }
#pragma unroll
      for (int c = 0; c < CHANNELS; ++c)
        *reinterpret_cast<float4*>(v + (f * CHANNELS + c) * plane.size + here) =
            make_float4(column < plane.width ? z[c][f][0] * slope[0] : 0, z[c][f][1] * slope[1], z[c][f][2] * slope[2],
                        z[c][f][3] * slope[3]);
    }
  }
}

template <int SIDE, int CHANNELS>
__device__ void add_transposed(const float* v, const Plane& plane, const float* bank, int count, int first, float* g) {
  constexpr int MARGIN = SIDE / 2, COLUMNS = ((MARGIN < 2 ? 2 : MARGIN) + 3) / 4 * 4, WINDOW = 2 * COLUMNS + PIXELS;
  const int strips = (plane.width + PIXELS - 1) / PIXELS;
  for (int i = threadIdx.x; i < strips * plane.height; i += THREADS) {
    const int row = i / strips, column = i % strips * PIXELS, here = plane.origin + row * plane.stride + column;
#pragma unroll 1
    for (int c = 0; c < CHANNELS; ++c) {
      float sum[PIXELS];
      read_window(g + c * plane.size + here, sum);
#pragma unroll 1
      for (int dy = 0; dy < SIDE; ++dy) {
#pragma unroll
        for (int f = 0; f < FILTERS; ++f) {
          float window[WINDOW];
          read_window(v + (f * CHANNELS + c) * plane.size + here + (MARGIN - dy) * plane.stride - COLUMNS, window);
#pragma unroll
          for (int dx = 0; dx < SIDE; ++dx)
            add_product(sum, bank[(dy * SIDE + dx) * count + first + f], window + COLUMNS + MARGIN - dx);
        }
      }
#pragma unroll
      for (int p = 0; p < PIXELS; ++p)
        if (column + p < plane.width) g[c * plane.size + here + p] = sum[p];
    }
  }
}

// Zeros around every plane, once a launch: only pixels are written later.
static __device__ void clear(float* memory, const Layout& l) {
  for (int i = threadIdx.x; i < l.bank; i += THREADS) memory[i] = 0;
  __syncthreads();
}

// Level 0 of x is in place, and nothing is pending; level 0 of G is valid for the pixels of strips this thread owns when it
// returns, and for everybody after a barrier. Returns this thread's part of the energy.
template <int SIDE, int CHANNELS, bool VALUE>
__device__ float ridge_gradient(float* memory, const Layout& l, const RidgeEnergy& e, int64_t image) {
  float value = 0;
  __syncthreads();
  for (int s = 0; s + 1 < e.levels; ++s) {
    for (int c = 0; c < CHANNELS; ++c)
      down(memory + l.x[s] + c * l.planes[s].size, l.planes[s], memory + l.x[s + 1] + c * l.planes[s + 1].size, l.planes[s + 1]);
    __syncthreads();
  }
  for (int s = e.levels - 1; s >= 0; --s) {
    const Plane& plane = l.planes[s];
    const float q = e.q[s * e.q_images + (e.q_images > 1 ? image : 0)];
    for (int i = threadIdx.x; i < plane.height * plane.width; i += THREADS) {
      const int y = i / plane.width, x = i % plane.width, at = plane.origin + y * plane.stride + x;
      for (int c = 0; c < CHANNELS; ++c) {
        const float here = memory[l.x[s] + c * plane.size + at];
        float g = q * here;
        if (VALUE) value = __fmaf_rn(0.5f * g, here, value);
        if (s + 1 < e.levels) g += up(memory + l.g[s + 1] + c * l.planes[s + 1].size, l.planes[s + 1], y, x);
        memory[l.g[s] + c * plane.size + at] = g;
      }
    }
    if (s >= e.scales) {
      __syncthreads();
      continue;
    }
    float *bank = memory + l.bank, *slopes = memory + l.slopes, *v = memory + l.v;
    for (int i = threadIdx.x; i < SIDE * SIDE * e.count; i += THREADS) bank[i] = e.filters[s * SIDE * SIDE * e.count + i];
    for (int i = threadIdx.x; i < e.potentials * e.count; i += THREADS) {
      const int j = i / e.count, k = i % e.count;
      const int64_t row = int64_t(s) * e.potentials + j;
      slopes[2 * j * e.count + k] = e.w[(row * e.w_images + (e.w_images > 1 ? image : 0)) * e.count + k];
      slopes[(2 * j + 1) * e.count + k] = e.r[(row * e.r_images + (e.r_images > 1 ? image : 0)) * e.count + k];
    }
    // v lies in planes of this level's size: what another level left in their margins must go
    for (int i = threadIdx.x; i < FILTERS * CHANNELS * plane.size; i += THREADS) v[i] = 0;
    for (int first = 0; first < e.count; first += FILTERS) {
      __syncthreads();
      responses<SIDE, CHANNELS, VALUE>(memory + l.x[s], plane, bank, slopes, e.count, e.potentials, first, v, value);
      __syncthreads();
      add_transposed<SIDE, CHANNELS>(v, plane, bank, e.count, first, memory + l.g[s]);
    }
    __syncthreads();
  }
  return value;
}

inline void check_ridge(const char* name, const RidgeEnergy& e, const RidgeShape& s) {
  const bool fits = e.levels <= MAX_LEVELS && e.scales <= e.levels && e.count % FILTERS == 0 && s.height > 0 && s.width > 0 &&
                    int64_t(s.height) * s.width <= 1 << 22;
  if (!fits) throw std::invalid_argument(std::string(name) + ": more levels or pixels than the kernel takes");
}

// run<SIDE, CHANNELS>(...) of the sizes there are kernels for; smaller filters come with zeros around them.
#define ALPS_FOR_RIDGE(run, side, channels, ...)                                           \
  switch (10 * (side) + (channels)) {                                                      \
    case 51: return run<5, 1>(__VA_ARGS__);                                                \
    case 52: return run<5, 2>(__VA_ARGS__);                                                \
    case 71: return run<7, 1>(__VA_ARGS__);                                                \
    case 72: return run<7, 2>(__VA_ARGS__);                                                \
    case 91: return run<9, 1>(__VA_ARGS__);                                                \
    case 92: return run<9, 2>(__VA_ARGS__);                                                \
    default: throw std::invalid_argument("ridge kernels: filters of 5, 7 or 9, and 1 or 2 channels"); \
  }

}  // namespace alps::cuda
