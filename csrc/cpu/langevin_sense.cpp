// A line:  m = U g U^H r,  x+ = U (g U^H r + sqrt(g') xi),  r = b + lin x - w grad; contract in alps_fast/ops/langevin_sense.py.
//
// Lanes are chains: U stays as it is and is broadcast number by number, real and imaginary parts of the chains are vectors of
// their own, and a lane never meets another, so a chain is the same to the bit in any company. Philox's lanes are chains too,
// so the noise is born in that layout. Each sum runs over its line in order. A piece of work is CHAINS chains on a group of
// lines that share the cache lines of the image (8 where lines run along H); U of a line is read once for the first product
// and comes from L2 for the second, which takes m and x+ as columns of one matrix.
#include "memory.h"
#include "noise.h"
#include "wide.h"

namespace alps::ALPS_ISA {

using F = Wide::F;

constexpr int CHAINS = 16;  // chains of a piece
constexpr int CELL = 2 * CHAINS;  // floats of a pixel of all chains: real parts, imaginary parts
constexpr int RUN = 8;  // pixels that are moved between the image and the tile together: a cache line of a chain
static_assert(CHAINS % Wide::width == 0 && 2 * RUN == CHAINS, "chains are whole vectors, and a run is transposed in place");

// J outputs for V vectors of columns: out_o = sum_s U[o][s] in_s, or of its adjoint conj(U[s][o]). A row of `in` is COLUMNS real
// parts, then COLUMNS imaginary ones; columns of set k go to cells of out[k].
template <bool ADJOINT, int COLUMNS, int J, int V>
ALPS_INLINE void multiply_block(const float* u, int64_t n, const float* in, int column, int64_t row, float* const* out,
                                int64_t stride) {
  const int64_t of_output = ADJOINT ? 2 : 2 * n, of_term = ADJOINT ? 2 * n : 2;
  const int64_t ahead = row + 2 * J <= n ? 2 * J : 2 * (n * n - row);  // the next columns, or the first of the next line
  F re[J][V] = {}, im[J][V] = {};
  u += row * of_output;
  in += column;
  for (int64_t s = 0; s < n; ++s, u += of_term, in += 2 * COLUMNS) {
    if constexpr (ADJOINT) __builtin_prefetch(u + ahead, 0, 2);
    ALPS_UNROLL
    for (int j = 0; j < J; ++j) {
      const F a = Wide::broadcast(u[j * of_output]), b = Wide::broadcast(u[j * of_output + 1]);
      ALPS_UNROLL
      for (int v = 0; v < V; ++v) {
        const F x = Wide::load(in + v * Wide::width), y = Wide::load(in + COLUMNS + v * Wide::width);
        re[j][v] = Wide::fma(a, x, re[j][v]);
        im[j][v] = Wide::fma(a, y, im[j][v]);
        re[j][v] = ADJOINT ? Wide::fma(b, y, re[j][v]) : Wide::fnma(b, y, re[j][v]);
        im[j][v] = ADJOINT ? Wide::fnma(b, x, im[j][v]) : Wide::fma(b, x, im[j][v]);
      }
    }
  }
  ALPS_UNROLL
  for (int j = 0; j < J; ++j) {
    ALPS_UNROLL
    for (int v = 0; v < V; ++v) {
      const int at = column + v * Wide::width;
      float* cell = out[at / CHAINS] + (row + j) * stride + at % CHAINS;
      Wide::save(re[j][v], cell);
      Wide::save(im[j][v], cell + stride / 2);
    }
  }
}

template <bool ADJOINT, int COLUMNS, int J, int V>
ALPS_INLINE void multiply_rows(const float* u, int64_t n, const float* in, int64_t row, float* const* out, int64_t stride) {
  for (; row + J <= n; row += J)
    for (int column = 0; column < COLUMNS; column += V * Wide::width)
      multiply_block<ADJOINT, COLUMNS, J, V>(u, n, in, column, row, out, stride);
  if constexpr (J > 1) multiply_rows<ADJOINT, COLUMNS, J / 2, V>(u, n, in, row, out, stride);
}

// All n outputs; the sums are kept in registers, as many as leave room for the operands.
template <bool ADJOINT, int COLUMNS>
static void multiply(const float* u, int64_t n, const float* in, float* const* out, int64_t stride) {
  constexpr int V = Wide::width == 16 ? COLUMNS / 16 : 1, J = Wide::width == 16 ? 8 / V : 4;
  multiply_rows<ADJOINT, COLUMNS, J, V>(u, n, in, 0, out, stride);
}

struct Tile {
  int64_t first, lines;  // of the image
  int64_t row, rows;  // chains
  float *r, *xi;  // [lines][n] cells: r, then m in its place; xi, then x+
};

// f(pixel, count, cell, stride): every run of at most RUN pixels next to each other, and where its cells begin in the tile.
template <class Function>
ALPS_INLINE void for_runs(const SenseStep& s, const Tile& tile, const Function& f) {
  if (s.axis == 0) {
    for (int64_t h = 0; h < s.n; ++h) f(h * s.lines + tile.first, tile.lines, h, s.n);
  } else {
    for (int64_t line = 0; line < tile.lines; ++line)
      for (int64_t k = 0; k < s.n; k += RUN)
        f((tile.first + line) * s.n + k, s.n - k < RUN ? s.n - k : RUN, line * s.n + k, 1);
  }
}

// Where the cells of a run of pixels are: its number e (real, imaginary parts in turn) of all chains.
struct Cells {
  float* first;
  int64_t stride;
  float* operator()(int e) const { return first + e / 2 * stride * CELL + e % 2 * CHAINS; }
};

constexpr int AHEAD = 2;  // runs between asking for memory and using it

// cells <- a run of every chain that there is, formed by row(chain, out); zeros for those that there are not
template <class Row>
ALPS_INLINE void gather(const Tile& tile, int64_t count, const Cells& cells, const Row& row) {
  alignas(64) float rows[CHAINS][2 * RUN], unused[CHAINS];
  for (int64_t c = 0; c < CHAINS; ++c)
    if (c < tile.rows) row(c, rows[c]);
    else std::memset(rows[c], 0, sizeof rows[c]);
  transpose<CHAINS>([&](int c) { return rows[c]; }, [&](int e) { return e < 2 * count ? cells(e) : unused; });
}

// image <- cells
static void scatter(const SenseStep& s, const Tile& tile, int64_t pixel, int64_t count, const Cells& cells, float* image) {
  const int64_t numbers = 2 * s.lines * s.n;
  alignas(64) float rows[CHAINS][2 * RUN];
  image += tile.row * numbers + 2 * pixel;
  for (int64_t c = 0; c < tile.rows; ++c) __builtin_prefetch(image + c * numbers + 2 * AHEAD * (s.axis == 0 ? s.lines : RUN), 1);
  transpose<CHAINS>([&](int e) { return cells(e < 2 * count ? e : 0); }, [&](int c) { return rows[c]; });
  for (int64_t c = 0; c < tile.rows; ++c)
    if (count == RUN) std::memcpy(image + c * numbers, rows[c], sizeof rows[c]);
    else std::memcpy(image + c * numbers, rows[c], sizeof(float) * static_cast<size_t>(2 * count));
}

static void right_hand_side(const SenseStep& s, const Tile& tile) {
  const int64_t numbers = 2 * s.lines * s.n, each = s.rows / s.measurements;
  const F lin = Wide::broadcast(s.lin), w = Wide::broadcast(s.w);
  for_runs(s, tile, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
    gather(tile, count, {tile.r + cell * CELL, stride}, [&](int64_t c, float* out) {
      const int64_t at = (tile.row + c) * numbers + 2 * pixel;
      const float *x = s.x + at, *grad = s.grad + at, *b = s.b + (tile.row + c) / each * numbers + 2 * pixel;
      __builtin_prefetch(x + 2 * AHEAD * (s.axis == 0 ? s.lines : RUN));
      __builtin_prefetch(grad + 2 * AHEAD * (s.axis == 0 ? s.lines : RUN));
      float padded[3][2 * RUN] = {};
      if (count < RUN) {
        const size_t bytes = sizeof(float) * static_cast<size_t>(2 * count);
        std::memcpy(padded[0], x, bytes);
        std::memcpy(padded[1], grad, bytes);
        std::memcpy(padded[2], b, bytes);
        x = padded[0], grad = padded[1], b = padded[2];
      }
      ALPS_UNROLL
      for (int e = 0; e < 2 * RUN; e += Wide::width)
        Wide::save(Wide::fnma(w, Wide::load(grad + e), Wide::fma(lin, Wide::load(x + e), Wide::load(b + e))), out + e);
    });
  });
}

