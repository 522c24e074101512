// Gradient and value of ridge energies of images of any size, in tiles; contract in alps_fast/ops/ridge_grad.py, arithmetic in
// ridge.h.
//
// Three kernels. ridge_pyramid makes x_1, x_2, ...: a block takes a square of x_s and as many scales as its halo is worth, or,
// where that is small, a whole plane and all that are left. ridge_tiles sums H_s = q_s x_s + W^T v: a block takes a tile of one
// scale of one image, all scales side by side, the finest first; x with the halo of two filters and the responses v of FILTERS
// filters with that of one lie in shared memory, and a thread keeps the sums of H that are its own in registers. ridge_finish
// goes up the pyramid, G_s = H_s + D^T G_{s+1}, from the coarsest scale to a tile of the finest, in shared memory; each tile
// sums what it needs of coarser scales anew. A tile's size decides no bit of the gradient; the energy is summed by tiles, in
// double, then over tiles in their order, and their size is then of the image alone.
#include <algorithm>

#include "launch.h"
#include "ridge.h"
#include "vectors.h"

namespace alps::cuda {

constexpr int TILE_THREADS = 128, TILE_BLOCKS = 3;      // of a multiprocessor, whose warps then have 168 registers
constexpr int TILE_FLOATS = (75 << 8) - 2048;           // of x and responses: three blocks and what else they need fit 227 KB
constexpr int TILE_STRIPS = 16;                         // of two rows or channels: 64 or 32 pixels wide
constexpr int PYRAMID_THREADS = 512, WHOLE = 128;       // a plane that is no larger is one block's
constexpr int SQUARE = 64, SQUARE_LEVELS = 3;           // of x_s; its halo is then 14 pixels
constexpr int FINISH_THREADS = 256, FINISH_ROWS = 16, FINISH_COLUMNS = 64;
constexpr int MOST_POTENTIALS = 64;                     // more have no kernel
static_assert(FINISH_ROWS * FINISH_COLUMNS == FINISH_THREADS * PIXELS, "a strip a thread");
static_assert(SQUARE % (1 << SQUARE_LEVELS) == 0, "squares end between pixels of all scales");

struct RidgeScale {
  int height, width, stride;  // stride: floats of a row in the workspace
  int64_t plane, x, sums;     // floats of a plane; where x_s and H_s of a batch begin
  int strips, rows, at_once;  // of a tile, at_once of them a thread
  int across, tiles, before;  // tiles in a row and in the image, and of finer scales
  int part, pitch, end;       // in ridge_finish: where its part in shared memory begins, floats of a row, and where it ends
};

struct RidgePlan {
  int64_t images, first, count;  // of a batch at most; the first of this one, and how many
  int levels, scales, tiles;
  RidgeScale scale[MOST_LEVELS];
};

static int up_to(int x, int of) { return (x + of - 1) / of; }

// Floats of a row of responses in shared memory, or, with MORE, of x: two strips of each of four rows that are AT_ONCE apart
// meet no bank twice.
template <int MORE>
__host__ __device__ inline int stride_of(int strips, int channels) {
  int stride = PIXELS * strips + 2 * COLUMNS + MORE;
  while (2 / channels * stride % 16 != 8) stride += PIXELS;
  return stride;
}
constexpr int OF_RESPONSES = 0, OF_X = 2 * COLUMNS;

// Rows of x that the responses of a tile's rows take; the last is nobody's but the second's of two rows.
__host__ __device__ inline int rows_of_x(int rows, int channels) { return rows + 4 * MARGIN + 2 / channels - 1; }

static int tile_floats(int strips, int rows, int channels) {
  return channels * (FILTERS * (rows + 2 * MARGIN) * stride_of<OF_RESPONSES>(strips, channels) +
                     rows_of_x(rows, channels) * stride_of<OF_X>(strips, channels));
}

// A tile of `at_once` rows a thread: its strips and rows about alike in all tiles.
static void cut(RidgeScale& s, int channels, int at_once) {
  const int strips = up_to(s.width, PIXELS);
  s.at_once = at_once;
  s.strips = up_to(strips, up_to(strips, TILE_STRIPS / channels));
  s.across = up_to(strips, s.strips);
  int most = TILE_THREADS / (s.strips * channels) * at_once;
  while (tile_floats(s.strips, most, channels) > TILE_FLOATS) most -= at_once;
  s.rows = round_up(up_to(s.height, up_to(s.height, most)), at_once);
  s.tiles = s.across * up_to(s.height, s.rows);
}

// A batch's workspace takes half of the L2 cache. Tiles are smaller where these fill too few multiprocessors, if they may be.
static RidgePlan plan(const RidgeEnergy& e, const RidgeImages& images, bool smaller) {
  const Device device = this_device("ridge_grad");
  RidgePlan p = {};
  p.levels = e.levels, p.scales = e.scales;
  int64_t floats = 0;
  for (int s = 0, height = images.height, width = images.width; s < e.levels; ++s) {
    RidgeScale& scale = p.scale[s];
    scale.height = height, scale.width = width, scale.stride = round_up(width, PIXELS);
    scale.plane = int64_t(height) * scale.stride;
    floats += images.channels * scale.plane * ((s > 0) + (s < e.scales));
    height = up_to(height, 2), width = up_to(width, 2);
  }
  p.images = std::max<int64_t>(1, std::min(images.images, device.cache / (2 * int64_t(sizeof(float)) * floats)));
  int64_t at = 0;
  for (int s = 0; s < e.levels; ++s) {
    RidgeScale& scale = p.scale[s];
    const int64_t all = p.images * images.channels * scale.plane;
    scale.x = at, at += s > 0 ? all : 0;
    scale.sums = at, at += s < e.scales ? all : 0;
    const int rows = std::min(scale.height, (FINISH_ROWS >> s) + 4), columns = std::min(scale.width, (FINISH_COLUMNS >> s) + 4);
    scale.part = s > 1 ? p.scale[s - 1].end : 0, scale.pitch = columns;
    scale.end = s > 0 ? scale.part + rows * columns : 0;
  }
  const auto cut_all = [&](int at_once) {
    p.tiles = 0;
    for (int s = 0; s < e.scales; ++s) {
      RidgeScale& scale = p.scale[s];
      const int64_t threads = int64_t(up_to(scale.width, PIXELS)) * scale.height * images.channels;  // one row a thread
      cut(scale, images.channels, threads <= TILE_THREADS ? 1 : threads <= 2 * TILE_THREADS ? 2 : at_once);
      scale.before = p.tiles, p.tiles += scale.tiles;
    }
  };
  cut_all(4);
  if (smaller && p.images * p.tiles < 2 * device.multiprocessors) cut_all(2);
  return p;
}

__device__ __forceinline__ int64_t place_of(const RidgePlaces& places, int64_t image) {
  return image / places.groups * places.row + image % places.groups * places.group;
}

// x_from + 1 ... x_from + depth: of squares of `side` pixels of x_from, of which a row of the image has `across`.
__global__ void __launch_bounds__(PYRAMID_THREADS)
    ridge_pyramid_kernel(const __grid_constant__ RidgePlan p, const __grid_constant__ RidgePlaces places, const float* x,
                         const float* mu, float* workspace, int channels, int from, int depth, int side, int across,
                         int squares) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t plane = blockIdx.x / squares;
  const int square = static_cast<int>(blockIdx.x % squares);
  const int down = square / across * (side >> depth), right = square % across * (side >> depth);
  const float* const finest = x + place_of(places, p.first + plane / channels) + plane % channels * places.channel;
  const float* last = from ? workspace + p.scale[from].x + plane * p.scale[from].plane : finest;
  const float shift = from ? 0.0f : *mu;
  int last_row = 0, last_column = 0, row_floats = from ? p.scale[from].stride : p.scale[0].width * places.pixel;
  int step = from ? 1 : places.pixel;
  float* mine = shared_floats();
  for (int j = 1; j <= depth; ++j) {
    const RidgeScale &coarse = p.scale[from + j], &fine = p.scale[from + j - 1];
    const int by = depth - j, all = side >> depth;  // scale j of a square is what scale j + 1 of it needs
    const auto begin = [&](int at) { return at > 0 ? ((at - 1) << by) + 1 : 0; };
    const auto end = [&](int at, int most) { return ((at + all + 1) << by) - 1 < most ? ((at + all + 1) << by) - 1 : most; };
    const int top = begin(down), left = begin(right), bottom = end(down, coarse.height), edge = end(right, coarse.width);
    float* const out = workspace + coarse.x + plane * coarse.plane;
    const auto owned = [&](int i, int at) { return i >= at << by && i < (at + all) << by; };
    for (int row = top + warp; row < bottom; row += PYRAMID_THREADS / 32)
      for (int column = left + lane; column < edge; column += 32) {
        const float value = down_at([&](int u, int v) {
          const int y = 2 * row - 1 + u, z = 2 * column - 1 + v;
          const bool inside = 0 <= y && y < fine.height && 0 <= z && z < fine.width;
          return inside ? last[int64_t(y - last_row) * row_floats + (z - last_column) * step] - (j == 1 ? shift : 0.0f) : 0.0f;
        });
        mine[(row - top) * (edge - left) + column - left] = value;
        if (owned(row, down) && owned(column, right)) out[int64_t(row) * coarse.stride + column] = value;
      }
    __syncthreads();
    last = mine, last_row = top, last_column = left, row_floats = edge - left, step = 1;
    mine += (bottom - top) * (edge - left);
  }
}

