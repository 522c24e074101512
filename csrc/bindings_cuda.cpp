// alps_fast._cuda: CUDA kernels on raw device pointers and a stream that the Python side has checked.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "cuda/kernels.h"

namespace py = pybind11;

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "CUDA kernels of alps_fast; pointers, sizes and the stream are checked by alps_fast.ops.";
  m.def(
      "philox_normal",
      [](uintptr_t chains, int64_t rows, int64_t n, int64_t seed, uint32_t step, uint32_t tag, uintptr_t out, uintptr_t stream) {
        alps::cuda::philox_normal(reinterpret_cast<const int64_t*>(chains), rows, n, static_cast<uint64_t>(seed), step, tag,
                                  reinterpret_cast<float*>(out), reinterpret_cast<cudaStream_t>(stream));
      },
      py::arg("chains"), py::arg("rows"), py::arg("n"), py::arg("seed"), py::arg("step"), py::arg("tag"), py::arg("out"),
      py::arg("stream"), py::call_guard<py::gil_scoped_release>());
}
