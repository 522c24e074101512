// alps_fast._cpu: the CPU kernels, of the best instruction set that this processor has or the one that ALPS_FAST_ISA names.
#include <cstdlib>
#include <string>
#include <vector>

#include "common/binding.h"
#include "cpu/kernels.h"
#include "cpu/processor.h"

namespace alps {

#if defined(__x86_64__)
namespace avx512bf16 { using namespace avx512; }
namespace amx { using namespace avx512; }
#endif

namespace {

#define ALPS_KERNELS(KERNEL) ALPS_CPU_KERNELS(KERNEL) ALPS_CONV_KERNELS(KERNEL)
#define ALPS_MEMBER(Result, op, suffix, Arguments) Result (*op##suffix)(const Arguments&, int);
#define ALPS_NAME(Result, op, suffix, Arguments) kernels::op##suffix,
#define ALPS_ADD(isa, has) \
  if (has) { namespace kernels = isa; found.push_back({#isa, ALPS_KERNELS(ALPS_NAME)}); }

struct Isa {
  const char* name;
  ALPS_KERNELS(ALPS_MEMBER)
};

const std::vector<Isa>& isas() {  // best last
  static const std::vector<Isa> all = [] {
    std::vector<Isa> found;
    ALPS_ADD(portable, true)
#if defined(__x86_64__)
    ALPS_ADD(avx2, has_avx2())
    ALPS_ADD(avx512, has_avx512())
    ALPS_ADD(avx512bf16, has_avx512bf16())
    ALPS_ADD(amx, has_amx())
#endif
    return found;
  }();
  return all;
}

const Isa& chosen() {
  const char* const forced = std::getenv("ALPS_FAST_ISA");
  if (!forced) return isas().back();
  std::string names;
  for (const Isa& isa : isas()) {
    if (isa.name == std::string(forced)) return isa;
    names += (names.empty() ? "" : ", ") + std::string(isa.name);
  }
  const std::string what = "ALPS_FAST_ISA: got '" + std::string(forced) + "'; wanted one this processor has: " + names;
  const pybind11::gil_scoped_acquire acquired;  // which a kernel's call has let go
  pybind11::set_error(pybind11::module_::import("alps_fast.errors").attr("ArgumentError"), what.c_str());
  throw pybind11::error_already_set();
}

}  // namespace
}  // namespace alps

PYBIND11_MODULE(_cpu, m) {
  using namespace alps;
  m.doc() = "CPU kernels of alps_fast on arguments that alps_fast.ops has checked and packed, and threads.";
  m.def("isa", [] { return std::string(chosen().name); }, "The instruction set in use; ALPS_FAST_ISA forces one.");
  m.def("isas", [] {
    std::vector<std::string> names;
    for (const Isa& isa : isas()) names.emplace_back(isa.name);
    return names;
  }, "The instruction sets that this build and this processor share, best last.");
  m.attr("most_blocks") = MOST_BLOCKS;
#define ALPS_BIND(Result, op, suffix, Arguments)                                                \
  expose<Arguments, int>(m, #op, #suffix, [](const Arguments& arguments, int threads) {        \
    return chosen().op##suffix(arguments, threads);                                            \
  });
  ALPS_KERNELS(ALPS_BIND)
}
