// m = F^-1 g F (b + lin x - w grad),  x+ = m + F^-1 spread xi (complex) or m + F^-1 spread F xi (real), factor 1; contract in
// alps_fast/ops/langevin_fourier.py.
//
// Three kernels do it: rows into a workspace, columns and gains there, rows back, for as many images at a time as leave the
// workspace in the L2 cache. Where no side of the image is transformed in registers (lines.cuh), and there are enough images to
// fill the GPU, an image whose planes fit into a block's shared memory is one block's: it is read once, and m and x+ are written,
// with the same roundings. A real image needs one complex transform each way: z = r + i a xi, and with Z its transform, conj
// Z(-k) parts the two again; the factor a brings xi to the size of r, or the rounding of the larger would be the error of the
// smaller. The noise of a complex image takes the memory of its mean once that is written.
#include <algorithm>
#include <cmath>

#include "asynchronous.h"
#include "kernels.h"
#include "level.h"
#include "lines.cuh"
#include "noise.h"
#include "vectors.h"

namespace alps::cuda {
namespace {

constexpr int MOST_THREADS = 704;  // of an image: three rounds of the butterflies of 128 x 128, in 88 registers
constexpr int TILE_THREADS = 384, TILE_BLOCKS = 2;  // of a tile, in 80
constexpr int64_t CELLS = 8;  // complex numbers a thread, where there are no more than that
constexpr int64_t ROWS[] = {16, 8, 4};  // of a tile, whole quads
constexpr int64_t LINE_ROWS[] = {16, 8, 4, 2, 1}, ROW_THREADS = 80, MOST_ROW_THREADS = 512;  // where they are done in registers
constexpr int64_t AT_ONCE = 1 << 21;  // complex numbers in the workspace: 16 MB
constexpr int64_t FULL = 4;  // one image a block pays from a block on every fourth multiprocessor
constexpr int64_t MOST_BLOCKS = 0x7fffffff;

struct Layout {
  Transform along_w, along_h;
  Stream random;
  uint32_t images, first;  // complex planes of an image; the first image of the launch
  uint32_t tiles, room;  // tiles of an image or plane, rows or columns of a tile
  float every;
  bool aligned;
};

struct Rows {  // rows of an image, a plane of `room` rows a channel
  float2* cells;
  uint32_t first, count, room, pitch;
  bool gaps;  // as fft.cuh has them
  __device__ __forceinline__ float2& at(uint32_t line, uint32_t w) const { return cells[line * pitch + (gaps ? padded(w) : w)]; }
};

// Columns of a plane: natural order from `first` on, after `half` of them (real images) their mirror images; or all of them in
// order, where `half` is 0. cell(column, kh): frequency kh of one of these.
template <class Cell>
struct Columns {
  Cell cell;
  uint32_t first, count, half, width;
  __device__ __forceinline__ float2& at(uint32_t kh, uint32_t kw) const {
    return cell(half == 0 || 2 * kw <= width ? kw - first : half + width - kw - first, kh);
  }
};
template <class Cell>
Columns(Cell, uint32_t, uint32_t, uint32_t, uint32_t) -> Columns<Cell>;

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
  else if (s.noise == AVERAGED) step_noise<AVERAGED>(at.random, s.ids[n], quad, xi);
  else step_noise<INDEPENDENT>(at.random, s.ids[n], quad, xi);
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
      cells[i] = i < per && first + i < count ? &rows.at(c * rows.room + h, w) : nullptr;
      if (++c == channels) c = 0, ++w;
      if (w == s.width) w = 0, ++h;
    }
    f(4 / per * first, cells);
  }
}

// Of a real image's noise beside its right-hand side: so they lose as much by rounding.
__device__ __forceinline__ float amplitude_of(const FourierStep& s) { return __fsqrt_rn(inv_eta2_of(s) + noise_lam_of(s)); }

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
    const float lin = lin_of(s), w = w_of(s), amplitude = s.is_complex || s.noise == NO_NOISE ? 0 : amplitude_of(s);
    ALPS_UNROLL
    for (int i = 0; i < 4; ++i) data[i] = __fmaf_rn(-w, slope[i], __fmaf_rn(lin, state[i], data[i]));
    ALPS_UNROLL
    for (int i = 0; i < 4; ++i)
      if (cells[i] && s.is_complex) *cells[i] = make_float2(data[2 * i % 4], data[2 * i % 4 + 1]);
      else if (cells[i]) *cells[i] = make_float2(data[i], xi[i] * amplitude);
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

