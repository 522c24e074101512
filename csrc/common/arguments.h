// The arguments of every op that has a CPU or a CUDA kernel, each declared once: pointers to the memory of the one or the other,
// and numbers. `fields` names them for Python, which packs by these names (binding.h, alps_fast/ops/_compiled.py).
#pragma once

#include <cstdint>

#include "philox.h"

namespace alps {

enum Noise { NO_NOISE, INDEPENDENT, AVERAGED, GIVEN };  // as in alps_fast/ops/philox_normal.py; GIVEN takes it from xi

struct PhiloxNormal {  // contract: alps_fast/ops/philox_normal.py
  const ChainId* ids;
  float* out;
  int64_t rows, n;
  uint64_t seed;
  uint32_t step, tag;

  template <class V>
  void fields(V&& v) {
    v("ids", ids), v("out", out), v("rows", rows), v("n", n), v("seed", seed), v("step", step), v("tag", tag);
  }
};

struct Step {  // of Langevin, for every operator
  const float *x, *grad, *b, *xi;
  const ChainId* ids;
  float *after, *mean;
  const float* level;  // lam, lin, w, inv_eta2, noise_lam in the device's memory, in place of those below; null on the CPU
  int64_t rows, measurements;
  float lam, lin, w, inv_eta2, noise_lam;
  int noise;
  uint32_t step;
  uint64_t seed;

  template <class V>
  void fields(V&& v) {
    v("x", x), v("grad", grad), v("b", b), v("xi", xi), v("ids", ids), v("after", after), v("mean", mean);
    v("level", level), v("rows", rows), v("measurements", measurements);
    v("lam", lam), v("lin", lin), v("w", w), v("inv_eta2", inv_eta2), v("noise_lam", noise_lam);
    v("noise", noise), v("step", step), v("seed", seed);
  }
};

struct PixelStep : Step {  // contract: alps_fast/ops/langevin_pixel.py
  const float* a;
  int64_t pixels, channels;
  bool a_of_each_measurement, a_of_each_channel;

  template <class V>
  void fields(V&& v) {
    Step::fields(v);
    v("a", a), v("pixels", pixels), v("channels", channels);
    v("a_of_each_measurement", a_of_each_measurement), v("a_of_each_channel", a_of_each_channel);
  }
};

struct SenseStep : Step {  // contract: alps_fast/ops/langevin_sense.py; u and eigenvalues of every line, n numbers each,
  const float *u, *eigenvalues;  // of each of `operators` that as many rows have, one operator after another; 1 in CUDA
  int64_t operators, lines, n;
  int axis;

  template <class V>
  void fields(V&& v) {
    Step::fields(v);
    v("u", u), v("eigenvalues", eigenvalues), v("operators", operators), v("lines", lines), v("n", n), v("axis", axis);
  }
};

struct FourierStep : Step {  // contract: alps_fast/ops/langevin_fourier.py; no prime factor above 1021 in a side, 7 in CUDA
  const float* h;  // of each of `operators` that as many rows have, one operator after another; 1 in CUDA
  int64_t operators, height, width, channels;
  bool is_complex;

  template <class V>
  void fields(V&& v) {
    Step::fields(v);
    v("h", h), v("operators", operators), v("height", height), v("width", width), v("channels", channels), v("is_complex", is_complex);
  }
};

struct DecimatedFourierStep : FourierStep {  // the CPU's; CUDA has factor 1
  int64_t factor;

  template <class V>
  void fields(V&& v) {
    FourierStep::fields(v);
    v("factor", factor);
  }
};

// As in alps_fast/ops/_cg.py: CUDA looks at what CG_WINDOW iterations lowered the error by, the CPU at the last CG_SHARE-th of all.
constexpr int CG_WINDOW = 8, CG_SHARE = 4;
constexpr double CG_SLOWEST = 0.25;
constexpr double CG_EPS = 0x1p-23;

struct SenseCgStep : Step {  // contract: alps_fast/ops/langevin_sense_cg.py; spectrum is sense_spectrum, error sqrt(e^T M e) allowed
  const float *maps, *mask, *spectrum;
  int64_t coils, height, width;
  double error;
  int64_t max_iter;
  bool joint;  // x+ alone from one system; CUDA solves two

