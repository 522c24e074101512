// m = (b + lin x - w grad) gain,  x+ = m + xi spread,  gain = 1/(a inv_eta2 + lam), spread = 1/sqrt(a inv_eta2 + noise_lam);
// contract in alps_fast/ops/langevin_pixel.py.
//
// A piece of work is a tile of the image for a few chains of one measurement: its gains are computed once and, with b,
// serve every chain from L1, so a chain costs what it reads (x, grad) and writes (x+, m), and the arithmetic of its noise.
#include "../common/philox.h"
#include "kernels.h"
#include "lanes.h"

namespace alps::ALPS_ISA {

using F = Lanes::F;

constexpr int64_t TILE = 2048;  // elements: gain, spread and b are 24 KB, half of an L1
constexpr int64_t CHAINS = 16;  // of a piece: enough to spread the cost of the gains, few enough to occupy many threads
constexpr uint32_t LANGEVIN = 1;  // the stream's tag
static_assert(TILE % STRIDE == 0, "a tile holds whole vectors");

struct Gains {
  alignas(64) float gain[TILE], spread[TILE];
};

struct Operands {  // of STRIDE elements
  const float *x, *grad, *b, *gain, *spread, *xi;
  float *after, *mean;
};

struct Level {
  F lin, minus_w;
  Stream now, next;
};

template <int NOISE>
ALPS_INLINE void draw(const Level& level, const Operands& at, uint32_t chain, uint32_t quad, F xi[4]) {
  const Lanes::U quads = Lanes::quads() + quad;
  if constexpr (NOISE == GIVEN) {
    for (int k = 0; k < 4; ++k) xi[k] = Lanes::load(at.xi + k * Lanes::width);
  } else {
    normal_quad<Lanes>(level.now, chain, quads, xi);
    if constexpr (NOISE == AVERAGED) {
      F then[4];
      normal_quad<Lanes>(level.next, chain, quads, then);
      ALPS_UNROLL
      for (int k = 0; k < 4; ++k) xi[k] = (xi[k] + then[k]) * 0.70710678118654752f;
    }
    Lanes::in_order(xi);
  }
}

template <int NOISE>
ALPS_INLINE void advance(const Level& level, const Operands& at, uint32_t chain, uint32_t quad) {
  F xi[4];
  if constexpr (NOISE != NO_NOISE) draw<NOISE>(level, at, chain, quad, xi);
  ALPS_UNROLL
  for (int k = 0; k < 4; ++k) {
    const int e = k * Lanes::width;
    const F right = Lanes::fma(level.minus_w, Lanes::load(at.grad + e),
                               Lanes::fma(level.lin, Lanes::load(at.x + e), Lanes::load(at.b + e)));
    const F mean = right * Lanes::load(at.gain + e);
    Lanes::save(mean, at.mean + e);
    if constexpr (NOISE == NO_NOISE) Lanes::save(mean, at.after + e);
    else Lanes::save(Lanes::fma(xi[k], Lanes::load(at.spread + e), mean), at.after + e);
  }
}

// The last, partial vector of an image: the same arithmetic on copies.
template <int NOISE>
static void advance_tail(const Level& level, const Operands& at, uint32_t chain, uint32_t quad, int64_t count) {
  float x[STRIDE] = {}, grad[STRIDE] = {}, b[STRIDE] = {}, xi[STRIDE] = {}, after[STRIDE], mean[STRIDE];
  const size_t bytes = sizeof(float) * static_cast<size_t>(count);
  std::memcpy(x, at.x, bytes);
  std::memcpy(grad, at.grad, bytes);
  std::memcpy(b, at.b, bytes);
  if constexpr (NOISE == GIVEN) std::memcpy(xi, at.xi, bytes);
  advance<NOISE>(level, {x, grad, b, at.gain, at.spread, xi, after, mean}, chain, quad);
  std::memcpy(at.after, after, bytes);
  std::memcpy(at.mean, mean, bytes);
}

static void fill_gains(const PixelStep& s, int64_t measurement, int64_t first, int64_t count, Gains& out) {
  const int64_t each = s.a_of_each_channel ? s.channels : 1;
  const float* a = s.a + (s.a_of_each_measurement ? measurement * s.pixels * each : 0);
  if (s.a_of_each_channel) {
    std::memcpy(out.gain, a + first, sizeof(float) * static_cast<size_t>(count));
  } else {
    int64_t pixel = first / s.channels, channel = first % s.channels;
    for (int64_t e = 0; e < count; ++e) {
      out.gain[e] = a[pixel];
      if (++channel == s.channels) channel = 0, ++pixel;
    }
  }
  const int64_t padded = (count + STRIDE - 1) / STRIDE * STRIDE;
  for (int64_t e = count; e < padded; ++e) out.gain[e] = 0;
  const F one = Lanes::broadcast(1), inv_eta2 = Lanes::broadcast(s.inv_eta2);
  for (int64_t e = 0; e < padded; e += Lanes::width) {
    const F diagonal = Lanes::load(out.gain + e);
    Lanes::save(one / Lanes::fma(diagonal, inv_eta2, Lanes::broadcast(s.lam)), out.gain + e);
    Lanes::save(one / Lanes::sqrt(Lanes::fma(diagonal, inv_eta2, Lanes::broadcast(s.noise_lam))), out.spread + e);
  }
}

template <int NOISE>
static void run(const PixelStep& s, int threads) {
  const int64_t n = s.pixels * s.channels, each = s.rows / s.measurements;
  const Level level = {Lanes::broadcast(s.lin), Lanes::broadcast(-s.w), make_stream(s.seed, s.step, LANGEVIN),
                       make_stream(s.seed, s.step + 1, LANGEVIN)};
  const int64_t pieces = s.measurements * ((each + CHAINS - 1) / CHAINS) * ((n + TILE - 1) / TILE);
#pragma omp parallel for collapse(3) num_threads(team(threads, pieces)) schedule(static)
  for (int64_t measurement = 0; measurement < s.measurements; ++measurement)
    for (int64_t from = 0; from < each; from += CHAINS)
      for (int64_t first = 0; first < n; first += TILE) {
        const int64_t count = n - first < TILE ? n - first : TILE;
        const int64_t to = each - from < CHAINS ? each : from + CHAINS;
        Gains gains;
        fill_gains(s, measurement, first, count, gains);
        for (int64_t row = measurement * each + from; row < measurement * each + to; ++row) {
          const uint32_t chain = static_cast<uint32_t>(s.chains[row]);
          for (int64_t e = 0; e < count; e += STRIDE) {
            const int64_t i = row * n + first + e;
            const Operands at = {s.x + i, s.grad + i, s.b + measurement * n + first + e, gains.gain + e, gains.spread + e,
                                 NOISE == GIVEN ? s.xi + i : nullptr, s.after + i, s.mean + i};
            const uint32_t quad = static_cast<uint32_t>((first + e) / 4);
            if (e + STRIDE <= count) advance<NOISE>(level, at, chain, quad);
            else advance_tail<NOISE>(level, at, chain, quad, count - e);
          }
        }
      }
}

void langevin_pixel(const PixelStep& s, int threads) {
  switch (s.noise) {
    case NO_NOISE: return run<NO_NOISE>(s, threads);
    case INDEPENDENT: return run<INDEPENDENT>(s, threads);
    case AVERAGED: return run<AVERAGED>(s, threads);
    default: return run<GIVEN>(s, threads);
  }
}

}  // namespace alps::ALPS_ISA