__device__ __forceinline__ float gain_of(const FourierStep& s, float energy) {
  return 1 / __fmaf_rn(energy, inv_eta2_of(s), lam_of(s));
}

__device__ __forceinline__ float spread_of(const FourierStep& s, float energy) {
  return 1 / __fsqrt_rn(__fmaf_rn(energy, inv_eta2_of(s), noise_lam_of(s)));
}

// Real images: Z(k) <- first Z(k) + second conj Z(-k), and the same at -k, whose gains are alike.
template <class Cell>
__device__ __forceinline__ void mix(const FourierStep& s, const Layout& at, const Columns<Cell>& columns) {
  const uint32_t height = s.height, width = columns.width, beyond = width / 2 + 1;
  const uint32_t end = columns.half == 0 || columns.first + columns.half > beyond ? beyond : columns.first + columns.half;
  const Divisor by_count(end - columns.first);
  for (uint32_t i = threadIdx.x; i < height * by_count.by; i += blockDim.x) {
    const uint32_t kh = by_count(i), kw = columns.first + i - kh * by_count.by;
    const bool alone = kw == 0 || 2 * kw == width;  // a column that is its own mirror image
    if (alone && 2 * kh > height) continue;
    const float energy = energy_at(s, kh, kw), gain = gain_of(s, energy) * at.every;
    const float spread = s.noise == NO_NOISE ? gain : spread_of(s, energy) * (at.every / amplitude_of(s));
    const float first = (gain + spread) * 0.5f, second = (gain - spread) * 0.5f;
    float2 &here = columns.at(kh, kw), &there = columns.at(kh ? height - kh : 0, alone ? kw : width - kw);
    const float2 z = here, mirror = there;
    here = make_float2(__fmaf_rn(second, mirror.x, first * z.x), __fmaf_rn(-second, mirror.y, first * z.y));
    there = make_float2(__fmaf_rn(second, z.x, first * mirror.x), __fmaf_rn(-second, z.y, first * mirror.y));
  }
  __syncthreads();
}

// Complex images: Z <- g Z
template <class Cell>
__device__ __forceinline__ void gain(const FourierStep& s, const Layout& at, const Columns<Cell>& columns) {
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
template <class Cell>
__device__ __forceinline__ void draw(const FourierStep& s, const Layout& at, int64_t n, uint32_t c,
                                     const Columns<Cell>& columns) {
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
  const Rows rows = {shared_cells(), 0, height, height, pitch, true};
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
      float2* const cells = rows.cells + c * plane;
      const auto cell = [&](uint32_t column, uint32_t kh) -> float2& {
        return cells[tables_h.place[kh] * pitch + padded(tables_w.place[column])];
      };
      const Columns columns = {cell, 0, width, 0, width};
      if (part == 0) transform<false>(at.along_h, tables_h.roots, standing, cells);
      if (!s.is_complex) mix(s, at, columns);
      else if (part == 0) gain(s, at, columns);
      else draw(s, at, n, c, columns);
      transform<true>(at.along_h, tables_h.roots, standing, cells);
    }
    transform<true>(at.along_w, tables_w.roots, lying, rows.cells);
    give(s, at, n, rows, part);
    __syncthreads();
  }
}

// Where an image is: in the batch, and among those of the workspace, which has planes of their means, and of their noise.
struct Workspace {
  float2 *planes, *tables_w, *tables_h;
  int64_t images;
  __device__ __forceinline__ float2* plane(const FourierStep& s, const Layout& at, int part, uint32_t image, uint32_t c) const {
    return planes + ((part * images + image) * at.images + c) * s.height * s.width;
  }
};

__global__ void __launch_bounds__(TILE_THREADS) langevin_fourier_tables(Layout at, Workspace workspace) {
  if (blockIdx.x == 0) fill(Tables(workspace.tables_w, at.along_w.n), at.along_w);
  else fill(Tables(workspace.tables_h, at.along_h.n), at.along_h);
}

