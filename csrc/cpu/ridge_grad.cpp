// E and its gradient of the filters, potentials and transposed filters of a pyramid; contract in alps_fast/ops/ridge_grad.py.
//
// Both directions keep their sums in registers: FILTERS responses of VECTORS vectors of pixels, where a vector of x and a
// broadcast tap feed a fma each of the other; ROWS rows of the gradient, where a vector of responses meets a column of TAPS
// taps. Every sum has the same order whatever the tile, so tiles decide no bit of the gradient; the value is summed tile by
// tile in order.
#include "../common/log1p.h"
#include "ridge.h"

#include <utility>

namespace alps::ALPS_ISA {

#if defined(__AVX512F__)

struct PixelLanes : Lanes {
  ALPS_INLINE F at_most(F x, F most) { return (F)_mm512_min_ps((__m512)most, (__m512)x); }  // NaN stays NaN
  ALPS_INLINE F reciprocal(F x) {  // of x in [1, 2^120], to a rounding or so
    const __m512 guess = _mm512_rcp14_ps((__m512)x);
    return (F)_mm512_fmadd_ps(guess, _mm512_fnmadd_ps((__m512)x, guess, _mm512_set1_ps(1)), guess);
  }
};
constexpr int REGISTERS = 32;

#elif defined(__AVX2__) && defined(__FMA__)

struct PixelLanes : Lanes {
  ALPS_INLINE F at_most(F x, F most) { return (F)_mm256_min_ps((__m256)most, (__m256)x); }
  ALPS_INLINE F reciprocal(F x) {
    const __m256 guess = _mm256_rcp_ps((__m256)x);
    return (F)_mm256_fmadd_ps(guess, _mm256_fnmadd_ps((__m256)x, guess, _mm256_set1_ps(1)), guess);
  }
};
constexpr int REGISTERS = 16;

#else

struct PixelLanes {  // four lanes suit SSE and NEON
  static constexpr int width = 4;
  typedef float F __attribute__((vector_size(16)));
  typedef int32_t I __attribute__((vector_size(16)));
  typedef uint32_t U __attribute__((vector_size(16)));

