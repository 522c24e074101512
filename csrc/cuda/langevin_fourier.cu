// m = F^-1 g F (b + lin x - w grad),  x+ = m + F^-1 spread xi (complex) or m + F^-1 spread F xi (real), factor 1; contract in
// alps_fast/ops/langevin_fourier.py.
//
// An image whose planes fit into a block's shared memory is one block's: it is read once, and m and x+ are written. Where it does
// not fit, or where there are too few images to fill the GPU, three kernels do the same with the same roundings: rows into a
// workspace, columns and gains there, rows back. A real image needs one complex transform each way: z = r + i a xi, and with Z
// its transform, conj Z(-k) parts the two again; the factor a brings xi to the size of r, or the rounding of the larger would be
// the error of the smaller. The noise of a complex image takes the memory of its mean once that is written.
#include <algorithm>
#include <cmath>

#include "fft.cuh"
#include "kernels.h"
#include "noise.h"
#include "vectors.h"

namespace alps::cuda {
namespace {

constexpr int MOST_THREADS = 704;  // of an image: three rounds of the butterflies of 128 x 128, in 88 registers
constexpr int TILE_THREADS = 448, TILE_BLOCKS = 2;  // of a tile, in 72
constexpr int64_t CELLS = 8;  // complex numbers a thread, where there are no more than that
constexpr int64_t ROWS[] = {16, 8, 4}, COLUMNS[] = {16, 8, 4, 2};  // of a tile; four rows are whole quads, two columns mirrors
constexpr int64_t FULL = 4;  // one image a block pays from a block on every fourth multiprocessor
constexpr int64_t MOST_BLOCKS = 0x7fffffff;

struct Layout {
  Transform along_w, along_h;
  Stream random;
  uint32_t images, tiles, room;  // complex planes of an image; tiles of an image or plane, rows or columns of a tile
  float amplitude, every;
  bool aligned;
};

struct Rows {  // rows of an image, a plane of `room` rows a channel
  float2* cells;
  uint32_t first, count, room, pitch;
};

// Columns of a plane: natural order from `first` on, after `half` of them (real images) their mirror images; or, with place_w,
// all of them.
struct Columns {
  float2* cells;
  const uint16_t *place_h, *place_w;
  uint32_t first, count, half, pitch, width;
  __device__ __forceinline__ float2& at(uint32_t kh, uint32_t kw) const {
    const uint32_t slot = place_w ? padded(place_w[kw]) : half == 0 || 2 * kw <= width ? kw - first : half + width - kw - first;
    return cells[place_h[kh] * pitch + slot];
  }
};

__device__ __forceinline__ void load_quad(bool aligned, const float* array, int64_t first, int64_t n, float (&v)[4]) {
  if (aligned) load<true>(array, first, n, v);
  else load<false>(array, first, n, v);
}

__device__ __forceinline__ void store_quad(bool aligned, float* array, int64_t first, int64_t n, const float (&v)[4]) {
  if (aligned) store<true>(array, first, n, v);
  else store<false>(array, first, n, v);
}

// Numbers `first` ... `first` + 3 of the noise of row n.
__device__ __forceinline__ void noise_of(const FourierStep& s, const Layout& at, int64_t n, int64_t first, float (&xi)[4]) {
  const int64_t numbers = s.height * s.width * s.channels;
  const uint32_t quad = static_cast<uint32_t>(first / 4);
  if (s.noise == GIVEN) load_quad(at.aligned, s.xi + n * numbers, first, numbers, xi);
  else if (s.noise == AVERAGED) step_noise<AVERAGED>(at.random, s.chains[n], quad, xi);
  else step_noise<INDEPENDENT>(at.random, s.chains[n], quad, xi);
}

// f(e, cells): every quad of the rows, its first number counted from their beginning, and the cells of its numbers: those of a
// real image, or of pairs of a complex one; past the last number they are null.
template <class Function>
__device__ __forceinline__ void for_quads(const FourierStep& s, const Rows& rows, const Function& f) {
  const uint32_t channels = static_cast<uint32_t>(s.is_complex ? s.channels / 2 : s.channels), per = s.is_complex ? 2 : 4;
  const uint32_t row = static_cast<uint32_t>(s.width) * channels, count = rows.count * row;
  const Divisor by_row(row), by_channels(channels);
  for (uint32_t first = per * threadIdx.x; first < count; first += per * blockDim.x) {
    uint32_t h = by_row(first), w = by_channels(first - h * row), c = first - h * row - w * channels;
    float2* cells[4];
    ALPS_UNROLL
    for (uint32_t i = 0; i < 4; ++i) {
      cells[i] = i < per && first + i < count ? rows.cells + (c * rows.room + h) * rows.pitch + padded(w) : nullptr;
      if (++c == channels) c = 0, ++w;
      if (w == s.width) w = 0, ++h;
    }
    f(4 / per * first, cells);
  }
}

// Right-hand side, and the noise of a real image.
__device__ __forceinline__ void take(const FourierStep& s, const Layout& at, int64_t n, const Rows& rows) {
  const int64_t row = s.width * s.channels, numbers = s.height * row, begin = rows.first * row, end = begin + rows.count * row;
  const float *x = s.x + n * numbers, *grad = s.grad + n * numbers, *b = s.b + n / (s.rows / s.measurements) * numbers;
  for_quads(s, rows, [&](uint32_t e, float2* const (&cells)[4]) {
    float state[4], slope[4], data[4], xi[4] = {};
    load_quad(at.aligned, x, begin + e, end, state);
    load_quad(at.aligned, grad, begin + e, end, slope);
    load_quad(at.aligned, b, begin + e, end, data);
    if (!s.is_complex && s.noise != NO_NOISE) noise_of(s, at, n, begin + e, xi);
    ALPS_UNROLL
    for (int i = 0; i < 4; ++i) data[i] = __fmaf_rn(-s.w, slope[i], __fmaf_rn(s.lin, state[i], data[i]));
    ALPS_UNROLL
    for (int i = 0; i < 4; ++i)
      if (cells[i] && s.is_complex) *cells[i] = make_float2(data[2 * i % 4], data[2 * i % 4 + 1]);
      else if (cells[i]) *cells[i] = make_float2(data[i], xi[i] * at.amplitude);
  });
}

// m, and x+ with it; of a complex image the mean, and in a second call what its noise adds.
__device__ __forceinline__ void give(const FourierStep& s, const Layout& at, int64_t n, const Rows& rows, bool noise) {
  const int64_t row = s.width * s.channels, numbers = s.height * row, begin = rows.first * row, end = begin + rows.count * row;
  float *mean = s.mean + n * numbers, *after = s.after + n * numbers;
  for_quads(s, rows, [&](uint32_t e, float2* const (&cells)[4]) {
    float m[4] = {}, more[4] = {};
    ALPS_UNROLL
    for (int i = 0; i < 4; ++i)
      if (cells[i] && s.is_complex) m[2 * i % 4] = cells[i]->x, m[2 * i % 4 + 1] = cells[i]->y;
      else if (cells[i]) m[i] = cells[i]->x, more[i] = cells[i]->y;
    if (noise) load_quad(at.aligned, mean, begin + e, end, more);
    else store_quad(at.aligned, mean, begin + e, end, m);
    if (s.noise == NO_NOISE || noise || !s.is_complex) {
      ALPS_UNROLL
      for (int i = 0; i < 4; ++i)
        if (s.noise != NO_NOISE) m[i] += more[i];
      store_quad(at.aligned, after, begin + e, end, m);
    }
  });
}

__device__ __forceinline__ float energy_at(const FourierStep& s, uint32_t kh, uint32_t kw) {
  const float2 h = reinterpret_cast<const float2*>(s.h)[kh * s.width + kw];
  return __fmaf_rn(h.x, h.x, h.y * h.y);
}

__device__ __forceinline__ float gain_of(const FourierStep& s, float energy) { return 1 / __fmaf_rn(energy, s.inv_eta2, s.lam); }

__device__ __forceinline__ float spread_of(const FourierStep& s, float energy) {
  return 1 / __fsqrt_rn(__fmaf_rn(energy, s.inv_eta2, s.noise_lam));
}

// Real images: Z(k) <- first Z(k) + second conj Z(-k), and the same at -k, whose gains are alike.
__device__ __forceinline__ void mix(const FourierStep& s, const Layout& at, const Columns& columns) {
  const uint32_t height = s.height, width = s.width, beyond = width / 2 + 1;
  const uint32_t end = columns.place_w || columns.first + columns.half > beyond ? beyond : columns.first + columns.half;
  const Divisor by_count(end - columns.first);
  for (uint32_t i = threadIdx.x; i < height * by_count.by; i += blockDim.x) {
    const uint32_t kh = by_count(i), kw = columns.first + i - kh * by_count.by;
    const bool alone = kw == 0 || 2 * kw == width;  // a column that is its own mirror image
    if (alone && 2 * kh > height) continue;
    const float energy = energy_at(s, kh, kw), gain = gain_of(s, energy) * at.every;
    const float spread = s.noise == NO_NOISE ? gain : spread_of(s, energy) * (at.every / at.amplitude);
    const float first = (gain + spread) * 0.5f, second = (gain - spread) * 0.5f;
    float2 &here = columns.at(kh, kw), &there = columns.at(kh ? height - kh : 0, alone ? kw : width - kw);
    const float2 z = here, mirror = there;
    here = make_float2(__fmaf_rn(second, mirror.x, first * z.x), __fmaf_rn(-second, mirror.y, first * z.y));
    there = make_float2(__fmaf_rn(second, z.x, first * mirror.x), __fmaf_rn(-second, z.y, first * mirror.y));
  }
  __syncthreads();
}

// Complex images: Z <- g Z
__device__ __forceinline__ void gain(const FourierStep& s, const Layout& at, const Columns& columns) {
  const Divisor by_count(columns.count);
  for (uint32_t i = threadIdx.x; i < s.height * columns.count; i += blockDim.x) {
    const uint32_t kh = by_count(i), kw = columns.first + i - kh * columns.count;
    const float factor = gain_of(s, energy_at(s, kh, kw)) * at.every;
    float2& z = columns.at(kh, kw);
    z = make_float2(z.x * factor, z.y * factor);
  }
  __syncthreads();
}

// Complex images: Z <- spread xi of complex channel c. A thread takes two columns, whose numbers are one quad where there is but
// that channel.
__device__ __forceinline__ void draw(const FourierStep& s, const Layout& at, int64_t n, uint32_t c, const Columns& columns) {
  const Divisor by_pairs(columns.count / 2 + 1);
  const float root = __fsqrt_rn(at.every);
  for (uint32_t i = threadIdx.x; i < s.height * by_pairs.by; i += blockDim.x) {
    const uint32_t kh = by_pairs(i);
    const int64_t row = kh * s.width + columns.first;
    const int pair = static_cast<int>(2 * (i - kh * by_pairs.by)) - static_cast<int>(row % 2);
    int64_t drawn = -1;
    float xi[4];
    ALPS_UNROLL
    for (int j = pair; j < pair + 2; ++j) {
      if (j < 0 || j >= static_cast<int>(columns.count)) continue;
      const int64_t e = (row + j) * s.channels + 2 * c;
      if (e / 4 != drawn) noise_of(s, at, n, e / 4 * 4, xi);
      drawn = e / 4;
      const uint32_t kw = columns.first + j;
      const float spread = spread_of(s, energy_at(s, kh, kw)) * root;
      columns.at(kh, kw) = e % 4 ? make_float2(xi[2] * spread, xi[3] * spread) : make_float2(xi[0] * spread, xi[1] * spread);
    }
  }
  __syncthreads();
}

__device__ __forceinline__ float2* shared_cells() { return reinterpret_cast<float2*>(shared_floats()); }

__global__ void __launch_bounds__(MOST_THREADS) langevin_fourier_whole(FourierStep s, Layout at) {
  const int64_t n = blockIdx.x;
  const uint32_t height = s.height, width = s.width, pitch = pitch_of(width), plane = height * pitch;
  const Rows rows = {shared_cells(), 0, height, height, pitch};
  const Tables tables_w(rows.cells + (at.images * plane + 1) / 2 * 2, width);
  const Tables tables_h(tables_w.roots + table_bytes(width) / 8, height);
  const Sequences lying = rows_of(at.images * height, pitch), standing = columns_of(width, pitch);
  fill(tables_w, at.along_w);
  fill(tables_h, at.along_h);
  take(s, at, n, rows);
  __syncthreads();
  transform<false>(at.along_w, tables_w.roots, lying, rows.cells);
#pragma unroll 1
  for (int part = 0; part < (s.is_complex && s.noise != NO_NOISE ? 2 : 1); ++part) {
#pragma unroll 1
    for (uint32_t c = 0; c < at.images; ++c) {
      const Columns columns = {rows.cells + c * plane, tables_h.place, tables_w.place, 0, width, 0, pitch, width};
      if (part == 0) transform<false>(at.along_h, tables_h.roots, standing, columns.cells);
      if (!s.is_complex) mix(s, at, columns);
      else if (part == 0) gain(s, at, columns);
      else draw(s, at, n, c, columns);
      transform<true>(at.along_h, tables_h.roots, standing, columns.cells);
    }
    transform<true>(at.along_w, tables_w.roots, lying, rows.cells);
    give(s, at, n, rows, part);
    __syncthreads();
  }
}

// Plane c of row n in the workspace, of its mean or of its noise.
__device__ __forceinline__ float2* plane_at(const FourierStep& s, const Layout& at, float2* workspace, int part, int64_t n,
                                            uint32_t c) {
  return workspace + ((part * s.rows + n) * at.images + c) * s.height * s.width;
}

__device__ __forceinline__ Rows rows_of_block(const FourierStep& s, const Layout& at) {
  const uint32_t first = blockIdx.x % at.tiles * at.room, left = static_cast<uint32_t>(s.height) - first;
  return {shared_cells(), first, left < at.room ? left : at.room, at.room, pitch_of(s.width)};
}

// f(cell, number): every cell of the rows by frequency, and where it is in the planes of the workspace.
template <class Function>
__device__ __forceinline__ void for_frequencies(const FourierStep& s, const Layout& at, const Rows& rows, const uint16_t* place,
                                                const Function& f) {
  const uint32_t width = s.width;
  const Divisor by_width(width), by_room(rows.room);
  for (uint32_t i = threadIdx.x; i < at.images * rows.room * width; i += blockDim.x) {
    const uint32_t row = by_width(i), kw = i - row * width, c = by_room(row), h = row - c * rows.room;
    if (h < rows.count) f(rows.cells[row * rows.pitch + padded(place[kw])], (c * s.height + rows.first + h) * width + kw);
  }
}

__global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS) langevin_fourier_rows(FourierStep s, Layout at, float2* workspace) {
  const int64_t n = blockIdx.x / at.tiles;
  const Rows rows = rows_of_block(s, at);
  const Tables tables(rows.cells + at.images * rows.room * rows.pitch, s.width);
  fill(tables, at.along_w);
  take(s, at, n, rows);
  __syncthreads();
  transform<false>(at.along_w, tables.roots, rows_of(at.images * rows.room, rows.pitch), rows.cells);
  float2* planes = plane_at(s, at, workspace, 0, n, 0);
  for_frequencies(s, at, rows, tables.place, [&](const float2& cell, int64_t number) { planes[number] = cell; });
}

__global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    langevin_fourier_columns(FourierStep s, Layout at, float2* workspace) {
  const uint32_t height = s.height, width = s.width, room = at.room, half = s.is_complex ? 0 : room / 2;
  const uint32_t tile = blockIdx.x % at.tiles, plane = blockIdx.x / at.tiles, first = tile * (s.is_complex ? room : half);
  const int64_t n = plane / at.images;
  const uint32_t c = plane - n * at.images;
  float2* const cells = shared_cells();
  const Tables tables(cells + height * room, height);
  const Columns columns = {cells, tables.place, nullptr, first, s.is_complex && width - first < room ? width - first : room, half,
                           room, width};
  const Divisor by_room(room);
  const auto for_cells = [&](const auto& f) {  // f(cell, number) of every cell that is a column of the image
    for (uint32_t i = threadIdx.x; i < height * room; i += blockDim.x) {
      const uint32_t h = by_room(i), slot = i - h * room, k = first + (half && slot >= half ? slot - half : slot);
      const bool mirror = half && slot >= half;
      if (s.is_complex ? k < width : mirror ? k > 0 && 2 * k < width : 2 * k <= width)
        f(cells[i], h * width + (mirror ? width - k : k));
    }
  };
  fill(tables, at.along_h);
  const float2* from = plane_at(s, at, workspace, 0, n, c);
  for_cells([&](float2& cell, int64_t number) { cell = from[number]; });
  __syncthreads();
#pragma unroll 1
  for (int part = 0; part < (s.is_complex && s.noise != NO_NOISE ? 2 : 1); ++part) {
    const Sequences standing = columns_of(room, room);
    if (part == 0) transform<false>(at.along_h, tables.roots, standing, cells);
    if (!s.is_complex) mix(s, at, columns);
    else if (part == 0) gain(s, at, columns);
    else draw(s, at, n, c, columns);
    transform<true>(at.along_h, tables.roots, standing, cells);
    float2* to = plane_at(s, at, workspace, part, n, c);
    for_cells([&](const float2& cell, int64_t number) { to[number] = cell; });
    __syncthreads();
  }
}

__global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS) langevin_fourier_back(FourierStep s, Layout at, float2* workspace) {
  const int64_t n = blockIdx.x / at.tiles;
  const Rows rows = rows_of_block(s, at);
  const Tables tables(rows.cells + at.images * rows.room * rows.pitch, s.width);
  fill(tables, at.along_w);
  __syncthreads();
#pragma unroll 1
  for (int part = 0; part < (s.is_complex && s.noise != NO_NOISE ? 2 : 1); ++part) {
    const float2* planes = plane_at(s, at, workspace, part, n, 0);
    for_frequencies(s, at, rows, tables.place, [&](float2& cell, int64_t number) { cell = planes[number]; });
    __syncthreads();
    transform<true>(at.along_w, tables.roots, rows_of(at.images * rows.room, rows.pitch), rows.cells);
    give(s, at, n, rows, part);
    __syncthreads();
  }
}

