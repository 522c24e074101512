// A stretch of the noise of a chain, numbers in order, for kernels that transform it.
#pragma once

#include "noise.h"

namespace alps::ALPS_ISA {

struct Source {  // of a step's noise, `numbers` a chain
  Source(uint64_t seed, uint32_t step, const ChainId* ids, const float* xi, int64_t numbers)
      : streams(step_streams(seed, step)), ids(ids), xi(xi), numbers(numbers) {}
  StepStreams streams;
  const ChainId* ids;
  const float* xi;
  int64_t numbers;
};

// Room for `count` numbers wherever in a quad they begin, to whole cache lines.
ALPS_INLINE int64_t drawn_floats(int64_t count) { return (count + 2 * STRIDE + 15) / 16 * 16; }

// `amplitude` times the numbers first ... first + count of the noise of row `row`, at most 3 past `out`: returns where.
template <int NOISE>
static const float* draw(const Source& source, int64_t row, int64_t first, int64_t count, float amplitude, float* out) {
  if constexpr (NOISE == GIVEN) {
    const float* xi = source.xi + row * source.numbers + first;
    for (int64_t e = 0; e < count; ++e) out[e] = xi[e] * amplitude;
    return out;
  } else {
    const ChainIds<Lanes> chain = in_all_lanes<Lanes>(source.ids[row]);
    const int64_t begin = first / 4 * 4;
    for (int64_t e = begin; e < first + count; e += STRIDE) {
      Lanes::F xi[4];
      const Lanes::U quads = Lanes::quads() + static_cast<uint32_t>(e / 4);
      step_quad<NOISE>(source.streams, chain, quads, xi);
      Lanes::in_order(xi);
      ALPS_UNROLL
      for (int k = 0; k < 4; ++k) Lanes::save(xi[k] * amplitude, out + (e - begin) + k * Lanes::width);
    }
    return out + (first - begin);
  }
}

}  // namespace alps::ALPS_ISA