// The noise of a tile. A quad of normals is two pixels next to each other, whose cells may both lie here or only one.
template <int NOISE>
static void draw(const SenseStep& s, const Tile& tile) {
  if constexpr (NOISE == GIVEN) {
    for_runs(s, tile, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
      gather(tile, count, {tile.xi + cell * CELL, stride}, [&](int64_t c, float* out) {
        const float* xi = s.xi + (tile.row + c) * 2 * s.lines * s.n + 2 * pixel;
        std::memset(out, 0, sizeof(float) * 2 * RUN);
        std::memcpy(out, xi, sizeof(float) * static_cast<size_t>(2 * count));
      });
    });
  } else {
    const StepStreams streams = step_streams(s.seed, s.step);
    alignas(64) uint32_t chains[CHAINS] = {}, ahead[CHAINS] = {};
    for (int64_t c = 0; c < tile.rows; ++c) {
      chains[c] = static_cast<uint32_t>(s.chains[tile.row + c]);
      ahead[c] = static_cast<uint32_t>(s.chains[tile.row + c] >> 32);
    }
    for_runs(s, tile, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
      for (int64_t quad = pixel / 2; 2 * quad < pixel + count; ++quad)
        for (int c = 0; c < CHAINS; c += Lanes::width) {
          Lanes::F xi[4];
          const Lanes::U quads = Lanes::U{} + static_cast<uint32_t>(quad);
          Chains<Lanes> lanes;
          std::memcpy(&lanes.index, chains + c, sizeof lanes.index);
          std::memcpy(&lanes.ahead, ahead + c, sizeof lanes.ahead);
          step_quad<NOISE>(streams, lanes, quads, xi);
          ALPS_UNROLL
          for (int k = 0; k < 4; ++k) {
            const int64_t i = 2 * quad + k / 2 - pixel;
            if (i >= 0 && i < count) Lanes::save(xi[k], tile.xi + (cell + i * stride) * CELL + k % 2 * CHAINS + c);
          }
        }
    });
  }
}