// Sums a double of every thread, in an order that is fixed; thread 0 has the sum. `sums`: a double a warp.
__device__ __forceinline__ double sum_of_block(double part, double* sums) {
  ALPS_UNROLL
  for (int by = 16; by > 0; by /= 2) part += __shfl_xor_sync(0xffffffffu, part, by);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = part;
  __syncthreads();
  double sum = 0;
  if (threadIdx.x == 0)
    for (unsigned i = 0; i < blockDim.x / 32; ++i) sum += sums[i];
  return sum;
}

// Of a tile in shared memory: x begins 2 MARGIN rows and 2 COLUMNS before the tile, responses MARGIN rows and COLUMNS.
struct RidgeTile {
  int rows, strips;          // that the image has of it
  int x_stride, x_plane, stride, plane;
  float *x, *responses;
};

// Piece i of strips x bands: eight strips of a band one after another, so that eight threads read 128 bytes; then what is left.
__device__ __forceinline__ int2 piece_of(int i, int strips, int bands) {
  const int whole = strips / 8 * 8, left = i - whole * bands;
  if (left < 0) return make_int2(i / 8 / bands * 8 + i % 8, i / 8 % bands);
  return make_int2(whole + left % (strips - whole), left / (strips - whole));
}

// Adds the transposed filters to the thread's sums, R rows.
template <int CHANNELS, int R>
__device__ __forceinline__ void gather_tile(const RidgeTile& t, const float* bank, const float* responses,
                                            float (&h)[4][PIXELS]) {
  float sum[R][PIXELS] = {};  // of these filters, before it meets the sum of the others: that loses less
  gather_to<R>(bank, sum, [&](int f, int v, float (&window)[WINDOW]) {
    read(responses + f * CHANNELS * t.plane + v * t.stride, window);
  });
  ALPS_UNROLL
  for (int r = 0; r < R; ++r)
    ALPS_UNROLL
    for (int i = 0; i < PIXELS; ++i) h[r][i] += sum[r][i];
}

