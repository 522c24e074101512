// m = F^-1 g F (b + lin x - w grad),  x+ = m + F^-1 spread xi (complex) or m + F^-1 spread F xi (real); contract in
// alps_fast/ops/langevin_fourier.py. With decimation g and spread are matrices on the aliases of a frequency, see aliases.h.
//
// Rows of the image, 16 at a time, are formed, transposed into cells and transformed while they are in L1; then columns, where
// the gains are, both ways; then rows back. A real image needs one complex transform each way: z = r + i a xi, and with Z its
// transform, conj Z(-k) parts the two again. Columns k and -k therefore share a block. The factor a brings xi to the size of r,
// or the rounding of the larger would be the error of the smaller.
#include <omp.h>

#include <atomic>
#include <cmath>

#include "aliases.h"
#include "draw.h"
#include "memory.h"

namespace alps::ALPS_ISA {

using F = Wide::F;

struct Layout {
  Layout(const DecimatedFourierStep& s)
      : row(s.width * s.channels), images(s.is_complex ? s.channels / 2 : s.channels),
        planes(s.is_complex && s.noise != NO_NOISE ? 2 * images : images), plane(s.width * CELL), panel(planes * plane),
        panels((s.height + BATCH - 1) / BATCH), column((panels * BATCH + 1) * CELL),
        amplitude(std::sqrt(s.inv_eta2 + s.noise_lam)), along_w(fourier(s.width)), along_h(fourier(s.height)),
        source(s.seed, s.step, s.ids, s.xi, s.height * row) {
    for (int64_t e = 0; e < row; ++e) {
      const int64_t pixel = e / s.channels, channel = e % s.channels;
      cell.push_back(s.is_complex ? channel / 2 * plane + pixel * CELL + channel % 2 * BATCH : channel * plane + pixel * CELL);
    }
    const int64_t lanes = s.is_complex ? BATCH : HALF;
    for (int64_t first = 0; s.factor == 1 && first < (s.is_complex ? s.width : (s.width + 1) / 2); first += lanes) {
      Columns block;
      for (int lane = 0; lane < BATCH; ++lane) block.index[lane] = column_of(s, first, lane);
      aliases.push_back({block, block});
    }
    if (s.factor > 1) aliases = aliases_of(s);
    blocks = static_cast<int64_t>(aliases.size()) / s.factor;
    gains = s.factor > 1 ? gains_of_aliases(s, column) : s.height * CELL;
  }

  // Real images: k and -k half a batch apart; 0 and width / 2, each its own mirror image, share a pair.
  static int32_t column_of(const FourierStep& s, int64_t first, int lane) {
    int64_t k = first + (s.is_complex ? lane : lane % HALF);
    if (!s.is_complex) {
      if (k >= (s.width + 1) / 2) return -1;
      if (lane >= HALF) k = k ? s.width - k : s.width % 2 ? -1 : s.width / 2;
    }
    return static_cast<int32_t>(k < s.width ? k : -1);
  }

