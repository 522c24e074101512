// The arithmetic of a step where A^H A is diagonal in pixels, with the roundings of csrc/cpu/pixel_step.h.
#pragma once

#include "noise.h"

namespace alps::cuda {

struct PixelLevel {
  float lam, lin, minus_w, inv_eta2, noise_lam;
  Stream random;
};

inline PixelLevel level_of(const PixelStep& s) {
  return {s.lam, s.lin, -s.w, s.inv_eta2, s.noise_lam, make_stream(s.seed, s.step, LANGEVIN)};
}

__device__ __forceinline__ float gain_of(const PixelLevel& level, float diagonal) {
  return 1.0f / __fmaf_rn(diagonal, level.inv_eta2, level.lam);
}

__device__ __forceinline__ float spread_of(const PixelLevel& level, float diagonal) {
  return 1.0f / __fsqrt_rn(__fmaf_rn(diagonal, level.inv_eta2, level.noise_lam));
}

__device__ __forceinline__ float mean_of(const PixelLevel& level, float state, float slope, float data, float gain) {
  return __fmaf_rn(level.minus_w, slope, __fmaf_rn(level.lin, state, data)) * gain;
}

}  // namespace alps::cuda
