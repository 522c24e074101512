// m = P(lam)(b + lin x - w grad),  x+ = m + P(noise_lam)(sqrt(inv_eta2) A^H e1 + sqrt(noise_lam) e2), by conjugate gradients;
// contract in alps_fast/ops/langevin_sense_cg.py, the iteration and its stopping rule in alps_fast/ops/_cg.py.
//
// A piece of work is one system of one chain, solved to its end: all its vectors are images in cells (fft.h), which with one
// coil's k-space stay in L2, so an iteration reads the coil maps and nothing else from further away. Sums are taken a row of
// cells at a time in float, and over these in double.
#include <atomic>
#include <cmath>
#include <utility>
#include <vector>

#include "draw.h"
#include "fft.h"
#include "kernels.h"
#include "memory.h"

namespace alps::ALPS_ISA {

using F = Wide::F;

struct Problem {
  Problem(const SenseCgStep& s)
      : panel(s.width * CELL), panels((s.height + BATCH - 1) / BATCH), padded(panels * BATCH), image(panels * panel),
        blocks((s.width + BATCH - 1) / BATCH), along_w(fourier(s.width)), along_h(fourier(s.height)),
        source(s.seed, s.step, s.ids, s.xi, 2 * (1 + s.coils) * s.height * s.width), maps(s.coils * image),
        mask(blocks * s.height * BATCH), gain(2 * blocks * s.height * BATCH), seen(image / 2) {
    for (int64_t e = 0; e < 2 * s.width; ++e) cell.push_back(e / 2 * CELL + e % 2 * BATCH);
    for (int64_t first = 0; first < s.width; first += BATCH) {
      Columns block;
      for (int lane = 0; lane < BATCH; ++lane)
        block.index[lane] = static_cast<int32_t>(first + lane < s.width ? first + lane : -1);
      columns.push_back(block);
    }
  }

