// m = P(lam)(b + lin x - w grad),  x+ = m + P(noise_lam)(sqrt(inv_eta2) A^H e1 + sqrt(noise_lam) e2), by conjugate gradients;
// contract in alps_fast/ops/langevin_sense_cg.py, the iteration and its stopping rule in alps_fast/ops/_cg.py.
//
// A system is the mean or the noise of a chain; its solution grows in m or in x+. An iteration is seven launches:
//   rows     p = z + beta p; for every coil its map times p, transformed along W, into the workspace
//   columns  transform along H, mask, transform back
//   back     transform along W, conjugate of the map, sum over coils, q = A^H A p inv_eta2 + shift p; p q
//   update   x += alpha p, r -= alpha q; r transformed along W
//   columns  transform along H, preconditioner, transform back
//   back     transform along W: z; r z
//   settle   the scalars of every system
// A block takes rows or columns that fit into its shared memory. Dot products are summed in double: in a block in a fixed order,
// and over the blocks of an image by each block that needs them. Systems go through the workspace a few at a time, so that it
// stays in L2. Those that have stopped cost a look at their state; whether all have, the caller sees after every window, or in a
// graph one more launch, look.
#include <algorithm>
#include <cmath>

#include "fft.cuh"
#include "kernels.h"
#include "loop.h"
#include "noise.h"
#include "vectors.h"

