// m = P(lam)(b + lin x - w grad),  x+ = m + P(noise_lam)(sqrt(inv_eta2) A^H e1 + sqrt(noise_lam) e2), by conjugate gradients;
// contract in alps_fast/ops/langevin_sense_cg.py, the iteration and its stopping rule in alps_fast/ops/_cg.py.
//
// A system is the mean or the noise of a chain; its solution grows in m or in x+. An iteration is six launches:
//   rows     the scalars of every system, which a block computes for itself; p = z + beta p; for every coil its map times p,
//            transformed along W, into the workspace
//   columns  transform along H, mask, transform back
//   back     transform along W, conjugate of the map, sum over coils, q = A^H A p inv_eta2 + shift p; p q
//   update   x += alpha p, r -= alpha q; r transformed along W
//   columns  transform along H, preconditioner, transform back
//   back     transform along W: z; r z
// and one more after eight of them, settle: the scalars, and whether a system goes on. Lines are transformed in registers where
// their length allows it, in shared memory where not (lines.cuh). A block takes a few rows in several coils, or columns of one.
// Dot products are summed in double: in a block in a fixed order, and over the blocks of an image by each block that needs them.
// What a block takes depends on the image's size and the number of coils alone. Systems go through the workspace a few at a time,
// so that it stays in L2. Those that have stopped cost a look at their state; whether all have, the caller sees after every
// window, or in a graph one more launch, look.
#include <algorithm>
#include <cmath>

#include "kernels.h"
#include "level.h"
#include "lines.cuh"
#include "loop.h"
#include "noise.h"
#include "vectors.h"