template <int CHANNELS>
__global__ void __launch_bounds__(TILE_THREADS, TILE_BLOCKS)
    ridge_tiles_kernel(const __grid_constant__ RidgeEnergy energy, const __grid_constant__ RidgePlan p,
                       const __grid_constant__ RidgePlaces places, const float* x, float* workspace, double* energies,
                       int64_t images) {
  constexpr int T = AT_ONCE<CHANNELS>;
  int s = 0;
  int64_t block = blockIdx.x;
  while (block >= p.count * p.scale[s].tiles) block -= p.count * p.scale[s++].tiles;
  const RidgeScale& scale = p.scale[s];
  const int64_t here = block / scale.tiles, image = p.first + here;
  const int tile = static_cast<int>(block % scale.tiles), top = tile / scale.across * scale.rows;
  const int strips = (scale.width + PIXELS - 1) / PIXELS, strip = tile % scale.across * scale.strips, left = strip * PIXELS;
  const int x_rows = rows_of_x(scale.rows, CHANNELS);
  RidgeTile t;
  t.rows = scale.height - top < scale.rows ? scale.height - top : scale.rows;
  t.strips = strips - strip < scale.strips ? strips - strip : scale.strips;
  t.stride = stride_of<OF_RESPONSES>(scale.strips, CHANNELS), t.x_stride = stride_of<OF_X>(scale.strips, CHANNELS);
  t.plane = (scale.rows + 2 * MARGIN) * t.stride, t.x_plane = x_rows * t.x_stride;
  double* const sums = reinterpret_cast<double*>(shared_floats());
  float* const bank = shared_floats() + 2 * TILE_THREADS / 32;  // and potentials, of these filters and the next in turn
  const int staged = SIDE * TAPS * FILTERS + POTENTIAL * FILTERS * ((energy.potentials + 1) / 2);
  const auto stage = [&](int first, float* to, int thread, int threads) {
    stage_filters(energy, s, image, images, first, to, to + SIDE * TAPS * FILTERS, thread, threads);
  };
  t.x = bank + 2 * staged, t.responses = t.x + CHANNELS * t.x_plane;

  const float* const from = s ? workspace + scale.x + here * CHANNELS * scale.plane : x + place_of(places, image);
  const int row_floats = s ? scale.stride : scale.width * places.pixel, step = s ? 1 : places.pixel;
  const float mu = s ? 0.0f : *energy.mu;
  for (int c = 0; c < CHANNELS; ++c) {
    const float* const plane = from + (s ? c * scale.plane : c * places.channel);
    for (int column = threadIdx.x % 32; column < t.x_stride; column += 32) {
      const int z = left - 2 * COLUMNS + column;
      constexpr int DOWN = TILE_THREADS / 32, AHEAD = 8;  // rows between those of a thread, reads that it awaits at once
      for (int row = static_cast<int>(threadIdx.x) / 32; row < x_rows; row += DOWN * AHEAD) {
        float ahead[AHEAD];
        ALPS_UNROLL
        for (int i = 0; i < AHEAD; ++i) {
          const int y = top - 2 * MARGIN + row + DOWN * i;
          const bool inside = 0 <= y && y < scale.height && 0 <= z && z < scale.width;
          ahead[i] = inside ? plane[int64_t(y) * row_floats + z * step] - mu : 0.0f;
        }
        ALPS_UNROLL
        for (int i = 0; i < AHEAD; ++i)
          if (row + DOWN * i < x_rows) t.x[c * t.x_plane + (row + DOWN * i) * t.x_stride + column] = ahead[i];
      }
    }
  }
  for (int i = 4 * threadIdx.x; i < FILTERS * CHANNELS * t.plane; i += 4 * TILE_THREADS) write({0, 0, 0, 0}, t.responses + i);
  stage(0, bank, threadIdx.x, TILE_THREADS);
  __syncthreads();

  // The thread's own sums: R rows of a strip of a channel, or none.
  const int R = scale.at_once, bands = (t.rows + R - 1) / R, mine = static_cast<int>(threadIdx.x);
  const bool sums_up = mine < CHANNELS * bands * t.strips;
  const int channel = mine / (bands * t.strips);
  const int2 own = piece_of(mine % (bands * t.strips), t.strips, bands);
  const int k = own.x, row = own.y * R;
  const float q = energy.q[energy.q_of_each_image ? s * images + image : s];
  float h[ROWS][PIXELS] = {};
  double value = 0;
  if (sums_up) {
    float sum = 0;
    const float* at_x = t.x + channel * t.x_plane + (row + 2 * MARGIN) * t.x_stride + 2 * COLUMNS + k * PIXELS;
    ALPS_UNROLL
    for (int r = 0; r < ROWS; ++r)
      if (r < R && row + r < t.rows) {
        float now[PIXELS];
        read(at_x + r * t.x_stride, now);
        ALPS_UNROLL
        for (int i = 0; i < PIXELS; ++i) h[r][i] = q * now[i], sum = __fmaf_rn(0.5f * h[r][i], now[i], sum);
      }
    value = static_cast<double>(sum);
  }
  // Responses that the tile needs and the image has.
  const int first_row = top < MARGIN ? MARGIN - top : 0, first_strip = strip ? 0 : 1;
  const int below = scale.height - top + MARGIN, end_row = below < t.rows + 2 * MARGIN ? below : t.rows + 2 * MARGIN;
  const int beside = strips - strip + 1, end_strip = beside < t.strips + 2 ? beside : t.strips + 2;
  const int wide = end_strip - first_strip;
  const int pairs = (end_row - first_row + T - 1) / T, pieces = wide * pairs;
  const float* const my_responses = t.responses + channel * t.plane + row * t.stride + k * PIXELS;
  for (int first = 0, turn = 0; first < energy.count; first += FILTERS, turn ^= 1) {
    const float* const taps = bank + turn * staged;
    // The warps take turns to begin, as the first have more to do: a warp is one scheduler's for good.
    const int begin = (static_cast<int>(threadIdx.x) + first / FILTERS * 32) % TILE_THREADS;
    for (int i = begin; i < pieces; i += TILE_THREADS) {
      const int2 piece = piece_of(i, wide, pairs);
      const int z = first_strip + piece.x, y = first_row + piece.y * T;
      float responses[T][CHANNELS][FILTERS][PIXELS] = {};
      respond_to<CHANNELS>(t.x + y * t.x_stride + z * PIXELS, t.x_stride, t.x_plane, taps, responses);
      ALPS_UNROLL
      for (int u = 0; u < T; ++u) {
        if (y + u >= end_row) continue;
        const bool counts = energies && y + u >= MARGIN && y + u < t.rows + MARGIN && z >= 1 && z <= t.strips;
        scale_by_slopes<CHANNELS>(responses[u], taps + SIDE * TAPS * FILTERS, energy.potentials,
                                  scale.width - (left + (z - 1) * PIXELS), counts, value);
        float* const out = t.responses + (y + u) * t.stride + z * PIXELS;
        ALPS_UNROLL
        for (int f = 0; f < FILTERS; ++f)
          ALPS_UNROLL
          for (int c = 0; c < CHANNELS; ++c) write(responses[u][c][f], out + (f * CHANNELS + c) * t.plane);
      }
    }
    if (first + FILTERS < energy.count && begin >= TILE_THREADS - 32)
      stage(first + FILTERS, bank + (turn ^ 1) * staged, begin - (TILE_THREADS - 32), 32);
    __syncthreads();
    if (sums_up) {
      if (R == 4) gather_tile<CHANNELS, 4>(t, taps, my_responses, h);
      else if (R == 2) gather_tile<CHANNELS, 2>(t, taps, my_responses, h);
      else gather_tile<CHANNELS, 1>(t, taps, my_responses, h);
    }
    __syncthreads();
  }
  if (sums_up) {
    float* const out = workspace + scale.sums + (here * CHANNELS + channel) * scale.plane +
                       int64_t(top + row) * scale.stride + left + k * PIXELS;
    ALPS_UNROLL
    for (int r = 0; r < ROWS; ++r)
      if (r < R && row + r < t.rows) write(h[r], out + int64_t(r) * scale.stride);
  }
  if (energies == nullptr) return;
  value = sum_of_block(value, sums);
  if (threadIdx.x == 0) energies[image * p.tiles + scale.before + tile] = value;
}

