// The gradient of a ridge energy, image after image; contract in alps_fast/ops/ridge_grad.py, definitions in ridge_grad.cpp.
//
// Lanes are pixels. A block of filters meets a tile of an image at a time: its responses, times their slopes, stay in L2 for
// the transposed filters, which add to the tile's gradient, so responses are computed once a tile (and again in the rows
// that the tile below or above needs of them) and never leave the core.
#pragma once

#include <vector>

#include <omp.h>

#include "kernels.h"
#include "lanes.h"
#include "memory.h"

namespace alps::ALPS_ISA {

struct Strides {  // of an image's channels and pixels in memory
  int64_t channel, pixel;
};

// What all images of a call share: the filters as the kernels read them, and the sizes of the pyramid.
class RidgeGradient {
 public:
  RidgeGradient(const RidgeEnergy& energy, const RidgeImages& images);

  int64_t size() const { return size_; }       // floats of the workspace of one image at work
  int64_t response_size() const { return response_size_; }  // floats of the responses of one thread
  Floats workspace(int64_t more) const;        // and so many more floats behind it
  Floats responses() const;                    // of one thread

  // `grad` of x for image number `image`, and its value unless that is null, with `threads` buffers of responses.
  void operator()(int64_t image, const float* x, float* grad, Strides strides, float* value, float* workspace,
                  const Floats* responses, int threads) const;

 private:
  struct Level {
    int64_t height, width, side, radius;  // of the image and its filters; side 0 without
    int64_t vectors, margin, stride;      // of a row: vectors of its pixels, zeros before them, floats in all
    int64_t above, plane, grad_plane;     // rows of zeros above; floats of a channel of x, and of its gradient
    int64_t tile, tiles;                  // rows of a piece of work, pieces
    int64_t x, grad, values;              // where in the workspace the first pixel, the gradient and the pieces' values are
    std::vector<float> taps, transposed;
  };

  void fill_potentials(int64_t image, float* out) const;
  void build_pyramid(const float* x, Strides strides, float* workspace) const;
  double piece(const Level& level, int64_t scale, int64_t first, float q, bool want_value, float* workspace,
               float* responses) const;
  void collect(float* workspace, float* grad, Strides strides) const;

  RidgeEnergy ridge_;
  int64_t images_, channels_, blocks_, pairs_, scratch_, size_, response_size_ = 0;
  std::vector<Level> levels_;
};

// Runs body(row, workspace, responses, threads) for every row, `more` floats behind its workspace: a row a thread while there are
// rows for all threads, then the rows that are left one after another, each with all threads.
template <class Body>
static void each_alone(const RidgeGradient& gradient, int64_t rows, int64_t more, int threads, const Body& body) {
  std::vector<Floats> workspaces, responses;
  for (int t = 0; t < threads; ++t) responses.push_back(gradient.responses());
  const int64_t together = rows - rows % threads;
  for (int t = 0; t < (together ? threads : 1); ++t) workspaces.push_back(gradient.workspace(more));
  if (together) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t row = 0; row < together; ++row) {
      const int t = omp_get_thread_num();
      body(row, workspaces[static_cast<size_t>(t)].data, &responses[t], 1);
    }
  }
  for (int64_t row = together; row < rows; ++row) body(row, workspaces[0].data, responses.data(), threads);
}

}  // namespace alps::ALPS_ISA