namespace alps::cuda {
namespace {

constexpr int MOST_THREADS = 448, BLOCKS = 2;  // of a multiprocessor, in 72 registers
constexpr int64_t CELLS = 8;  // complex numbers a thread, of lines that are not transformed in registers
constexpr int64_t ROWS[] = {4, 2, 1};  // of a block, as far as ROW_THREADS do them
constexpr int64_t ROOM = 48 << 10;  // shared memory of a block with several coils
constexpr int BATCH = 4;  // pixels of a thread, whose loads are under way together
constexpr int64_t ROW_THREADS = 40, LINES = 256;  // threads for the rows of a block in one coil, and in several at most
constexpr int64_t AT_ONCE = 1 << 25;  // complex numbers of k-space in the workspace, 268 MB: few launches gain more than L2 gives
constexpr int64_t MOST_BLOCKS = 0x7fffffff;
constexpr int SUMS = MOST_THREADS / 32;
constexpr int DRAW_THREADS = 256;

enum Purpose { START, NOISE, APPLY, PRECONDITION };  // M x, the right-hand side of the noise, M p, and z

struct State {  // of a system
  double rz, beta, fell, total, active;
};
static_assert(sizeof(State) == 5 * sizeof(double), "as alps_fast/ops/langevin_sense_cg.py allocates it");

struct Loop {  // in a graph: the window of iterations that is at work, from 1 on, and whether another one comes
  double window, goes_on;
};

struct Work {  // images of every system: z is where q was; k-space of every coil of the systems from `first` on
  float2 *r, *p, *q, *k;
  double *curvature, *next;  // sums of the tiles of every system: p q (or what START sums), and r z
  State *state, *before;  // before: where it is to be settled from, or null
  float2 *tables_w, *tables_h;  // where lines are not transformed in registers
};

struct Layout {
  Transform along_w, along_h;
  uint32_t first, tiles, room, slots;  // the first system; tiles of an image, rows or columns of a tile, coils at once
  float every;
  bool whole_pixels;
};

struct Tile {  // rows first ... first + count of the image of a system
  uint32_t system, tile, first, count, width;
  int64_t chain, image;  // of the system; the first pixel of its images
  bool of_noise;
};

template <int N>
__device__ __forceinline__ Tile tile_of(const SenseCgStep& s, const Layout& at) {
  const uint32_t system = at.first + blockIdx.x / at.tiles, tile = blockIdx.x % at.tiles, first = tile * at.room;
  const uint32_t left = static_cast<uint32_t>(s.height) - first;
  const bool of_noise = system >= s.rows;
  return {system, tile, first, left < at.room ? left : at.room, N ? N : static_cast<uint32_t>(s.width),
          of_noise ? system - s.rows : system, system * s.height * s.width, of_noise};
}

__device__ __forceinline__ float shift_of(const SenseCgStep& s, bool of_noise) { return of_noise ? noise_lam_of(s) : lam_of(s); }

// Shared memory of rows: sums of warps, the rows as they are in memory, and lines, each row in `slots` coils.
template <int N>
struct Shared {
  __device__ Shared(const Layout& at, const Work& work, const Tile& tile)
      : sums(reinterpret_cast<double*>(shared_floats())), own(reinterpret_cast<float2*>(sums + SUMS)),
        lines(at.along_w, work.tables_w, at.room * at.slots, own + (at.room * tile.width + 1) / 2 * 2) {}
  double* sums;
  float2* own;
  Lines<N, false> lines;
};

int64_t rows_bytes(int64_t width, int64_t rows, int64_t slots) {
  int64_t lines = 0;
  by_length(width, [&](auto length) { lines = Lines<length.VALUE, false>::bytes(rows * slots, width); });
  return 8 * SUMS + (rows * width + 1) / 2 * 16 + lines;
}

int64_t columns_bytes(int64_t height, int64_t columns) {
  int64_t bytes = 0;
  by_length(height, [&](auto length) { bytes = Lines<length.VALUE, true>::bytes(columns, height); });
  return bytes;
}

// use(i, load(i)) of every number of the tile, COUNT loads of a thread before what is stored.
template <int COUNT, class Load, class Use>
__device__ __forceinline__ void for_batches(const Tile& tile, const Load& load, const Use& use) {
  const uint32_t count = tile.count * tile.width;
  for (uint32_t first = threadIdx.x; first < count; first += COUNT * blockDim.x) {
    decltype(load(0u)) loaded[COUNT] = {};
    ALPS_UNROLL
    for (uint32_t j = 0; j < COUNT; ++j)
      if (first + j * blockDim.x < count) loaded[j] = load(first + j * blockDim.x);
    ALPS_UNROLL
    for (uint32_t j = 0; j < COUNT; ++j)
      if (first + j * blockDim.x < count) use(first + j * blockDim.x, loaded[j]);
  }
}

__device__ __forceinline__ const float2* map_of(const SenseCgStep& s, const Tile& tile, int64_t coil) {
  return reinterpret_cast<const float2*>(s.maps) + (coil * s.height + tile.first) * tile.width;
}

__device__ __forceinline__ float2 right_hand_side(const SenseCgStep& s, const Layout& at, const Tile& tile, int64_t pixel,
                                                  float2 x) {
  const int64_t image = 2 * s.height * s.width;
  const float2 grad = pixel_at(at.whole_pixels, s.grad + tile.chain * image, pixel);
  const float2 b = pixel_at(at.whole_pixels, s.b + tile.chain / (s.rows / s.measurements) * image, pixel);
  const float lin = lin_of(s), w = w_of(s);
  return make_float2(__fmaf_rn(-w, grad.x, __fmaf_rn(lin, x.x, b.x)), __fmaf_rn(-w, grad.y, __fmaf_rn(lin, x.y, b.y)));
}

// The sum of a value of every thread, in thread 0.
__device__ __forceinline__ double sum(double value, double* sums) {
  for (unsigned by = 16; by > 0; by /= 2) value += __shfl_xor_sync(0xffffffffu, value, by);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  double total = 0;
  if (threadIdx.x == 0)
    for (unsigned warp = 0; warp < blockDim.x / 32; ++warp) total += sums[warp];
  return total;
}

// By a warp, all of which has it then.
__device__ __forceinline__ double sum_of_tiles(const double* sums, uint32_t tiles, uint32_t system) {
  double total = 0;
  for (uint32_t tile = threadIdx.x % 32; tile < tiles; tile += 32) total += sums[system * tiles + tile];
  for (unsigned by = 16; by > 0; by /= 2) total += __shfl_xor_sync(0xffffffffu, total, by);
  return total;
}

__device__ __forceinline__ bool moves(const State& state, double curvature) {
  return state.active != 0 && state.rz > 0 && curvature > 0;
}

// What an iteration leaves of a system; a whole warp asks.
__device__ __forceinline__ State settled(const Work& work, uint32_t system, uint32_t tiles, State state) {
  if (state.active == 0) return state;
  const double next = sum_of_tiles(work.next, tiles, system), curvature = sum_of_tiles(work.curvature, tiles, system);
  const bool moved = moves(state, curvature);
  if (moved) state.fell += state.rz / curvature * state.rz;
  state.beta = moved ? next / state.rz : 0;
  if (moved) state.rz = next;
  return state;
}

struct Row {  // of a tile, of a coil that comes with others; where there is no such row, or no such coil is left, the last
  uint32_t h;
  uint32_t coil;
  bool there;
};

struct RowsOfCoils {  // the rows of the tile in `slots` coils from `first` on; neighbours in a warp are of one row
  __device__ RowsOfCoils(const Layout& at, const Tile& tile, uint32_t first, uint32_t coils)
      : by_slots_(at.slots), count_(tile.count), first_(first), coils_(coils) {}
  __device__ __forceinline__ Row operator()(uint32_t line) const {
    const uint32_t h = by_slots_(line), coil = first_ + line - h * by_slots_.by;
    return {h < count_ ? h : count_ - 1, coil < coils_ ? coil : coils_ - 1, h < count_ && coil < coils_};
  }

