// m = (b + lin x - w grad) gain,  x+ = m + xi spread,  gain = 1/(a inv_eta2 + lam), spread = 1/sqrt(a inv_eta2 + noise_lam);
// contract in alps_fast/ops/langevin_pixel.py.
//
// A piece of work is a tile of the image for a few chains of one measurement: its gains are computed once and, with b,
// serve every chain from L1, so a chain costs what it reads (x, grad) and writes (x+, m), and the arithmetic of its noise.
#include "pixel_step.h"

namespace alps::ALPS_ISA {

constexpr int64_t CHAIN_TILE = 16;  // of a piece: enough to spread the cost of the gains, few enough to occupy many threads

template <int NOISE>
static void run(const PixelStep& s, int threads) {
  const int64_t n = s.pixels * s.channels, each = s.rows / s.measurements;
  const PixelLevel level = make_level(s);
  const int64_t pieces = s.measurements * ((each + CHAIN_TILE - 1) / CHAIN_TILE) * ((n + PIXEL_TILE - 1) / PIXEL_TILE);
#pragma omp parallel for collapse(3) num_threads(team(threads, pieces)) schedule(static)
  for (int64_t measurement = 0; measurement < s.measurements; ++measurement)
    for (int64_t from = 0; from < each; from += CHAIN_TILE)
      for (int64_t first = 0; first < n; first += PIXEL_TILE) {
        const int64_t to = each - from < CHAIN_TILE ? each : from + CHAIN_TILE;
        advance_tile<NOISE>(s, level, measurement, measurement * each + from, measurement * each + to, first);
      }
}

void langevin_pixel(const PixelStep& s, int threads) {
  return with_noise(s.noise, [&](auto noise) { return run<decltype(noise)::value>(s, threads); });
}

}  // namespace alps::ALPS_ISA
