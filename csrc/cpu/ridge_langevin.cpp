// Steps of a ridge energy where A^H A is diagonal in pixels, a chain after another: its state, gradient and pyramid stay in
// the caches of a core for all steps of a call. Contract in alps_fast/ops/ridge_langevin.py.
#include "pixel_step.h"
#include "ridge.h"

namespace alps::ALPS_ISA {

template <int NOISE>
static void run(const RidgeLangevin& s, int threads) {
  const PixelStep& all = s.step;
  const int64_t n = all.pixels * all.channels, groups = all.channels / s.images.channels, each = all.rows / all.measurements;
  const int64_t tiles = (n + PIXEL_TILE - 1) / PIXEL_TILE;
  const int64_t a_size = all.a_of_each_measurement ? all.pixels * (all.a_of_each_channel ? all.channels : 1) : 0;
  const RidgeGradient gradient(s.energy, s.images);
  each_alone(gradient, all.rows, n, threads, [&](int64_t row, float* workspace, const Floats* responses, int team_size) {
    float* grad = workspace + gradient.size();
    PixelStep step = all;
    step.grad = grad;
    step.rows = step.measurements = 1;
    step.a_of_each_measurement = false;
    step.x += row * n;
    step.b += row / each * n;
    step.a += row / each * a_size;
    step.ids += row;
    step.after += row * n;
    step.mean += row * n;
    for (int64_t k = 0; k < s.count; ++k, ++step.step) {
      if (NOISE == GIVEN) step.xi = all.xi + (k * all.rows + row) * n;
      for (int64_t group = 0; group < groups; ++group)
        gradient(row * groups + group, step.x + group * s.images.channels, grad + group * s.images.channels, {1, all.channels}, nullptr,
                 workspace, responses, team_size);
      const PixelLevel level = make_level(step);
      const auto advance_at = [&](int64_t tile) { advance_tile<NOISE>(step, level, 0, 0, 1, tile * PIXEL_TILE); };
      if (team_size == 1) {
        for (int64_t tile = 0; tile < tiles; ++tile) advance_at(tile);
      } else {
#pragma omp parallel for num_threads(team(team_size, tiles)) schedule(static)
        for (int64_t tile = 0; tile < tiles; ++tile) advance_at(tile);
      }
      step.x = step.after;  // an element is read before it is written
    }
  });
}

void ridge_langevin(const RidgeLangevin& s, int threads) {
  return with_noise(s.step.noise, [&](auto noise) { return run<decltype(noise)::value>(s, threads); });
}

}  // namespace alps::ALPS_ISA