// The first blocks: tiles of the gradient; then, where the value is wanted, a block an image for it.
__global__ void __launch_bounds__(FINISH_THREADS, 4)
    ridge_finish_kernel(const __grid_constant__ RidgeEnergy energy, const __grid_constant__ RidgePlan p,
                        const __grid_constant__ RidgePlaces places, const float* workspace, const double* energies, float* grad,
                        float* value, int channels, int across, int tiles, int64_t images, bool wide) {
  float* const memory = shared_floats();
  const auto q_of = [&](int s, int64_t image) { return energy.q[energy.q_of_each_image ? s * images + image : s]; };
  const int64_t tiled = p.count * channels * tiles;
  if (static_cast<int64_t>(blockIdx.x) >= tiled) {
    const int64_t here = blockIdx.x - tiled, image = p.first + here;
    double sum = 0;
    for (int i = threadIdx.x; i < p.tiles; i += FINISH_THREADS) sum += energies[image * p.tiles + i];
    for (int s = p.scales; s < p.levels; ++s) {
      const RidgeScale& scale = p.scale[s];
      const float* const x = workspace + scale.x + here * channels * scale.plane;
      const float q = q_of(s, image);
      float part = 0;
      for (int64_t i = threadIdx.x; i < channels * scale.plane; i += FINISH_THREADS)
        if (i % scale.stride < scale.width) part = __fmaf_rn(0.5f * (q * x[i]), x[i], part);
      sum += static_cast<double>(part);
    }
    sum = sum_of_block(sum, reinterpret_cast<double*>(memory));
    if (threadIdx.x == 0) value[image] = static_cast<float>(sum);
    return;
  }
  const int64_t plane = blockIdx.x / tiles, image = p.first + plane / channels;
  const int tile = static_cast<int>(blockIdx.x % tiles), top = tile / across * FINISH_ROWS, left = tile % across * FINISH_COLUMNS;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  // Of scale s the tile needs pixels first(top, s) to last(top + FINISH_ROWS - 1, height, s).
  const auto first = [](int i, int s) { const int at = ((i + 1) >> s) - 1; return at < 0 ? 0 : at; };
  const auto last = [](int i, int most, int s) { const int at = (i + (1 << s) - 1) >> s; return at < most ? at : most - 1; };
  const auto each = [&](int s, const auto& use) {  // its pixels in the image, and their places in shared memory
    const RidgeScale& scale = p.scale[s];
    const int row = first(top, s), column = first(left, s);
    const int bottom = last(top + FINISH_ROWS - 1, scale.height, s), right = last(left + FINISH_COLUMNS - 1, scale.width, s);
    for (int v = row + warp; v <= bottom; v += FINISH_THREADS / 32)
      for (int w = column + lane; w <= right; w += 32) use(v, w, memory[scale.part + (v - row) * scale.pitch + w - column]);
  };
  const auto up = [&](int s, float here, int v, int w) {  // with what the coarser scale adds
    if (s + 1 == p.levels) return here;
    const RidgeScale& coarser = p.scale[s + 1];
    const float* const at = memory + coarser.part - first(top, s + 1) * coarser.pitch - first(left, s + 1);
    return with_coarser(here, v, w, coarser.height, coarser.width, [&](int i, int j) { return at[i * coarser.pitch + j]; });
  };
  const RidgeScale& finest = p.scale[0];
  const int y = top + static_cast<int>(threadIdx.x) / (FINISH_COLUMNS / PIXELS);
  const int z = left + static_cast<int>(threadIdx.x) % (FINISH_COLUMNS / PIXELS) * PIXELS;
  const bool mine = y < finest.height && z < finest.width;
  float g[PIXELS] = {};
  if (mine) read(workspace + finest.sums + plane * finest.plane + int64_t(y) * finest.stride + z, g);
  constexpr int AHEAD = 4;  // reads that a thread awaits at once
  for (int begin = threadIdx.x; begin < p.scale[p.levels - 1].end; begin += AHEAD * FINISH_THREADS) {
    float ahead[AHEAD] = {};
    ALPS_UNROLL
    for (int i = 0; i < AHEAD; ++i) {
      const int place = begin + i * FINISH_THREADS;
      int s = 1;
      while (s < p.levels && place >= p.scale[s].end) ++s;
      if (s == p.levels) continue;
      const RidgeScale& scale = p.scale[s];
      const int v = first(top, s) + (place - scale.part) / scale.pitch, w = first(left, s) + (place - scale.part) % scale.pitch;
      if (v >= scale.height || w >= scale.width) continue;
      const bool filtered = s < p.scales;
      ahead[i] = workspace[(filtered ? scale.sums : scale.x) + plane * scale.plane + int64_t(v) * scale.stride + w];
      if (!filtered) ahead[i] *= q_of(s, image);
    }
    ALPS_UNROLL
    for (int i = 0; i < AHEAD; ++i)
      if (begin + i * FINISH_THREADS < p.scale[p.levels - 1].end) memory[begin + i * FINISH_THREADS] = ahead[i];
  }
  __syncthreads();
  for (int s = p.levels - 2; s > 0; --s) {
    each(s, [&](int v, int w, float& here) { here = up(s, here, v, w); });
    __syncthreads();
  }
  if (!mine) return;
  float* const out = grad + place_of(places, image) + plane % channels * places.channel +
                     (int64_t(y) * finest.width + z) * places.pixel;
  ALPS_UNROLL
  for (int i = 0; i < PIXELS; ++i)
    if (z + i < finest.width) {
      g[i] = up(0, g[i], y, z + i);
      if (!wide) out[i * places.pixel] = g[i];
    }
  if (wide) write(g, out);
}

