// Transforms of n cells, the layout being that of fft.h, compiled once for all kernels that take them.
//
// The transform is Stockham's: passes of radix 4, 8 and odd primes between two buffers, in natural order before and after, not
// normalised. Primes up to 31 are compiled for themselves, larger ones share one loop. The inverse is the same with real and
// imaginary parts changing places.
#include "fft.h"

#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <type_traits>

#include "../common/butterfly.h"

namespace alps::ALPS_ISA {

const Fourier& fourier(int64_t n) {
  static std::mutex mutex;
  static std::map<int64_t, std::unique_ptr<Fourier>> made;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Fourier>& plan = made[n];
  if (!plan) {
    plan = std::make_unique<Fourier>();
    plan->n = n;
    plan->radices = radices_of(n);
    for (int64_t k = 0; k < n; ++k) {
      const double angle = -6.283185307179586476925 * static_cast<double>(k) / static_cast<double>(n);
      plan->roots.push_back(static_cast<float>(std::cos(angle)));
      plan->roots.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return *plan;
}

struct Every {  // of the q below, those from `first` on in steps
  int64_t first, step;
};

// y[q + s (R p + k)] = exp(-2 pi i p k s / n) sum_j x[q + s (p + j m / R)] exp(-2 pi i j k / R), m s = n; `im` is where
// imaginary parts begin in a cell: BATCH, or for the inverse 0, and then real parts begin at BATCH.
template <int R, bool TURN, class M, class S, class Im>
ALPS_INLINE void pass_at(const float* in, float* out, int64_t p, M m, S s, Im im_begins, const float* roots, Every every) {
  using F = Wide::F;
  const int IM = im_begins, RE = BATCH - IM;
  F cosine[R], sine[R];
  if constexpr (TURN) {
    ALPS_UNROLL
    for (int k = 1; k < R; ++k) {
      cosine[k] = Wide::broadcast(roots[2 * p * k * s]);
      sine[k] = Wide::broadcast(roots[2 * p * k * s + 1]);
    }
  }
  for (int64_t q = every.first; q < s; q += every.step)
    for (int v = 0; v < BATCH; v += Wide::width) {
      const float* from = in + (q + s * p) * CELL + v;
      float* to = out + (q + s * R * p) * CELL + v;
      F re[R], im[R];
      ALPS_UNROLL
      for (int j = 0; j < R; ++j) {
        re[j] = Wide::load(from + j * (m / R) * s * CELL + RE);
        im[j] = Wide::load(from + j * (m / R) * s * CELL + IM);
      }
      butterfly<Wide, R>(re, im);
      ALPS_UNROLL
      for (int k = 0; k < R; ++k) {
        if (TURN && k > 0) {
          Wide::save(Wide::fnma(im[k], sine[k], re[k] * cosine[k]), to + k * s * CELL + RE);
          Wide::save(Wide::fma(re[k], sine[k], im[k] * cosine[k]), to + k * s * CELL + IM);
        } else {
          Wide::save(re[k], to + k * s * CELL + RE);
          Wide::save(im[k], to + k * s * CELL + IM);
        }
      }
    }
}

template <int R, int IM>
static void pass(const float* in, float* out, int64_t m, int64_t s, const float* roots, Every every) {
  constexpr std::integral_constant<int64_t, 1> one{};
  constexpr std::integral_constant<int64_t, R> last{};
  constexpr std::integral_constant<int, IM> im{};
  if (m == R) return pass_at<R, false>(in, out, 0, last, s, im, roots, every);
  if (s == 1) {
    pass_at<R, false>(in, out, 0, m, one, im, roots, {0, 1});
    for (int64_t p = 1; p < m / R; ++p) pass_at<R, true>(in, out, p, m, one, im, roots, {0, 1});
    return;
  }
  pass_at<R, false>(in, out, 0, m, s, im, roots, every);
  for (int64_t p = 1; p < m / R; ++p) pass_at<R, true>(in, out, p, m, s, im, roots, every);
}

// `pass` of a prime whose products leave nothing to gain by what is constant: compiled once, as each is long.
template <int R>
static void pass_of(const float* in, float* out, int64_t m, int64_t s, int im, const float* roots, Every every) {
  for (int64_t p = 0; p < m / R; ++p) pass_at<R, true>(in, out, p, m, s, im, roots, every);
}

// y_k and y_{R-k} for k = first ... first + K - 1 of what `large` leaves of x in `at`; roots: exp(-2 pi i j / R), `stride` apart.
template <int K, int IM, class At, class Save>
ALPS_INLINE void some_of(int64_t radix, int64_t first, At at, const float* roots, int64_t stride, Save save) {
  using F = Wide::F;
  constexpr int RE = BATCH - IM;
  F a[K], b[K], c[K], d[K];
  int64_t angle[K];
  ALPS_UNROLL
  for (int i = 0; i < K; ++i) {
    a[i] = Wide::load(at(0) + RE), b[i] = Wide::load(at(0) + IM), c[i] = d[i] = F{};
    angle[i] = 0;
  }
  for (int64_t j = 1; 2 * j < radix; ++j) {
    const float *sum = at(j), *dif = at(radix - j);
    const F sum_re = Wide::load(sum + RE), sum_im = Wide::load(sum + IM);
    const F dif_re = Wide::load(dif + RE), dif_im = Wide::load(dif + IM);
    ALPS_UNROLL
    for (int i = 0; i < K; ++i) {
      angle[i] += first + i;
      angle[i] -= angle[i] >= radix ? radix : 0;
      const float* const root = roots + 2 * angle[i] * stride;
      const F cosine = Wide::broadcast(root[0]), minus_sine = Wide::broadcast(root[1]);
      a[i] = Wide::fma(cosine, sum_re, a[i]), b[i] = Wide::fma(cosine, sum_im, b[i]);
      c[i] = Wide::fnma(minus_sine, dif_im, c[i]), d[i] = Wide::fnma(minus_sine, dif_re, d[i]);
    }
  }
  ALPS_UNROLL
  for (int i = 0; i < K; ++i) {
    save(first + i, a[i] + c[i], b[i] - d[i]);
    save(radix - first - i, a[i] - c[i], b[i] + d[i]);
  }
}

// `pass` of a prime R of any size: R^2 products, the sums and differences of x_j and x_{R-j} in their place in `in`.
template <int IM>
static void large(int64_t radix, float* in, float* out, int64_t m, int64_t s, const Fourier& plan, Every every) {
  using F = Wide::F;
  constexpr int RE = BATCH - IM, K = Wide::width == BATCH ? 4 : 2;  // as many sums as there are registers for
  const float* const roots = plan.roots.data();
  for (int64_t p = 0; p < m / radix; ++p)
    for (int64_t q = every.first; q < s; q += every.step)
      for (int v = 0; v < BATCH; v += Wide::width) {
        const auto at = [&](int64_t j) { return in + (q + s * (p + j * (m / radix))) * CELL + v; };
        const auto save = [&](int64_t k, F re, F im) {
          float* const to = out + (q + s * (radix * p + k)) * CELL + v;
          const F cosine = Wide::broadcast(roots[2 * p * k * s]), sine = Wide::broadcast(roots[2 * p * k * s + 1]);
          Wide::save(Wide::fnma(im, sine, re * cosine), to + RE);
          Wide::save(Wide::fma(re, sine, im * cosine), to + IM);
        };
        F re = Wide::load(at(0) + RE), im = Wide::load(at(0) + IM);
        for (int64_t j = 1; 2 * j < radix; ++j) {
          float *const low = at(j), *const high = at(radix - j);
          const F low_re = Wide::load(low + RE), low_im = Wide::load(low + IM);
          const F high_re = Wide::load(high + RE), high_im = Wide::load(high + IM);
          re += low_re + high_re, im += low_im + high_im;
          Wide::save(low_re + high_re, low + RE), Wide::save(low_im + high_im, low + IM);
          Wide::save(low_re - high_re, high + RE), Wide::save(low_im - high_im, high + IM);
        }
        save(0, re, im);
        int64_t k = 1;
        for (; 2 * (k + K - 1) < radix; k += K) some_of<K, IM>(radix, k, at, roots, plan.n / radix, save);
        for (; 2 * k < radix; ++k) some_of<1, IM>(radix, k, at, roots, plan.n / radix, save);
      }
}

// The passes first ... last from a, where they end in turn in b and a; returns the buffer of the last.
template <int IM>
static float* passes(const Fourier& plan, size_t first, size_t last, float* a, float* b, int64_t s, Every every) {
  const float* roots = plan.roots.data();
  for (size_t i = first; i < last; ++i) {
    const int64_t m = plan.n / s;
    switch (plan.radices[i]) {
      case 2: pass<2, IM>(a, b, m, s, roots, every); break;
      case 3: pass<3, IM>(a, b, m, s, roots, every); break;
      case 4: pass<4, IM>(a, b, m, s, roots, every); break;
      case 5: pass<5, IM>(a, b, m, s, roots, every); break;
      case 7: pass<7, IM>(a, b, m, s, roots, every); break;
      case 11: pass_of<11>(a, b, m, s, IM, roots, every); break;
      case 13: pass_of<13>(a, b, m, s, IM, roots, every); break;
      case 17: pass_of<17>(a, b, m, s, IM, roots, every); break;
      case 19: pass_of<19>(a, b, m, s, IM, roots, every); break;
      case 23: pass_of<23>(a, b, m, s, IM, roots, every); break;
      case 29: pass_of<29>(a, b, m, s, IM, roots, every); break;
      case 31: pass_of<31>(a, b, m, s, IM, roots, every); break;
      case 8: pass<8, IM>(a, b, m, s, roots, every); break;
      default: large<IM>(plan.radices[i], a, b, m, s, plan, every);
    }
    s *= plan.radices[i];
    float* const other = a;
    a = b, b = other;
  }
  return a;
}

// What a first pass of odd radix R leaves are R transforms of every R-th cell; where both buffers are more than L1 holds, each
// goes to its end by itself. With an even R its cells would all want the same few places of the cache.
template <int IM>
static float* transform(const Fourier& plan, float* a, float* b) {
  constexpr int64_t CELLS_IN_L1 = 192;
  const size_t count = plan.radices.size();
  if (plan.n <= CELLS_IN_L1 || plan.radices[0] % 2 == 0 || count == 1) return passes<IM>(plan, 0, count, a, b, 1, {0, 1});
  const int64_t radix = plan.radices[0];
  passes<IM>(plan, 0, 1, a, b, 1, {0, 1});
  float* end = b;
  for (int64_t q = 0; q < radix; ++q) end = passes<IM>(plan, 1, count, b, a, radix, {q, radix});
  return end;
}

float* transform(const Fourier& plan, float* a, float* b, bool inverse) {
  return inverse ? transform<0>(plan, a, b) : transform<BATCH>(plan, a, b);
}

}  // namespace alps::ALPS_ISA
