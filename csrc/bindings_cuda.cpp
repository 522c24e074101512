// alps_fast._cuda: the CUDA kernels. Every op is run(arguments, workspace, stream), and NAME_workspace(arguments) says how many
// floats that workspace has; -1: there is no kernel for such arguments on the current device.
#include <cstdint>

#include "common/binding.h"
#include "cuda/kernels.h"

namespace {

using namespace alps;
using Address = uintptr_t;

cudaStream_t stream_at(Address address) { return reinterpret_cast<cudaStream_t>(address); }
float* floats_at(Address address) { return reinterpret_cast<float*>(address); }
double* doubles_at(Address address) { return reinterpret_cast<double*>(address); }

template <class S>
int64_t none(const S&) { return 0; }

template <class S, class Run>
void bind_op(pybind11::module_& m, const std::string& op, Run run, int64_t (*workspace)(const S&) = none<S>, const std::string& suffix = "") {
  bind<S, Address, Address>(m, op, suffix.c_str(), [run](const S& s, Address memory, Address stream) {
    if constexpr (std::is_invocable_v<Run, const S&, cudaStream_t>) run(s, stream_at(stream));
    else run(s, floats_at(memory), stream_at(stream));
  });
  bind<S>(m, op, (suffix + "_workspace").c_str(), workspace);
}

cuda::RidgeGrad images_in_a_row(const RidgeGrad& s, float* workspace) {
  const int pixels = s.images.height * s.images.width;
  return {s, {1, int64_t(s.images.channels) * pixels, 0, pixels, 1}, workspace};
}

int64_t floats(int64_t bytes) { return bytes < 0 ? bytes : (bytes + 3) / 4; }

template <bool WARPGROUPS>
int64_t conv_grad_workspace(const ConvGrad& s) { return floats(cuda::conv_grad_workspace({s, nullptr, false}, WARPGROUPS)); }

template <bool WARPGROUPS>
void conv_grad(const ConvGrad& s, float* workspace, cudaStream_t stream) {
  cuda::conv_grad({s, workspace, false}, WARPGROUPS, stream);
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of alps_fast on arguments that alps_fast.ops has checked and packed, a workspace, and a stream.";
  bind_op<PhiloxNormal>(m, "philox_normal", cuda::philox_normal);
  bind_op<PixelStep>(m, "langevin_pixel", cuda::langevin_pixel);
  bind_op<SenseStep>(m, "langevin_sense", cuda::langevin_sense,
                     [](const SenseStep& s) -> int64_t { return cuda::langevin_sense_fits(s) ? 0 : -1; });
  bind_op<FourierStep>(m, "langevin_fourier", cuda::langevin_fourier, cuda::langevin_fourier_workspace);
  bind_op<Moments>(m, "moments", cuda::moments);
  bind_op<RidgeGrad>(
      m, "ridge_grad", [](const RidgeGrad& s, float* memory, cudaStream_t stream) { cuda::ridge_grad(images_in_a_row(s, memory), stream); },
      [](const RidgeGrad& s) { return cuda::ridge_workspace(s.energy, s.images); });
  bind_op<RidgeLangevin>(m, "ridge_langevin", cuda::ridge_langevin, cuda::ridge_langevin_workspace);
  bind_op<ConvGrad>(m, "conv_grad", conv_grad<false>, conv_grad_workspace<false>, "_warps");
  bind_op<ConvGrad>(m, "conv_grad", conv_grad<true>, conv_grad_workspace<true>, "_warpgroups");
  m.def("conv_has_warpgroups", &cuda::conv_has_warpgroups, "Whether the current device runs the kernel of warpgroups.");
  bind<SenseCgStep>(m, "langevin_sense_cg", "_memory", [](const SenseCgStep& s) {
    const cuda::SenseCgMemory memory = cuda::langevin_sense_cg_memory(s);
    return std::pair(memory.floats, memory.doubles);
  });
  bind<SenseCgStep, int64_t, int64_t, Address, Address, Address>(  // more than CG_WINDOW iterations only while a graph is captured
      m, "langevin_sense_cg", "_iterate",
      [](const SenseCgStep& s, int64_t iteration, int64_t end, Address floats, Address doubles, Address stream) {
        cuda::langevin_sense_cg_iterate(s, iteration, end, floats_at(floats), doubles_at(doubles), stream_at(stream));
      });
  bind<SenseCgStep, Address, Address>(m, "langevin_sense_cg", "_finish", [](const SenseCgStep& s, Address doubles, Address stream) {
    cuda::langevin_sense_cg_finish(s, doubles_at(doubles), stream_at(stream));
  });
}
