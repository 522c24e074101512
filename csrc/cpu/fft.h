// Fourier transforms of BATCH sequences side by side, and of images in two such steps.
//
// A cell is one element of BATCH sequences: BATCH real parts, then BATCH imaginary ones, so a butterfly is vector arithmetic
// with no shuffle. A plane is an image as its row transform wants it: panels of BATCH rows, a cell for each column of them; the
// column transform takes BATCH columns at a time out of the panels and puts them back.
//
// The transform is Stockham's: passes of radix 2, 3, 4, 5, 7, 8 between two buffers, in natural order before and after, not
// normalised. The inverse is the same with real and imaginary parts changing places.
#pragma once

#include <cmath>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "wide.h"

namespace alps::ALPS_ISA {

constexpr int BATCH = 16;
constexpr int CELL = 2 * BATCH;
static_assert(BATCH % Wide::width == 0, "a batch is whole vectors");

struct Fourier {  // the transform of n numbers, n without prime factors above 7
  int64_t n;
  std::vector<int> radices;
  std::vector<float> roots;  // exp(-2 pi i k / n)
};

inline void radices_of(int64_t n, std::vector<int>& out) {
  int twos = 0;
  for (; n % 2 == 0; n /= 2) ++twos;
  for (int odd : {7, 5, 3})
    for (; n % odd == 0; n /= odd) out.push_back(odd);
  if (twos % 3 == 2) out.push_back(4);
  else if (twos % 3 == 1 && twos > 1) out.insert(out.end(), {4, 4}), twos -= 3;
  else if (twos == 1) out.push_back(2);
  for (; twos >= 3; twos -= 3) out.push_back(8);  // last, where there are no twiddles
}

inline const Fourier& fourier(int64_t n) {  // made once a process and size
  static std::mutex mutex;
  static std::map<int64_t, std::unique_ptr<Fourier>> made;
  const std::lock_guard<std::mutex> lock(mutex);
  std::unique_ptr<Fourier>& plan = made[n];
  if (!plan) {
    plan = std::make_unique<Fourier>();
    plan->n = n;
    radices_of(n, plan->radices);
    for (int64_t k = 0; k < n; ++k) {
      const double angle = -6.283185307179586476925 * static_cast<double>(k) / static_cast<double>(n);
      plan->roots.push_back(static_cast<float>(std::cos(angle)));
      plan->roots.push_back(static_cast<float>(std::sin(angle)));
    }
  }
  return *plan;
}

template <int R>
struct Odd {  // cos and sin of 2 pi j k / R for j, k up to (R - 1) / 2, by j k mod R
  static constexpr double cos(int k) {
    constexpr double of3[] = {1, -0.5, -0.5}, of5[] = {1, 0.30901699437494742, -0.80901699437494742, -0.80901699437494742,
                                                       0.30901699437494742},
                     of7[] = {1, 0.62348980185873353, -0.22252093395631440, -0.90096886790241913, -0.90096886790241913,
                              -0.22252093395631440, 0.62348980185873353};
    return R == 3 ? of3[k % 3] : R == 5 ? of5[k % 5] : of7[k % 7];
  }
  static constexpr double sin(int k) {
    constexpr double of3[] = {0, 0.86602540378443865, -0.86602540378443865},
                     of5[] = {0, 0.95105651629515357, 0.58778525229247313, -0.58778525229247313, -0.95105651629515357},
                     of7[] = {0, 0.78183148246802981, 0.97492791218182361, 0.43388373911755812, -0.43388373911755812,
                              -0.97492791218182361, -0.78183148246802981};
    return R == 3 ? of3[k % 3] : R == 5 ? of5[k % 5] : of7[k % 7];
  }
};

// x_k <- sum_j x_j exp(-2 pi i j k / R), in natural order
template <int R>
ALPS_INLINE void butterfly(Wide::F re[R], Wide::F im[R]) {
  using F = Wide::F;
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
    butterfly<4>(even_re, even_im);
    butterfly<4>(odd_re, odd_im);
    const F half = Wide::broadcast(0.70710678118654752f);
    const F a = odd_re[1] + odd_im[1], b = odd_im[1] - odd_re[1], c = odd_im[3] - odd_re[3], d = odd_re[3] + odd_im[3];
    re[0] = even_re[0] + odd_re[0], im[0] = even_im[0] + odd_im[0];
    re[4] = even_re[0] - odd_re[0], im[4] = even_im[0] - odd_im[0];
    re[1] = Wide::fma(half, a, even_re[1]), im[1] = Wide::fma(half, b, even_im[1]);
    re[5] = Wide::fnma(half, a, even_re[1]), im[5] = Wide::fnma(half, b, even_im[1]);
    re[2] = even_re[2] + odd_im[2], im[2] = even_im[2] - odd_re[2];
    re[6] = even_re[2] - odd_im[2], im[6] = even_im[2] + odd_re[2];
    re[3] = Wide::fma(half, c, even_re[3]), im[3] = Wide::fnma(half, d, even_im[3]);
    re[7] = Wide::fnma(half, c, even_re[3]), im[7] = Wide::fma(half, d, even_im[3]);
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
        const F cosine = Wide::broadcast(static_cast<float>(Odd<R>::cos(j * k)));
        const F sine = Wide::broadcast(static_cast<float>(Odd<R>::sin(j * k)));
        a = Wide::fma(cosine, sum_re[j - 1], a), b = Wide::fma(cosine, sum_im[j - 1], b);
        c = Wide::fma(sine, dif_im[j - 1], c), d = Wide::fma(sine, dif_re[j - 1], d);
      }
      re[k] = a + c, im[k] = b - d;
      re[R - k] = a - c, im[R - k] = b + d;
    }
  }
}

