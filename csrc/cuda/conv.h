// What the kernels of conv_grad share: sizes, and the arithmetic between the products of a convolution and what is stored.
#pragma once

#include "kernels.h"
#include "tensor_cores.h"
#include "vectors.h"

namespace alps::cuda {

constexpr int CHANNELS = 64;               // of the network
constexpr int PIXEL = 2 * CHANNELS;        // bytes of a pixel of a plane
constexpr int NARROW = 16;                 // channels of the unshuffled image, with zeros
constexpr int WHOLE = CHANNELS / 16, ENDS = NARROW / 16;  // 16 channels at a time
constexpr int SQUARE_PRODUCTS = 9 * WHOLE;  // of 16 channels each, of a 3 x 3 convolution

enum Finish { PUT, ADD, FILM, MASK };

// Two neighbours in a row of an image, zeros beyond it.
__device__ __forceinline__ float2 image_pair(const ConvGrad& s, const float* image, int channel, int y, int x) {
  float2 pair = make_float2(0, 0);
  if (channel >= s.channels || y >= s.height || x >= s.width) return pair;
  const int at = (channel * s.height + y) * s.width + x;
  if (s.pairs) return pixel_at(true, image, at / 2);
  pair.x = image[at];
  if (x + 1 < s.width) pair.y = image[at + 1];
  return pair;
}

// Eight channels of a pixel of the unshuffled image * factor, from 8 chunk on: 2 x 2 pixels to four channels.
__device__ __forceinline__ uint4 unshuffled(const ConvGrad& s, const float* image, float factor, int chunk, int y, int x) {
  uint32_t packed[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float2 pair = image_pair(s, image, 2 * chunk + k / 2, 2 * y + k % 2, 2 * x);
    packed[k] = pack_bf16(factor * pair.x, factor * pair.y);
  }
  return make_uint4(packed[0], packed[1], packed[2], packed[3]);
}

constexpr float UNITS = 1 << 23;  // from here to its double a number's last byte counts units: quicker than a conversion

// Four sums, of two columns twice, to phi(scale v + shift). Returns phi' in bytes.
__device__ __forceinline__ uint32_t film(float (&v)[4], float2 scale, float2 shift) {
  uint32_t ends[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float z = __fmaf_rn(v[e], e % 2 ? scale.y : scale.x, e % 2 ? shift.y : shift.x);
    const float slope = __saturatef(__fmaf_rn(z, 1.0f / 6, 0.5f)), above = z - 3.0f;
    v[e] = __fmaf_rn(3.0f * slope, slope, above < 0 ? 0.0f : above);  // NaN stays
    ends[e] = __float_as_uint(__fmaf_rn(slope, 255.0f, UNITS));
  }
  return __byte_perm(__byte_perm(ends[0], ends[1], 0x40), __byte_perm(ends[2], ends[3], 0x40), 0x5410);
}

__device__ __forceinline__ void mask(float (&v)[4], uint32_t bytes, float2 scale) {
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float byte = __uint_as_float(__byte_perm(bytes, __float_as_uint(UNITS), 0x7650 | e)) - UNITS;
    v[e] *= byte * (1.0f / 255) * (e % 2 ? scale.y : scale.x);
  }
}

// to = from - (skip from + factor F) of two neighbours in the image, F two sums and their biases; returns their energy.
__device__ __forceinline__ double put_residual(const ConvGrad& s, const float* from, float* to, int channel, int y, int x,
                                               float skip, float factor, float low, float high) {
  if (channel >= s.channels || y >= s.height || x >= s.width) return 0;
  const float2 here = image_pair(s, from, channel, y, x);
  float* const at = to + (channel * s.height + y) * s.width + x;
  const float2 value = make_float2(here.x - (skip * here.x + factor * low), here.y - (skip * here.y + factor * high));
  double energy = 0.5 * value.x * value.x;
  if (x + 1 < s.width) energy += 0.5 * value.y * value.y;
  if (s.pairs) put_pixel(true, at, 0, value);
  else at[0] = value.x;
  if (!s.pairs && x + 1 < s.width) at[1] = value.y;
  return energy;
}

}  // namespace alps::cuda