namespace alps::cuda {
namespace {

constexpr int MOST_THREADS = 448, BLOCKS = 2;  // of a multiprocessor, in 72 registers
constexpr int64_t CELLS = 8;  // complex numbers a thread
constexpr int64_t TILE[] = {16, 8, 4, 2, 1};  // rows or columns of a block
constexpr int64_t AT_ONCE = 1 << 22;  // complex numbers of k-space in the workspace: 32 MB
constexpr int64_t MOST_BLOCKS = 0x7fffffff;
constexpr int WARPS = MOST_THREADS / 32;

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
  State* state;
};

struct Layout {
  Transform along_w, along_h;
  Stream random;
  uint32_t first, tiles, room;  // the first system of the launch; tiles of an image, and rows or columns of a tile
  float scale, signal, prior, every;
  bool whole_pixels;
};

struct Tile {  // rows first ... first + count of the image of a system
  uint32_t system, tile, first, count, width;
  int64_t chain, image;  // of the system; the first pixel of its images
  bool of_noise;
  float shift;
};

__device__ __forceinline__ Tile tile_of(const SenseCgStep& s, const Layout& at) {
  const uint32_t system = at.first + blockIdx.x / at.tiles, tile = blockIdx.x % at.tiles, first = tile * at.room;
  const uint32_t left = static_cast<uint32_t>(s.height) - first;
  const bool of_noise = system >= s.rows;
  return {system, tile, first, left < at.room ? left : at.room, static_cast<uint32_t>(s.width),
          of_noise ? system - s.rows : system, system * s.height * s.width, of_noise, of_noise ? s.noise_lam : s.lam};
}

struct Shared {  // rows with gaps as fft.cuh wants them, the same rows one after the other, the transform's tables, and sums
  __device__ Shared(const Layout& at, uint32_t width)
      : pitch(pitch_of(width)), cells(reinterpret_cast<float2*>(shared_floats())), own(cells + at.room * pitch),
        tables(own + at.room * width, width), sums(reinterpret_cast<double*>(tables.roots + table_bytes(width) / 8)) {}
  uint32_t pitch;
  float2 *cells, *own;
  Tables tables;
  double* sums;
};

int64_t rows_bytes(int64_t width, int64_t rows) {
  return 8 * rows * (pitch_of(static_cast<uint32_t>(width)) + width) + table_bytes(width) + 8 * WARPS;
}

int64_t columns_bytes(int64_t height, int64_t columns) { return 8 * height * columns + table_bytes(height); }

// f(i, h, w): every number of the tile.
template <class Function>
__device__ __forceinline__ void for_cells(const Tile& tile, const Function& f) {
  const Divisor by_width(tile.width);
  for (uint32_t i = threadIdx.x; i < tile.count * tile.width; i += blockDim.x) {
    const uint32_t h = by_width(i);
    f(i, h, i - h * tile.width);
  }
}

__device__ __forceinline__ const float2* map_of(const SenseCgStep& s, const Tile& tile, int64_t coil) {
  return reinterpret_cast<const float2*>(s.maps) + (coil * s.height + tile.first) * s.width;
}

__device__ __forceinline__ float2 right_hand_side(const SenseCgStep& s, const Layout& at, const Tile& tile, int64_t pixel,
                                                  float2 x) {
  const int64_t image = 2 * s.height * s.width;
  const float2 grad = pixel_at(at.whole_pixels, s.grad + tile.chain * image, pixel);
  const float2 b = pixel_at(at.whole_pixels, s.b + tile.chain / (s.rows / s.measurements) * image, pixel);
  return make_float2(__fmaf_rn(-s.w, grad.x, __fmaf_rn(s.lin, x.x, b.x)), __fmaf_rn(-s.w, grad.y, __fmaf_rn(s.lin, x.y, b.y)));
}

// Pixel or sample `first` of the noise of a chain, and the next where it is of the same quad.
__device__ __forceinline__ void two_of_noise(const SenseCgStep& s, const Layout& at, int64_t chain, int64_t first,
                                             float2 (&two)[2]) {
  float xi[4];
  const uint32_t quad = static_cast<uint32_t>(first / 2);
  if (s.noise == GIVEN) {
    const int64_t numbers = (1 + s.coils) * s.height * s.width;
    for (int i = 0; i < 2; ++i)
      if (first + i < numbers) two[i] = pixel_at(at.whole_pixels, s.xi + chain * 2 * numbers, first + i);
    return;
  }
  if (s.noise == AVERAGED) step_noise<AVERAGED>(at.random, s.chains[chain], quad, xi);
  else step_noise<INDEPENDENT>(at.random, s.chains[chain], quad, xi);
  two[0] = first % 2 ? make_float2(xi[2], xi[3]) : make_float2(xi[0], xi[1]);
  two[1] = make_float2(xi[2], xi[3]);
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

__device__ __forceinline__ double sum_of_tiles(const double* sums, uint32_t tiles, uint32_t system) {
  double total = 0;
  for (uint32_t tile = 0; tile < tiles; ++tile) total += sums[system * tiles + tile];
  return total;
}

__device__ __forceinline__ bool moves(const State& state, double curvature) {
  return state.active != 0 && state.rz > 0 && curvature > 0;
}

// Rows in `cells`, transformed along W, to a plane of k-space in natural order, and back.
__device__ __forceinline__ void put_rows(const Shared& shared, const Tile& tile, float2* plane) {
  for_cells(tile, [&](uint32_t, uint32_t h, uint32_t w) {
    plane[(tile.first + h) * tile.width + w] = shared.cells[h * shared.pitch + padded(shared.tables.place[w])];
  });
}

__device__ __forceinline__ void get_rows(const Shared& shared, const Tile& tile, const float2* plane) {
  for_cells(tile, [&](uint32_t, uint32_t h, uint32_t w) {
    shared.cells[h * shared.pitch + padded(shared.tables.place[w])] = plane[(tile.first + h) * tile.width + w];
  });
}

__global__ void __launch_bounds__(MOST_THREADS, BLOCKS)
    langevin_sense_cg_rows(SenseCgStep s, Layout at, Work work, bool starts) {
  const Tile tile = tile_of(s, at);
  if (!starts && work.state[tile.system].active == 0) return;
  const Shared shared(at, tile.width);
  const float beta = starts ? 0 : static_cast<float>(work.state[tile.system].beta);
  const int64_t pixels = s.height * s.width;
  fill(shared.tables, at.along_w);
  for_cells(tile, [&](uint32_t i, uint32_t, uint32_t) {
    const int64_t pixel = int64_t(tile.first) * tile.width + i;
    float2 p;
    if (starts) {
      p = pixel_at(at.whole_pixels, s.x + 2 * tile.chain * pixels, pixel);
    } else {
      p = work.q[tile.image + pixel];
      if (beta != 0) {
        const float2 last = work.p[tile.image + pixel];
        p = make_float2(__fmaf_rn(beta, last.x, p.x), __fmaf_rn(beta, last.y, p.y));
      }
    }
    work.p[tile.image + pixel] = shared.own[i] = p;
  });
#pragma unroll 1
  for (int64_t coil = 0; coil < s.coils; ++coil) {
    const float2* map = map_of(s, tile, coil);
    for_cells(tile, [&](uint32_t i, uint32_t h, uint32_t w) {
      shared.cells[h * shared.pitch + padded(w)] = times(map[i], shared.own[i]);
    });
    __syncthreads();
    transform<false>(at.along_w, shared.tables.roots, rows_of(at.room, shared.pitch), shared.cells);
    put_rows(shared, tile, work.k + ((tile.system - at.first) * s.coils + coil) * pixels);
    __syncthreads();
  }
}

__global__ void __launch_bounds__(MOST_THREADS, BLOCKS)
    langevin_sense_cg_columns(SenseCgStep s, Layout at, Work work, Purpose purpose) {
  const uint32_t height = s.height, width = s.width, plane = blockIdx.x / at.tiles, first = blockIdx.x % at.tiles * at.room;
  const uint32_t planes = purpose == PRECONDITION ? 1 : static_cast<uint32_t>(s.coils);
  const uint32_t system = at.first + plane / planes, coil = plane % planes;
  const uint32_t count = width - first < at.room ? width - first : at.room;
  if ((purpose == APPLY || purpose == PRECONDITION) && work.state[system].active == 0) return;
  const bool of_noise = system >= s.rows;
  float2* const cells = reinterpret_cast<float2*>(shared_floats());
  float2* const images = purpose == PRECONDITION ? work.q + at.first * s.height * s.width : work.k;
  float2* const image = images + plane * s.height * s.width + first;
  const Tables tables(cells + height * at.room, height);
  const Divisor by_count(count);
  const Sequences columns = columns_of(at.room, at.room);
  fill(tables, at.along_h);
  if (purpose == NOISE) {
    const Divisor by_pairs(count / 2 + 1);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < height * by_pairs.by; i += blockDim.x) {
      const uint32_t kh = by_pairs(i);
      const int64_t row = ((1 + coil) * s.height + kh) * s.width + first;
      const int pair = static_cast<int>(2 * (i - kh * by_pairs.by)) - static_cast<int>(row % 2);
      const int begin = pair < 0 ? 0 : pair, end = pair + 2 < static_cast<int>(count) ? pair + 2 : static_cast<int>(count);
      float2 two[2];
      if (begin < end) two_of_noise(s, at, system - s.rows, row + begin, two);
      for (int j = begin; j < end; ++j) {
        const float factor = s.mask[kh * width + first + j] * at.signal;
        const float2 drawn = j == begin ? two[0] : two[1];
        cells[tables.place[kh] * at.room + j] = make_float2(drawn.x * factor, drawn.y * factor);
      }
    }
    __syncthreads();
  } else {
    for (uint32_t i = threadIdx.x; i < height * count; i += blockDim.x) {
      const uint32_t h = by_count(i), j = i - h * count;
      cells[h * at.room + j] = image[h * width + j];
    }
    __syncthreads();
    transform<false>(at.along_h, tables.roots, columns, cells);
    const float shift = of_noise ? s.noise_lam : s.lam;
    for (uint32_t i = threadIdx.x; i < height * count; i += blockDim.x) {
      const uint32_t kh = by_count(i), j = i - kh * count, k = kh * width + first + j;
      const float factor = purpose == PRECONDITION ? at.every / __fmaf_rn(s.spectrum[k], s.inv_eta2, shift) : s.mask[k];
      float2& z = cells[tables.place[kh] * at.room + j];
      z = make_float2(z.x * factor, z.y * factor);
    }
    __syncthreads();
  }
  transform<true>(at.along_h, tables.roots, columns, cells);
  for (uint32_t i = threadIdx.x; i < height * count; i += blockDim.x) {
    const uint32_t h = by_count(i), j = i - h * count;
    image[h * width + j] = cells[h * at.room + j];
  }
}

__global__ void __launch_bounds__(MOST_THREADS, BLOCKS)
    langevin_sense_cg_back(SenseCgStep s, Layout at, Work work, Purpose purpose) {
  const Tile tile = tile_of(s, at);
  if ((purpose == APPLY || purpose == PRECONDITION) && work.state[tile.system].active == 0) return;
  const Shared shared(at, tile.width);
  const int64_t pixels = s.height * s.width;
  const int64_t planes = purpose == PRECONDITION ? 1 : s.coils;
  const float2* plane = purpose == PRECONDITION ? work.q + tile.image : work.k + (tile.system - at.first) * s.coils * pixels;
  fill(shared.tables, at.along_w);
  __syncthreads();
#pragma unroll 1
  for (int64_t coil = 0; coil < planes; ++coil, plane += pixels) {
    get_rows(shared, tile, plane);
    __syncthreads();
    transform<true>(at.along_w, shared.tables.roots, rows_of(at.room, shared.pitch), shared.cells);
    const float2* map = map_of(s, tile, coil);
    for_cells(tile, [&](uint32_t i, uint32_t h, uint32_t w) {
      const float2 v = shared.cells[h * shared.pitch + padded(w)];
      float2& own = shared.own[i];
      if (purpose == PRECONDITION) {
        own = v;
      } else {
        const float2 product = conjugate_times(map[i], v);
        own = coil == 0 ? product : make_float2(own.x + product.x, own.y + product.y);
      }
    });
    __syncthreads();
  }
  double dot = 0;
  for_cells(tile, [&](uint32_t i, uint32_t, uint32_t) {
    const int64_t pixel = int64_t(tile.first) * tile.width + i;
    float2 v = shared.own[i], with;
    if (purpose == PRECONDITION) {
      with = work.r[tile.image + pixel];
      work.q[tile.image + pixel] = v;
    } else if (purpose == NOISE) {
      float2 two[2];
      two_of_noise(s, at, tile.chain, pixel, two);
      work.r[tile.image + pixel] = make_float2(__fmaf_rn(at.prior, two[0].x, v.x), __fmaf_rn(at.prior, two[0].y, v.y));
      with = make_float2(0, 0);
    } else {
      with = work.p[tile.image + pixel];
      v = make_float2(__fmaf_rn(tile.shift, with.x, v.x * at.scale), __fmaf_rn(tile.shift, with.y, v.y * at.scale));
      if (purpose == APPLY) {
        work.q[tile.image + pixel] = v;
      } else {
        const float2 right = right_hand_side(s, at, tile, pixel, with);
        const float2 r = work.r[tile.image + pixel] = make_float2(right.x - v.x, right.y - v.y);
        v = make_float2(right.x + r.x, right.y + r.y);
      }
    }
    dot += static_cast<double>(with.x) * static_cast<double>(v.x) + static_cast<double>(with.y) * static_cast<double>(v.y);
  });
  dot = sum(dot, shared.sums);
  if (threadIdx.x == 0) (purpose == PRECONDITION ? work.next : work.curvature)[tile.system * at.tiles + tile.tile] = dot;
}

__global__ void __launch_bounds__(MOST_THREADS, BLOCKS)
    langevin_sense_cg_update(SenseCgStep s, Layout at, Work work, bool starts) {
  const Tile tile = tile_of(s, at);
  if (!starts && work.state[tile.system].active == 0) return;
  const Shared shared(at, tile.width);
  const int64_t pixels = s.height * s.width;
  const double curvature = sum_of_tiles(work.curvature, at.tiles, tile.system);
  const bool from_zero = starts && (tile.of_noise || curvature < 0);  // half x M x - rhs x is above its value at zero
  float alpha = 0;
  if (!starts && moves(work.state[tile.system], curvature)) alpha = static_cast<float>(work.state[tile.system].rz / curvature);
  float* const solution = (tile.of_noise ? s.after : s.mean) + 2 * tile.chain * pixels;
  fill(shared.tables, at.along_w);
  for_cells(tile, [&](uint32_t, uint32_t h, uint32_t w) {
    const int64_t pixel = int64_t(tile.first + h) * tile.width + w;
    float2 r = work.r[tile.image + pixel], x;
    if (starts) {
      x = from_zero ? make_float2(0, 0) : work.p[tile.image + pixel];
      if (from_zero && !tile.of_noise)
        work.r[tile.image + pixel] = r = right_hand_side(s, at, tile, pixel, work.p[tile.image + pixel]);
    } else {
      const float2 p = work.p[tile.image + pixel], q = work.q[tile.image + pixel];
      x = pixel_at(at.whole_pixels, solution, pixel);
      if (alpha != 0) {
        x = make_float2(__fmaf_rn(alpha, p.x, x.x), __fmaf_rn(alpha, p.y, x.y));
        work.r[tile.image + pixel] = r = make_float2(__fmaf_rn(-alpha, q.x, r.x), __fmaf_rn(-alpha, q.y, r.y));
      }
    }
    put_pixel(at.whole_pixels, solution, pixel, x);
    shared.cells[h * shared.pitch + padded(w)] = r;
  });
  __syncthreads();
  transform<false>(at.along_w, shared.tables.roots, rows_of(at.room, shared.pitch), shared.cells);
  put_rows(shared, tile, work.q + tile.image);
}

// What an iteration leaves of each system.
__global__ void __launch_bounds__(MOST_THREADS, BLOCKS)
    langevin_sense_cg_settle(Work work, uint32_t systems, uint32_t tiles, bool starts, bool looks, double error) {
  const uint32_t system = blockIdx.x * blockDim.x + threadIdx.x;
  if (system >= systems) return;
  State state = work.state[system];
  const double next = sum_of_tiles(work.next, tiles, system), curvature = sum_of_tiles(work.curvature, tiles, system);
  if (starts) {
    state = {next, 0, 0, 0, next > 0 ? 1.0 : 0.0};
  } else if (state.active != 0) {
    const bool moved = moves(state, curvature);
    if (moved) state.fell += state.rz / curvature * state.rz;
    state.beta = moved ? next / state.rz : 0;
    if (moved) state.rz = next;
    if (looks) {
      state.total += state.fell;
      if (!(state.fell > state.total * CG_EPS * CG_EPS && state.fell > error * error)) state.active = 0;
      state.fell = 0;
    }
  }
  work.state[system] = state;
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
  return std::clamp<int64_t>(AT_ONCE / (s.coils * s.height * s.width), 1, std::max<int64_t>(systems_of(s), 1));
}

struct Plan {  // rows and columns of a block, none where not even one fits; tiles of rows
  int64_t rows, columns, tiles;
};

Plan plan_of(const SenseCgStep& s) {
  const int64_t shared = this_device("langevin_sense_cg").shared;
  Plan plan = {0, 0, 0};
  for (const int64_t tile : TILE) {
    if (!plan.rows && rows_bytes(s.width, tile) <= shared) plan.rows = tile, plan.tiles = (s.height + tile - 1) / tile;
    if (!plan.columns && columns_bytes(s.height, tile) <= shared) plan.columns = tile;
  }
  return plan;
}

}  // namespace

