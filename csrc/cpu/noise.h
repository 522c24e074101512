// A step's noise, for every kernel that takes Langevin steps: its streams, a quad of its normals, and the choice at run time.
#pragma once

#include <type_traits>

#include "../common/philox.h"
#include "kernels.h"
#include "lanes.h"

namespace alps::ALPS_ISA {

struct StepStreams {  // R_k and R_{k+1}
  Stream now, next;
};

inline StepStreams step_streams(uint64_t seed, uint32_t step) {
  constexpr uint32_t LANGEVIN = 1;  // the streams' tag
  return {make_stream(seed, step, LANGEVIN), make_stream(seed, step + 1, LANGEVIN)};
}

// The four normals of every quad, INDEPENDENT or AVERAGED.
template <int NOISE>
ALPS_INLINE void step_quad(const StepStreams& streams, const ChainIds<Lanes>& chain, Lanes::U quads, Lanes::F xi[4]) {
  normal_quad<Lanes>(streams.now, chain, quads, xi);
  if constexpr (NOISE == AVERAGED) {
    Lanes::F then[4];
    normal_quad<Lanes>(streams.next, chain, quads, then);
    ALPS_UNROLL
    for (int k = 0; k < 4; ++k) xi[k] = (xi[k] + then[k]) * 0.70710678118654752f;
  }
}

// f(a constant): `noise` as a type, so that the choice is made once a call.
template <class Function>
static auto with_noise(int noise, const Function& f) {
  switch (noise) {
    case NO_NOISE: return f(std::integral_constant<int, NO_NOISE>());
    case INDEPENDENT: return f(std::integral_constant<int, INDEPENDENT>());
    case AVERAGED: return f(std::integral_constant<int, AVERAGED>());
    default: return f(std::integral_constant<int, GIVEN>());
  }
}

}  // namespace alps::ALPS_ISA
