// A line:  m = U g U^H r,  x+ = U (g U^H r + sqrt(g') xi),  r = b + lin x - w grad; contract in alps_fast/ops/langevin_sense.py.
//
// Lanes are chains: U stays as it is and is broadcast number by number, real and imaginary parts of the chains are vectors of
// their own, and a lane never meets another, so a chain is the same to the bit in any company. Philox's lanes are chains too,
// so the noise is born in that layout. Each sum runs over its line in order. A piece of work is CHAIN_TILE chains on a group of
// lines that share the cache lines of the image (8 where lines run along H); U of a line is read once for the first product
// and comes from L2 for the second, which takes m and x+ as columns of one matrix.
//
// Where a piece has no more than FEW chains, lanes are outputs of a product instead, a chain after another, in the same order
// of the same operations: the bits are the same, and a chain alone does not pay for sixteen.
#include <atomic>

#include "memory.h"
#include "noise.h"
#include "wide_lanes.h"

namespace alps::ALPS_ISA {

using F = Wide::F;

constexpr int CHAIN_TILE = 16;  // chains of a piece
constexpr int FEW = 4;  // chains that are taken one after another
constexpr int CELL = 2 * CHAIN_TILE;  // floats of a pixel of all chains: real parts, imaginary parts
constexpr int RUN = 8;  // pixels that are moved between the image and the tile together: a cache line of a chain
static_assert(CHAIN_TILE % Wide::width == 0 && 2 * RUN == CHAIN_TILE, "chains are whole vectors, a run is transposed in place");

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
      float* cell = out[at / CHAIN_TILE] + (row + j) * stride + at % CHAIN_TILE;
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
  const float *u, *eigenvalues;  // of their operator
  float *r, *xi;  // [lines][n] cells: r, then m in its place; xi, then x+
};

// f(pixel, count, cell, stride): every run of at most RUN pixels next to each other, and where its cells begin in the tile,
// in which a line has `pitch` cells.
template <class Function>
ALPS_INLINE void for_runs(const SenseStep& s, const Tile& tile, int64_t pitch, const Function& f) {
  if (s.axis == 0) {
    for (int64_t h = 0; h < s.n; ++h) f(h * s.lines + tile.first, tile.lines, h, pitch);
  } else {
    for (int64_t line = 0; line < tile.lines; ++line)
      for (int64_t k = 0; k < s.n; k += RUN)
        f((tile.first + line) * s.n + k, s.n - k < RUN ? s.n - k : RUN, line * pitch + k, 1);
  }
}

// Where the cells of a run of pixels are: its number e (real, imaginary parts in turn) of all chains.
struct Cells {
  float* first;
  int64_t stride;
  float* operator()(int e) const { return first + e / 2 * stride * CELL + e % 2 * CHAIN_TILE; }
};

constexpr int AHEAD = 2;  // runs between asking for memory and using it

// cells <- a run of every chain that there is, formed by row(chain, out); zeros for those that there are not
template <class Row>
ALPS_INLINE void gather(const Tile& tile, int64_t count, const Cells& cells, const Row& row) {
  alignas(64) float rows[CHAIN_TILE][2 * RUN], unused[CHAIN_TILE];
  for (int64_t c = 0; c < CHAIN_TILE; ++c)
    if (c < tile.rows) row(c, rows[c]);
    else std::memset(rows[c], 0, sizeof rows[c]);
  transpose<CHAIN_TILE>([&](int c) { return rows[c]; }, [&](int e) { return e < 2 * count ? cells(e) : unused; });
}

// image <- cells
static void scatter(const SenseStep& s, const Tile& tile, int64_t pixel, int64_t count, const Cells& cells, float* image) {
  const int64_t numbers = 2 * s.lines * s.n;
  alignas(64) float rows[CHAIN_TILE][2 * RUN];
  image += tile.row * numbers + 2 * pixel;
  for (int64_t c = 0; c < tile.rows; ++c) __builtin_prefetch(image + c * numbers + 2 * AHEAD * (s.axis == 0 ? s.lines : RUN), 1);
  transpose<CHAIN_TILE>([&](int e) { return cells(e < 2 * count ? e : 0); }, [&](int c) { return rows[c]; });
  for (int64_t c = 0; c < tile.rows; ++c)
    if (count == RUN) std::memcpy(image + c * numbers, rows[c], sizeof rows[c]);
    else std::memcpy(image + c * numbers, rows[c], sizeof(float) * static_cast<size_t>(2 * count));
}