template <int N>
struct TileOfRows {
  __device__ TileOfRows(const FourierStep& s, const Layout& at, const Workspace& workspace)
      : image(blockIdx.x / at.tiles), n(at.first + image), width(N ? N : static_cast<uint32_t>(s.width)),
        lines(at.along_w, workspace.tables_w, at.images * at.room, shared_cells()), by_room(at.room) {
    const uint32_t first = blockIdx.x % at.tiles * at.room, left = static_cast<uint32_t>(s.height) - first;
    rows = {shared_cells(), first, left < at.room ? left : at.room, at.room, N ? lines.PITCH : pitch_of(width), lines.GAPS};
  }
  // The row of a line, in the planes of its image, and whether there is one.
  __device__ __forceinline__ int64_t row_of(const FourierStep& s, uint32_t line, bool& there) const {
    const uint32_t c = by_room(line), h = line - c * by_room.by;
    there = h < rows.count;
    return (c * s.height + rows.first + (there ? h : 0)) * width;
  }
  uint32_t image;
  int64_t n;
  uint32_t width;
  Lines<N, false> lines;
  Divisor by_room;
  Rows rows;
};

template <int N>
__global__ void __launch_bounds__(N ? MOST_ROW_THREADS : TILE_THREADS, N ? 1 : TILE_BLOCKS)
    langevin_fourier_rows(FourierStep s, Layout at, Workspace workspace) {
  next_kernel_may_begin();
  const TileOfRows<N> tile(s, at, workspace);
  take(s, at, tile.n, tile.rows);
  __syncthreads();
  float2* const planes = workspace.plane(s, at, 0, tile.image, 0);
  tile.lines.forward_from_shared([&](uint32_t line) {
    bool there;
    float2* const to = planes + tile.row_of(s, line, there);
    return [=](int k, int more, float2 v) {
      if (there) (to + k)[more] = v;
    };
  });
}

template <int N>
__global__ void __launch_bounds__(Lines<N, true>::THREADS, N ? (N > 256 ? 512 : 640) / Lines<N, true>::THREADS : TILE_BLOCKS)
    langevin_fourier_columns(FourierStep s, Layout at, Workspace workspace) {
  next_kernel_may_begin();
  kernels_before_wait();
  const int width = static_cast<int>(s.width), room = static_cast<int>(at.room), half = s.is_complex ? 0 : room / 2;
  const uint32_t tile = blockIdx.x % at.tiles, plane = blockIdx.x / at.tiles, image = plane / at.images;
  const uint32_t c = plane - image * at.images;
  const int first = static_cast<int>(tile) * (s.is_complex ? room : half);
  const Lines<N, true> lines(at.along_h, workspace.tables_h, at.room, shared_cells());
  const auto cell = [&](uint32_t column, uint32_t kh) -> float2& { return lines.frequency(column, kh); };
  const uint32_t count = static_cast<uint32_t>(s.is_complex && width - first < room ? width - first : room);
  const Columns columns = {cell, static_cast<uint32_t>(first), count, static_cast<uint32_t>(half), static_cast<uint32_t>(width)};
  // The column of the image that a line is, or none: -1
  const auto column_of = [=](int line) {
    const bool mirror = half && line >= half;
    const int k = first + (mirror ? line - half : line);
    if (half == 0) return k < width ? k : -1;
    return mirror ? k > 0 && 2 * k < width ? width - k : -1 : 2 * k <= width ? k : -1;
  };
  const float2* const from = workspace.plane(s, at, 0, image, c);
  const auto load = [&](uint32_t line) {
    const int column = column_of(static_cast<int>(line));
    return [=, at = from + (column < 0 ? 0 : column)](int h, int more) { return (at + h * width)[more * width]; };
  };
#pragma unroll 1
  for (int part = 0; part < (s.is_complex && s.noise != NO_NOISE ? 2 : 1); ++part) {
    if (part == 0) lines.forward_to_shared(load);
    else __syncthreads();
    if (!s.is_complex) mix(s, at, columns);
    else if (part == 0) gain(s, at, columns);
    else draw(s, at, at.first + image, c, columns);
    float2* const to = workspace.plane(s, at, part, image, c);
    lines.inverse_from_shared([&](uint32_t line) {
      const int column = column_of(static_cast<int>(line));
      return [=](int h, int more, float2 v) {
        if (column >= 0) (to + column + h * width)[more * width] = v;
      };
    });
  }
}

