// alps_fast._cpu: CPU kernels on raw pointers that the Python side has checked, and the choice of instruction set.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu/kernels.h"

namespace py = pybind11;

namespace {

struct Isa {
  const char* name;
  bool available;
  decltype(&alps::portable::philox_normal) philox_normal;
};

const std::vector<Isa>& table() {  // best last
  static const std::vector<Isa> isas = {
      {"portable", true, alps::portable::philox_normal},
#if defined(__x86_64__)
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), alps::avx2::philox_normal},
      {"avx512",
       __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl"),
       alps::avx512::philox_normal},
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
  throw std::invalid_argument("ALPS_FAST_ISA: got '" + std::string(forced) + "'; wanted one this processor has: " + wanted);
}

void philox_normal(uintptr_t chains, int64_t rows, int64_t n, int64_t seed, uint32_t step, uint32_t tag, uintptr_t out,
                   int threads) {
  const Isa& isa = chosen();
  py::gil_scoped_release release;
  isa.philox_normal(reinterpret_cast<const int64_t*>(chains), rows, n, static_cast<uint64_t>(seed), step, tag,
                    reinterpret_cast<float*>(out), threads);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of alps_fast; pointers and sizes are checked by alps_fast.ops.";
  m.def("isa", [] { return std::string(chosen().name); }, "The instruction set in use; ALPS_FAST_ISA forces one.");
  m.def("isas", &isas, "The instruction sets that this build and this processor share, best last.");
  m.def("philox_normal", &philox_normal, py::arg("chains"), py::arg("rows"), py::arg("n"), py::arg("seed"), py::arg("step"),
        py::arg("tag"), py::arg("out"), py::arg("threads"));
}