// r of a run of row n, and whatever past its end
ALPS_INLINE void right_hand_side(const SenseStep& s, int64_t n, int64_t pixel, int64_t count, float* out) {
  const int64_t numbers = 2 * s.lines * s.n, at = n * numbers + 2 * pixel;
  const float *x = s.x + at, *grad = s.grad + at, *b = s.b + n / (s.rows / s.measurements) * numbers + 2 * pixel;
  const F lin = Wide::broadcast(s.lin), w = Wide::broadcast(s.w);
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
}

// The noise of a tile. A quad of normals is two pixels next to each other, whose cells may both lie here or only one.
template <int NOISE>
static void draw(const SenseStep& s, const Tile& tile) {
  if constexpr (NOISE == GIVEN) {
    for_runs(s, tile, s.n, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
      gather(tile, count, {tile.xi + cell * CELL, stride}, [&](int64_t c, float* out) {
        const float* xi = s.xi + (tile.row + c) * 2 * s.lines * s.n + 2 * pixel;
        std::memset(out, 0, sizeof(float) * 2 * RUN);
        std::memcpy(out, xi, sizeof(float) * static_cast<size_t>(2 * count));
      });
    });
  } else {
    const StepStreams streams = step_streams(s.seed, s.step);
    alignas(64) uint32_t indices[CHAIN_TILE] = {}, ahead[CHAIN_TILE] = {}, measurements[CHAIN_TILE] = {};
    for (int64_t c = 0; c < tile.rows; ++c) {
      const ChainId& chain = s.ids[tile.row + c];
      indices[c] = static_cast<uint32_t>(chain.counted);
      ahead[c] = static_cast<uint32_t>(chain.counted >> 32);
      measurements[c] = static_cast<uint32_t>(chain.measurement);
    }
    for_runs(s, tile, s.n, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
      for (int64_t quad = pixel / 2; 2 * quad < pixel + count; ++quad)
        for (int c = 0; c < CHAIN_TILE; c += Lanes::width) {
          Lanes::F xi[4];
          const Lanes::U quads = Lanes::U{} + static_cast<uint32_t>(quad);
          ChainIds<Lanes> lanes;
          std::memcpy(&lanes.index, indices + c, sizeof lanes.index);
          std::memcpy(&lanes.ahead, ahead + c, sizeof lanes.ahead);
          std::memcpy(&lanes.measurement, measurements + c, sizeof lanes.measurement);
          step_quad<NOISE>(streams, lanes, quads, xi);
          ALPS_UNROLL
          for (int k = 0; k < 4; ++k) {
            const int64_t i = 2 * quad + k / 2 - pixel;
            if (i >= 0 && i < count) Lanes::save(xi[k], tile.xi + (cell + i * stride) * CELL + k % 2 * CHAIN_TILE + c);
          }
        }
    });
  }
}

template <int NOISE>
ALPS_INLINE void gains_of(const SenseStep& s, const float* eigenvalues, float* gain, float* spread) {
  for (int64_t k = 0; k < s.n; ++k) gain[k] = 1 / (eigenvalues[k] * s.inv_eta2 + s.lam);
  if constexpr (NOISE != NO_NOISE)
    for (int64_t k = 0; k < s.n; ++k) spread[k] = 1 / __builtin_sqrtf(eigenvalues[k] * s.inv_eta2 + s.noise_lam);
}

// One line, of these vectors and values: both products. `pair` has n rows of the coefficients of m and, with noise, those of x+ beside them.
template <int NOISE>
static void project(const SenseStep& s, const float* u, const float* eigenvalues, float* r, float* xi, float* gain, float* pair) {
  constexpr int COLUMNS = NOISE == NO_NOISE ? CHAIN_TILE : 2 * CHAIN_TILE;
  float* spread = gain + s.n;
  gains_of<NOISE>(s, eigenvalues, gain, spread);
  float* const coefficients[] = {pair};
  multiply<true, CHAIN_TILE>(u, s.n, r, coefficients, 2 * COLUMNS);
  for (int64_t k = 0; k < s.n; ++k)
    for (int part = 0; part < 2; ++part) {
      float* at = pair + (2 * k + part) * COLUMNS;
      ALPS_UNROLL
      for (int c = 0; c < CHAIN_TILE; c += Wide::width) {
        const F mean = Wide::load(at + c) * Wide::broadcast(gain[k]);
        Wide::save(mean, at + c);
        if constexpr (NOISE != NO_NOISE) {
          const F drawn = Wide::load(xi + k * CELL + part * CHAIN_TILE + c);
          Wide::save(Wide::fma(drawn, Wide::broadcast(spread[k]), mean), at + CHAIN_TILE + c);
        }
      }
    }
  float* const images[] = {r, xi};
  multiply<false, COLUMNS>(u, s.n, pair, images, CELL);
}