template <int N>
__global__ void __launch_bounds__(N ? MOST_ROW_THREADS : TILE_THREADS, N ? 1 : TILE_BLOCKS)
    langevin_fourier_back(FourierStep s, Layout at, Workspace workspace) {
  kernels_before_wait();
  const TileOfRows<N> tile(s, at, workspace);
#pragma unroll 1
  for (int part = 0; part < (s.is_complex && s.noise != NO_NOISE ? 2 : 1); ++part) {
    const float2* const planes = workspace.plane(s, at, part, tile.image, 0);
    tile.lines.inverse_shared(
        [&](uint32_t line) {
          bool there;
          const float2* const from = planes + tile.row_of(s, line, there);
          return [=](int k, int more) { return (from + k)[more]; };
        },
        [](uint32_t) { return [](int, int, float2 v) { return v; }; });
    give(s, at, tile.n, tile.rows, part);
    __syncthreads();
  }
}

int64_t images_of(const FourierStep& s) { return s.is_complex ? s.channels / 2 : s.channels; }
int64_t parts_of(const FourierStep& s) { return s.is_complex && s.noise != NO_NOISE ? 2 : 1; }

// f(Length<n>()), n where lines of the sides are done in registers, or 0. A thread takes part in one row of the channels.
template <class Function>
void by_width(const FourierStep& s, const Function& f) {
  if (images_of(s) * threads_of_line(s.width) <= MOST_ROW_THREADS) by_length(s.width, f);
  else f(Length<0>());
}

struct Plan {  // of the launches; no rows of a tile: the image is one block's, no columns either: it does not fit
  int64_t rows, columns, row_threads, column_threads, images;  // in the workspace at once
  bool whole, tables;
};

int64_t rows_bytes(const FourierStep& s, int64_t rows) {
  int64_t bytes = 0;
  by_width(s, [&](auto n) { bytes = Lines<n.VALUE, false>::bytes(images_of(s) * rows, s.width); });
  return bytes;
}

int64_t columns_bytes(const FourierStep& s, int64_t columns) {
  int64_t bytes = 0;
  by_length(s.height, [&](auto n) { bytes = Lines<n.VALUE, true>::bytes(columns, s.height); });
  return bytes;
}

int64_t whole_bytes(const FourierStep& s) {
  return (images_of(s) * s.height * pitch_of(s.width) + 1) / 2 * 16 + table_bytes(s.width) + table_bytes(s.height);
}

int64_t threads_for(int64_t cells, int64_t most) { return std::clamp<int64_t>((cells / CELLS + 31) / 32 * 32, 32, most); }

Plan plan_of(const FourierStep& s) {
  const Device device = this_device("langevin_fourier");
  Plan plan = {0, 0, 0, 0, 0, whole_bytes(s) <= device.shared, false};
  bool rows_in_registers = false, columns_in_registers = false;
  by_width(s, [&](auto n) { rows_in_registers = n.VALUE > 0; });
  by_length(s.height, [&](auto n) { columns_in_registers = n.VALUE > 0, plan.columns = Lines<n.VALUE, true>::SIDE_BY_SIDE; });
  if (rows_in_registers || columns_in_registers) plan.whole = false;
  if (plan.whole && FULL * s.rows >= device.multiprocessors) return plan;
  const int64_t row = images_of(s) * threads_of_line(s.width);
  if (rows_in_registers) {
    for (const int64_t rows : LINE_ROWS)
      if (!plan.rows && (rows == 1 || rows * row <= ROW_THREADS) && rows_bytes(s, rows) <= device.shared) plan.rows = rows;
  } else {
    for (const int64_t rows : ROWS)
      if (!plan.rows && rows_bytes(s, rows) <= device.shared) plan.rows = rows;
  }
  while (plan.columns > 1 && columns_bytes(s, plan.columns) > device.shared) plan.columns /= 2;
  if (!plan.rows || plan.columns < 2) return plan;
  plan.whole = false;
  plan.tables = !rows_in_registers || !columns_in_registers;
  plan.row_threads = rows_in_registers ? plan.rows * row : threads_for(images_of(s) * plan.rows * s.width, TILE_THREADS);
  plan.column_threads = columns_in_registers ? plan.columns * threads_of_line(s.height)
                                             : threads_for(plan.columns * s.height, TILE_THREADS);
  plan.images = std::clamp<int64_t>(AT_ONCE / (parts_of(s) * images_of(s) * s.height * s.width), 1, s.rows);
  return plan;
}