 private:
  Divisor by_slots_;
  uint32_t count_, first_, coils_;
};

__global__ void __launch_bounds__(MOST_THREADS) langevin_sense_cg_tables(Layout at, Work work) {
  if (blockIdx.x == 0) fill(Tables(work.tables_w, at.along_w.n), at.along_w);
  else fill(Tables(work.tables_h, at.along_h.n), at.along_h);
}

template <int N>
__global__ void __launch_bounds__(N ? LINES : MOST_THREADS, N && N < 256 ? 3 : BLOCKS)
    langevin_sense_cg_rows(SenseCgStep s, Layout at, Work work, bool starts) {
  const Tile tile = tile_of<N>(s, at);
  float beta = 0;
  if (!starts) {
    State state = (work.before ? work.before : work.state)[tile.system];
    if (work.before) {
      state = settled(work, tile.system, at.tiles, state);
      if (tile.tile == 0 && threadIdx.x == 0) work.state[tile.system] = state;
    }
    if (state.active == 0) return;
    beta = static_cast<float>(state.beta);
  }
  const Shared<N> shared(at, work, tile);
  const uint32_t coils = static_cast<uint32_t>(s.coils);
  const int64_t pixels = s.height * tile.width, begin = int64_t(tile.first) * tile.width;
  for_batches<2>(
      tile,
      [&](uint32_t i) {
        if (starts) return pixel_at(at.whole_pixels, s.x + 2 * tile.chain * pixels, begin + i);
        const float2 z = work.q[tile.image + begin + i];
        if (beta == 0) return z;
        const float2 last = work.p[tile.image + begin + i];
        return make_float2(__fmaf_rn(beta, last.x, z.x), __fmaf_rn(beta, last.y, z.y));
      },
      [&](uint32_t i, float2 p) { work.p[tile.image + begin + i] = shared.own[i] = p; });
  __syncthreads();
  float2* const planes = work.k + (tile.system - at.first) * s.coils * pixels + begin;
#pragma unroll 1
  for (uint32_t coil = 0; coil < coils; coil += at.slots) {
    const RowsOfCoils rows(at, tile, coil, coils);
    shared.lines.forward(
        [&](uint32_t line) {
          const Row row = rows(line);
          const float2 *map = map_of(s, tile, row.coil) + row.h * tile.width, *own = shared.own + row.h * tile.width;
          return [=](int w, int more) { return times((map + w)[more], (own + w)[more]); };
        },
        [&](uint32_t line) {
          const Row row = rows(line);
          float2* const to = planes + row.coil * pixels + row.h * tile.width;
          return [=](int k, int more, float2 v) {
            if (row.there) (to + k)[more] = v;
          };
        });
  }
}

// The noise of the systems from at.first on: of the prior into r, of the samples into k-space. A block has a part of a plane of
// pixels or of a coil's samples, a thread those two numbers that are of one quad.
__global__ void __launch_bounds__(DRAW_THREADS) langevin_sense_cg_draw(SenseCgStep s, Layout at, Work work, Stream random) {
  const uint32_t tile = blockIdx.x % at.tiles, planes = static_cast<uint32_t>(1 + s.coils);
  const uint32_t of = blockIdx.x / at.tiles / planes, plane = blockIdx.x / at.tiles - of * planes;
  const int64_t pixels = s.height * s.width, begin = plane * pixels, system = at.first + of, chain = system - s.rows;
  const int64_t first = 2 * (int64_t(tile) * DRAW_THREADS + threadIdx.x) - begin % 2;
  const float spread = __fsqrt_rn(plane == 0 ? noise_lam_of(s) : inv_eta2_of(s) * at.every);
  float2* const to = plane == 0 ? work.r + system * pixels : work.k + (of * s.coils + plane - 1) * pixels;
  float xi[4] = {};
  if (first >= pixels) return;
  const uint32_t quad = static_cast<uint32_t>((begin + first) / 2);
  if (s.noise == AVERAGED) step_noise<AVERAGED>(random, s.ids[chain], quad, xi);
  else if (s.noise == INDEPENDENT) step_noise<INDEPENDENT>(random, s.ids[chain], quad, xi);
  ALPS_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int64_t pixel = first + i;
    if (pixel < 0 || pixel >= pixels) continue;
    float2 drawn = make_float2(xi[2 * i], xi[2 * i + 1]);
    if (s.noise == GIVEN) drawn = pixel_at(at.whole_pixels, s.xi + chain * planes * 2 * pixels, begin + pixel);
    const float factor = plane == 0 ? spread : s.mask[pixel] * spread;
    to[pixel] = make_float2(drawn.x * factor, drawn.y * factor);
  }
}

template <int N, int WIDTH>  // of a multiprocessor, in 80 registers, or in up to 128
constexpr int COLUMN_BLOCKS = N ? (N < 256 && WIDTH ? 768 : 512) / Lines<N, true>::THREADS : BLOCKS;

template <int N, int WIDTH, bool PRECONDITIONS>  // where that is known, addresses are one and a distance
__global__ void __launch_bounds__(Lines<N, true>::THREADS, COLUMN_BLOCKS<N, WIDTH>)
    langevin_sense_cg_columns(SenseCgStep s, Layout at, Work work, Purpose purpose) {
  const int height = N ? N : static_cast<int>(s.height), width = WIDTH ? WIDTH : static_cast<int>(s.width);
  const uint32_t plane = blockIdx.x / at.tiles, planes = PRECONDITIONS ? 1 : static_cast<uint32_t>(s.coils);
  const uint32_t system = at.first + plane / planes;
  if (purpose >= APPLY && work.state[system].active == 0) return;
  const int first = static_cast<int>(blockIdx.x % at.tiles * at.room), count = width - first;
  const float every = at.every, shift = PRECONDITIONS ? shift_of(s, system >= s.rows) : 0, inv_eta2 = PRECONDITIONS ? inv_eta2_of(s) : 0;
  float2* const images = PRECONDITIONS ? work.q + int64_t(at.first) * height * width : work.k;
  float2* const image = images + int64_t(plane) * height * width + first;
  const float* const factors = (PRECONDITIONS ? s.spectrum : s.mask) + first;
  const Lines<N, true> lines(at.along_h, work.tables_h, at.room, reinterpret_cast<float2*>(shared_floats()));
  const auto load = [&](int column) {
    const float2* const from = image + (column < count ? column : count - 1);
    return [=](int h, int more) { return (from + h * width)[more * width]; };
  };
  const auto store = [&](int column) {
    return [=, to = image + column](int h, int more, float2 v) {
      if (column < count) (to + h * width)[more * width] = v;
    };
  };
  if (purpose == NOISE) return lines.inverse(load, store);
  lines.filter(
      load,
      [&](int column) {
        const float* const of = factors + (column < count ? column : count - 1);
        return [=](int kh, int more) {
          const float factor = (of + kh * width)[more * width];
          return PRECONDITIONS ? every / __fsqrt_rn(shift * __fmaf_rn(factor, inv_eta2, shift)) : factor;
        };
      },
      store);
}

template <int N>
__global__ void __launch_bounds__(N ? LINES : MOST_THREADS, N && N < 256 ? 3 : BLOCKS)
    langevin_sense_cg_back(SenseCgStep s, Layout at, Work work, Purpose purpose) {
  const Tile tile = tile_of<N>(s, at);
  if ((purpose == APPLY || purpose == PRECONDITION) && work.state[tile.system].active == 0) return;
  const Shared<N> shared(at, work, tile);
  const uint32_t coils = purpose == PRECONDITION ? 1 : static_cast<uint32_t>(s.coils);
  const int64_t pixels = s.height * tile.width;
  const float2* const of_coils = work.k + (tile.system - at.first) * s.coils * pixels;
  const float2* const planes = (purpose == PRECONDITION ? work.q + tile.image : of_coils) + int64_t(tile.first) * tile.width;
  const int64_t begin = tile.image + int64_t(tile.first) * tile.width;
  const Divisor by_width(tile.width);
  double dot = 0;
#pragma unroll 1
  for (uint32_t coil = 0; coil < coils; coil += at.slots) {
    const RowsOfCoils rows(at, tile, coil, coils);
    if (coil > 0) __syncthreads();
    const auto finish = [&](uint32_t line) {
      const Row row = rows(line);
      const float2* const map = map_of(s, tile, row.coil) + row.h * tile.width;
      return [=](int w, int more, float2 v) { return purpose == PRECONDITION ? v : conjugate_times((map + w)[more], v); };
    };
    const auto products = shared.lines.inverse_shared(
        [&](uint32_t line) {
          const Row row = rows(line);
          const float2* const from = planes + row.coil * pixels + row.h * tile.width;
          return [=](int k, int more) { return (from + k)[more]; };
        },
        finish);
    const uint32_t slots = coils - coil < at.slots ? coils - coil : at.slots;
    const auto summed = [&](uint32_t i) {
      const uint32_t h = by_width(i), w = i - h * tile.width;
      float2 own = coil > 0 ? shared.own[i] : make_float2(0, 0);  // of this thread alone
      for (uint32_t slot = 0; slot < slots; ++slot) {
        const float2 product = products(h * at.slots + slot, w);
        own = make_float2(own.x + product.x, own.y + product.y);
      }
      return own;
    };
    if (coil + slots < coils) {
      for (uint32_t i = threadIdx.x; i < tile.count * tile.width; i += blockDim.x) shared.own[i] = summed(i);
      continue;
    }
    const float shift = shift_of(s, tile.of_noise), scale = inv_eta2_of(s) * at.every;
    for_batches<BATCH>(
        tile,
        [&](uint32_t i) { return (purpose == PRECONDITION || purpose == NOISE ? work.r : work.p)[begin + i]; },
        [&](uint32_t i, float2 with) {
          float2 v = summed(i);
          if (purpose == PRECONDITION) {
            work.q[begin + i] = v;
          } else if (purpose == NOISE) {
            work.r[begin + i] = make_float2(with.x + v.x, with.y + v.y);
          } else {
            v = make_float2(__fmaf_rn(shift, with.x, v.x * scale), __fmaf_rn(shift, with.y, v.y * scale));
            if (purpose == APPLY) {
              work.q[begin + i] = v;
            } else {
              const float2 right = right_hand_side(s, at, tile, int64_t(tile.first) * tile.width + i, with);
              const float2 r = work.r[begin + i] = make_float2(right.x - v.x, right.y - v.y);
              v = make_float2(right.x + r.x, right.y + r.y);
            }
          }
          dot += static_cast<double>(with.x) * static_cast<double>(v.x) + static_cast<double>(with.y) * static_cast<double>(v.y);
        });
  }
  dot = sum(dot, shared.sums);
  if (threadIdx.x == 0) (purpose == PRECONDITION ? work.next : work.curvature)[tile.system * at.tiles + tile.tile] = dot;
}

template <int N>
__global__ void __launch_bounds__(N ? LINES : MOST_THREADS, N && N < 256 ? 3 : BLOCKS)
    langevin_sense_cg_update(SenseCgStep s, Layout at, Work work, bool starts) {
  const Tile tile = tile_of<N>(s, at);
  if (!starts && work.state[tile.system].active == 0) return;
  const Shared<N> shared(at, work, tile);
  const int64_t pixels = s.height * tile.width;
  const double curvature = sum_of_tiles(work.curvature, at.tiles, tile.system);
  const bool from_zero = starts && (tile.of_noise || curvature < 0);  // half x M x - rhs x is above its value at zero
  float alpha = 0;
  if (!starts && moves(work.state[tile.system], curvature)) alpha = static_cast<float>(work.state[tile.system].rz / curvature);
  float* const solution = (tile.of_noise ? s.after : s.mean) + 2 * tile.chain * pixels;
  const int64_t begin = int64_t(tile.first) * tile.width;
  const Divisor by_width(tile.width);
  struct Pixel {
    float2 p, q, r, x;
  };
  for_batches<BATCH>(
      tile,
      [&](uint32_t i) {
        const int64_t own = tile.image + begin + i;
        Pixel pixel = {};
        if (!starts || !tile.of_noise) pixel.p = work.p[own];
        pixel.r = work.r[own];
        if (!starts) pixel.q = work.q[own], pixel.x = pixel_at(at.whole_pixels, solution, begin + i);
        return pixel;
      },
      [&](uint32_t i, const Pixel& pixel) {
        float2 r = pixel.r, x = pixel.x;
        if (starts) {
          if (!from_zero) x = pixel.p;
          else if (!tile.of_noise) r = right_hand_side(s, at, tile, begin + i, pixel.p);
        } else if (alpha != 0) {
          x = make_float2(__fmaf_rn(alpha, pixel.p.x, x.x), __fmaf_rn(alpha, pixel.p.y, x.y));
          r = make_float2(__fmaf_rn(-alpha, pixel.q.x, r.x), __fmaf_rn(-alpha, pixel.q.y, r.y));
        }
        const uint32_t h = by_width(i);
        work.r[tile.image + begin + i] = shared.lines.at(h, i - h * tile.width) = r;
        put_pixel(at.whole_pixels, solution, begin + i, x);
      });
  __syncthreads();
  float2* const image = work.q + tile.image + begin;
  shared.lines.forward_from_shared([&](uint32_t h) {
    const bool there = h < tile.count;
    float2* const to = image + h * tile.width;
    return [=](int k, int more, float2 v) {
      if (there) (to + k)[more] = v;
    };
  });
}

// What the start or the last iteration of a window leaves of each system, of which a warp has one.
__global__ void __launch_bounds__(MOST_THREADS, BLOCKS)
    langevin_sense_cg_settle(Work work, State* states, uint32_t systems, uint32_t tiles, bool starts, bool looks, double error) {
  const uint32_t system = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  if (system >= systems) return;
  State state = work.state[system];
  if (starts) {
    const double next = sum_of_tiles(work.next, tiles, system);
    state = {next, 0, 0, 0, next > 0 ? 1.0 : 0.0};
  } else if (state.active != 0) {
    state = settled(work, system, tiles, state);
    if (looks) {
      state.total += state.fell;
      if (!(state.fell > state.total * CG_EPS * CG_EPS && state.fell > error * error)) state.active = 0;
      state.fell = 0;
    }
  }
  if (threadIdx.x % 32 == 0) states[system] = state;
}

// After a window: whether another one comes, of `windows` at most. One warp.
__global__ void __launch_bounds__(32)
    langevin_sense_cg_look(const State* states, uint32_t systems, double windows, Loop* loop) {
  bool active = false;
  for (uint32_t system = threadIdx.x; system < systems; system += 32) active |= states[system].active != 0;
  const bool any = __ballot_sync(0xffffffffu, active) != 0;
  if (threadIdx.x == 0) {
    loop->goes_on = any && loop->window < windows ? 1.0 : 0.0;
    loop->window += 1;
  }
}

// Systems that are not finite come back as NaN, and x+ is the sum of both.
__global__ void __launch_bounds__(MOST_THREADS, BLOCKS)
    langevin_sense_cg_sum(float* mean, float* after, const State* states, int64_t rows, int64_t numbers, bool noisy) {
  const auto whole = [&](int64_t system, float v) {
    const double rz = states[system].rz;
    return rz - rz == 0 ? v : __uint_as_float(0x7fc00000u);
  };
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * numbers; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t n = i / numbers;
    const float m = mean[i] = whole(n, mean[i]);
    after[i] = noisy ? m + whole(rows + n, after[i]) : m;
  }
}