static int64_t energies_of(const RidgeImages& images, const RidgePlan& p) {  // in floats, whole lines of a cache
  return (2 * images.images * p.tiles + 31) / 32 * 32;
}

int64_t ridge_workspace(const RidgeEnergy& energy, const RidgeImages& images) {
  if (energy.side > SIDE || energy.levels > MOST_LEVELS || energy.potentials > MOST_POTENTIALS) return -1;
  const RidgePlan p = plan(energy, images, false);
  int64_t floats = energies_of(images, p);
  for (int s = 0; s < p.levels; ++s) floats += p.images * images.channels * p.scale[s].plane * ((s > 0) + (s < p.scales));
  return floats;
}

template <int CHANNELS>
static void run(const RidgeGrad& g, const RidgePlan& p, double* energies, float* workspace, cudaStream_t stream) {
  const int64_t planes = p.count * CHANNELS;
  for (int from = 0, depth; from + 1 < p.levels; from += depth) {
    const RidgeScale& fine = p.scale[from];
    const bool whole = fine.height <= WHOLE && fine.width <= WHOLE;
    depth = whole ? p.levels - 1 - from : std::min(SQUARE_LEVELS, p.levels - 1 - from);
    const int side = whole ? 1 << MOST_LEVELS : SQUARE, across = up_to(fine.width, side);
    const int squares = across * up_to(fine.height, side);
    int floats = 0;
    for (int j = 1; j <= depth; ++j) {
      const int most = ((side >> depth) + 2) << (depth - j);
      floats += std::min(most, p.scale[from + j].height) * std::min(most, p.scale[from + j].width);
    }
    launch("ridge_grad", ridge_pyramid_kernel, dim3(static_cast<unsigned>(planes * squares)), dim3(PYRAMID_THREADS),
           sizeof(float) * floats, stream, p, g.places, g.x, g.energy.mu, workspace, CHANNELS, from, depth, side, across,
           squares);
  }
  int tile = 0;
  for (int s = 0; s < p.scales; ++s) tile = std::max(tile, tile_floats(p.scale[s].strips, p.scale[s].rows, CHANNELS));
  const int staged = SIDE * TAPS * FILTERS + POTENTIAL * FILTERS * up_to(g.energy.potentials, 2);
  launch("ridge_grad", ridge_tiles_kernel<CHANNELS>, dim3(static_cast<unsigned>(p.count * p.tiles)), dim3(TILE_THREADS),
         sizeof(float) * (2 * TILE_THREADS / 32 + 2 * staged + tile), stream, g.energy, p, g.places, g.x, workspace, energies,
         g.images.images);
  const int across = up_to(g.images.width, FINISH_COLUMNS), tiles = across * up_to(g.images.height, FINISH_ROWS);
  const int floats = std::max(p.scale[p.levels - 1].end, 2 * FINISH_THREADS / 32);
  const bool wide = g.places.pixel == 1 && g.images.width % 4 == 0 && on_16_bytes(g.grad);
  launch("ridge_grad", ridge_finish_kernel, dim3(static_cast<unsigned>(planes * tiles + (energies ? p.count : 0))),
         dim3(FINISH_THREADS), sizeof(float) * floats, stream, g.energy, p, g.places, workspace, energies, g.grad, g.value,
         CHANNELS, across, tiles, g.images.images, wide);
}

void ridge_grad(const RidgeGrad& g, cudaStream_t stream) {
  RidgePlan p = plan(g.energy, g.images, g.value == nullptr);
  double* const energies = g.value ? reinterpret_cast<double*>(g.workspace) : nullptr;
  float* const workspace = g.workspace + (g.value ? energies_of(g.images, p) : 0);
  for (; p.first < g.images.images; p.first += p.images) {
    p.count = std::min(p.images, g.images.images - p.first);
    if (g.images.channels == 1) run<1>(g, p, energies, workspace, stream);
    else run<2>(g, p, energies, workspace, stream);
  }
}

}  // namespace alps::cuda