template <int NOISE>
static void advance(const SenseStep& s, const Tile& tile, float* gain, float* pair) {
  for_runs(s, tile, s.n, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
    gather(tile, count, {tile.r + cell * CELL, stride},
           [&](int64_t c, float* out) { right_hand_side(s, tile.row + c, pixel, count, out); });
  });
  if constexpr (NOISE != NO_NOISE) draw<NOISE>(s, tile);
  for (int64_t line = 0; line < tile.lines; ++line)
    project<NOISE>(s, tile.u + 2 * line * s.n * s.n, tile.eigenvalues + line * s.n, tile.r + line * s.n * CELL, tile.xi + line * s.n * CELL, gain, pair);
  for_runs(s, tile, s.n, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
    scatter(s, tile, pixel, count, {tile.r + cell * CELL, stride}, s.mean);
    scatter(s, tile, pixel, count, {(NOISE == NO_NOISE ? tile.r : tile.xi) + cell * CELL, stride}, s.after);
  });
}

// The same, a chain at a time.

constexpr int BLOCK = 16;  // outputs of a product that are summed together
static_assert(BLOCK % Wide::width == 0, "whole vectors");

struct Split {  // complex numbers of lines, each of a whole number of blocks
  float *re, *im;
  Split operator+(int64_t i) const { return {re + i, im + i}; }
};

ALPS_INLINE int64_t blocks_of(int64_t n) { return (n + BLOCK - 1) / BLOCK * BLOCK; }

// out_o += sum over S rows s of conj(U[s][o]) in_s, U in the order of memory
template <int S>
ALPS_INLINE void add_rows(const float* u, int64_t n, int64_t s, Split in, Split out) {
  for (int64_t o = 0; o < n; o += Wide::width) {
    float tail[S][2 * Wide::width];
    const bool whole = o + Wide::width <= n;
    F re = Wide::load(out.re + o), im = Wide::load(out.im + o);
    ALPS_UNROLL
    for (int k = 0; k < S; ++k) {
      const float* pairs = u + 2 * ((s + k) * n + o);
      if (!whole) {
        std::memset(tail[k], 0, sizeof tail[k]);
        std::memcpy(tail[k], pairs, sizeof(float) * static_cast<size_t>(2 * (n - o)));
        pairs = tail[k];
      }
      F a, b;
      Wide::split(pairs, a, b);
      const F x = Wide::broadcast(in.re[s + k]), y = Wide::broadcast(in.im[s + k]);
      re = Wide::fma(a, x, re);
      im = Wide::fma(a, y, im);
      re = Wide::fma(b, y, re);
      im = Wide::fnma(b, x, im);
    }
    Wide::save(re, out.re + o);
    Wide::save(im, out.im + o);
  }
}

static void multiply_adjoint(const float* u, int64_t n, Split in, Split out) {
  for (float* part : {out.re, out.im}) std::memset(part, 0, sizeof(float) * static_cast<size_t>(blocks_of(n)));
  int64_t s = 0;
  for (; s + 4 <= n; s += 4) add_rows<4>(u, n, s, in, out);
  for (; s < n; ++s) add_rows<1>(u, n, s, in, out);
}

