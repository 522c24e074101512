// alps_fast._cpu: the CPU kernels, and the choice of instruction set.
#include <cstdlib>
#include <string>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

#include "common/binding.h"
#include "cpu/kernels.h"

namespace py = pybind11;

namespace {

#define ALPS_MEMBER(Result, op, suffix, Arguments) Result (*op##suffix)(const alps::Arguments&, int);
#define ALPS_NAME(Result, op, suffix, Arguments) op##suffix,

struct Kernels {
  ALPS_CPU_KERNELS(ALPS_MEMBER)
};
struct ConvKernels {
  ALPS_CONV_KERNELS(ALPS_MEMBER)
};
#define ALPS_KERNELS_OF(isa) [] { using namespace alps::isa; return Kernels{ALPS_CPU_KERNELS(ALPS_NAME)}; }()
#define ALPS_CONV_OF(isa) [] { using namespace alps::isa; return ConvKernels{ALPS_CONV_KERNELS(ALPS_NAME)}; }()

struct Isa {
  const char* name;
  bool available;
  Kernels kernels;
  ConvKernels conv;
};

#if defined(__x86_64__)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl");
}

bool has_avx512_bf16() {
  unsigned a, b, c, d;
  return has_avx512() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1);
}

// Whether tiles can be used: the processor has them, and Linux, asked once a process, lets us.
bool has_amx() {
  unsigned a, b, c, d;
  if (!has_avx512_bf16() || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const bool tiles = d >> 24 & 1, multiplies = d >> 22 & 1;
  if (!tiles || !multiplies) return false;
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
      {"portable", true, ALPS_KERNELS_OF(portable), ALPS_CONV_OF(portable)},
#if defined(__x86_64__)
      {"avx2", __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"), ALPS_KERNELS_OF(avx2), ALPS_CONV_OF(avx2)},
      {"avx512", has_avx512(), ALPS_KERNELS_OF(avx512), ALPS_CONV_OF(avx512)},
      {"avx512bf16", has_avx512_bf16(), ALPS_KERNELS_OF(avx512), ALPS_CONV_OF(avx512bf16)},
      {"amx", has_amx(), ALPS_KERNELS_OF(avx512), ALPS_CONV_OF(amx)},
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
  const py::gil_scoped_acquire acquired;  // which a kernel's call has let go
  std::string wanted;
  for (const std::string& name : isas()) wanted += (wanted.empty() ? "" : ", ") + name;
  const std::string what = "ALPS_FAST_ISA: got '" + std::string(forced) + "'; wanted one this processor has: " + wanted;
  py::set_error(py::module_::import("alps_fast.errors").attr("ArgumentError"), what.c_str());
  throw py::error_already_set();
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of alps_fast on arguments that alps_fast.ops has checked and packed, and threads.";
  m.def("isa", [] { return std::string(chosen().name); }, "The instruction set in use; ALPS_FAST_ISA forces one.");
  m.def("isas", &isas, "The instruction sets that this build and this processor share, best last.");
  m.attr("most_blocks") = alps::MOST_BLOCKS;
#define ALPS_BIND(kernels, op, suffix, Arguments)                                                             \
  alps::bind<alps::Arguments, int>(m, #op, #suffix, [](const alps::Arguments& arguments, int threads) {      \
    return chosen().kernels.op##suffix(arguments, threads);                                                   \
  });
#define ALPS_BIND_KERNEL(Result, op, suffix, Arguments) ALPS_BIND(kernels, op, suffix, Arguments)
#define ALPS_BIND_CONV(Result, op, suffix, Arguments) ALPS_BIND(conv, op, suffix, Arguments)
  ALPS_CPU_KERNELS(ALPS_BIND_KERNEL)
  ALPS_CONV_KERNELS(ALPS_BIND_CONV)
}
