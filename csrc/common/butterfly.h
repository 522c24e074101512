// Discrete Fourier transforms of 4, 8 and a prime of numbers, of which the CPU and the CUDA kernels make the longer ones.
// `L` is a vector of lanes as in philox.h, with a product taken away: fnma(a, b, c) = c - a b.
#pragma once

#include <cstdint>
#include <vector>

#include "philox.h"

namespace alps {

inline std::vector<int> radices_of(int64_t n) {  // in the order of the passes: odd primes from the largest on, then 4 and 8
  std::vector<int> out;
  int twos = 0;
  for (; n % 2 == 0; n /= 2) ++twos;
  for (int odd = 3; n > 1; odd += 2)
    for (; n % odd == 0; n /= odd) out.insert(out.begin(), odd);
  if (twos % 3 == 2) out.push_back(4);
  else if (twos % 3 == 1 && twos > 1) out.insert(out.end(), {4, 4}), twos -= 3;
  else if (twos == 1) out.push_back(2);
  for (; twos >= 3; twos -= 3) out.push_back(8);  // last, where there are no twiddles
  return out;
}

template <int R>
struct Circle {  // cos and sin of 2 pi k / R
  double cosine[R] = {}, sine[R] = {};

  ALPS_CONSTANT Circle() {
    for (int k = 0; k < R; ++k) {
      const int back = 2 * k > R ? R - k : k;  // the angle or its negative, up to pi; beyond pi / 2 from the other side
      const bool far = 4 * back > R;
      const double half_turn = 3.14159265358979323846, angle = half_turn * (far ? R - 2 * back : 2 * back) / R;
      double even = 0, odd = 0, term = 1;  // of the exponential series
      for (int i = 0; i < 24; term *= angle / ++i) (i % 2 ? odd : even) += i % 4 < 2 ? term : -term;
      cosine[k] = far ? -even : even, sine[k] = back == k ? odd : -odd;
    }
  }
};

template <int R>
struct Odd {  // cos and sin of 2 pi j k / R, by j k
  static ALPS_CONSTANT double cos(int k) {
    constexpr Circle<R> circle;
    return circle.cosine[k % R];
  }
  static ALPS_CONSTANT double sin(int k) {
    constexpr Circle<R> circle;
    return circle.sine[k % R];
  }
};

// x_k <- sum_j x_j exp(-2 pi i j k / R), in natural order
template <class L, int R>
ALPS_FN void butterfly(typename L::F re[R], typename L::F im[R]) {
  using F = typename L::F;
  if constexpr (R == 2) {
    const F x = re[0], y = im[0];
    re[0] = x + re[1], im[0] = y + im[1];
    re[1] = x - re[1], im[1] = y - im[1];
  } else if constexpr (R == 4) {
    const F a = re[0] + re[2], b = im[0] + im[2], c = re[0] - re[2], d = im[0] - im[2];
    const F e = re[1] + re[3], f = im[1] + im[3], g = im[1] - im[3], h = re[3] - re[1];  // g + ih = -i (x1 - x3)
    re[0] = a + e, im[0] = b + f;
    re[1] = c + g, im[1] = d + h;
    re[2] = a - e, im[2] = b - f;
    re[3] = c - g, im[3] = d - h;
  } else if constexpr (R == 8) {
    F even_re[4] = {re[0], re[2], re[4], re[6]}, even_im[4] = {im[0], im[2], im[4], im[6]};
    F odd_re[4] = {re[1], re[3], re[5], re[7]}, odd_im[4] = {im[1], im[3], im[5], im[7]};
    butterfly<L, 4>(even_re, even_im);
    butterfly<L, 4>(odd_re, odd_im);
    const F half = L::broadcast(0.70710678118654752f);
    const F a = odd_re[1] + odd_im[1], b = odd_im[1] - odd_re[1], c = odd_im[3] - odd_re[3], d = odd_re[3] + odd_im[3];
    re[0] = even_re[0] + odd_re[0], im[0] = even_im[0] + odd_im[0];
    re[4] = even_re[0] - odd_re[0], im[4] = even_im[0] - odd_im[0];
    re[1] = L::fma(half, a, even_re[1]), im[1] = L::fma(half, b, even_im[1]);
    re[5] = L::fnma(half, a, even_re[1]), im[5] = L::fnma(half, b, even_im[1]);
    re[2] = even_re[2] + odd_im[2], im[2] = even_im[2] - odd_re[2];
    re[6] = even_re[2] - odd_im[2], im[6] = even_im[2] + odd_re[2];
    re[3] = L::fma(half, c, even_re[3]), im[3] = L::fnma(half, d, even_im[3]);
    re[7] = L::fnma(half, c, even_re[3]), im[7] = L::fma(half, d, even_im[3]);
  } else {
    constexpr int H = (R - 1) / 2;
    const F x = re[0], y = im[0];
    F sum_re[H], sum_im[H], dif_re[H], dif_im[H];
    ALPS_UNROLL
    for (int j = 0; j < H; ++j) {
      sum_re[j] = re[j + 1] + re[R - 1 - j], sum_im[j] = im[j + 1] + im[R - 1 - j];
      dif_re[j] = re[j + 1] - re[R - 1 - j], dif_im[j] = im[j + 1] - im[R - 1 - j];
      re[0] += sum_re[j], im[0] += sum_im[j];
    }
    ALPS_UNROLL
    for (int k = 1; k <= H; ++k) {
      F a = x, b = y, c = F{}, d = F{};
      ALPS_UNROLL
      for (int j = 1; j <= H; ++j) {
        const F cosine = L::broadcast(static_cast<float>(Odd<R>::cos(j * k)));
        const F sine = L::broadcast(static_cast<float>(Odd<R>::sin(j * k)));
        a = L::fma(cosine, sum_re[j - 1], a), b = L::fma(cosine, sum_im[j - 1], b);
        c = L::fma(sine, dif_im[j - 1], c), d = L::fma(sine, dif_re[j - 1], d);
      }
      re[k] = a + c, im[k] = b - d;
      re[R - k] = a - c, im[R - k] = b + d;
    }
  }
}

}  // namespace alps