  int64_t row;  // numbers of a row of the image
  int64_t images, planes;  // channels, and planes of the workspace: complex images have the noise in planes of its own
  int64_t plane, panel, panels;  // floats of a plane in a panel, floats of a panel, panels
  int64_t column;  // floats of a batch of columns; a cell more than rows need, or all aliases would want the same places in L1
  float amplitude;
  const Fourier &along_w, &along_h;
  Source source;
  std::vector<int64_t> cell;  // of every number of a row, where in a panel it is
  std::vector<Alias> aliases;  // of the columns that are worked on together, s.factor a block
  int64_t blocks, gains;  // their number, and floats of the gains of each
};

// Complex: gain and spread of a frequency. Real: what Z(k) and conj Z(-k) are multiplied with.
static void fill_gains(const FourierStep& s, const Layout& at, const float* spectrum, const Columns& columns, float* gains) {
  const float every = 1 / static_cast<float>(s.height * s.width);
  const Lanes::F one = Lanes::broadcast(1), inv_eta2 = Lanes::broadcast(s.inv_eta2);
  for (int64_t h = 0; h < s.height; ++h, gains += CELL) {
    for (int lane = 0; lane < BATCH; ++lane) {
      const float* transfer = spectrum + 2 * (h * s.width + (columns.index[lane] < 0 ? 0 : columns.index[lane]));
      gains[lane] = transfer[0] * transfer[0] + transfer[1] * transfer[1];
    }
    for (int v = 0; v < BATCH; v += Lanes::width) {
      const Lanes::F energy = Lanes::load(gains + v);
      const Lanes::F gain = one / Lanes::fma(energy, inv_eta2, Lanes::broadcast(s.lam)) * every;
      const Lanes::F root = one / Lanes::sqrt(Lanes::fma(energy, inv_eta2, Lanes::broadcast(s.noise_lam)));
      const Lanes::F spread = s.noise == NO_NOISE ? gain : root * (every / at.amplitude);
      Lanes::save(s.is_complex ? gain : (gain + spread) * 0.5f, gains + v);
      Lanes::save(s.is_complex ? root * __builtin_sqrtf(every) : (gain - spread) * 0.5f, gains + BATCH + v);
    }
  }
}

struct Workspace {  // of one thread, but for the planes of an image that all threads work on together
  float *planes, *scratch, *rows, *drawn, *cells, *others, *noise;  // cells and noise: of as many columns as a block has aliases
};

// The rows of a panel: right-hand side and noise into cells, and the transform along W of what needs it.
template <int NOISE>
static void rows_forward(const FourierStep& s, const Layout& at, int64_t image, int64_t p, const Workspace& work) {
  const int64_t first = p * BATCH * at.row, numbers = s.height * at.row;
  const int64_t count = numbers - first < BATCH * at.row ? numbers - first : BATCH * at.row;
  const float *x = s.x + image * numbers + first, *grad = s.grad + image * numbers + first;
  const float* b = s.b + image / (s.rows / s.measurements) * numbers + first;
  const F lin = Wide::broadcast(s.lin), w = Wide::broadcast(s.w);
  int64_t e = 0;
  for (; e + Wide::width <= count; e += Wide::width)
    Wide::save(Wide::fnma(w, Wide::load(grad + e), Wide::fma(lin, Wide::load(x + e), Wide::load(b + e))), work.rows + e);
  for (; e < count; ++e) {
    const F right = Wide::fnma(w, Wide::broadcast(grad[e]), Wide::fma(lin, Wide::broadcast(x[e]), Wide::broadcast(b[e])));
    work.rows[e] = right[0];
  }
  float* planes = work.planes + p * at.panel;
  float* into = in_place(at.along_w) ? planes : work.scratch;
  to_cells(at.cell, work.rows, into);
  if constexpr (NOISE != NO_NOISE) {
    const float* xi = draw<NOISE>(at.source, image, first, count, s.is_complex ? 1 : at.amplitude, work.drawn);
    to_cells(at.cell, xi, s.is_complex ? planes + at.images * at.plane : into + BATCH);
  } else if (!s.is_complex) {
    for (int64_t i = 0; i < at.panel; i += CELL) std::memset(into + i + BATCH, 0, sizeof(float) * BATCH);
  }
  for (int64_t i = 0; i < at.images * at.plane; i += at.plane)
    transform(at.along_w, into + i, into == planes ? work.scratch + i : planes + i, false);
}

// Real images: Z(k) <- first Z(k) + second conj Z(-k), in rows h and -h, whose gains are alike.
static void mix(const FourierStep& s, const Columns& columns, const float* gains, float* cells) {
  constexpr int V = BATCH / Wide::width;
  const bool mirrors = columns.index[0] == 0;
  for (int64_t h = 0; h <= s.height / 2; ++h) {
    const int64_t row[2] = {h, h ? s.height - h : 0};
    float alone[2][2][2];  // lanes 0 and HALF where they are their own mirror images
    F re[2][V], im[2][V];
    for (int k = 0; k < 2; ++k) {
      const float* from = cells + row[1 - k] * CELL;
      for (int v = 0; v < V; ++v) {
        const float *own = cells + row[k] * CELL + v * Wide::width, *gain = gains + row[k] * CELL + v * Wide::width;
        re[k][v] = Wide::fma(Wide::load(gain + BATCH), Wide::turned(from, v * Wide::width), Wide::load(gain) * Wide::load(own));
        im[k][v] = Wide::fnma(Wide::load(gain + BATCH), Wide::turned(from + BATCH, v * Wide::width),
                              Wide::load(gain) * Wide::load(own + BATCH));
      }
      for (int i = 0; mirrors && i < 2; ++i) {
        const float *own = cells + row[k] * CELL + i * HALF, *gain = gains + row[k] * CELL + i * HALF;
        alone[k][i][0] = gain[BATCH] * from[i * HALF] + gain[0] * own[0];
        alone[k][i][1] = gain[0] * own[BATCH] - gain[BATCH] * from[BATCH + i * HALF];
      }
    }
    for (int k = 0; k < 2; ++k) {
      float* to = cells + row[k] * CELL;
      for (int v = 0; v < V; ++v) {
        Wide::save(re[k][v], to + v * Wide::width);
        Wide::save(im[k][v], to + BATCH + v * Wide::width);
      }
      for (int i = 0; mirrors && i < 2; ++i) to[i * HALF] = alone[k][i][0], to[BATCH + i * HALF] = alone[k][i][1];
    }
  }
}

// A block of columns of one channel: the transform along H, the gains, and the transform back.
static void columns_both_ways(const FourierStep& s, const Layout& at, int64_t channel, const Columns& columns, const float* gains,
                              const Workspace& work) {
  const int64_t padded = at.panels * BATCH;
  float* plane = work.planes + channel * at.plane;
  take_columns(plane, at.panel, columns, padded, work.cells);
  float* cells = transform(at.along_h, work.cells, work.others, false);
  float* other = cells == work.cells ? work.others : work.cells;
  if (!s.is_complex) {
    mix(s, columns, gains, cells);
  } else {
    float* noise = s.noise == NO_NOISE ? nullptr : work.noise;
    float* noise_plane = plane + at.images * at.plane;
    if (noise) take_columns(noise_plane, at.panel, columns, padded, noise);
    for (int64_t i = 0; i < s.height * CELL; i += BATCH)
      for (int v = 0; v < BATCH; v += Wide::width) {
        const F mean = Wide::load(cells + i + v) * Wide::load(gains + i / CELL * CELL + v);
        Wide::save(mean, cells + i + v);
        if (noise)
          Wide::save(Wide::fma(Wide::load(noise + i + v), Wide::load(gains + i / CELL * CELL + BATCH + v), mean), noise + i + v);
      }
    if (noise) give_columns(transform(at.along_h, noise, other, true), padded, columns, noise_plane, at.panel);
  }
  give_columns(transform(at.along_h, cells, other, true), padded, columns, plane, at.panel);
}

// The same with decimation: a block of columns and their aliases.
static void aliases_both_ways(const DecimatedFourierStep& s, const Layout& at, int64_t channel, const Alias* aliases,
                              const float* gains, const Workspace& work) {
  const int64_t padded = at.panels * BATCH, plane = channel * at.plane, noise_plane = (channel + at.images) * at.plane;
  const float* of_groups = gains + s.factor * at.column;
  const bool drawn = s.is_complex && s.noise != NO_NOISE;
  for (int64_t i = 0; i < s.factor; ++i) {
    float* cells = work.cells + i * at.column;
    float* into = in_place(at.along_h) ? cells : work.others;
    take_columns(work.planes + plane, at.panel, aliases[i].taken, padded, into);
    transform(at.along_h, into, into == cells ? work.others : cells, false);
    if (!s.is_complex) part(s, cells);
    if (drawn) take_columns(work.planes + noise_plane, at.panel, aliases[i].taken, padded, work.noise + i * at.column);
  }
  project(s, gains, of_groups, at.column, nullptr, work.cells);
  if (drawn) project(s, gains, of_groups + s.height / s.factor * CELL, at.column, work.cells, work.noise);
  for (int64_t i = 0; i < s.factor; ++i) {
    float *cells = work.cells + i * at.column, *noise = work.noise + i * at.column;
    if (!s.is_complex) join(s, cells);
    give_columns(transform(at.along_h, cells, work.others, true), padded, aliases[i].given, work.planes + plane, at.panel);
    if (!drawn) continue;
    give_columns(transform(at.along_h, noise, work.others, true), padded, aliases[i].given, work.planes + noise_plane, at.panel);
  }
}

template <int NOISE>
static void rows_back(const FourierStep& s, const Layout& at, int64_t image, int64_t p, const Workspace& work) {
  const int64_t first = p * BATCH * at.row, numbers = s.height * at.row;
  const int64_t count = numbers - first < BATCH * at.row ? numbers - first : BATCH * at.row;
  float *mean = s.mean + image * numbers + first, *after = s.after + image * numbers + first;
  float* planes = work.planes + p * at.panel;
  for (int64_t i = 0; i < at.panel; i += at.plane) transform(at.along_w, planes + i, work.scratch + i, true);
  const float* cells = in_place(at.along_w) ? planes : work.scratch;
  from_cells(at.cell, cells, work.rows);
  std::memcpy(mean, work.rows, sizeof(float) * static_cast<size_t>(count));
  if constexpr (NOISE == NO_NOISE) {
    std::memcpy(after, work.rows, sizeof(float) * static_cast<size_t>(count));
  } else if (s.is_complex) {
    from_cells(at.cell, cells + at.images * at.plane, work.rows);
    std::memcpy(after, work.rows, sizeof(float) * static_cast<size_t>(count));
  } else {
    from_cells(at.cell, cells + BATCH, work.drawn);
    for (int64_t e = 0; e < count; ++e) after[e] = work.rows[e] + work.drawn[e];
  }
}

// An image by `workers` threads of which this is `worker`: they meet where one step needs all of the last.
template <int NOISE>
static void advance(const DecimatedFourierStep& s, const Layout& at, const float* gains, int64_t image, int worker, int workers,
                    const Workspace& work) {
  for (int64_t p = worker; p < at.panels; p += workers) rows_forward<NOISE>(s, at, image, p, work);
  if (workers > 1) {
#pragma omp barrier
  }
  for (int64_t i = worker; i < at.images * at.blocks; i += workers) {
    const int64_t channel = i / at.blocks, block = i % at.blocks;
    const Alias* aliases = at.aliases.data() + block * s.factor;
    if (s.factor > 1) aliases_both_ways(s, at, channel, aliases, gains + block * at.gains, work);
    else columns_both_ways(s, at, channel, aliases->taken, gains + block * at.gains, work);
  }
  if (workers > 1) {
#pragma omp barrier
  }
  for (int64_t p = worker; p < at.panels; p += workers) rows_back<NOISE>(s, at, image, p, work);
  if (workers > 1) {
#pragma omp barrier
  }
}

template <int NOISE>
static void run(const DecimatedFourierStep& s, int threads) {
  const Layout at(s);
  const int64_t image_floats = at.panels * at.panel;
  const int64_t rows = drawn_floats(BATCH * at.row);
  const int64_t gains_floats = at.blocks * at.gains, rows_of_each = s.rows / s.operators;
  const Floats gains(s.operators * gains_floats), shared(image_floats);
  const bool together = s.rows < threads;  // few images: all threads on one after the other
  const int workers = together ? threads : team(threads, s.rows);
  std::atomic<bool> fits{true};
#pragma omp parallel num_threads(workers)
  {
    const Floats own((together ? 0 : image_floats) + at.panel + 2 * rows + (2 * s.factor + 1) * at.column, std::nothrow);
    if (!own.data) fits = false;
#pragma omp for schedule(static)
    for (int64_t i = 0; i < s.operators * at.blocks; ++i) {
      const float* spectrum = s.h + i / at.blocks * 2 * s.height * s.width;
      const Alias* aliases = at.aliases.data() + i % at.blocks * s.factor;
      if (s.factor > 1) fill_gains(s, at.amplitude, spectrum, aliases, at.column, gains.data + i * at.gains);
      else fill_gains(s, at, spectrum, aliases->taken, gains.data + i * at.gains);
    }
    if (fits) {  // which all threads see alike, as the loop has ended for all
      float* scratch = own.data + (together ? 0 : image_floats);
      float *cells = scratch + at.panel, *others = cells + s.factor * at.column, *row = others + (s.factor + 1) * at.column;
      std::memset(row, 0, sizeof(float) * static_cast<size_t>(2 * rows));
      const Workspace work = {together ? shared.data : own.data, scratch, row, row + rows, cells, others,
                              others + at.column};
      const auto gains_of = [&](int64_t image) { return gains.data + image / rows_of_each * gains_floats; };
      if (together) {
        const int worker = omp_get_thread_num(), present = omp_get_num_threads();
        for (int64_t image = 0; image < s.rows; ++image) advance<NOISE>(s, at, gains_of(image), image, worker, present, work);
      } else {
#pragma omp for schedule(static)
        for (int64_t image = 0; image < s.rows; ++image) advance<NOISE>(s, at, gains_of(image), image, 0, 1, work);
      }
    }
  }
  if (!fits) throw std::bad_alloc();
}

void langevin_fourier(const DecimatedFourierStep& s, int threads) {
  return with_noise(s.noise, [&](auto noise) { return run<decltype(noise)::value>(s, threads); });
}

}  // namespace alps::ALPS_ISA
