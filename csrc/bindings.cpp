// alps_fast._cpu: CPU kernels on raw pointers that the Python side has checked, and the choice of instruction set.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "cpu/kernels.h"

namespace py = pybind11;

namespace {

struct Isa {
  const char* name;
  bool available;
  decltype(&alps::portable::philox_normal) philox_normal;
  void (*langevin_pixel)(const alps::PixelStep&, int);
  void (*langevin_sense)(const alps::SenseStep&, int);
  void (*langevin_fourier)(const alps::FourierStep&, int);
  bool (*langevin_sense_cg)(const alps::SenseCgStep&, int);
  void (*moments_float)(const alps::Moments<float>&, int);
  void (*moments_double)(const alps::Moments<double>&, int);
  void (*ridge_grad)(const alps::RidgeGrad&, int);
  void (*ridge_langevin)(const alps::RidgeLangevin&, int);
  int64_t (*ridge_grad_bytes)(const alps::RidgeGrad&, int);
  void (*conv_grad)(const alps::ConvGrad&, int);
  int64_t (*conv_grad_bytes)(const alps::ConvGrad&, int);
};

#define ALPS_KERNELS_OF(isa) \
  alps::isa::philox_normal, alps::isa::langevin_pixel, alps::isa::langevin_sense, alps::isa::langevin_fourier, \
      alps::isa::langevin_sense_cg, alps::isa::moments, alps::isa::moments, \
      alps::isa::ridge_grad, alps::isa::ridge_langevin, alps::isa::ridge_grad_bytes

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

// Whether tiles can be used: the processor has them, and Linux, asked once a process, lets us.
bool has_amx() {
  unsigned a, b, c, d;
  if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = d >> 24 & 1, multiplies = d >> 22 & 1;
  if (!tiles || !multiplies || !__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a >> 5 & 1)) return false;  // and AVX512-BF16
#if defined(__linux__)
  constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM of asm/prctl.h
  return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
  return false;
#endif
}
#endif

const std::vector<Isa>& table() {  // best last
  static const std::vector<Isa> isas = {
      {"portable", true, ALPS_KERNELS_OF(portable), alps::portable::conv_grad, alps::portable::conv_grad_bytes},
#if defined(__x86_64__)
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), ALPS_KERNELS_OF(avx2),
       alps::avx2::conv_grad, alps::avx2::conv_grad_bytes},
      {"avx512", has_avx512(), ALPS_KERNELS_OF(avx512), alps::avx512::conv_grad, alps::avx512::conv_grad_bytes},
      {"amx", has_amx(), ALPS_KERNELS_OF(avx512), alps::amx::conv_grad, alps::amx::conv_grad_bytes},
#endif
  };
  return isas;
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const Isa& isa : table())
    if (isa.available) names.emplace_back(isa.name);
  return names;
}

// The best that the processor has, or the one that ALPS_FAST_ISA names.
const Isa& chosen() {
  const char* forced = std::getenv("ALPS_FAST_ISA");
  const Isa* best = nullptr;
  for (const Isa& isa : table())
    if (isa.available && (!forced || forced == std::string(isa.name))) best = &isa;
  if (best) return *best;
  std::string wanted;
  for (const std::string& name : isas()) wanted += (wanted.empty() ? "" : ", ") + name;
  const std::string what = "ALPS_FAST_ISA: got '" + std::string(forced) + "'; wanted one this processor has: " + wanted;
  py::set_error(py::module_::import("alps_fast.errors").attr("ArgumentError"), what.c_str());
  throw py::error_already_set();
}

void philox_normal(uintptr_t chains, int64_t rows, int64_t n, int64_t seed, uint32_t step, uint32_t tag, uintptr_t out,
                   int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  isa.philox_normal(reinterpret_cast<const alps::Chain*>(chains), rows, n, static_cast<uint64_t>(seed), step, tag,
                    reinterpret_cast<float*>(out), threads);
}

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

void langevin_pixel(uintptr_t x, uintptr_t grad, uintptr_t b, uintptr_t a, uintptr_t xi, uintptr_t chains, uintptr_t after,
                    uintptr_t mean, int64_t rows, int64_t measurements, int64_t pixels, int64_t channels,
                    bool a_of_each_measurement, bool a_of_each_channel, float lam, float lin, float w, float inv_eta2,
                    float noise_lam, int noise, int64_t seed, uint32_t step, int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  isa.langevin_pixel({pointer<float>(x), pointer<float>(grad), pointer<float>(b), pointer<float>(a), pointer<float>(xi),
                      pointer<alps::Chain>(chains), pointer<float>(after), pointer<float>(mean), rows, measurements, pixels,
                      channels, a_of_each_measurement, a_of_each_channel, lam, lin, w, inv_eta2, noise_lam,
                      noise != alps::NO_NOISE && xi ? alps::GIVEN : noise, static_cast<uint64_t>(seed), step},
                     threads);
}

