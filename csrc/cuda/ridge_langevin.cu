// `count` Langevin steps of a ridge energy, the launches of ridge_grad and of langevin_pixel for each; contract in
// alps_fast/ops/ridge_langevin.py.
#include "kernels.h"

namespace alps::cuda {

// The workspace: that of the gradient, the gradient, and a state.
static int64_t floats_of_state(const PixelStep& s) { return (s.rows * s.pixels * s.channels + 3) / 4 * 4; }

int64_t ridge_langevin_workspace(const RidgeLangevin& s) {
  const int64_t floats = ridge_workspace(s.energy, s.images);
  return floats < 0 ? floats : floats + 2 * floats_of_state(s.step);
}

void ridge_langevin(const RidgeLangevin& s, float* workspace, cudaStream_t stream) {
  PixelStep step = s.step;
  const int of_image = s.images.channels, channels = static_cast<int>(step.channels);
  float* const grad = workspace + ridge_workspace(s.energy, s.images);
  float* const between = grad + floats_of_state(step);
  step.grad = grad;
  for (int64_t left = s.count; left > 0; --left, ++step.step) {
    step.after = left % 2 ? s.step.after : between;  // the last is
    ridge_grad({{s.energy, s.images, step.x, grad, nullptr}, {channels / of_image, step.pixels * channels, of_image, 1, channels},
                workspace}, stream);
    langevin_pixel(step, stream);
    step.x = step.after;
    if (step.noise == GIVEN) step.xi += step.rows * step.pixels * channels;
  }
}

}  // namespace alps::cuda