// y[q + s (R p + k)] = exp(-2 pi i p k s / n) sum_j x[q + s (p + j m / R)] exp(-2 pi i j k / R), m s = n; `im` is where
// imaginary parts begin in a cell: BATCH, or for the inverse 0, and then real parts begin at BATCH.
template <int R, bool TURN>
ALPS_INLINE void pass_at(const float* in, float* out, int64_t p, int64_t m, int64_t s, const float* roots, int im_at) {
  using F = Wide::F;
  const int re_at = BATCH - im_at;
  F cosine[R], sine[R];
  if constexpr (TURN) {
    ALPS_UNROLL
    for (int k = 1; k < R; ++k) {
      cosine[k] = Wide::broadcast(roots[2 * p * k * s]);
      sine[k] = Wide::broadcast(roots[2 * p * k * s + 1]);
    }
  }
  for (int64_t q = 0; q < s; ++q)
    for (int v = 0; v < BATCH; v += Wide::width) {
      const float* from = in + (q + s * p) * CELL + v;
      float* to = out + (q + s * R * p) * CELL + v;
      F re[R], im[R];
      ALPS_UNROLL
      for (int j = 0; j < R; ++j) {
        re[j] = Wide::load(from + j * (m / R) * s * CELL + re_at);
        im[j] = Wide::load(from + j * (m / R) * s * CELL + im_at);
      }
      butterfly<R>(re, im);
      ALPS_UNROLL
      for (int k = 0; k < R; ++k) {
        if (TURN && k > 0) {
          Wide::save(Wide::fnma(im[k], sine[k], re[k] * cosine[k]), to + k * s * CELL + re_at);
          Wide::save(Wide::fma(re[k], sine[k], im[k] * cosine[k]), to + k * s * CELL + im_at);
        } else {
          Wide::save(re[k], to + k * s * CELL + re_at);
          Wide::save(im[k], to + k * s * CELL + im_at);
        }
      }
    }
}

template <int R>
static void pass(const float* in, float* out, int64_t m, int64_t s, const float* roots, int im_at) {
  pass_at<R, false>(in, out, 0, m, s, roots, im_at);
  for (int64_t p = 1; p < m / R; ++p) pass_at<R, true>(in, out, p, m, s, roots, im_at);
}