void langevin_sense(uintptr_t x, uintptr_t grad, uintptr_t b, uintptr_t u, uintptr_t eigenvalues, uintptr_t xi, uintptr_t chains,
                    uintptr_t after, uintptr_t mean, int64_t rows, int64_t measurements, int64_t lines, int64_t n, int axis,
                    float lam, float lin, float w, float inv_eta2, float noise_lam, int noise, int64_t seed, uint32_t step,
                    int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  isa.langevin_sense({pointer<float>(x), pointer<float>(grad), pointer<float>(b), pointer<float>(u), pointer<float>(eigenvalues),
                      pointer<float>(xi), pointer<alps::Chain>(chains), pointer<float>(after), pointer<float>(mean), rows,
                      measurements, lines, n, axis, lam, lin, w, inv_eta2, noise_lam,
                      noise != alps::NO_NOISE && xi ? alps::GIVEN : noise, static_cast<uint64_t>(seed), step},
                     threads);
}

void langevin_fourier(uintptr_t x, uintptr_t grad, uintptr_t b, uintptr_t h, uintptr_t xi, uintptr_t chains, uintptr_t after,
                      uintptr_t mean, int64_t rows, int64_t measurements, int64_t height, int64_t width, int64_t channels,
                      bool is_complex, float lam, float lin, float w, float inv_eta2, float noise_lam, int noise, int64_t seed,
                      uint32_t step, int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  isa.langevin_fourier({pointer<float>(x), pointer<float>(grad), pointer<float>(b), pointer<float>(h), pointer<float>(xi),
                        pointer<alps::Chain>(chains), pointer<float>(after), pointer<float>(mean), rows, measurements, height, width,
                        channels, is_complex, lam, lin, w, inv_eta2, noise_lam,
                        noise != alps::NO_NOISE && xi ? alps::GIVEN : noise, static_cast<uint64_t>(seed), step},
                       threads);
}

bool langevin_sense_cg(uintptr_t x, uintptr_t grad, uintptr_t b, uintptr_t maps, uintptr_t mask, uintptr_t spectrum, uintptr_t xi,
                       uintptr_t chains, uintptr_t after, uintptr_t mean, int64_t rows, int64_t measurements, int64_t coils,
                       int64_t height, int64_t width, float lam, float lin, float w, float inv_eta2, float noise_lam, int noise,
                       int64_t seed, uint32_t step, double error, int64_t max_iter, int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  return isa.langevin_sense_cg({pointer<float>(x), pointer<float>(grad), pointer<float>(b), pointer<float>(maps),
                                pointer<float>(mask), pointer<float>(spectrum), pointer<float>(xi), pointer<alps::Chain>(chains),
                                pointer<float>(after), pointer<float>(mean), rows, measurements, coils, height, width, lam, lin,
                                w, inv_eta2, noise_lam, noise != alps::NO_NOISE && xi ? alps::GIVEN : noise,
                                static_cast<uint64_t>(seed), step, error, max_iter},
                               threads);
}

template <class T>
alps::Moments<T> moments_of(uintptr_t count, uintptr_t mean, uintptr_t m2, uintptr_t x, uintptr_t keep, uintptr_t count_after,
                            uintptr_t mean_after, uintptr_t m2_after, int64_t groups, int64_t rows, int64_t n) {
  return {pointer<int64_t>(count), pointer<T>(mean),       pointer<T>(m2),       pointer<T>(x), pointer<bool>(keep),
          pointer<int64_t>(count_after), pointer<T>(mean_after), pointer<T>(m2_after), groups,        rows, n};
}

void moments(bool is_double, uintptr_t count, uintptr_t mean, uintptr_t m2, uintptr_t x, uintptr_t keep, uintptr_t count_after,
             uintptr_t mean_after, uintptr_t m2_after, int64_t groups, int64_t rows, int64_t n, int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  if (is_double)
    isa.moments_double(moments_of<double>(count, mean, m2, x, keep, count_after, mean_after, m2_after, groups, rows, n), threads);
  else
    isa.moments_float(moments_of<float>(count, mean, m2, x, keep, count_after, mean_after, m2_after, groups, rows, n), threads);
}

void conv_grad(uintptr_t x, uintptr_t weights, uintptr_t biases, uintptr_t scale, uintptr_t shift, uintptr_t coefficients,
               uintptr_t grad, uintptr_t value, int64_t images, int64_t channels, int64_t height, int64_t width,
               int64_t width_of_network, std::array<int, 3> blocks, bool level_of_each, bool in_tiles, int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  isa.conv_grad({pointer<float>(x), pointer<void>(weights), pointer<float>(biases), pointer<float>(scale), pointer<float>(shift),
                 pointer<float>(coefficients), pointer<float>(grad), pointer<float>(value), images, channels, height, width,
                 width_of_network, {blocks[0], blocks[1], blocks[2]}, level_of_each, in_tiles},
                threads);
}