  template <class V>
  void fields(V&& v) {
    Step::fields(v);
    v("maps", maps), v("mask", mask), v("spectrum", spectrum), v("coils", coils), v("height", height), v("width", width);
    v("error", error), v("max_iter", max_iter), v("joint", joint);
  }
};

struct Moments {  // contract: alps_fast/ops/moments.py; the state before, the rows, the state after; float, or double where so said
  const int64_t* count;
  const void *mean, *m2, *x;
  const bool* keep;
  int64_t* count_after;
  void *mean_after, *m2_after;
  int64_t groups, rows, n;
  bool is_double;

  template <class V>
  void fields(V&& v) {
    v("count", count), v("mean", mean), v("m2", m2), v("x", x), v("keep", keep), v("count_after", count_after);
    v("mean_after", mean_after), v("m2_after", m2_after), v("groups", groups), v("rows", rows), v("n", n);
    v("is_double", is_double);
  }
};

struct ConvGrad {  // contract: alps_fast/ops/conv_grad.py; weights and biases as the kernel's layout in _conv_weights.py has them
  const float* x;
  const void* weights;
  const float *biases, *scale, *shift, *coefficients;
  float *grad, *value;
  int64_t images, film_levels, edm_levels;  // 1, or as many as images
  int channels, height, width, width_of_network, blocks[3];
  bool in_bfloat16;  // so are the weights; else float32, on a GPU float16 in two pieces

  template <class V>
  void fields(V&& v) {
    v("x", x), v("weights", weights), v("biases", biases), v("scale", scale), v("shift", shift);
    v("coefficients", coefficients), v("grad", grad), v("value", value);
    v("images", images), v("film_levels", film_levels), v("edm_levels", edm_levels);
    v("channels", channels), v("height", height), v("width", width), v("width_of_network", width_of_network);
    v("fine", blocks[0]), v("middle", blocks[1]), v("coarse", blocks[2]), v("in_bfloat16", in_bfloat16);
  }
};

struct RidgeEnergy {  // what alps_fast/ops/ridge_grad.py takes beside the images
  const float *filters, *weights, *r, *q, *mu;  // filters: a bank (count, side, side) a scale, zeros around the smaller ones
  int side, scales, count, potentials, levels;
  bool weights_of_each_image, r_of_each_image, q_of_each_image;

  template <class V>
  void fields(V&& v) {
    v("filters", filters), v("weights", weights), v("r", r), v("q", q), v("mu", mu), v("side", side), v("scales", scales);
    v("filters_a_scale", count), v("potentials", potentials), v("levels", levels);
    v("weights_of_each_image", weights_of_each_image), v("r_of_each_image", r_of_each_image), v("q_of_each_image", q_of_each_image);
  }
};

struct RidgeImages {
  int64_t images;
  int channels, height, width;

  template <class V>
  void fields(V&& v) {
    v("images", images), v("channels_of_image", channels), v("height", height), v("width", width);
  }
};

struct RidgeGrad {  // contract: alps_fast/ops/ridge_grad.py; value may be null
  RidgeEnergy energy;
  RidgeImages images;
  const float* x;
  float *grad, *value;

  template <class V>
  void fields(V&& v) {
    energy.fields(v), images.fields(v);
    v("x", x), v("grad", grad), v("value", value);
  }
};

struct RidgeLangevin {  // contract: alps_fast/ops/ridge_langevin.py; the grad of `step` is not read
  RidgeEnergy energy;
  RidgeImages images;
  PixelStep step;
  int64_t count;

  template <class V>
  void fields(V&& v) {
    energy.fields(v), images.fields(v), step.fields(v);
    v("count", count);
  }
};

}  // namespace alps