SenseCgMemory langevin_sense_cg_memory(const SenseCgStep& s) {
  const Plan plan = plan_of(s);
  if (!plan.rows || !plan.columns) return {-1, -1};
  return {2 * (3 * systems_of(s) + systems_at_once(s) * s.coils) * s.height * s.width, systems_of(s) * (5 + 2 * plan.tiles) + 2};
}

void langevin_sense_cg_iterate(const SenseCgStep& s, int64_t iteration, int64_t end, float* floats, double* doubles,
                               cudaStream_t stream) {
  const Plan plan = plan_of(s);
  const int64_t systems = systems_of(s), pixels = s.height * s.width, images = systems * pixels;
  float2* const cells = reinterpret_cast<float2*>(floats);
  const Work work = {cells, cells + images, cells + 2 * images, cells + 3 * images, doubles + 5 * systems,
                     doubles + (5 + plan.tiles) * systems, reinterpret_cast<State*>(doubles)};
  const float every = 1 / static_cast<float>(pixels);
  Layout at = {transform_of(s.width), transform_of(s.height), make_stream(s.seed, s.step, LANGEVIN), 0, 0, 0,
               s.inv_eta2 * every, std::sqrt(s.inv_eta2 * every), std::sqrt(s.noise_lam), every,
               on_bytes<8>(s.x, s.grad, s.b, s.xi, s.after, s.mean)};
  Loop* const loop = reinterpret_cast<Loop*>(work.next + plan.tiles * systems);
  const auto run = [&](auto kernel, int64_t blocks, int64_t numbers, int64_t bytes, auto... arguments) {
    if (blocks > MOST_BLOCKS) throw std::invalid_argument("langevin_sense_cg: more than 2^31 - 1 tiles");
    const int64_t threads = std::clamp<int64_t>((numbers / CELLS + 31) / 32 * 32, 32, MOST_THREADS);
    launch("langevin_sense_cg", kernel, dim3(static_cast<unsigned>(blocks)), dim3(static_cast<unsigned>(threads)),
           static_cast<size_t>(bytes), stream, arguments...);
  };
  const auto go_to = [&](int64_t first, int64_t tiles, int64_t room) {
    at.first = static_cast<uint32_t>(first), at.tiles = static_cast<uint32_t>(tiles), at.room = static_cast<uint32_t>(room);
  };
  const auto on_rows = [&](auto kernel, int64_t first, int64_t count, auto more) {
    go_to(first, plan.tiles, plan.rows);
    run(kernel, count * plan.tiles, plan.rows * s.width, rows_bytes(s.width, plan.rows), s, at, work, more);
  };
  const auto on_columns = [&](int64_t first, int64_t count, Purpose purpose) {
    const int64_t tiles = (s.width + plan.columns - 1) / plan.columns;
    go_to(first, tiles, plan.columns);
    run(langevin_sense_cg_columns, count * (purpose == PRECONDITION ? 1 : s.coils) * tiles, plan.columns * s.height,
        columns_bytes(s.height, plan.columns), s, at, work, purpose);
  };
  const auto multiply = [&](Purpose purpose, int64_t first, int64_t last) {
    const int64_t at_once = systems_at_once(s);
    for (; first < last; first += at_once) {
      const int64_t count = std::min(at_once, last - first);
      if (purpose != NOISE) on_rows(langevin_sense_cg_rows, first, count, purpose == START);
      on_columns(first, count, purpose);
      on_rows(langevin_sense_cg_back, first, count, purpose);
    }
  };
  const auto advance = [&](bool starts, bool looks) {
    on_rows(langevin_sense_cg_update, 0, systems, starts);
    on_columns(0, systems, PRECONDITION);
    on_rows(langevin_sense_cg_back, 0, systems, PRECONDITION);
    run(langevin_sense_cg_settle, (systems + MOST_THREADS - 1) / MOST_THREADS, CELLS * systems, 0, work,
        static_cast<uint32_t>(systems), static_cast<uint32_t>(plan.tiles), starts, looks, s.error);
  };
  if (iteration == 0) {
    multiply(START, 0, s.rows);
    multiply(NOISE, s.rows, systems);
    advance(true, false);
  }
  const auto iterate = [&](int64_t count) {
    for (int64_t i = 1; i <= count; ++i) {
      multiply(APPLY, 0, systems);
      advance(false, i == CG_WINDOW);
    }
  };
  const int64_t left = end - iteration;
  if (left <= CG_WINDOW) return iterate(left);
  const cudaStream_t outside = stream;
  capture_while("langevin_sense_cg", outside, &loop->goes_on, [&](cudaStream_t inside) {
    stream = inside;
    iterate(CG_WINDOW);
    run(langevin_sense_cg_look, 1, 0, 0, work.state, static_cast<uint32_t>(systems), static_cast<double>(left / CG_WINDOW), loop);
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