int64_t conv_grad_bytes(int64_t images, int64_t channels, int64_t height, int64_t width, int64_t width_of_network,
                        std::array<int, 3> blocks, bool in_tiles, int threads) {
  return chosen().conv_grad_bytes({nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, images, channels, height,
                                   width, width_of_network, {blocks[0], blocks[1], blocks[2]}, false, in_tiles},
                                  threads);
}

struct Banks {  // the filters of a ridge energy and what it takes beside them; the arrays that `ridge` points to
  std::vector<const float*> filters;
  std::vector<int64_t> sides;
  alps::Ridge ridge;

  Banks(const std::vector<uintptr_t>& banks, std::vector<int64_t> side_of_each, uintptr_t w, uintptr_t r, uintptr_t q,
        int64_t count, int64_t potentials, int64_t levels, bool w_of_each_image, bool r_of_each_image, bool q_of_each_image,
        float mu)
      : sides(std::move(side_of_each)) {
    for (uintptr_t bank : banks) filters.push_back(pointer<float>(bank));
    ridge = {filters.data(), sides.data(), pointer<float>(w), pointer<float>(r), pointer<float>(q),
             static_cast<int64_t>(filters.size()), count, potentials, levels, w_of_each_image, r_of_each_image, q_of_each_image, mu};
  }
};

void ridge_grad(const Banks& banks, uintptr_t x, uintptr_t grad, uintptr_t value, int64_t images, int64_t channels,
                int64_t height, int64_t width, int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  isa.ridge_grad({banks.ridge, pointer<float>(x), pointer<float>(grad), pointer<float>(value), images, channels, height, width},
                 threads);
}

int64_t ridge_grad_bytes(const Banks& banks, int64_t images, int64_t channels, int64_t height, int64_t width, int threads) {
  return chosen().ridge_grad_bytes({banks.ridge, nullptr, nullptr, nullptr, images, channels, height, width}, threads);
}