int64_t systems_of(const SenseCgStep& s) { return s.noise == NO_NOISE ? s.rows : 2 * s.rows; }

int64_t systems_at_once(const SenseCgStep& s) {
  const int64_t systems = std::max<int64_t>(systems_of(s), 1);
  const int64_t parts = (systems - 1) / std::max<int64_t>(AT_ONCE / (s.coils * s.height * s.width), 1) + 1;
  return (systems + parts - 1) / parts;
}

// Of blocks, by the image's size and the coils alone: rows, how many coils at once, columns, none where not even one fits;
// threads of a row, and of columns; tiles of rows.
struct Plan {
  int64_t rows, slots, columns, threads_of_row, threads_of_columns, tiles;
};

Plan plan_of(const SenseCgStep& s) {
  const int64_t shared = this_device("langevin_sense_cg").shared;
  const int64_t row = threads_of_line(s.width) ? threads_of_line(s.width) : (s.width + CELLS - 1) / CELLS;
  Plan plan = {0, 0, 0, row, 0, 0};
  for (const int64_t rows : ROWS)
    if (!plan.rows && (rows == 1 || rows * row <= ROW_THREADS) && rows_bytes(s.width, rows, 1) <= shared) plan.rows = rows;
  by_length(s.height, [&](auto n) { plan.columns = Lines<n.VALUE, true>::SIDE_BY_SIDE; });
  while (plan.columns && columns_bytes(s.height, plan.columns) > shared) plan.columns /= 2;
  if (!plan.rows || !plan.columns) return plan;
  plan.tiles = (s.height + plan.rows - 1) / plan.rows;
  plan.slots = std::clamp<int64_t>(LINES / (plan.rows * row), 1, s.coils);
  while (plan.slots > 1 && rows_bytes(s.width, plan.rows, plan.slots) > ROOM) --plan.slots;
  plan.slots = (s.coils + (s.coils + plan.slots - 1) / plan.slots - 1) / ((s.coils + plan.slots - 1) / plan.slots);
  const int64_t cells = std::min<int64_t>(plan.columns * s.height / CELLS, MOST_THREADS);
  plan.threads_of_columns = threads_of_line(s.height) ? plan.columns * threads_of_line(s.height) : cells;
  return plan;
}

}  // namespace