struct Plan {  // of the launches; no rows of a tile: the image is one block's, no columns either: it does not fit
  int64_t rows, columns;
  bool whole;
};

int64_t images_of(const FourierStep& s) { return s.is_complex ? s.channels / 2 : s.channels; }

int64_t rows_bytes(const FourierStep& s, int64_t rows) {
  return (images_of(s) * rows * pitch_of(s.width) + 1) / 2 * 16 + table_bytes(s.width);
}

int64_t columns_bytes(const FourierStep& s, int64_t columns) { return 8 * s.height * columns + table_bytes(s.height); }

Plan plan_of(const FourierStep& s) {
  const Device device = this_device("langevin_fourier");
  Plan plan = {0, 0, rows_bytes(s, s.height) + table_bytes(s.height) <= device.shared};
  if (plan.whole && FULL * s.rows >= device.multiprocessors) return plan;
  for (const int64_t rows : ROWS)
    if (!plan.rows && rows_bytes(s, rows) <= device.shared) plan.rows = rows;
  for (const int64_t columns : COLUMNS)
    if (!plan.columns && columns_bytes(s, columns) <= device.shared) plan.columns = columns;
  if (plan.rows && plan.columns) plan.whole = false;
  return plan;
}

dim3 threads_for(int64_t cells, int most) {
  return dim3(static_cast<unsigned>(std::clamp<int64_t>((cells / CELLS + 31) / 32 * 32, 32, most)));
}

}  // namespace

