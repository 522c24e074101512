// The arithmetic of a step where A^H A is diagonal in pixels, for the kernels that take such steps: a tile of some rows' images.
#pragma once

#include "noise.h"

namespace alps::ALPS_ISA {

constexpr int64_t PIXEL_TILE = 2048;  // elements: gain, spread and b are 24 KB, half of an L1
static_assert(PIXEL_TILE % STRIDE == 0, "a tile holds whole vectors");

struct Gains {
  alignas(64) float gain[PIXEL_TILE], spread[PIXEL_TILE];
};

struct Operands {  // of STRIDE elements
  const float *x, *grad, *b, *gain, *spread, *xi;
  float *after, *mean;
};

struct PixelLevel {
  Lanes::F lin, minus_w;
  StepStreams streams;
};

template <int NOISE>
ALPS_INLINE void draw(const PixelLevel& level, const Operands& at, const ChainIds<Lanes>& chain, uint32_t quad, Lanes::F xi[4]) {
  const Lanes::U quads = Lanes::quads() + quad;
  if constexpr (NOISE == GIVEN) {
    for (int k = 0; k < 4; ++k) xi[k] = Lanes::load(at.xi + k * Lanes::width);
  } else {
    step_quad<NOISE>(level.streams, chain, quads, xi);
    Lanes::in_order(xi);
  }
}

template <int NOISE>
ALPS_INLINE void advance(const PixelLevel& level, const Operands& at, const ChainIds<Lanes>& chain, uint32_t quad) {
  Lanes::F xi[4];
  if constexpr (NOISE != NO_NOISE) draw<NOISE>(level, at, chain, quad, xi);
  ALPS_UNROLL
  for (int k = 0; k < 4; ++k) {
    const int e = k * Lanes::width;
    const Lanes::F right = Lanes::fma(level.minus_w, Lanes::load(at.grad + e),
                               Lanes::fma(level.lin, Lanes::load(at.x + e), Lanes::load(at.b + e)));
    const Lanes::F mean = right * Lanes::load(at.gain + e);
    Lanes::save(mean, at.mean + e);
    if constexpr (NOISE == NO_NOISE) Lanes::save(mean, at.after + e);
    else Lanes::save(Lanes::fma(xi[k], Lanes::load(at.spread + e), mean), at.after + e);
  }
}

// The last, partial vector of an image: the same arithmetic on copies.
template <int NOISE>
static void advance_tail(const PixelLevel& level, const Operands& at, const ChainIds<Lanes>& chain, uint32_t quad, int64_t count) {
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
  const Lanes::F one = Lanes::broadcast(1), inv_eta2 = Lanes::broadcast(s.inv_eta2);
  for (int64_t e = 0; e < padded; e += Lanes::width) {
    const Lanes::F diagonal = Lanes::load(out.gain + e);
    Lanes::save(one / Lanes::fma(diagonal, inv_eta2, Lanes::broadcast(s.lam)), out.gain + e);
    Lanes::save(one / Lanes::sqrt(Lanes::fma(diagonal, inv_eta2, Lanes::broadcast(s.noise_lam))), out.spread + e);
  }
}

static PixelLevel make_level(const PixelStep& s) {
  return {Lanes::broadcast(s.lin), Lanes::broadcast(-s.w), step_streams(s.seed, s.step)};
}

// Elements [first, first + PIXEL_TILE) of rows [from, to) of a measurement: its gains serve them all.
template <int NOISE>
static void advance_tile(const PixelStep& s, const PixelLevel& level, int64_t measurement, int64_t from, int64_t to, int64_t first) {
  const int64_t n = s.pixels * s.channels, count = n - first < PIXEL_TILE ? n - first : PIXEL_TILE;
  Gains gains;
  fill_gains(s, measurement, first, count, gains);
  for (int64_t row = from; row < to; ++row) {
    const ChainIds<Lanes> chain = in_all_lanes<Lanes>(s.ids[row]);
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

}  // namespace alps::ALPS_ISA