void ridge_langevin(const Banks& banks, uintptr_t x, uintptr_t b, uintptr_t a, uintptr_t xi, uintptr_t chains, uintptr_t after,
                    uintptr_t mean, int64_t rows, int64_t measurements, int64_t height, int64_t width, int64_t channels,
                    int64_t channels_of_image, bool a_of_each_measurement, bool a_of_each_channel, float lam, float lin, float w,
                    float inv_eta2, float noise_lam, int noise, int64_t seed, uint32_t step, int64_t count, int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  const alps::PixelStep pixel_step = {
      pointer<float>(x), nullptr, pointer<float>(b), pointer<float>(a), pointer<float>(xi), pointer<alps::Chain>(chains),
      pointer<float>(after), pointer<float>(mean), rows, measurements, height * width, channels, a_of_each_measurement,
      a_of_each_channel, lam, lin, w, inv_eta2, noise_lam, noise != alps::NO_NOISE && xi ? alps::GIVEN : noise,
      static_cast<uint64_t>(seed), step};
  isa.ridge_langevin({banks.ridge, pixel_step, channels_of_image, height, width, count}, threads);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of alps_fast; pointers and sizes are checked by alps_fast.ops.";
  m.def("isa", [] { return std::string(chosen().name); }, "The instruction set in use; ALPS_FAST_ISA forces one.");
  m.def("isas", &isas, "The instruction sets that this build and this processor share, best last.");
  m.def("philox_normal", &philox_normal, py::arg("chains"), py::arg("rows"), py::arg("n"), py::arg("seed"), py::arg("step"),
        py::arg("tag"), py::arg("out"), py::arg("threads"));
  m.def("langevin_pixel", &langevin_pixel, py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("b"), py::arg("a"),
        py::arg("xi"), py::arg("chains"), py::arg("after"), py::arg("mean"), py::arg("rows"), py::arg("measurements"),
        py::arg("pixels"), py::arg("channels"), py::arg("a_of_each_measurement"), py::arg("a_of_each_channel"), py::arg("lam"),
        py::arg("lin"), py::arg("w"), py::arg("inv_eta2"), py::arg("noise_lam"), py::arg("noise"), py::arg("seed"),
        py::arg("step"), py::arg("threads"), "xi = 0: Philox's noise.");
  m.def("langevin_sense", &langevin_sense, py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("b"), py::arg("u"),
        py::arg("eigenvalues"), py::arg("xi"), py::arg("chains"), py::arg("after"), py::arg("mean"), py::arg("rows"),
        py::arg("measurements"), py::arg("lines"), py::arg("n"), py::arg("axis"), py::arg("lam"), py::arg("lin"), py::arg("w"),
        py::arg("inv_eta2"), py::arg("noise_lam"), py::arg("noise"), py::arg("seed"), py::arg("step"), py::arg("threads"),
        "xi = 0: Philox's noise.");
  m.def("langevin_fourier", &langevin_fourier, py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("b"), py::arg("h"),
        py::arg("xi"), py::arg("chains"), py::arg("after"), py::arg("mean"), py::arg("rows"), py::arg("measurements"),
        py::arg("height"), py::arg("width"), py::arg("channels"), py::arg("is_complex"), py::arg("lam"), py::arg("lin"),
        py::arg("w"), py::arg("inv_eta2"), py::arg("noise_lam"), py::arg("noise"), py::arg("seed"), py::arg("step"),
        py::arg("threads"), "xi = 0: Philox's noise.");
  m.def("langevin_sense_cg", &langevin_sense_cg, py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("b"), py::arg("maps"),
        py::arg("mask"), py::arg("spectrum"), py::arg("xi"), py::arg("chains"), py::arg("after"), py::arg("mean"),
        py::arg("rows"), py::arg("measurements"), py::arg("coils"), py::arg("height"), py::arg("width"), py::arg("lam"),
        py::arg("lin"), py::arg("w"), py::arg("inv_eta2"), py::arg("noise_lam"), py::arg("noise"), py::arg("seed"),
        py::arg("step"), py::arg("error"), py::arg("max_iter"), py::arg("threads"),
        "xi = 0: Philox's noise. False where max_iter iterations did not suffice.");
  m.def("moments", &moments, py::kw_only(), py::arg("is_double"), py::arg("count"), py::arg("mean"), py::arg("m2"),
        py::arg("x"), py::arg("keep"), py::arg("count_after"), py::arg("mean_after"), py::arg("m2_after"), py::arg("groups"),
        py::arg("rows"), py::arg("n"), py::arg("threads"));
  m.def("conv_grad", &conv_grad, py::kw_only(), py::arg("x"), py::arg("weights"), py::arg("biases"), py::arg("scale"),
        py::arg("shift"), py::arg("coefficients"), py::arg("grad"), py::arg("value"), py::arg("images"), py::arg("channels"),
        py::arg("height"), py::arg("width"), py::arg("width_of_network"), py::arg("blocks"), py::arg("level_of_each"),
        py::arg("in_tiles"), py::arg("threads"), "in_tiles: weights are bfloat16 in AMX tiles; else float32.");
  m.def("conv_grad_bytes", &conv_grad_bytes, py::kw_only(), py::arg("images"), py::arg("channels"), py::arg("height"),
        py::arg("width"), py::arg("width_of_network"), py::arg("blocks"), py::arg("in_tiles"), py::arg("threads"),
        "Of the memory that conv_grad works in.");
  m.attr("most_blocks") = alps::MOST_BLOCKS;
  py::class_<Banks>(m, "Ridge", "What ridge kernels take beside images, of tensors that must outlive it.")
      .def(py::init<const std::vector<uintptr_t>&, std::vector<int64_t>, uintptr_t, uintptr_t, uintptr_t, int64_t, int64_t,
                    int64_t, bool, bool, bool, float>(),
           py::kw_only(), py::arg("filters"), py::arg("sides"), py::arg("w"), py::arg("r"), py::arg("q"), py::arg("count"),
           py::arg("potentials"), py::arg("levels"), py::arg("w_of_each_image"), py::arg("r_of_each_image"),
           py::arg("q_of_each_image"), py::arg("mu"));
  m.def("ridge_grad", &ridge_grad, py::arg("ridge"), py::kw_only(), py::arg("x"), py::arg("grad"), py::arg("value"),
        py::arg("images"), py::arg("channels"), py::arg("height"), py::arg("width"), py::arg("threads"), "value = 0: not wanted.");
  m.def("ridge_grad_bytes", &ridge_grad_bytes, py::arg("ridge"), py::kw_only(), py::arg("images"), py::arg("channels"),
        py::arg("height"), py::arg("width"), py::arg("threads"), "Of the memory that ridge_grad works in.");
  m.def("ridge_langevin", &ridge_langevin, py::arg("ridge"), py::kw_only(), py::arg("x"), py::arg("b"), py::arg("a"),
        py::arg("xi"), py::arg("chains"), py::arg("after"), py::arg("mean"), py::arg("rows"), py::arg("measurements"),
        py::arg("height"), py::arg("width"), py::arg("channels"), py::arg("channels_of_image"), py::arg("a_of_each_measurement"),
        py::arg("a_of_each_channel"), py::arg("lam"), py::arg("lin"), py::arg("w"), py::arg("inv_eta2"), py::arg("noise_lam"),
        py::arg("noise"), py::arg("seed"), py::arg("step"), py::arg("count"), py::arg("threads"), "xi = 0: Philox's noise.");
}