// out[i]_o = sum_s U[o][s] in[i]_s for SETS vectors, in blocks of U that are transposed
template <int SETS>
static void multiply_forward(const float* u, int64_t n, const Split* in, const Split* out) {
  constexpr int V = BLOCK / Wide::width, TERMS = BLOCK / 2;
  alignas(64) float block[BLOCK][BLOCK], tail[BLOCK][BLOCK] = {};
  for (int64_t o = 0; o < n; o += BLOCK) {
    F re[SETS][V] = {}, im[SETS][V] = {};
    const auto row = [&](int i) { return u + 2 * n * (o + i < n ? o + i : n - 1); };
    for (int64_t s = 0; s < n; s += TERMS) {
      const int terms = static_cast<int>(n - s < TERMS ? n - s : TERMS);
      if (terms == TERMS) {
        transpose<BLOCK>([&](int i) { return row(i) + 2 * s; }, [&](int j) { return block[j]; });
      } else {
        for (int i = 0; i < BLOCK; ++i) std::memcpy(tail[i], row(i) + 2 * s, sizeof(float) * static_cast<size_t>(2 * terms));
        transpose<BLOCK>([&](int i) { return tail[i]; }, [&](int j) { return block[j]; });
      }
      for (int k = 0; k < terms; ++k) {
        ALPS_UNROLL
        for (int i = 0; i < SETS; ++i) {
          const F x = Wide::broadcast(in[i].re[s + k]), y = Wide::broadcast(in[i].im[s + k]);
          ALPS_UNROLL
          for (int v = 0; v < V; ++v) {
            const F a = Wide::load(block[2 * k] + v * Wide::width), b = Wide::load(block[2 * k + 1] + v * Wide::width);
            re[i][v] = Wide::fma(a, x, re[i][v]);
            im[i][v] = Wide::fma(a, y, im[i][v]);
            re[i][v] = Wide::fnma(b, y, re[i][v]);
            im[i][v] = Wide::fma(b, x, im[i][v]);
          }
        }
      }
    }
    for (int i = 0; i < SETS; ++i)
      for (int v = 0; v < V; ++v) {
        Wide::save(re[i][v], out[i].re + o + v * Wide::width);
        Wide::save(im[i][v], out[i].im + o + v * Wide::width);
      }
  }
}

// The noise of chain c of a tile, quads of runs that lie apart side by side.
template <int NOISE>
static void draw_one(const SenseStep& s, const Tile& tile, int64_t n, int64_t pitch, Split xi) {
  if constexpr (NOISE == GIVEN) {
    for_runs(s, tile, pitch, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
      const float* given = s.xi + 2 * (n * s.lines * s.n + pixel);
      for (int64_t i = 0; i < count; ++i) xi.re[cell + i * stride] = given[2 * i], xi.im[cell + i * stride] = given[2 * i + 1];
    });
  } else {
    struct Pair {
      int64_t cell[2];  // of the two pixels of a quad; -1: of another tile
    } pairs[Lanes::width];
    alignas(64) uint32_t quads[Lanes::width] = {};
    int waiting = 0;
    const StepStreams streams = step_streams(s.seed, s.step);
    const ChainIds<Lanes> chain = in_all_lanes<Lanes>(s.ids[n]);
    const auto flush = [&] {
      Lanes::F drawn[4];
      Lanes::U lanes;
      std::memcpy(&lanes, quads, sizeof lanes);
      step_quad<NOISE>(streams, chain, lanes, drawn);
      alignas(64) float out[4][Lanes::width];
      for (int k = 0; k < 4; ++k) Lanes::save(drawn[k], out[k]);
      for (int i = 0; i < waiting; ++i)
        for (int k = 0; k < 2; ++k)
          if (const int64_t cell = pairs[i].cell[k]; cell >= 0) xi.re[cell] = out[2 * k][i], xi.im[cell] = out[2 * k + 1][i];
      waiting = 0;
    };
    for_runs(s, tile, pitch, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
      for (int64_t quad = pixel / 2; 2 * quad < pixel + count; ++quad) {
        const int64_t i = 2 * quad - pixel;
        pairs[waiting] = {{i >= 0 ? cell + i * stride : -1, i + 1 < count ? cell + (i + 1) * stride : -1}};
        quads[waiting] = static_cast<uint32_t>(quad);
        if (++waiting == Lanes::width) flush();
      }
    });
    if (waiting > 0) flush();
  }
}

