// alps_fast._cuda: the CUDA kernels. Every op is run(arguments, workspace, stream), and NAME_workspace(arguments) says how many
// floats that workspace has; -1: there is no kernel for such arguments on the current device.
#include <cstdint>

#include "common/binding.h"
#include "cuda/kernels.h"

namespace {

using namespace alps;
using Address = uintptr_t;

template <class T>
T at(Address address) { return reinterpret_cast<T>(address); }

template <class S, class Run, class Workspace = int64_t (*)(const S&)>
void bind_op(pybind11::module_& m, const char* op, Run run, Workspace workspace = [](const S&) -> int64_t { return 0; },
             const std::string& suffix = "") {
  expose<S, Address, Address>(m, op, suffix, [run](const S& s, Address memory, Address stream) {
    if constexpr (std::is_invocable_v<Run, const S&, cudaStream_t>) run(s, at<cudaStream_t>(stream));
    else run(s, at<float*>(memory), at<cudaStream_t>(stream));
  });
  expose<S>(m, op, suffix + "_workspace", workspace);
}

cuda::RidgeGrad images_in_a_row(const RidgeGrad& s, float* workspace) {
  const int pixels = s.images.height * s.images.width;
  return {s, {1, int64_t(s.images.channels) * pixels, 0, pixels, 1}, workspace};
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
  bind_op<RidgeGrad>(m, "ridge_grad",
                     [](const RidgeGrad& s, float* memory, cudaStream_t on) { cuda::ridge_grad(images_in_a_row(s, memory), on); },
                     [](const RidgeGrad& s) { return cuda::ridge_workspace(s.energy, s.images); });
  bind_op<RidgeLangevin>(m, "ridge_langevin", cuda::ridge_langevin, cuda::ridge_langevin_workspace);
  for (const bool warpgroups : {false, true}) {
    const auto run = [=](const ConvGrad& s, float* memory, cudaStream_t on) {
      cuda::conv_grad({s, memory, false}, warpgroups, on);
    };
    const auto workspace = [=](const ConvGrad& s) {
      const int64_t bytes = cuda::conv_grad_workspace({s, nullptr, false}, warpgroups);
      return bytes < 0 ? bytes : (bytes + 3) / 4;
    };
    bind_op<ConvGrad>(m, "conv_grad", run, workspace, warpgroups ? "_warpgroups" : "_warps");
  }
  m.def("conv_has_warpgroups", &cuda::conv_has_warpgroups, "Whether the current device runs the kernel of warpgroups.");
  expose<SenseCgStep>(m, "langevin_sense_cg", "_memory", [](const SenseCgStep& s) {
    const cuda::SenseCgMemory memory = cuda::langevin_sense_cg_memory(s);
    return std::pair(memory.floats, memory.doubles);
  });
  expose<SenseCgStep, int64_t, int64_t, Address, Address, Address>(  // more than CG_WINDOW iterations only while a graph is captured
      m, "langevin_sense_cg", "_iterate",
      [](const SenseCgStep& s, int64_t iteration, int64_t end, Address floats, Address doubles, Address stream) {
        cuda::langevin_sense_cg_iterate(s, iteration, end, at<float*>(floats), at<double*>(doubles), at<cudaStream_t>(stream));
      });
  expose<SenseCgStep, Address, Address>(m, "langevin_sense_cg", "_finish", [](const SenseCgStep& s, Address doubles, Address stream) {
    cuda::langevin_sense_cg_finish(s, at<double*>(doubles), at<cudaStream_t>(stream));
  });
}