int64_t langevin_fourier_workspace(const FourierStep& s) {
  const Plan plan = plan_of(s);
  if (plan.whole) return 0;
  if (!plan.rows || !plan.columns) return -1;
  return 2 * (s.is_complex && s.noise != NO_NOISE ? 2 : 1) * s.rows * images_of(s) * s.height * s.width;
}

void langevin_fourier(const FourierStep& s, float* workspace, cudaStream_t stream) {
  if (s.rows == 0) return;
  const Plan plan = plan_of(s);
  const int64_t numbers = s.height * s.width * s.channels, images = images_of(s);
  const bool aligned = numbers % 4 == 0 && on_16_bytes(s.x, s.grad, s.b, s.xi, s.after, s.mean);
  Layout at = {transform_of(s.width), transform_of(s.height), make_stream(s.seed, s.step, LANGEVIN),
               static_cast<uint32_t>(images), 1, static_cast<uint32_t>(s.height), std::sqrt(s.inv_eta2 + s.noise_lam), 1 / static_cast<float>(s.height * s.width),
               aligned};
  const auto run = [&](auto kernel, int64_t blocks, int64_t cells, int64_t bytes, auto... more) {
    if (blocks > MOST_BLOCKS) throw std::invalid_argument("langevin_fourier: more than 2^31 - 1 tiles");
    launch("langevin_fourier", kernel, dim3(static_cast<unsigned>(blocks)),
           threads_for(cells, plan.whole ? MOST_THREADS : TILE_THREADS), static_cast<size_t>(bytes), stream, s, at, more...);
  };
  if (plan.whole) {
    run(langevin_fourier_whole, s.rows, images * s.height * s.width, rows_bytes(s, s.height) + table_bytes(s.height));
    return;
  }
  float2* const planes = reinterpret_cast<float2*>(workspace);
  const auto rows = [&](auto kernel) {
    at.room = static_cast<uint32_t>(plan.rows);
    at.tiles = static_cast<uint32_t>((s.height + plan.rows - 1) / plan.rows);
    run(kernel, s.rows * at.tiles, images * plan.rows * s.width, rows_bytes(s, plan.rows), planes);
  };
  rows(langevin_fourier_rows);
  const int64_t columns = s.is_complex ? s.width : s.width / 2 + 1, of_tile = s.is_complex ? plan.columns : plan.columns / 2;
  at.room = static_cast<uint32_t>(plan.columns);
  at.tiles = static_cast<uint32_t>((columns + of_tile - 1) / of_tile);
  run(langevin_fourier_columns, s.rows * images * at.tiles, plan.columns * s.height, columns_bytes(s, plan.columns), planes);
  rows(langevin_fourier_back);
}

}  // namespace alps::cuda