// FEW chains at most; r and xi have a plane of lines a chain, `work` room for coefficients.
template <int NOISE>
static void advance_few(const SenseStep& s, const Tile& tile, float* gain, float* work) {
  constexpr int SETS = NOISE == NO_NOISE ? 1 : 2;
  const int64_t pitch = blocks_of(s.n), plane = tile.lines * pitch;
  const auto planes = [&](float* of, int64_t c) { return Split{of + 2 * c * plane, of + (2 * c + 1) * plane}; };
  for (int64_t c = 0; c < tile.rows; ++c) {
    const Split r = planes(tile.r, c);
    for_runs(s, tile, pitch, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
      alignas(64) float out[2 * RUN];
      right_hand_side(s, tile.row + c, pixel, count, out);
      for (int64_t i = 0; i < count; ++i) r.re[cell + i * stride] = out[2 * i], r.im[cell + i * stride] = out[2 * i + 1];
    });
    if constexpr (NOISE != NO_NOISE) draw_one<NOISE>(s, tile, tile.row + c, pitch, planes(tile.xi, c));
  }
  const Split coefficients[] = {{work, work + pitch}, {work + 2 * pitch, work + 3 * pitch}};
  float* spread = gain + pitch;
  for (int64_t line = 0; line < tile.lines; ++line) {
    const float* u = tile.u + 2 * line * s.n * s.n;
    gains_of<NOISE>(s, tile.eigenvalues + line * s.n, gain, spread);
    for (int64_t c = 0; c < tile.rows; ++c) {
      const Split images[] = {planes(tile.r, c) + line * pitch, planes(tile.xi, c) + line * pitch};
      multiply_adjoint(u, s.n, images[0], coefficients[0]);
      for (int64_t k = 0; k < s.n; k += Wide::width)
        for (int part = 0; part < 2; ++part) {
          float* at = (part ? coefficients[0].im : coefficients[0].re) + k;
          const F mean = Wide::load(at) * Wide::load(gain + k);
          Wide::save(mean, at);
          if constexpr (NOISE != NO_NOISE) {
            const F drawn = Wide::load((part ? images[1].im : images[1].re) + k);
            Wide::save(Wide::fma(drawn, Wide::load(spread + k), mean), at + 2 * pitch);
          }
        }
      multiply_forward<SETS>(u, s.n, coefficients, images);
    }
  }
  for (int64_t c = 0; c < tile.rows; ++c) {
    const Split mean = planes(tile.r, c), after = planes(NOISE == NO_NOISE ? tile.r : tile.xi, c);
    for_runs(s, tile, pitch, [&](int64_t pixel, int64_t count, int64_t cell, int64_t stride) {
      const int64_t at = 2 * ((tile.row + c) * s.lines * s.n + pixel);
      for (int64_t i = 0; i < count; ++i) {
        s.mean[at + 2 * i] = mean.re[cell + i * stride], s.mean[at + 2 * i + 1] = mean.im[cell + i * stride];
        s.after[at + 2 * i] = after.re[cell + i * stride], s.after[at + 2 * i + 1] = after.im[cell + i * stride];
      }
    });
  }
}

template <int NOISE>
static void run(const SenseStep& s, int threads) {
  const int64_t group = s.axis == 0 ? RUN : 1, pitch = blocks_of(s.n);
  const int64_t cells = group * CELL * pitch;  // which are enough for the planes of few chains too
  const int64_t each = s.rows / s.operators, tiles = (each + CHAIN_TILE - 1) / CHAIN_TILE;  // of an operator
  const int64_t pieces = ((s.lines + group - 1) / group) * s.operators * tiles;
  std::atomic<bool> fits{true};
#pragma omp parallel num_threads(team(threads, pieces))
  {
    const Floats memory(2 * cells + (2 * CELL + 2) * pitch, std::nothrow);
    if (!memory.data) fits = false;
#pragma omp for collapse(2) schedule(static)
    for (int64_t first = 0; first < s.lines; first += group)
      for (int64_t i = 0; i < s.operators * tiles; ++i) {
        if (!memory.data) continue;
        float *r = memory.data, *xi = r + cells, *work = xi + cells, *gain = work + 2 * CELL * pitch;
        const int64_t of = i / tiles, before = i % tiles * CHAIN_TILE, lines_before = of * s.lines + first;
        const Tile tile = {first, s.lines - first < group ? s.lines - first : group, of * each + before,
                           each - before < CHAIN_TILE ? each - before : CHAIN_TILE, s.u + 2 * lines_before * s.n * s.n,
                           s.eigenvalues + lines_before * s.n, r, xi};
        if (tile.rows <= FEW) advance_few<NOISE>(s, tile, gain, work);
        else advance<NOISE>(s, tile, gain, work);
      }
  }
  if (!fits) throw std::bad_alloc();
}

void langevin_sense(const SenseStep& s, int threads) {
  return with_noise(s.noise, [&](auto noise) { return run<decltype(noise)::value>(s, threads); });
}

}  // namespace alps::ALPS_ISA
