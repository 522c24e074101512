// The one way to launch a kernel, so that a build for the CPU can stand in for it (tests/host_cuda).
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace alps {

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            Arguments... arguments) {
  kernel<<<grid, block, shared, stream>>>(static_cast<Parameters>(arguments)...);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
}

}  // namespace alps
