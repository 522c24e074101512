// Decimation in langevin_fourier: on the factor^2 frequencies that alias onto one, A^H A is a a^H with a = conj(h) / factor.
//
// A power of A^H A inv_eta2 + lam has the gain `head` along unit = a / |a|, and across it `rest`, that of lam alone. What lies
// across is freed of unit twice: rest may be 1e8 times head, and the rounding of the first time would pass as data.
//
// A block is BATCH columns of the small spectrum with all their aliases: cells of the first alias of each column, then of the
// second, and so on. A real image has r + i a xi there, and r and xi have gains of their own. So a block of it has half as many
// columns, and beside each its mirror image, that of the negative frequency, which parts the two. A column that is its own mirror
// image is there twice, and given back once.
#pragma once

#include "fft.h"
#include "kernels.h"

namespace alps::ALPS_ISA {

constexpr int HALF = BATCH / 2;

struct Alias {  // of the columns of a block, as they are taken out of a plane and given back
  Columns taken, given;
};

inline Alias alias_of(const DecimatedFourierStep& s, int64_t first, int64_t number) {
  const int64_t small = s.width / s.factor;
  Alias alias;
  for (int lane = 0; lane < BATCH; ++lane) {
    const bool mirrored = !s.is_complex && lane >= HALF;
    const int64_t k = first + (s.is_complex ? lane : lane % HALF), column = k + number * small;
    const bool there = s.is_complex ? k < small : 2 * k <= small;
    alias.taken.index[lane] = static_cast<int32_t>(!there ? -1 : mirrored && column > 0 ? s.width - column : column);
    alias.given.index[lane] = mirrored && 2 * k % small == 0 ? -1 : alias.taken.index[lane];
  }
  return alias;
}

// The aliases of the first block, `factor` of them, then those of the second.
inline std::vector<Alias> aliases_of(const DecimatedFourierStep& s) {
  std::vector<Alias> found;
  const int64_t small = s.width / s.factor, columns = s.is_complex ? small : small / 2 + 1;
  for (int64_t first = 0; first < columns; first += s.is_complex ? BATCH : HALF)
    for (int64_t number = 0; number < s.factor; ++number) found.push_back(alias_of(s, first, number));
  return found;
}

// What a block is multiplied with: units, `column` floats an alias and each where its cell is; then for each row of the small
// spectrum a batch of heads and one of rests. Real images: of r in the lower half of a batch, of xi in the upper; complex ones:
// of r in all rows, then of xi.
inline int64_t gains_of_aliases(const DecimatedFourierStep& s, int64_t column) {
  return s.factor * column + (s.is_complex ? 2 : 1) * (s.height / s.factor) * CELL;
}

inline void fill_gains(const DecimatedFourierStep& s, float amplitude, const float* spectrum, const Alias* aliases,
                       int64_t column, float* units) {
  const int64_t rows = s.height / s.factor;
  const float every = 1 / static_cast<float>(s.height * s.width), share = 1 / static_cast<float>(s.factor);
  const float of_r = s.is_complex ? every : every / 2;  // parts are twice what they should be
  const float of_xi = s.is_complex ? __builtin_sqrtf(every) : every / 2 / amplitude;
  const float rest_of_r = of_r / s.lam, rest_of_xi = of_xi / __builtin_sqrtf(s.noise_lam);
  // a group of less energy has the gains of lam alone, and this may be too small a number to divide by
  const float least = 0x1p-30f * (s.lam < s.noise_lam ? s.lam : s.noise_lam);
  float* gains = units + s.factor * column;
  const int lanes = s.is_complex ? BATCH : HALF;
  int count = 0;  // of columns that are there, one beside the other
  while (count < lanes && aliases->taken.index[count] >= 0) ++count;
  for (int64_t u = 0; u < rows; ++u, gains += CELL) {
    alignas(64) float energy[BATCH] = {}, scale[BATCH], head_of_r[BATCH], head_of_xi[BATCH];
    const auto each_alias = [&](const auto& run) {
      for (int64_t number = 0; number < s.factor; ++number)
        for (int64_t h = u; h < s.height; h += rows)
          run(units + number * column + h * CELL, spectrum + 2 * (h * s.width + aliases[number].taken.index[0]));
    };
    each_alias([&](float* unit, const float* transfer) {
      std::memset(unit, 0, sizeof(float) * CELL);
      for (int lane = 0; lane < count; ++lane) {
        const float re = transfer[2 * lane] * share, im = transfer[2 * lane + 1] * share;
        unit[lane] = re, unit[BATCH + lane] = -im;
        energy[lane] += re * re + im * im;
      }
    });
    for (int lane = lanes; lane < BATCH; ++lane) energy[lane] = energy[lane - lanes];
    for (int v = 0; v < BATCH; v += Lanes::width) {
      const Lanes::F one = Lanes::broadcast(1), own = Lanes::load(energy + v), inv_eta2 = Lanes::broadcast(s.inv_eta2);
      Lanes::save(one / Lanes::sqrt(own), scale + v);
      Lanes::save(one / Lanes::fma(own, inv_eta2, Lanes::broadcast(s.lam)) * of_r, head_of_r + v);
      Lanes::save(one / Lanes::sqrt(Lanes::fma(own, inv_eta2, Lanes::broadcast(s.noise_lam))) * of_xi, head_of_xi + v);
    }
    for (int lane = 0; lane < BATCH; ++lane) {
      if (energy[lane] * s.inv_eta2 < least) scale[lane] = 0;
      gains[lane] = lane < lanes ? head_of_r[lane] : head_of_xi[lane];
      gains[BATCH + lane] = lane < lanes ? rest_of_r : rest_of_xi;
      if (s.is_complex) gains[rows * CELL + lane] = head_of_xi[lane], gains[rows * CELL + BATCH + lane] = rest_of_xi;
    }
    each_alias([&](float* unit, const float*) {
      for (int part = 0; part < CELL; part += BATCH)
        for (int lane = 0; lane < lanes; ++lane) unit[part + BATCH - lanes + lane] = unit[part + lane] *= scale[lane];
    });
  }
}

// Rows h and -h of cells by pair(row, the other, where in a batch, its signs, re, im): each of the two is made of both.
template <class Pair>
ALPS_INLINE void in_pairs(const FourierStep& s, float* cells, const Pair& pair) {
  using F = Wide::F;
  constexpr int V = BATCH / Wide::width;
  alignas(64) static constexpr float SIGNS[BATCH] = {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1};
  for (int64_t h = 0; 2 * h <= s.height; ++h) {
    float* const rows[2] = {cells + h * CELL, cells + (h ? s.height - h : 0) * CELL};
    F re[2][V], im[2][V];
    for (int k = 0; k < 2; ++k)
      for (int v = 0; v < V; ++v)
        pair(rows[k], rows[1 - k], v * Wide::width, Wide::load(SIGNS + v * Wide::width), re[k][v], im[k][v]);
    for (int k = 0; k < 2; ++k)
      for (int v = 0; v < V; ++v) {
        Wide::save(re[k][v], rows[k] + v * Wide::width);
        Wide::save(im[k][v], rows[k] + BATCH + v * Wide::width);
      }
  }
}

// Real images: of Z(k), and conj Z(-k) in the upper half of the other row, the sum and the difference: twice the spectra of r and
// of i a xi, which come to lie beside each other. This before they are projected: rounding leaves of either along unit what it
// leaves of its own size, and a xi may be much the larger.
inline void part(const FourierStep& s, float* cells) {
  in_pairs(s, cells, [](const float* row, const float* other, int v, Wide::F sign, Wide::F& re, Wide::F& im) {
    re = Wide::fma(sign, Wide::halves<true>(other, other, v), Wide::halves<false>(row, row, v));
    im = Wide::fnma(sign, Wide::halves<true>(other + BATCH, other + BATCH, v), Wide::halves<false>(row + BATCH, row + BATCH, v));
  });
}

// And back: Z(k) is the sum, conj Z(-k) the difference.
inline void join(const FourierStep& s, float* cells) {
  in_pairs(s, cells, [](const float* row, const float* other, int v, Wide::F sign, Wide::F& re, Wide::F& im) {
    re = Wide::fma(sign, Wide::halves<true>(row, other, v), Wide::halves<false>(row, other, v));
    im = Wide::fma(sign, Wide::halves<false>(row + BATCH, other + BATCH, v), Wide::halves<true>(row + BATCH, other + BATCH, v));
  });
}

// A power of A^H A inv_eta2 + lam on the groups of a block, in place, and `more`, cells alike, added where there are any.
inline void project(const DecimatedFourierStep& s, const float* units, const float* gains, int64_t column, const float* more,
                    float* cells) {
  using F = Wide::F;
  const int64_t rows = s.height / s.factor;
  for (int64_t u = 0; u < rows; ++u, gains += CELL)
    for (int v = 0; v < BATCH; v += Wide::width) {
      const auto group = [&](const auto& member) {
        for (int64_t first = u * CELL + v; first < s.factor * column; first += column)
          for (int64_t i = 0; i < s.factor; ++i) {
            const int64_t at = first + i * rows * CELL;
            member(Wide::load(units + at), Wide::load(units + at + BATCH), at);
          }
      };
      F p_re{}, p_im{}, q_re{}, q_im{};  // unit^H of what is there, and of what is left of it
      group([&](F a, F b, int64_t at) {
        const F re = Wide::load(cells + at), im = Wide::load(cells + at + BATCH);
        p_re = Wide::fma(b, im, Wide::fma(a, re, p_re)), p_im = Wide::fnma(b, re, Wide::fma(a, im, p_im));
      });
      group([&](F a, F b, int64_t at) {
        const F re = Wide::fma(b, p_im, Wide::fnma(a, p_re, Wide::load(cells + at)));
        const F im = Wide::fnma(b, p_re, Wide::fnma(a, p_im, Wide::load(cells + at + BATCH)));
        q_re = Wide::fma(b, im, Wide::fma(a, re, q_re)), q_im = Wide::fnma(b, re, Wide::fma(a, im, q_im));
        Wide::save(re, cells + at), Wide::save(im, cells + at + BATCH);
      });
      const F head = Wide::load(gains + v), rest = Wide::load(gains + BATCH + v);
      const F along_re = head * (p_re + q_re) - rest * q_re, along_im = head * (p_im + q_im) - rest * q_im;
      group([&](F a, F b, int64_t at) {
        F re = Wide::fnma(b, along_im, Wide::fma(a, along_re, rest * Wide::load(cells + at)));
        F im = Wide::fma(b, along_re, Wide::fma(a, along_im, rest * Wide::load(cells + at + BATCH)));
        if (more) re += Wide::load(more + at), im += Wide::load(more + at + BATCH);
        Wide::save(re, cells + at), Wide::save(im, cells + at + BATCH);
      });
    }
}

}  // namespace alps::ALPS_ISA
