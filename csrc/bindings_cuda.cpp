// alps_fast._cuda: CUDA kernels on raw device pointers and a stream that the Python side has checked.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include "cuda/kernels.h"

namespace py = pybind11;

namespace {

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

cudaStream_t stream_at(uintptr_t address) { return reinterpret_cast<cudaStream_t>(address); }

void philox_normal(uintptr_t chains, int64_t rows, int64_t n, int64_t seed, uint32_t step, uint32_t tag, uintptr_t out,
                   uintptr_t stream) {
  alps::cuda::philox_normal(pointer<const alps::Chain>(chains), rows, n, static_cast<uint64_t>(seed), step, tag, pointer<float>(out),
                            stream_at(stream));
}

void langevin_pixel(uintptr_t x, uintptr_t grad, uintptr_t b, uintptr_t a, uintptr_t xi, uintptr_t chains, uintptr_t after,
                    uintptr_t mean, int64_t rows, int64_t measurements, int64_t pixels, int64_t channels,
                    bool a_of_each_measurement, bool a_of_each_channel, float lam, float lin, float w, float inv_eta2,
                    float noise_lam, int noise, int64_t seed, uint32_t step, uintptr_t stream) {
  alps::cuda::langevin_pixel(
      {pointer<float>(x), pointer<float>(grad), pointer<float>(b), pointer<float>(a), pointer<float>(xi),
       pointer<alps::Chain>(chains), pointer<float>(after), pointer<float>(mean), rows, measurements, pixels, channels,
       a_of_each_measurement, a_of_each_channel, lam, lin, w, inv_eta2, noise_lam,
       noise != alps::NO_NOISE && xi ? alps::GIVEN : noise, static_cast<uint64_t>(seed), step},
      stream_at(stream));
}

int64_t langevin_fourier_workspace(int64_t rows, int64_t height, int64_t width, int64_t channels, bool is_complex, int noise) {
  alps::FourierStep step = {};
  step.rows = rows, step.height = height, step.width = width, step.channels = channels;
  step.is_complex = is_complex, step.noise = noise;
  return alps::cuda::langevin_fourier_workspace(step);
}

void langevin_fourier(uintptr_t x, uintptr_t grad, uintptr_t b, uintptr_t h, uintptr_t xi, uintptr_t chains, uintptr_t after,
                      uintptr_t mean, uintptr_t workspace, int64_t rows, int64_t measurements, int64_t height, int64_t width,
                      int64_t channels, bool is_complex, float lam, float lin, float w, float inv_eta2, float noise_lam, int noise,
                      int64_t seed, uint32_t step, uintptr_t stream) {
  alps::cuda::langevin_fourier(
      {pointer<float>(x), pointer<float>(grad), pointer<float>(b), pointer<float>(h), pointer<float>(xi),
       pointer<alps::Chain>(chains), pointer<float>(after), pointer<float>(mean), rows, measurements, height, width, channels,
       is_complex, lam, lin, w, inv_eta2, noise_lam, noise != alps::NO_NOISE && xi ? alps::GIVEN : noise,
       static_cast<uint64_t>(seed), step},
      pointer<float>(workspace), stream_at(stream));
}

bool langevin_sense(uintptr_t x, uintptr_t grad, uintptr_t b, uintptr_t u, uintptr_t eigenvalues, uintptr_t xi, uintptr_t chains,
                    uintptr_t after, uintptr_t mean, int64_t rows, int64_t measurements, int64_t lines, int64_t n, int axis,
                    float lam, float lin, float w, float inv_eta2, float noise_lam, int noise, int64_t seed, uint32_t step,
                    uintptr_t stream) {
  return alps::cuda::langevin_sense(
      {pointer<float>(x), pointer<float>(grad), pointer<float>(b), pointer<float>(u), pointer<float>(eigenvalues),
       pointer<float>(xi), pointer<alps::Chain>(chains), pointer<float>(after), pointer<float>(mean), rows, measurements, lines, n,
       axis, lam, lin, w, inv_eta2, noise_lam, noise != alps::NO_NOISE && xi ? alps::GIVEN : noise,
       static_cast<uint64_t>(seed), step},
      stream_at(stream));
}

std::pair<int64_t, int64_t> langevin_sense_cg_memory(int64_t rows, int64_t coils, int64_t height, int64_t width, int noise) {
  alps::SenseCgStep step = {};
  step.rows = rows, step.coils = coils, step.height = height, step.width = width, step.noise = noise;
  const auto memory = alps::cuda::langevin_sense_cg_memory(step);
  return {memory.floats, memory.doubles};
}

void langevin_sense_cg_iterate(uintptr_t x, uintptr_t grad, uintptr_t b, uintptr_t maps, uintptr_t mask, uintptr_t spectrum,
                               uintptr_t xi, uintptr_t chains, uintptr_t after, uintptr_t mean, uintptr_t floats,
                               uintptr_t doubles, int64_t rows, int64_t measurements, int64_t coils, int64_t height,
                               int64_t width, float lam, float lin, float w, float inv_eta2, float noise_lam, int noise,
                               int64_t seed, uint32_t step, double error, int64_t iteration, int64_t end, uintptr_t stream) {
  alps::cuda::langevin_sense_cg_iterate(
      {pointer<float>(x), pointer<float>(grad), pointer<float>(b), pointer<float>(maps), pointer<float>(mask),
       pointer<float>(spectrum), pointer<float>(xi), pointer<alps::Chain>(chains), pointer<float>(after), pointer<float>(mean), rows,
       measurements, coils, height, width, lam, lin, w, inv_eta2, noise_lam, noise != alps::NO_NOISE && xi ? alps::GIVEN : noise,
       static_cast<uint64_t>(seed), step, error, end},
      iteration, end, pointer<float>(floats), pointer<double>(doubles), stream_at(stream));
}

void langevin_sense_cg_finish(uintptr_t mean, uintptr_t after, uintptr_t doubles, int64_t rows, int64_t numbers, bool noisy,
                              uintptr_t stream) {
  alps::cuda::langevin_sense_cg_finish(pointer<float>(mean), pointer<float>(after), pointer<double>(doubles), rows, numbers, noisy,
                                       stream_at(stream));
}

template <class T>
void moments_of(uintptr_t count, uintptr_t mean, uintptr_t m2, uintptr_t x, uintptr_t keep, uintptr_t count_after,
                uintptr_t mean_after, uintptr_t m2_after, int64_t groups, int64_t rows, int64_t n, uintptr_t stream) {
  alps::cuda::moments(alps::Moments<T>{pointer<int64_t>(count), pointer<T>(mean), pointer<T>(m2), pointer<T>(x),
                                       pointer<bool>(keep), pointer<int64_t>(count_after), pointer<T>(mean_after),
                                       pointer<T>(m2_after), groups, rows, n},
                      stream_at(stream));
}

void moments(bool is_double, uintptr_t count, uintptr_t mean, uintptr_t m2, uintptr_t x, uintptr_t keep, uintptr_t count_after,
             uintptr_t mean_after, uintptr_t m2_after, int64_t groups, int64_t rows, int64_t n, uintptr_t stream) {
  (is_double ? moments_of<double> : moments_of<float>)(count, mean, m2, x, keep, count_after, mean_after, m2_after, groups, rows, n,
                                                       stream);
}

alps::cuda::ConvGrad conv_images(int64_t images, int channels, int height, int width, const std::array<int, 3>& blocks) {
  alps::cuda::ConvGrad s = {};
  s.images = images, s.channels = channels, s.height = height, s.width = width;
  std::copy(blocks.begin(), blocks.end(), s.blocks);
  return s;
}

int64_t conv_grad_workspace(int64_t images, int channels, int height, int width, const std::array<int, 3>& blocks, int kernel) {
  const alps::cuda::ConvGrad s = conv_images(images, channels, height, width, blocks);
  return kernel == 0 ? alps::cuda::conv_grad_workspace(s) : alps::cuda::conv_tiles_workspace(s, kernel == 2);
}

void conv_grad(uintptr_t x, uintptr_t weights, uintptr_t biases, uintptr_t scale, uintptr_t shift, uintptr_t coefficients,
               uintptr_t grad, uintptr_t value, uintptr_t workspace, int64_t images, int channels, int height, int width,
               const std::array<int, 3>& blocks, int64_t film_levels, int64_t edm_levels, int kernel, uintptr_t stream) {
  alps::cuda::ConvGrad s = conv_images(images, channels, height, width, blocks);
  s.x = pointer<float>(x), s.weights = pointer<void>(weights), s.biases = pointer<float>(biases);
  s.scale = pointer<float>(scale), s.shift = pointer<float>(shift), s.coefficients = pointer<float>(coefficients);
  s.grad = pointer<float>(grad), s.value = pointer<float>(value), s.workspace = pointer<void>(workspace);
  s.film_levels = film_levels, s.edm_levels = edm_levels;
  if (kernel == 0) alps::cuda::conv_grad(s, stream_at(stream));
  else alps::cuda::conv_tiles(s, kernel == 2, stream_at(stream));
}

alps::cuda::RidgeEnergy ridge(uintptr_t filters, int side, uintptr_t w, uintptr_t r, uintptr_t q, uintptr_t mu, int scales,
                              int count, int potentials, int levels, bool w_of_each_image, bool r_of_each_image,
                              bool q_of_each_image) {
  return {pointer<float>(filters), pointer<float>(w), pointer<float>(r), pointer<float>(q), pointer<float>(mu), side, scales,
          count, potentials, levels, w_of_each_image, r_of_each_image, q_of_each_image};
}

bool ridge_fits(const alps::cuda::RidgeEnergy& energy, int channels, int height, int width) {
  return alps::cuda::ridge_fits(energy, {1, channels, height, width});
}

int64_t ridge_workspace(const alps::cuda::RidgeEnergy& energy, int64_t images, int channels, int height, int width) {
  return alps::cuda::ridge_workspace(energy, {images, channels, height, width});
}

void ridge_grad(const alps::cuda::RidgeEnergy& energy, uintptr_t x, uintptr_t grad, uintptr_t value, uintptr_t workspace,
                int64_t images, int channels, int height, int width, uintptr_t stream) {
  const int pixels = height * width;
  alps::cuda::ridge_grad({energy, {images, channels, height, width}, {1, int64_t(channels) * pixels, 0, pixels, 1},
                          pointer<float>(x), pointer<float>(grad), pointer<float>(value), pointer<float>(workspace)},
                         stream_at(stream));
}

int64_t ridge_langevin_workspace(const alps::cuda::RidgeEnergy& energy, int64_t rows, int height, int width, int channels,
                                 int channels_of_image) {
  const int64_t images = rows * (channels / channels_of_image);
  alps::cuda::RidgeLangevin steps = {energy, {images, channels_of_image, height, width}, {}, 0, nullptr};
  steps.step.rows = rows, steps.step.pixels = int64_t(height) * width, steps.step.channels = channels;
  return alps::cuda::ridge_langevin_workspace(steps);
}

void ridge_langevin(const alps::cuda::RidgeEnergy& energy, uintptr_t x, uintptr_t b, uintptr_t a, uintptr_t xi, uintptr_t chains,
                    uintptr_t after, uintptr_t mean, uintptr_t workspace, int64_t rows, int64_t measurements, int height,
                    int width, int channels, int channels_of_image, bool a_of_each_measurement, bool a_of_each_channel, float lam, float lin,
                    float w, float inv_eta2, float noise_lam, int noise, int64_t seed, uint32_t step, int64_t count,
                    uintptr_t stream) {
  const alps::PixelStep pixel_step = {
      pointer<float>(x), nullptr, pointer<float>(b), pointer<float>(a), pointer<float>(xi), pointer<alps::Chain>(chains),
      pointer<float>(after), pointer<float>(mean), rows, measurements, int64_t(height) * width, channels, a_of_each_measurement,
      a_of_each_channel, lam, lin, w, inv_eta2, noise_lam, noise != alps::NO_NOISE && xi ? alps::GIVEN : noise,
      static_cast<uint64_t>(seed), step};
  const int64_t images = rows * (channels / channels_of_image);
  alps::cuda::ridge_langevin({energy, {images, channels_of_image, height, width}, pixel_step, count, pointer<float>(workspace)},
                             stream_at(stream));
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of alps_fast; pointers, sizes and the stream are checked by alps_fast.ops.";
  const py::call_guard<py::gil_scoped_release> released;
  m.def("philox_normal", &philox_normal, py::arg("chains"), py::arg("rows"), py::arg("n"), py::arg("seed"), py::arg("step"),
        py::arg("tag"), py::arg("out"), py::arg("stream"), released);
  m.def("langevin_pixel", &langevin_pixel, py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("b"), py::arg("a"),
        py::arg("xi"), py::arg("chains"), py::arg("after"), py::arg("mean"), py::arg("rows"), py::arg("measurements"),
        py::arg("pixels"), py::arg("channels"), py::arg("a_of_each_measurement"), py::arg("a_of_each_channel"), py::arg("lam"),
        py::arg("lin"), py::arg("w"), py::arg("inv_eta2"), py::arg("noise_lam"), py::arg("noise"), py::arg("seed"),
        py::arg("step"), py::arg("stream"), released, "xi = 0: Philox's noise.");
  m.def("langevin_fourier_workspace", &langevin_fourier_workspace, py::kw_only(), py::arg("rows"), py::arg("height"),
        py::arg("width"), py::arg("channels"), py::arg("is_complex"), py::arg("noise"), released,
        "Floats of workspace; -1: no kernel for images of this size.");
  m.def("langevin_fourier", &langevin_fourier, py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("b"), py::arg("h"),
        py::arg("xi"), py::arg("chains"), py::arg("after"), py::arg("mean"), py::arg("workspace"), py::arg("rows"),
        py::arg("measurements"), py::arg("height"), py::arg("width"), py::arg("channels"), py::arg("is_complex"), py::arg("lam"),
        py::arg("lin"), py::arg("w"), py::arg("inv_eta2"), py::arg("noise_lam"), py::arg("noise"), py::arg("seed"),
        py::arg("step"), py::arg("stream"), released, "xi = 0: Philox's noise.");
  m.def("langevin_sense", &langevin_sense, py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("b"), py::arg("u"),
        py::arg("eigenvalues"), py::arg("xi"), py::arg("chains"), py::arg("after"), py::arg("mean"), py::arg("rows"),
        py::arg("measurements"), py::arg("lines"), py::arg("n"), py::arg("axis"), py::arg("lam"), py::arg("lin"), py::arg("w"),
        py::arg("inv_eta2"), py::arg("noise_lam"), py::arg("noise"), py::arg("seed"), py::arg("step"), py::arg("stream"),
        released, "xi = 0: Philox's noise. False: no kernel for lines of this length.");
  m.def("langevin_sense_cg_memory", &langevin_sense_cg_memory, py::kw_only(), py::arg("rows"), py::arg("coils"),
        py::arg("height"), py::arg("width"), py::arg("noise"), released,
        "Floats and doubles (to begin as ones) of workspace; -1: no kernel for images of this size.");
  m.def("langevin_sense_cg_iterate", &langevin_sense_cg_iterate, py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("b"),
        py::arg("maps"), py::arg("mask"), py::arg("spectrum"), py::arg("xi"), py::arg("chains"), py::arg("after"),
        py::arg("mean"), py::arg("floats"), py::arg("doubles"), py::arg("rows"), py::arg("measurements"), py::arg("coils"),
        py::arg("height"), py::arg("width"), py::arg("lam"), py::arg("lin"), py::arg("w"), py::arg("inv_eta2"),
        py::arg("noise_lam"), py::arg("noise"), py::arg("seed"), py::arg("step"), py::arg("error"), py::arg("iteration"),
        py::arg("end"), py::arg("stream"), released,
        "Iterations iteration + 1 ... end; more than 8 only while a graph is captured. xi = 0: Philox's noise.");
  m.def("langevin_sense_cg_finish", &langevin_sense_cg_finish, py::kw_only(), py::arg("mean"), py::arg("after"),
        py::arg("doubles"), py::arg("rows"), py::arg("numbers"), py::arg("noisy"), py::arg("stream"), released);
  m.def("moments", &moments, py::kw_only(), py::arg("is_double"), py::arg("count"), py::arg("mean"), py::arg("m2"),
        py::arg("x"), py::arg("keep"), py::arg("count_after"), py::arg("mean_after"), py::arg("m2_after"), py::arg("groups"),
        py::arg("rows"), py::arg("n"), py::arg("stream"), released);
  m.def("conv_grad_workspace", &conv_grad_workspace, py::kw_only(), py::arg("images"), py::arg("channels"), py::arg("height"),
        py::arg("width"), py::arg("blocks"), py::arg("kernel"), "Bytes of workspace; -1: not for images of this size here.");
  m.def("conv_has_warpgroups", &alps::cuda::conv_has_warpgroups, "Whether the current device runs the kernel of warpgroups.");
  m.def("conv_grad", &conv_grad, py::kw_only(), py::arg("x"), py::arg("weights"), py::arg("biases"), py::arg("scale"),
        py::arg("shift"), py::arg("coefficients"), py::arg("grad"), py::arg("value"), py::arg("workspace"), py::arg("images"),
        py::arg("channels"), py::arg("height"), py::arg("width"), py::arg("blocks"), py::arg("film_levels"),
        py::arg("edm_levels"), py::arg("kernel"), py::arg("stream"), released,
        "kernel: an image a block, tiles of warps, tiles of warpgroups.");
  py::class_<alps::cuda::RidgeEnergy>(m, "Ridge", py::module_local(),  // beside which a recording's lies (lab/host.py)
                                      "What ridge kernels take beside images, of tensors that must outlive it.")
      .def(py::init(&ridge), py::kw_only(), py::arg("filters"), py::arg("side"), py::arg("w"), py::arg("r"), py::arg("q"),
           py::arg("mu"), py::arg("scales"), py::arg("count"), py::arg("potentials"), py::arg("levels"),
           py::arg("w_of_each_image"), py::arg("r_of_each_image"), py::arg("q_of_each_image"));
  m.def("ridge_fits", &ridge_fits, py::arg("ridge"), py::kw_only(), py::arg("channels"), py::arg("height"), py::arg("width"),
        "Whether an image and its pyramid fit the shared memory of a block of the current device, and there is a kernel.");
  m.def("ridge_workspace", &ridge_workspace, py::arg("ridge"), py::kw_only(), py::arg("images"), py::arg("channels"),
        py::arg("height"), py::arg("width"), "Floats of workspace; -1: no kernel for such an energy.");
  m.def("ridge_grad", &ridge_grad, py::arg("ridge"), py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("value"),
        py::arg("workspace"), py::arg("images"), py::arg("channels"), py::arg("height"), py::arg("width"), py::arg("stream"),
        released, "value = 0: none.");
  m.def("ridge_langevin_workspace", &ridge_langevin_workspace, py::arg("ridge"), py::kw_only(), py::arg("rows"),
        py::arg("height"), py::arg("width"), py::arg("channels"), py::arg("channels_of_image"),
        "Floats of workspace; -1: no kernel for such an energy.");
  m.def("ridge_langevin", &ridge_langevin, py::arg("ridge"), py::kw_only(), py::arg("x"), py::arg("b"), py::arg("a"),
        py::arg("xi"), py::arg("chains"), py::arg("after"), py::arg("mean"), py::arg("workspace"), py::arg("rows"),
        py::arg("measurements"), py::arg("height"), py::arg("width"), py::arg("channels"), py::arg("channels_of_image"),
        py::arg("a_of_each_measurement"), py::arg("a_of_each_channel"), py::arg("lam"), py::arg("lin"), py::arg("w"),
        py::arg("inv_eta2"), py::arg("noise_lam"), py::arg("noise"), py::arg("seed"), py::arg("step"), py::arg("count"),
        py::arg("stream"), released, "workspace = 0: a block an image, which must fit. xi = 0: Philox's noise.");
}
