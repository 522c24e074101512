// The noise of a Langevin step, four elements at a time; given noise is read by the kernel itself.
#pragma once

#include "../common/arguments.h"
#include "../common/philox.h"
#include "lanes.h"

namespace alps::cuda {

constexpr uint32_t LANGEVIN = 1;  // the stream's tag

template <int NOISE>  // INDEPENDENT or AVERAGED
__device__ __forceinline__ void step_noise(const Stream& random, const ChainId& chain, uint32_t quad, float xi[4]) {
  const ChainIds<Thread> counted = in_all_lanes<Thread>(chain);
  normal_quad<Thread>(random, counted, quad, xi);
  if constexpr (NOISE == AVERAGED) {
    Stream next = random;
    next.step += 1;
    float then[4];
    normal_quad<Thread>(next, counted, quad, then);
    ALPS_UNROLL
    for (int i = 0; i < 4; ++i) xi[i] = (xi[i] + then[i]) * 0.70710678118654752f;
  }
}

}  // namespace alps::cuda