SenseCgMemory langevin_sense_cg_memory(const SenseCgStep& s) {
  const Plan plan = plan_of(s);
  if (!plan.rows || !plan.columns) return {-1, -1};
  return {2 * (3 * systems_of(s) + systems_at_once(s) * s.coils) * s.height * s.width +
              (table_bytes(s.width) + table_bytes(s.height)) / 4,
          systems_of(s) * (2 * 5 + 2 * plan.tiles) + 2};
}

void langevin_sense_cg_iterate(const SenseCgStep& s, int64_t iteration, int64_t end, float* floats, double* doubles,
                               cudaStream_t stream) {
  const Plan plan = plan_of(s);
  const int64_t systems = systems_of(s), pixels = s.height * s.width, images = systems * pixels;
  float2* const cells = reinterpret_cast<float2*>(floats);
  float2* const tables = cells + 3 * images + systems_at_once(s) * s.coils * pixels;
  State* const states = reinterpret_cast<State*>(doubles);  // and once more, as one iteration reads what the next one writes
  double* const sums = doubles + 2 * 5 * systems;
  Work work = {cells, cells + images, cells + 2 * images, cells + 3 * images, sums, sums + plan.tiles * systems, states, nullptr,
               tables, tables + table_bytes(s.width) / 8};
  const float every = 1 / static_cast<float>(pixels);
  Layout at = {transform_of(s.width), transform_of(s.height), 0, 0, 0, 0, every,
               on_bytes<8>(s.x, s.grad, s.b, s.xi, s.after, s.mean)};
  Loop* const loop = reinterpret_cast<Loop*>(work.next + plan.tiles * systems);
  const auto run = [&](auto kernel, int64_t blocks, int64_t threads, int64_t bytes, auto... arguments) {
    if (blocks > MOST_BLOCKS) throw std::invalid_argument("langevin_sense_cg: more than 2^31 - 1 tiles");
    const dim3 block = static_cast<unsigned>(std::min<int64_t>((threads + 31) / 32 * 32, MOST_THREADS));
    launch("langevin_sense_cg", kernel, dim3(static_cast<unsigned>(blocks)), block, static_cast<size_t>(bytes), stream,
           arguments...);
  };
  const auto go_to = [&](int64_t first, int64_t tiles, int64_t room, int64_t slots) {
    at.first = static_cast<uint32_t>(first), at.tiles = static_cast<uint32_t>(tiles), at.room = static_cast<uint32_t>(room);
    at.slots = static_cast<uint32_t>(slots);
  };
  const auto on_rows = [&](auto kernel, int64_t first, int64_t count, int64_t slots, auto more) {
    go_to(first, plan.tiles, plan.rows, slots);
    const int64_t threads = plan.rows * std::max(slots * plan.threads_of_row, (s.width + BATCH - 1) / BATCH);
    run(kernel, count * plan.tiles, std::min(threads, LINES), rows_bytes(s.width, plan.rows, slots), s, at, work, more);
  };
  const auto rows = [&](int64_t first, int64_t count, bool starts) {
    by_length(s.width, [&](auto n) { on_rows(langevin_sense_cg_rows<n.VALUE>, first, count, plan.slots, starts); });
  };
  const auto back = [&](int64_t first, int64_t count, Purpose purpose) {
    const int64_t slots = purpose == PRECONDITION ? 1 : plan.slots;
    by_length(s.width, [&](auto n) { on_rows(langevin_sense_cg_back<n.VALUE>, first, count, slots, purpose); });
  };
  const auto columns = [&](int64_t first, int64_t count, Purpose purpose) {
    const int64_t tiles = (s.width + plan.columns - 1) / plan.columns;
    const int64_t blocks = count * (purpose == PRECONDITION ? 1 : s.coils) * tiles;
    go_to(first, tiles, plan.columns, 1);
    by_length(s.height, [&](auto n) {
      constexpr int N = n.VALUE;
      const bool square = s.height == s.width, preconditions = purpose == PRECONDITION;
      const auto kernel = square ? preconditions ? langevin_sense_cg_columns<N, N, true> : langevin_sense_cg_columns<N, N, false>
                                 : preconditions ? langevin_sense_cg_columns<N, 0, true> : langevin_sense_cg_columns<N, 0, false>;
      run(kernel, blocks, plan.threads_of_columns, columns_bytes(s.height, plan.columns), s, at, work, purpose);
    });
  };
  const auto draw = [&](int64_t first, int64_t count) {
    go_to(first, pixels / (2 * DRAW_THREADS) + 1, 0, 0);  // one number more where the first of a plane is the second of its quad
    run(langevin_sense_cg_draw, count * (1 + s.coils) * at.tiles, DRAW_THREADS, 0, s, at, work,
        make_stream(s.seed, s.step, LANGEVIN));
  };
  const auto multiply = [&](Purpose purpose, int64_t first, int64_t last) {
    const int64_t at_once = systems_at_once(s);
    for (; first < last; first += at_once) {
      const int64_t count = std::min(at_once, last - first);
      if (purpose != NOISE) rows(first, count, purpose == START);
      else draw(first, count);
      columns(first, count, purpose);
      back(first, count, purpose);
    }
  };
  const auto advance = [&](bool starts) {
    by_length(s.width, [&](auto n) { on_rows(langevin_sense_cg_update<n.VALUE>, 0, systems, 1, starts); });
    columns(0, systems, PRECONDITION);
    back(0, systems, PRECONDITION);
  };
  const auto settle = [&](bool starts, bool looks) {
    constexpr int64_t WARPS = 4;
    run(langevin_sense_cg_settle, (systems + WARPS - 1) / WARPS, 32 * WARPS, 0, work, states, static_cast<uint32_t>(systems),
        static_cast<uint32_t>(plan.tiles), starts, looks, s.error);
    work.state = states;
  };
  if (iteration == 0) {
    if (!threads_of_line(s.width) || !threads_of_line(s.height)) run(langevin_sense_cg_tables, 2, MOST_THREADS, 0, at, work);
    multiply(START, 0, s.rows);
    multiply(NOISE, s.rows, systems);
    advance(true);
    settle(true, false);
  }
  const auto iterate = [&](int64_t count) {
    for (int64_t i = 1; i <= count; ++i) {
      if (i > 1) work.before = work.state, work.state = states + (work.state == states ? systems : 0);
      multiply(APPLY, 0, systems);
      work.before = nullptr;
      advance(false);
    }
    if (count > 0) settle(false, count == CG_WINDOW);
  };
  const int64_t left = end - iteration;
  if (left <= CG_WINDOW) return iterate(left);
  const cudaStream_t outside = stream;
  capture_while("langevin_sense_cg", outside, &loop->goes_on, [&](cudaStream_t inside) {
    stream = inside;
    iterate(CG_WINDOW);
    run(langevin_sense_cg_look, 1, 32, 0, states, static_cast<uint32_t>(systems), static_cast<double>(left / CG_WINDOW), loop);
  });
  stream = outside;
  iterate(left % CG_WINDOW);
}

void langevin_sense_cg_finish(const SenseCgStep& s, const double* doubles, cudaStream_t stream) {
  const int64_t numbers = 2 * s.height * s.width;
  launch("langevin_sense_cg", langevin_sense_cg_sum, dim3(blocks_for(s.rows * numbers, 4096, MOST_THREADS)), dim3(MOST_THREADS), 0,
         stream, s.mean, s.after, reinterpret_cast<const State*>(doubles), s.rows, numbers, s.noise != NO_NOISE);
}

}  // namespace alps::cuda