int64_t planes_of(const FourierStep& s, const Plan& plan) { return parts_of(s) * plan.images * images_of(s); }

}  // namespace

int64_t langevin_fourier_workspace(const FourierStep& s) {
  if (s.rows == 0) return 0;
  const Plan plan = plan_of(s);
  if (plan.whole) return 0;
  if (!plan.rows || plan.columns < 2) return -1;
  return 2 * planes_of(s, plan) * s.height * s.width + (table_bytes(s.width) + table_bytes(s.height)) / 4;
}

void langevin_fourier(const FourierStep& s, float* workspace, cudaStream_t stream) {
  if (s.rows == 0) return;
  const Plan plan = plan_of(s);
  const int64_t numbers = s.height * s.width * s.channels, images = images_of(s);
  const bool aligned = numbers % 4 == 0 && on_16_bytes(s.x, s.grad, s.b, s.xi, s.after, s.mean);
  Layout at = {transform_of(s.width), transform_of(s.height), make_stream(s.seed, s.step, LANGEVIN),
               static_cast<uint32_t>(images), 0, 1, static_cast<uint32_t>(s.height),
               1 / static_cast<float>(s.height * s.width), aligned};
  const auto run = [&](auto kernel, bool early, int64_t blocks, int64_t threads, int64_t bytes, auto... arguments) {
    if (blocks > MOST_BLOCKS) throw std::invalid_argument("langevin_fourier: more than 2^31 - 1 tiles");
    const dim3 grid = static_cast<unsigned>(blocks), block = static_cast<unsigned>((threads + 31) / 32 * 32);
    if (early) launch_early("langevin_fourier", kernel, grid, block, static_cast<size_t>(bytes), stream, arguments...);
    else launch("langevin_fourier", kernel, grid, block, static_cast<size_t>(bytes), stream, arguments...);
  };
  if (plan.whole) {
    const int64_t threads = threads_for(images * s.height * s.width, MOST_THREADS);
    return run(langevin_fourier_whole, false, s.rows, threads, whole_bytes(s), s, at);
  }
  float2* const planes = reinterpret_cast<float2*>(workspace);
  float2* const tables = planes + planes_of(s, plan) * s.height * s.width;
  const Workspace work = {planes, tables, tables + table_bytes(s.width) / 8, plan.images};
  const auto rows = [&](auto kernel, bool early, int64_t count) {
    at.room = static_cast<uint32_t>(plan.rows);
    at.tiles = static_cast<uint32_t>((s.height + plan.rows - 1) / plan.rows);
    run(kernel, early, count * at.tiles, plan.row_threads, rows_bytes(s, plan.rows), s, at, work);
  };
  const int64_t columns = s.is_complex ? s.width : s.width / 2 + 1, of_tile = s.is_complex ? plan.columns : plan.columns / 2;
  if (plan.tables) run(langevin_fourier_tables, false, 2, TILE_THREADS, 0, at, work);
  for (int64_t first = 0; first < s.rows; first += plan.images) {
    const int64_t count = std::min(plan.images, s.rows - first);
    at.first = static_cast<uint32_t>(first);
    by_width(s, [&](auto n) { rows(langevin_fourier_rows<n.VALUE>, false, count); });
    at.room = static_cast<uint32_t>(plan.columns);
    at.tiles = static_cast<uint32_t>((columns + of_tile - 1) / of_tile);
    by_length(s.height, [&](auto n) {
      run(langevin_fourier_columns<n.VALUE>, true, count * images * at.tiles, plan.column_threads, columns_bytes(s, plan.columns),
          s, at, work);
    });
    by_width(s, [&](auto n) { rows(langevin_fourier_back<n.VALUE>, true, count); });
  }
}

}  // namespace alps::cuda