// The transform of n cells that lie in `a`; returns the buffer that holds it, `a` where `in_place`, else `b`.
static float* transform(const Fourier& plan, float* a, float* b, bool inverse) {
  const int im_at = inverse ? 0 : BATCH;
  int64_t m = plan.n, s = 1;
  for (int radix : plan.radices) {
    switch (radix) {
      case 2: pass<2>(a, b, m, s, plan.roots.data(), im_at); break;
      case 3: pass<3>(a, b, m, s, plan.roots.data(), im_at); break;
      case 4: pass<4>(a, b, m, s, plan.roots.data(), im_at); break;
      case 5: pass<5>(a, b, m, s, plan.roots.data(), im_at); break;
      case 7: pass<7>(a, b, m, s, plan.roots.data(), im_at); break;
      default: pass<8>(a, b, m, s, plan.roots.data(), im_at);
    }
    m /= radix, s *= radix;
    float* const other = a;
    a = b, b = other;
  }
  return a;
}

ALPS_INLINE bool in_place(const Fourier& plan) { return plan.radices.size() % 2 == 0; }

struct Columns {  // the columns of a plane that are transformed together; -1: none
  int32_t index[BATCH];
};

// cells[h] <- columns of a plane whose panel p begins at plane + p * panel; `padded` rows, a multiple of BATCH
static void take_columns(const float* plane, int64_t panel, const Columns& columns, int64_t padded, float* cells) {
  alignas(64) static constexpr float nothing[BATCH] = {};
  for (int64_t first = 0; first < padded; first += BATCH, plane += panel)
    for (int part = 0; part < CELL; part += BATCH)
      transpose<BATCH>([&](int i) { return columns.index[i] >= 0 ? plane + columns.index[i] * CELL + part : nothing; },
                       [&](int j) { return cells + (first + j) * CELL + part; });
}

static void give_columns(const float* cells, int64_t padded, const Columns& columns, float* plane, int64_t panel) {
  alignas(64) float unused[BATCH];
  for (int64_t first = 0; first < padded; first += BATCH, plane += panel)
    for (int part = 0; part < CELL; part += BATCH)
      transpose<BATCH>([&](int j) { return cells + (first + j) * CELL + part; },
                       [&](int i) { return columns.index[i] >= 0 ? plane + columns.index[i] * CELL + part : unused; });
}

// BATCH rows of an image, one after the other, into the cells of a panel and out of them: cell[e] is where number e of a row
// goes. A row past the last one of the image may hold anything.
static void to_cells(const std::vector<int64_t>& cell, const float* rows, float* cells) {
  const int64_t row = static_cast<int64_t>(cell.size());
  for (int64_t e = 0; e < row; e += BATCH) {
    alignas(64) float unused[BATCH];
    const int64_t count = row - e < BATCH ? row - e : BATCH, *at = cell.data() + e;
    transpose<BATCH>([&](int i) { return rows + i * row + e; }, [&](int j) { return j < count ? cells + at[j] : unused; });
  }
}

static void from_cells(const std::vector<int64_t>& cell, const float* cells, float* rows) {
  const int64_t row = static_cast<int64_t>(cell.size());
  for (int64_t e = 0; e < row; e += BATCH) {
    alignas(64) float some[BATCH][BATCH];
    const int64_t count = row - e < BATCH ? row - e : BATCH, *at = cell.data() + e;
    transpose<BATCH>([&](int j) { return cells + at[j < count ? j : 0]; },
                     [&](int i) { return count == BATCH ? rows + i * row + e : some[i]; });
    for (int i = 0; count < BATCH && i < BATCH; ++i)
      std::memcpy(rows + i * row + e, some[i], sizeof(float) * static_cast<size_t>(count));
  }
}

}  // namespace alps::ALPS_ISA