// One line: both products. `pair` has n rows of the coefficients of m and, with noise, those of x+ beside them.
template <int NOISE>
static void project(const SenseStep& s, int64_t line, float* r, float* xi, float* gain, float* pair) {
  constexpr int COLUMNS = NOISE == NO_NOISE ? CHAINS : 2 * CHAINS;
  const float *u = s.u + 2 * line * s.n * s.n, *eigenvalues = s.eigenvalues + line * s.n;
  float* spread = gain + s.n;
  for (int64_t k = 0; k < s.n; ++k) gain[k] = 1 / (eigenvalues[k] * s.inv_eta2 + s.lam);
  if constexpr (NOISE != NO_NOISE)
    for (int64_t k = 0; k < s.n; ++k) spread[k] = 1 / __builtin_sqrtf(eigenvalues[k] * s.inv_eta2 + s.noise_lam);
  float* const coefficients[] = {pair};
  multiply<true, CHAINS>(u, s.n, r, coefficients, 2 * COLUMNS);
  for (int64_t k = 0; k < s.n; ++k)
    for (int part = 0; part < 2; ++part) {
      float* at = pair + (2 * k + part) * COLUMNS;
      ALPS_UNROLL
      for (int c = 0; c < CHAINS; c += Wide::width) {
        const F mean = Wide::load(at + c) * Wide::broadcast(gain[k]);
        Wide::save(mean, at + c);
        if constexpr (NOISE != NO_NOISE) {
          const F drawn = Wide::load(xi + k * CELL + part * CHAINS + c);
          Wide::save(Wide::fma(drawn, Wide::broadcast(spread[k]), mean), at + CHAINS + c);
        }
      }
    }
  float* const images[] = {r, xi};
  multiply<false, COLUMNS>(u, s.n, pair, images, CELL);
}

template <int NOISE>
static void run(const SenseStep& s, int threads) {
  const int64_t group = s.axis == 0 ? RUN : 1;
  const int64_t cells = group * s.n * CELL;
  const int64_t pieces = ((s.lines + group - 1) / group) * ((s.rows + CHAINS - 1) / CHAINS);
#pragma omp parallel num_threads(team(threads, pieces))
  {
    const Floats memory(2 * cells + (2 * CELL + 2) * s.n);
    float *r = memory.data, *xi = r + cells, *pair = xi + cells, *gain = pair + 2 * CELL * s.n;
#pragma omp for collapse(2) schedule(static)
    for (int64_t first = 0; first < s.lines; first += group)
      for (int64_t row = 0; row < s.rows; row += CHAINS) {
        const Tile tile = {first, s.lines - first < group ? s.lines - first : group,
                           row, s.rows - row < CHAINS ? s.rows - row : CHAINS, r, xi};
        right_hand_side(s, tile);
        if constexpr (NOISE != NO_NOISE) draw<NOISE>(s, tile);
        for (int64_t line = 0; line < tile.lines; ++line)
          project<NOISE>(s, first + line, r + line * s.n * CELL, xi + line * s.n * CELL, gain, pair);
        for_runs(s, tile, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
          scatter(s, tile, pixel, count, {r + cell * CELL, stride}, s.mean);
          scatter(s, tile, pixel, count, {(NOISE == NO_NOISE ? r : xi) + cell * CELL, stride}, s.after);
        });
      }
  }
}

void langevin_sense(const SenseStep& s, int threads) {
  return with_noise(s.noise, [&](auto noise) { return run<decltype(noise)::value>(s, threads); });
}

}  // namespace alps::ALPS_ISA