  int64_t panel, panels, padded, image, blocks;  // floats of a panel, panels, rows of all panels, floats of an image
  const Fourier &along_w, &along_h;
  Source source;
  Floats maps, mask, gain;  // maps: an image a coil; mask, and a gain for lam and one for noise_lam: [block][h] a batch
  Floats seen;  // of the pixels of an image, in cells of one part: 1 where some map is not zero, else 0
  std::vector<int64_t> cell;
  std::vector<Columns> columns;
};

struct Workspace {
  float *x, *r, *p, *q, *k;  // images; k is k-space of a coil, transformed along W only
  float *scratch, *rows, *cells, *others;
};

// What is needed of coil c, or as coil -1 of the mask and the gains, in cells. The `rows` of a panel are read past their end, by
// whole vectors.
static void prepare(const SenseCgStep& s, const Problem& at, int64_t coil, float* rows) {
  const int64_t row = 2 * s.width;
  if (coil >= 0) {
    for (int64_t p = 0; p < at.panels; ++p) {
      const int64_t first = p * BATCH, count = s.height - first < BATCH ? s.height - first : BATCH;
      std::memset(rows, 0, sizeof(float) * static_cast<size_t>(BATCH * row));  // rows that are none see nothing
      std::memcpy(rows, s.maps + (coil * s.height + first) * row, sizeof(float) * static_cast<size_t>(count * row));
      to_cells(at.cell, rows, at.maps.data + coil * at.image + p * at.panel);
    }
    return;
  }
  const float every = 1 / static_cast<float>(s.height * s.width);
  const int64_t frequencies = at.blocks * s.height * BATCH;
  for (int64_t i = 0; i < frequencies; ++i) {
    const int64_t w = i / (s.height * BATCH) * BATCH + i % BATCH, h = i / BATCH % s.height;
    const int64_t from = h * s.width + (w < s.width ? w : 0);
    at.mask.data[i] = s.mask[from];
    at.gain.data[i] = every / std::sqrt((s.spectrum[from] * s.inv_eta2 + s.lam) * s.lam);
    at.gain.data[frequencies + i] = every / std::sqrt((s.spectrum[from] * s.inv_eta2 + s.noise_lam) * s.noise_lam);
  }
  for (int64_t i = 0; i < at.image / 2; ++i) {
    const int64_t h = i / (s.width * BATCH) * BATCH + i % BATCH, w = i / BATCH % s.width;
    float any = 0;
    for (int64_t c = 0; h < s.height && c < s.coils && any == 0; ++c) {
      const float* value = s.maps + 2 * ((c * s.height + h) * s.width + w);
      if (value[0] != 0 || value[1] != 0) any = 1;
    }
    at.seen.data[i] = any;
  }
}

// The transform of k along H, unless it is k-space already, products with a factor a frequency, and the transform back.
static void columns_of(const SenseCgStep& s, const Problem& at, const float* factors, bool forward, const Workspace& work) {
  for (int64_t block = 0; block < at.blocks; ++block, factors += s.height * BATCH) {
    const Columns& columns = at.columns[static_cast<size_t>(block)];
    take_columns(work.k, at.panel, columns, at.padded, work.cells);
    float* cells = forward ? transform(at.along_h, work.cells, work.others, false) : work.cells;
    for (int64_t h = 0; h < s.height; ++h)
      for (int v = 0; v < BATCH; v += Wide::width) {
        const F factor = Wide::load(factors + h * BATCH + v);
        for (float* part = cells + h * CELL + v; part < cells + (h + 1) * CELL; part += BATCH)
          Wide::save(Wide::load(part) * factor, part);
      }
    cells = transform(at.along_h, cells, cells == work.cells ? work.others : work.cells, true);
    std::memset(cells + s.height * CELL, 0, sizeof(float) * static_cast<size_t>((at.padded - s.height) * CELL));
    give_columns(cells, at.padded, columns, work.k, at.panel);
  }
}

// Rows of an image into k: times the map of a coil, or where it is none what some coil sees, and transformed along W.
static void rows_forward(const Problem& at, const float* image, const float* map, const Workspace& work) {
  for (int64_t first = 0; first < at.image; first += at.panel) {
    float *k = work.k + first, *into = in_place(at.along_w) ? k : work.scratch;
    if (!map) {
      for (int64_t i = 0; i < at.panel; i += BATCH)
        for (int v = 0; v < BATCH; v += Wide::width)
          Wide::save(Wide::load(image + first + i + v) * Wide::load(at.seen.data + (first + i) / CELL * BATCH + v), into + i + v);
    } else {
      for (int64_t i = first; i < first + at.panel; i += CELL)
        for (int v = 0; v < BATCH; v += Wide::width) {
          const F a = Wide::load(map + i + v), b = Wide::load(map + i + BATCH + v);
          const F x = Wide::load(image + i + v), y = Wide::load(image + i + BATCH + v);
          Wide::save(Wide::fnma(b, y, a * x), into + i - first + v);
          Wide::save(Wide::fma(b, x, a * y), into + i - first + BATCH + v);
        }
    }
    transform(at.along_w, into, into == k ? work.scratch : k, false);
  }
}

// image += the conjugate of the map times the rows of k, transformed back along W
static void rows_back(const Problem& at, const float* map, float* image, const Workspace& work) {
  for (int64_t first = 0; first < at.image; first += at.panel) {
    const float* from = transform(at.along_w, work.k + first, work.scratch, true);
    for (int64_t i = first; i < first + at.panel; i += CELL)
      for (int v = 0; v < BATCH; v += Wide::width) {
        const F a = Wide::load(map + i + v), b = Wide::load(map + i + BATCH + v);
        const F x = Wide::load(from + i - first + v), y = Wide::load(from + i - first + BATCH + v);
        Wide::save(Wide::fma(b, y, Wide::fma(a, x, Wide::load(image + i + v))), image + i + v);
        Wide::save(Wide::fnma(b, x, Wide::fma(a, y, Wide::load(image + i + BATCH + v))), image + i + BATCH + v);
      }
  }
}

// sum f(i) over the vectors of an image, a panel in float and the panels in double
template <class Function>
ALPS_INLINE double sum(const Problem& at, const Function& f) {
  double total = 0;
  for (int64_t first = 0; first < at.image; first += at.panel) {
    F some[BATCH / Wide::width] = {};
    for (int64_t i = first; i < first + at.panel; i += BATCH)
      for (int v = 0; v < BATCH; v += Wide::width) some[v / Wide::width] += f(i + v);
    for (const F& values : some)
      for (int lane = 0; lane < Wide::width; ++lane) total += static_cast<double>(values[lane]);
  }
  return total;
}

// q = (A^H A inv_eta2 + shift) p; returns p q
static double apply(const SenseCgStep& s, const Problem& at, float shift, const float* p, const Workspace& work) {
  std::memset(work.q, 0, sizeof(float) * static_cast<size_t>(at.image));
  for (int64_t coil = 0; coil < s.coils; ++coil) {
    const float* map = at.maps.data + coil * at.image;
    rows_forward(at, p, map, work);
    columns_of(s, at, at.mask.data, true, work);
    rows_back(at, map, work.q, work);
  }
  const F scale = Wide::broadcast(s.inv_eta2 / static_cast<float>(s.height * s.width)), own = Wide::broadcast(shift);
  return sum(at, [&](int64_t i) {
    const F direction = Wide::load(p + i), value = Wide::fma(own, direction, scale * Wide::load(work.q + i));
    Wide::save(value, work.q + i);
    return direction * value;
  });
}

// q = the preconditioner's r; returns r q
static double precondition(const SenseCgStep& s, const Problem& at, float shift, const float* gain, const Workspace& work) {
  const F one = Wide::broadcast(1), outside = Wide::broadcast(1 / shift);
  rows_forward(at, work.r, nullptr, work);
  columns_of(s, at, gain, true, work);
  for (int64_t first = 0; first < at.image; first += at.panel) {
    const float* from = transform(at.along_w, work.k + first, work.scratch, true);
    for (int64_t i = 0; i < at.panel; i += BATCH)
      for (int v = 0; v < BATCH; v += Wide::width) {
        const F inside = Wide::load(at.seen.data + (first + i) / CELL * BATCH + v), r = Wide::load(work.r + first + i + v);
        Wide::save(Wide::fma(inside, Wide::load(from + i + v), (one - inside) * outside * r), work.q + first + i + v);
      }
  }
  return sum(at, [&](int64_t i) { return Wide::load(work.r + i) * Wide::load(work.q + i); });
}

// Of the squared error, what the last steps tell to be left; `fell`: what they lowered it by.
static double left_of(const std::vector<double>& falls, double& fell) {
  const size_t n = falls.size(), share = n / CG_SHARE > 1 ? n / CG_SHARE : 1;
  double before = 0;
  fell = 0;
  for (size_t i = n - share; i < n; ++i) fell += falls[i], before += falls[i - share];
  const double fastest = CG_SLOWEST * before;
  return fell < before ? fell * (fell > fastest ? fell : fastest) / (before - fell) : HUGE_VAL;
}

// From x and the right-hand side in r to the solution in x: how often A^H A was applied, and whether max_iter iterations sufficed.
static std::pair<int64_t, bool> solve(const SenseCgStep& s, const Problem& at, bool starts, float shift, const float* gain,
                                      const Workspace& work) {
  const auto update = [&](float* y, float factor, const float* x) {
    for (int64_t i = 0; i < at.image; i += Wide::width)
      Wide::save(Wide::fma(Wide::broadcast(factor), Wide::load(x + i), Wide::load(y + i)), y + i);
  };
  if (starts) {
    apply(s, at, shift, work.x, work);
    const double above = sum(at, [&](int64_t i) {
      const F right = Wide::load(work.r + i);
      return Wide::load(work.x + i) * (right + (right - Wide::load(work.q + i)));
    });
    if (above < 0) starts = false;  // half x M x - rhs x is above its value at zero
    else update(work.r, -1, work.q);
  }
  if (!starts) std::memset(work.x, 0, sizeof(float) * static_cast<size_t>(at.image));
  double rz = precondition(s, at, shift, gain, work), total = 0;
  int64_t count = 1;
  std::vector<double> falls;
  std::memcpy(work.p, work.q, sizeof(float) * static_cast<size_t>(at.image));
  bool stopped = !(rz > 0);
  for (int64_t i = 1; !stopped && i <= s.max_iter; ++i, ++count) {
    const double curvature = apply(s, at, shift, work.p, work);
    const bool moves = rz > 0 && curvature > 0;
    const double alpha = moves ? rz / curvature : 0;
    if (moves) {
      update(work.x, static_cast<float>(alpha), work.p);
      update(work.r, static_cast<float>(-alpha), work.q);
    }
    falls.push_back(alpha * rz);
    total += alpha * rz;
    const double next = precondition(s, at, shift, gain, work);
    const F beta = Wide::broadcast(moves ? static_cast<float>(next / rz) : 0);
    if (moves) rz = next;
    for (int64_t e = 0; e < at.image; e += Wide::width)
      Wide::save(Wide::fma(beta, Wide::load(work.p + e), Wide::load(work.q + e)), work.p + e);
    if (i > 1) {
      double fell;
      const double left = left_of(falls, fell);
      stopped = !(left > s.error * s.error && fell > total * CG_EPS * CG_EPS);
    }
  }
  if (!std::isfinite(rz))
    for (int64_t i = 0; i < at.image; ++i) work.x[i] = __builtin_nanf("");
  return {count, stopped};
}

// f(pixel of the first of `count` rows, count, cells of the panel)
template <class Function>
ALPS_INLINE void for_panels(const SenseCgStep& s, const Problem& at, const Function& f) {
  for (int64_t p = 0; p < at.panels; ++p)
    f(p * BATCH * s.width, 2 * s.width * (s.height - p * BATCH < BATCH ? s.height - p * BATCH : BATCH), p * at.panel);
}

// Rows that an image has not, zero: `rows` holds `count` numbers.
static void pad(const Problem& at, float* rows, int64_t count) {
  const int64_t all = BATCH * static_cast<int64_t>(at.cell.size());
  std::memset(rows + count, 0, sizeof(float) * static_cast<size_t>(all - count));
}

// `onto`: to what r holds.
static void mean_system(const SenseCgStep& s, const Problem& at, int64_t n, bool onto, const Workspace& work) {
  const int64_t numbers = 2 * s.height * s.width;
  for_panels(s, at, [&](int64_t pixel, int64_t count, int64_t cells) {
    const float *x = s.x + n * numbers + 2 * pixel, *grad = s.grad + n * numbers + 2 * pixel;
    const float* b = s.b + n / (s.rows / s.measurements) * numbers + 2 * pixel;
    std::memcpy(work.rows, x, sizeof(float) * static_cast<size_t>(count));
    pad(at, work.rows, count);
    to_cells(at.cell, work.rows, work.x + cells);
    for (int64_t e = 0; e < count; ++e) work.rows[e] = b[e] + s.lin * x[e] - s.w * grad[e];
    to_cells(at.cell, work.rows, (onto ? work.q : work.r) + cells);
  });
  for (int64_t i = 0; onto && i < at.image; i += Wide::width)
    Wide::save(Wide::load(work.r + i) + Wide::load(work.q + i), work.r + i);
}

template <int NOISE>
static void noise_system(const SenseCgStep& s, const Problem& at, int64_t n, const Workspace& work) {
  const int64_t pixels = s.height * s.width;
  const auto draw_image = [&](int64_t image, float amplitude, float* out) {
    for_panels(s, at, [&](int64_t pixel, int64_t count, int64_t cells) {
      const float* drawn = draw<NOISE>(at.source, n, 2 * (image * pixels + pixel), count, amplitude, work.rows);
      std::memmove(work.rows, drawn, sizeof(float) * static_cast<size_t>(count));
      pad(at, work.rows, count);
      to_cells(at.cell, work.rows, out + cells);
    });
  };
  draw_image(0, std::sqrt(s.noise_lam), work.r);
  for (int64_t coil = 0; coil < s.coils; ++coil) {
    draw_image(1 + coil, std::sqrt(s.inv_eta2 / static_cast<float>(pixels)), work.k);
    columns_of(s, at, at.mask.data, false, work);
    rows_back(at, at.maps.data + coil * at.image, work.r, work);
  }
}

template <int NOISE>
static int64_t run(const SenseCgStep& s, int threads) {
  const Problem at(s);
  const bool joint = s.joint && NOISE != NO_NOISE;
  const int64_t systems = NOISE == NO_NOISE || joint ? s.rows : 2 * s.rows, numbers = 2 * s.height * s.width;
  const int64_t column = at.padded * CELL, rows = drawn_floats(BATCH * 2 * s.width);
  std::atomic<bool> stopped{true}, fits{true};
  std::atomic<int64_t> applications{0};
#pragma omp parallel num_threads(team(threads, systems))
  {
    const Floats own(5 * at.image + at.panel + rows + 2 * column, std::nothrow);
    if (!own.data) fits = false;
#pragma omp for schedule(static)
    for (int64_t coil = -1; coil < s.coils; ++coil)
      if (own.data) prepare(s, at, coil, own.data);
    if (fits) {  // which all threads see alike, as the loop has ended for all
      float *next = own.data, *row = next + 5 * at.image + at.panel, *cells = row + rows;
      const Workspace work = {next, next + at.image, next + 2 * at.image, next + 3 * at.image, next + 4 * at.image,
                              next + 5 * at.image, row, cells, cells + column};
#pragma omp for schedule(dynamic, 1)
      for (int64_t system = 0; system < systems; ++system) {
        const bool of_noise = system >= s.rows;
        const int64_t n = of_noise ? system - s.rows : system;
        if constexpr (NOISE != NO_NOISE)
          if (of_noise || joint) noise_system<NOISE>(s, at, n, work);
        if (!of_noise) mean_system(s, at, n, joint, work);
        const float* gain = at.gain.data + (of_noise ? at.blocks * s.height * BATCH : 0);
        const auto [count, ended] = solve(s, at, !of_noise, of_noise ? s.noise_lam : s.lam, gain, work);
        applications += count;
        if (!ended) stopped = false;
        float* out = (of_noise ? s.after : s.mean) + n * numbers;
        for_panels(s, at, [&](int64_t pixel, int64_t count, int64_t panel) {
          from_cells(at.cell, work.x + panel, work.rows);
          std::memcpy(out + 2 * pixel, work.rows, sizeof(float) * static_cast<size_t>(count));
        });
      }
#pragma omp for schedule(static)
      for (int64_t n = 0; n < s.rows; ++n)
        for (int64_t e = n * numbers; e < (n + 1) * numbers; ++e)
          s.after[e] = NOISE == NO_NOISE || joint ? s.mean[e] : s.mean[e] + s.after[e];
    }
  }
  if (!fits) throw std::bad_alloc();
  return stopped ? applications.load() : -applications.load();
}

int64_t langevin_sense_cg(const SenseCgStep& s, int threads) {
  return with_noise(s.noise, [&](auto noise) { return run<decltype(noise)::value>(s, threads); });
}

}  // namespace alps::ALPS_ISA