  ALPS_INLINE F broadcast(float x) { return F{x, x, x, x}; }
  ALPS_INLINE F fma(F a, F b, F c) { return plus_product(a, b, c); }
  ALPS_INLINE F to_float(I x) { return __builtin_convertvector(x, F); }
  ALPS_INLINE U bits(F x) { return (U)x; }
  ALPS_INLINE F from_bits(U x) { return (F)x; }
  ALPS_INLINE F load(const float* in) {
    F x;
    std::memcpy(&x, in, sizeof x);
    return x;
  }
  ALPS_INLINE void save(F x, float* out) { std::memcpy(out, &x, sizeof x); }
  ALPS_INLINE F at_most(F x, F most) { return x > most ? most : x; }
  ALPS_INLINE F reciprocal(F x) { return 1.0f / x; }
};
constexpr int REGISTERS = 16;

#endif

using P = PixelLanes;
using V = P::F;

constexpr int64_t WIDTH = P::width;
constexpr int FILTERS = 6;                // of a block
constexpr int VECTORS = REGISTERS / 8;    // of a channel's pixels, over all channels
constexpr int ROWS = 8;                   // of the gradient at a time
constexpr int TAPS = 7;                   // of a filter's column at a time
constexpr int COLUMNS = REGISTERS / 16;   // vectors of those rows
constexpr int64_t TILE = 16384;           // pixels: FILTERS responses of them are 384 KB
constexpr int64_t LOWEST = 32, HIGHEST = 64;  // rows of a tile
constexpr int POTENTIAL = 8;              // floats of two potentials of a filter
static_assert(FILTERS * VECTORS + VECTORS + 1 < REGISTERS, "the responses, the pixels and a tap fit the registers");
static_assert(ROWS * COLUMNS + TAPS + COLUMNS <= REGISTERS, "the gradient, the taps and the responses fit the registers");
static_assert(LOWEST % ROWS == 0 && HIGHEST % ROWS == 0, "tiles end where blocks of rows do");

ALPS_INLINE int64_t up_to(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static Floats zeros(int64_t size) {
  Floats memory(size);
  std::memset(memory.data, 0, sizeof(float) * static_cast<size_t>(size));
  return memory;
}

struct Sums {  // of a vector's lanes, in double
  double lanes[WIDTH] = {};

  ALPS_INLINE void add(Sums& sums, V x) {
    float floats[WIDTH];
    P::save(x, floats);
    for (int64_t i = 0; i < WIDTH; ++i) sums.lanes[i] += static_cast<double>(floats[i]);
  }
  double total() const {
    double sum = 0;
    for (double lane : lanes) sum += lane;
    return sum;
  }
};

struct Block {  // of filters, on a tile
  const float *x, *taps, *potentials;   // x and out: where the image's first pixel is, or would be
  float* out;
  int64_t stride, plane, filter;        // floats of a row, a channel of x, a channel and filter of out
  int64_t side, radius, width, vectors, pairs;
};

// Responses of FILTERS filters at VECTORS vectors of pixels. Alone in a function, so that nothing else wants the registers.
static __attribute__((noinline)) void convolve(const Block& s, const float* const (&x)[VECTORS], float* const (&out)[VECTORS],
                                               int64_t filter) {
  const float* pixel[VECTORS];
  V z[FILTERS][VECTORS];
  ALPS_UNROLL
  for (int v = 0; v < VECTORS; ++v) {
    pixel[v] = x[v];
    ALPS_UNROLL
    for (int f = 0; f < FILTERS; ++f) z[f][v] = V{};
  }
  const float* taps = s.taps;
  const int64_t side = s.side, stride = s.stride;
  for (int64_t dy = 0; dy < side; ++dy) {
    for (int64_t dx = 0; dx < side; ++dx, taps += FILTERS) {
      V pixels[VECTORS];
      ALPS_UNROLL
      for (int v = 0; v < VECTORS; ++v) pixels[v] = P::load(pixel[v] + dx);
      ALPS_UNROLL
      for (int f = 0; f < FILTERS; ++f) {
        const V tap = P::broadcast(taps[f]);
        ALPS_UNROLL
        for (int v = 0; v < VECTORS; ++v) z[f][v] = P::fma(tap, pixels[v], z[f][v]);
      }
    }
    ALPS_UNROLL
    for (int v = 0; v < VECTORS; ++v) pixel[v] += stride;
  }
  ALPS_UNROLL
  for (int f = 0; f < FILTERS; ++f) {
    ALPS_UNROLL
    for (int v = 0; v < VECTORS; ++v) P::save(z[f][v], out[v] + f * filter);
  }
}

// z = z sum_j w_j / (1 + |z|^2 r_j) for the C channels of COUNT vectors of pixels, one filter; its energies are added.
template <int C, int COUNT, bool VALUE>
ALPS_INLINE void slope(float* const (&out)[COUNT * C], const P::U (&masks)[COUNT], const float* potential, int64_t pairs,
                       V& energy) {
  V z[COUNT][C], square[COUNT], slope[COUNT];
  ALPS_UNROLL
  for (int p = 0; p < COUNT; ++p) {
    ALPS_UNROLL
    for (int c = 0; c < C; ++c) z[p][c] = P::from_bits(P::bits(P::load(out[p * C + c])) & masks[p]);
    square[p] = z[p][0] * z[p][0];
    if constexpr (C == 2) square[p] = P::fma(z[p][1], z[p][1], square[p]);
    slope[p] = V{};
  }
  for (int64_t pair = 0; pair < pairs; ++pair, potential += POTENTIAL) {
    // w0/(1 + u r0) + w1/(1 + u r1) over one denominator, which no u may overflow
    ALPS_UNROLL
    for (int p = 0; p < COUNT; ++p) {
      const V below = P::fma(square[p], P::fma(square[p], P::broadcast(potential[3]), P::broadcast(potential[2])),
                             P::broadcast(1));
      const V above = P::fma(square[p], P::broadcast(potential[1]), P::broadcast(potential[0]));
      slope[p] = P::fma(above, P::reciprocal(P::at_most(below, P::broadcast(0x1p120f))), slope[p]);
    }
    if constexpr (VALUE) {
      ALPS_UNROLL
      for (int j = 0; j < 2; ++j) {  // one logarithm for two vectors, (1 + t)(1 + u) = 1 + (t + u + t u)
        const V r = P::broadcast(potential[4 + j]), weight = P::broadcast(potential[6 + j]);
        ALPS_UNROLL
        for (int p = 0; p < COUNT; p += 2) {
          V t = square[p] * r;
          if (p + 1 < COUNT) {
            const V u = square[(p + 1) % COUNT] * r;
            t = P::fma(t, u, t + u);
          }
          energy = P::fma(weight, log1p<P>(t), energy);
        }
      }
    }
  }
  ALPS_UNROLL
  for (int p = 0; p < COUNT; ++p) {
    ALPS_UNROLL
    for (int c = 0; c < C; ++c) P::save(z[p][c] * slope[p], out[p * C + c]);
  }
}

// Responses times slopes in rows [from, to); adds their energies to sums.
template <int C, bool VALUE>
static void respond(const Block& s, int64_t from, int64_t to, Sums& sums) {
  constexpr int PIXELS = VECTORS / C;
  P::U whole = {}, last = {};
  whole = ~whole;
  for (int64_t i = 0; (s.vectors - 1) * WIDTH + i < s.width; ++i) last[i] = ~0u;
  int64_t row = from, column = 0;
  while (row < to) {
    const float* x[VECTORS];
    float* out[VECTORS];
    P::U masks[PIXELS];
    for (int p = 0; p < PIXELS; ++p) {
      const bool spare = row >= to;  // takes the first vector again and writes zeros where zeros are, left of its row
      const int64_t at = spare ? from * s.stride : row * s.stride + column * WIDTH;
      masks[p] = spare ? P::U{} : column == s.vectors - 1 ? last : whole;
      for (int c = 0; c < C; ++c) {
        x[p * C + c] = s.x + at - s.radius * (s.stride + 1) + c * s.plane;
        out[p * C + c] = s.out + (spare ? at - WIDTH : at) + c * s.filter;
      }
      if (++column == s.vectors) column = 0, ++row;
    }
    convolve(s, x, out, C * s.filter);
    V energy = {};
    for (int f = 0; f < FILTERS; ++f) {
      slope<C, PIXELS, VALUE>(out, masks, s.potentials + f * s.pairs * POTENTIAL, s.pairs, energy);
      for (int v = 0; v < VECTORS; ++v) out[v] += C * s.filter;
    }
    if constexpr (VALUE) Sums::add(sums, energy);
  }
}

// Adds the transposed filters of ROWS rows of COUNT vectors of responses to a gradient.
template <int COUNT>
static __attribute__((noinline)) void gather(const float* responses, const float* taps, int64_t stride, int64_t filter,
                                             int64_t side, int64_t chunks, float* grad, int64_t grad_stride) {
  V sum[ROWS][COUNT];
  ALPS_UNROLL
  for (int y = 0; y < ROWS; ++y) {
    ALPS_UNROLL
    for (int p = 0; p < COUNT; ++p) sum[y][p] = V{};
  }
  for (int f = 0; f < FILTERS; ++f, responses += filter)
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int64_t dx = 0; dx < side; ++dx, taps += TAPS) {
        V tap[TAPS];
        ALPS_UNROLL
        for (int e = 0; e < TAPS; ++e) tap[e] = P::broadcast(taps[e]);
        const float* at = responses + chunk * TAPS * stride + dx;
        ALPS_UNROLL
        for (int v = 0; v < ROWS + TAPS - 1; ++v, at += stride) {
          __asm__("" : "+r"(at));  // or GCC keeps the address of every row, and on the stack
          ALPS_UNROLL
          for (int p = 0; p < COUNT; ++p) {
            const V z = P::load(at + p * WIDTH);
            ALPS_UNROLL
            for (int e = 0; e < TAPS; ++e)
              if (v - e >= 0 && v - e < ROWS) sum[v - e][p] = P::fma(tap[e], z, sum[v - e][p]);
          }
        }
      }
  ALPS_UNROLL
  for (int y = 0; y < ROWS; ++y) {
    ALPS_UNROLL
    for (int p = 0; p < COUNT; ++p) {
      float* out = grad + y * grad_stride + p * WIDTH;
      P::save(P::load(out) + sum[y][p], out);
    }
  }
}

RidgeGradient::RidgeGradient(const RidgeEnergy& ridge, const RidgeImages& images)
    : ridge_(ridge), images_(images.images), channels_(images.channels), blocks_((ridge.count + FILTERS - 1) / FILTERS),
      pairs_((ridge.potentials + 1) / 2) {
  int64_t height = images.height, width = images.width;
  size_ = up_to(ridge.scales * blocks_ * FILTERS * pairs_ * POTENTIAL, 16);
  for (int64_t s = 0; s < ridge.levels; ++s, height = (height + 1) / 2, width = (width + 1) / 2) {
    Level level = {};
    level.height = height, level.width = width;
    level.side = s < ridge.scales ? ridge.side : 0;
    level.radius = level.side / 2;
    level.vectors = (width + WIDTH - 1) / WIDTH;
    level.margin = up_to(level.radius > 2 ? level.radius : 2, WIDTH);  // two for `down`
    level.stride = level.vectors * WIDTH + 2 * level.margin;
    level.above = level.radius > 2 ? level.radius : 2;
    level.plane = (height + 2 * level.above) * level.stride;
    const int64_t rows = up_to(height, ROWS), wanted = TILE / width / ROWS * ROWS;
    level.tile = wanted < LOWEST ? LOWEST : wanted > HIGHEST ? HIGHEST : wanted;
    if (level.tile > rows) level.tile = rows;
    level.tiles = (height + level.tile - 1) / level.tile;
    level.grad_plane = up_to(rows, level.tile) * level.vectors * WIDTH;
    level.x = size_ + level.above * level.stride + level.margin;
    level.grad = size_ + up_to(channels_ * level.plane, 16);
    level.values = level.grad + up_to(channels_ * level.grad_plane, 16);
    size_ = level.values + up_to(2 * level.tiles, 16);

    const int64_t side = level.side, chunks = (side + TAPS - 1) / TAPS;
    level.taps.resize(static_cast<size_t>(blocks_ * side * side * FILTERS));
    level.transposed.resize(static_cast<size_t>(blocks_ * FILTERS * chunks * side * TAPS));
    for (int64_t k = 0; side && k < ridge.count; ++k)
      for (int64_t dy = 0; dy < side; ++dy)
        for (int64_t dx = 0; dx < side; ++dx) {
          const float tap = ridge.filters[((s * ridge.count + k) * side + dy) * side + dx];
          const int64_t mirrored = side - 1 - dy, chunk = mirrored / TAPS;
          level.taps[static_cast<size_t>(((k / FILTERS * side + dy) * side + dx) * FILTERS + k % FILTERS)] = tap;
          level.transposed[static_cast<size_t>(((k * chunks + chunk) * side + side - 1 - dx) * TAPS + mirrored % TAPS)] = tap;
        }
    if (side) {
      const int64_t needed = channels_ * FILTERS * (level.tile + chunks * TAPS - 1) * level.stride + 2 * level.margin;
      if (needed > response_size_) response_size_ = needed;
    }
    if (s == 0) scratch_ = up_to(width + 8, 16);
    levels_.push_back(std::move(level));
  }
  size_ += scratch_;
}

Floats RidgeGradient::workspace(int64_t more) const { return zeros(size_ + more); }
Floats RidgeGradient::responses() const { return zeros(response_size_); }

// For every filter and two potentials at a time: what `respond` reads of them. A last, missing potential weighs nothing.
void RidgeGradient::fill_potentials(int64_t image, float* out) const {
  const auto at = [&](const float* table, bool each, int64_t s, int64_t j, int64_t k) {
    const int64_t images = each ? images_ : 1;
    return table[((s * ridge_.potentials + j) * images + (each ? image : 0)) * ridge_.count + k];
  };
  for (int64_t s = 0; s < ridge_.scales; ++s)
    for (int64_t k = 0; k < blocks_ * FILTERS; ++k)
      for (int64_t j = 0; j < 2 * pairs_; j += 2, out += POTENTIAL) {
        float w[2] = {}, r[2] = {}, weight[2] = {};
        for (int i = 0; i < 2 && j + i < ridge_.potentials && k < ridge_.count; ++i) {
          w[i] = at(ridge_.weights, ridge_.weights_of_each_image, s, j + i, k);
          r[i] = at(ridge_.r, ridge_.r_of_each_image, s, j + i, k);
          weight[i] = 0.5f * w[i] / r[i];
        }
        const float values[POTENTIAL] = {w[0] + w[1], w[0] * r[1] + w[1] * r[0], r[0] + r[1], r[0] * r[1],
                                         r[0], r[1], weight[0], weight[1]};
        std::memcpy(out, values, sizeof values);
      }
}

void RidgeGradient::build_pyramid(const float* x, Strides strides, float* workspace) const {
  float* scratch = workspace + size_ - scratch_ + 1;
  const float mu = *ridge_.mu;
  for (size_t s = 0; s < levels_.size(); ++s)
    for (int64_t c = 0; c < channels_; ++c) {
      const Level& to = levels_[s];
      float* out = workspace + to.x + c * to.plane;
      if (s == 0) {
        for (int64_t y = 0; y < to.height; ++y)
          for (int64_t i = 0; i < to.width; ++i)
            out[y * to.stride + i] = x[c * strides.channel + (y * to.width + i) * strides.pixel] - mu;
        continue;
      }
      const Level& from = levels_[s - 1];
      for (int64_t y = 0; y < to.height; ++y) {
        const float* rows = workspace + from.x + c * from.plane + (2 * y - 1) * from.stride;
        const float *a = rows, *b = a + from.stride, *d = b + from.stride, *e = d + from.stride;
        for (int64_t i = -1; i < 2 * to.width + 1; ++i) scratch[i] = (a[i] + e[i]) + 3.0f * (b[i] + d[i]);
        for (int64_t i = 0; i < to.width; ++i)
          out[y * to.stride + i] =
              ((scratch[2 * i - 1] + scratch[2 * i + 2]) + 3.0f * (scratch[2 * i] + scratch[2 * i + 1])) * 0.03125f;
      }
    }
}

// q x and the filters' part of a level's gradient, rows [first, first + tile); returns their energy if wanted.
double RidgeGradient::piece(const Level& level, int64_t scale, int64_t first, float q, bool want_value, float* workspace,
                            float* responses) const {
  const int64_t last = first + level.tile < level.height ? first + level.tile : level.height;
  const int64_t grad_stride = level.vectors * WIDTH;
  Sums sums;
  for (int64_t c = 0; c < channels_; ++c) {
    const float* x = workspace + level.x + c * level.plane;
    float* grad = workspace + level.grad + c * level.grad_plane;
    for (int64_t y = first; y < last; ++y)
      for (int64_t i = 0; i < grad_stride; i += WIDTH) {
        const V pixels = P::load(x + y * level.stride + i), scaled = pixels * q;
        P::save(scaled, grad + y * grad_stride + i);
        if (want_value) Sums::add(sums, scaled * pixels * 0.5f);
      }
  }
  if (!level.side) return sums.total();

  const int64_t side = level.side, radius = level.radius, chunks = (side + TAPS - 1) / TAPS;
  const int64_t above = first < radius ? 0 : first - radius;
  const int64_t below = last + radius < level.height ? last + radius : level.height;
  const int64_t filter = (level.tile + chunks * TAPS - 1) * level.stride;
  std::memset(responses, 0, sizeof(float) * static_cast<size_t>(channels_ * FILTERS * filter + 2 * level.margin));
  for (int64_t b = 0; b < blocks_; ++b) {
    Block block = {workspace + level.x, level.taps.data() + b * side * side * FILTERS,
                   workspace + (scale * blocks_ + b) * FILTERS * pairs_ * POTENTIAL,
                   responses + level.margin + (radius - first) * level.stride, level.stride, level.plane, filter, side, radius,
                   level.width, level.vectors, pairs_};
    const auto run = [&](auto counted, auto silent) {
      silent(block, above, first, sums);
      want_value ? counted(block, first, last, sums) : silent(block, first, last, sums);
      silent(block, last, below, sums);
    };
    if (channels_ == 1) run(respond<1, true>, respond<1, false>);
    else run(respond<2, true>, respond<2, false>);
    const float* taps = level.transposed.data() + b * FILTERS * chunks * side * TAPS;
    for (int64_t c = 0; c < channels_; ++c)
      for (int64_t y = first; y < last; y += ROWS) {
        const float* from = responses + level.margin - radius + c * filter + (y - first) * level.stride;
        float* grad = workspace + level.grad + c * level.grad_plane + y * grad_stride;
        int64_t i = 0;
        for (; i + COLUMNS <= level.vectors; i += COLUMNS)
          gather<COLUMNS>(from + i * WIDTH, taps, level.stride, channels_ * filter, side, chunks, grad + i * WIDTH, grad_stride);
        for (; i < level.vectors; ++i)
          gather<1>(from + i * WIDTH, taps, level.stride, channels_ * filter, side, chunks, grad + i * WIDTH, grad_stride);
      }
  }
  return sums.total();
}

// Adds the transpose of `down` of every level's gradient to the next finer one; writes the finest.
void RidgeGradient::collect(float* workspace, float* grad, Strides strides) const {
  float* scratch = workspace + size_ - scratch_ + 1;
  for (size_t s = levels_.size(); s-- > 0;)
    for (int64_t c = 0; c < channels_; ++c) {
      const Level& to = levels_[s];
      const int64_t stride = to.vectors * WIDTH;
      float* sum = workspace + to.grad + c * to.grad_plane;
      if (s + 1 < levels_.size()) {
        const Level& from = levels_[s + 1];
        const int64_t coarse = from.vectors * WIDTH, width = from.width;
        const float* up = workspace + from.grad + c * from.grad_plane;
        scratch[-1] = scratch[width] = 0;
        for (int64_t y = 0; y < to.height; ++y) {
          const float* near = up + y / 2 * coarse;
          const int64_t other = y / 2 + (y % 2 ? 1 : -1);
          if (other < 0 || other >= from.height) {
            for (int64_t i = 0; i < width; ++i) scratch[i] = 3.0f * near[i];
          } else {
            const float* far = up + other * coarse;
            for (int64_t i = 0; i < width; ++i) scratch[i] = 3.0f * near[i] + far[i];
          }
          float* out = sum + y * stride;
          for (int64_t i = 0; i < to.width / 2; ++i) {
            out[2 * i] += (3.0f * scratch[i] + scratch[i - 1]) * 0.03125f;
            out[2 * i + 1] += (3.0f * scratch[i] + scratch[i + 1]) * 0.03125f;
          }
          if (to.width % 2) out[to.width - 1] += (3.0f * scratch[width - 1] + scratch[width - 2]) * 0.03125f;
        }
      }
      if (s == 0)
        for (int64_t y = 0; y < to.height; ++y)
          for (int64_t i = 0; i < to.width; ++i)
            grad[c * strides.channel + (y * to.width + i) * strides.pixel] = sum[y * stride + i];
    }
}

void RidgeGradient::operator()(int64_t image, const float* x, float* grad, Strides strides, float* value, float* workspace,
                               const Floats* responses, int threads) const {
  fill_potentials(image, workspace);
  build_pyramid(x, strides, workspace);
  int64_t pieces = 0;
  for (const Level& level : levels_) pieces += level.tiles;
  const auto work = [&](int64_t index, int thread) {
    size_t s = 0;
    for (; index >= levels_[s].tiles; ++s) index -= levels_[s].tiles;
    const Level& level = levels_[s];
    const int64_t scale = static_cast<int64_t>(s);
    const float q = ridge_.q_of_each_image ? ridge_.q[scale * images_ + image] : ridge_.q[scale];
    const double energy = piece(level, scale, index * level.tile, q, value != nullptr, workspace, responses[thread].data);
    std::memcpy(workspace + level.values + 2 * index, &energy, sizeof energy);
  };
  if (threads == 1) {
    for (int64_t index = 0; index < pieces; ++index) work(index, 0);
  } else {
#pragma omp parallel for num_threads(team(threads, pieces)) schedule(dynamic)
    for (int64_t index = 0; index < pieces; ++index) work(index, omp_get_thread_num());
  }
  collect(workspace, grad, strides);
  if (value) {
    double sum = 0;
    for (const Level& level : levels_)
      for (int64_t tile = 0; tile < level.tiles; ++tile) {
        double energy;
        std::memcpy(&energy, workspace + level.values + 2 * tile, sizeof energy);
        sum += energy;
      }
    *value = static_cast<float>(sum);
  }
}

void ridge_grad(const RidgeGrad& s, int threads) {
  const RidgeGradient gradient(s.energy, s.images);
  const int64_t pixels = int64_t(s.images.height) * s.images.width, n = s.images.channels * pixels;
  each_alone(gradient, s.images.images, 0, threads, [&](int64_t image, float* workspace, const Floats* responses, int team) {
    gradient(image, s.x + image * n, s.grad + image * n, {pixels, 1}, s.value ? s.value + image : nullptr, workspace, responses,
             team);
  });
}

int64_t ridge_grad_bytes(const RidgeGrad& s, int threads) {
  const RidgeGradient gradient(s.energy, s.images);
  const int64_t images = s.images.images < threads ? 1 : threads;  // at work at a time
  return static_cast<int64_t>(sizeof(float)) * (threads * gradient.response_size() + images * gradient.size());
}

}  // namespace alps::ALPS_ISA
