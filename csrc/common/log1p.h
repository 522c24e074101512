// ln(1 + t) for the CPU and the CUDA kernels, t >= 0; lanes as philox.h has them.
#pragma once

#include "philox.h"

namespace alps {

// Up to 1 + t = sqrt 2 it is t itself that the series sees, not what is left of it beside the 1.
template <class L>
ALPS_FN typename L::F log1p(typename L::F t) {
  using U = typename L::U;
  using I = typename L::I;
  using F = typename L::F;
  constexpr float LOG[] = {7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                           -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
  const U b = L::bits(t + 1.0f);
  const I e = (I)(b - 0x3F3504F3u) >> 23;
  const F f = e == 0 ? t : L::from_bits(b - ((U)e << 23)) - 1.0f, z = f * f;
  const F series = L::fma(f * z, horner<L>(LOG, f), L::fma(L::broadcast(-0.5f), z, f));
  return L::fma(L::to_float(e), L::broadcast(0.693147180559945f), series);
}

}  // namespace alps
