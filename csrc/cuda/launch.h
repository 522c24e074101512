// The one way to launch a kernel, and its shared memory; a build for the CPU puts its own runtime below (tests/host_cuda).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>
#include <string>

namespace alps {

inline void check_cuda(const char* name, cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(name) + ": " + cudaGetErrorString(error));
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaLaunchConfig_t config,
            Arguments... arguments) {
  constexpr size_t PLAIN = 48 << 10;  // bytes of shared memory that need no leave
  if (shared > PLAIN)
    check_cuda(name, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared;
  check_cuda(name, cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
}

template <class... Parameters, class... Arguments>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
            Arguments... arguments) {
  cudaLaunchConfig_t config = {};
  config.stream = stream;
  launch(name, kernel, grid, block, shared, config, arguments...);
}

// Of a kernel whose blocks may begin while the kernel before in the stream ends, and wait for it (asynchronous.h).
template <class... Parameters, class... Arguments>
void launch_early(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                  Arguments... arguments) {
  cudaLaunchAttribute early = {};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.stream = stream;
  config.attrs = &early;
  config.numAttrs = 1;
  launch(name, kernel, grid, block, shared, config, arguments...);
}

struct Device {
  int64_t shared;  // bytes that a block can have
  int64_t multiprocessors;
  int64_t cache;  // bytes of L2
};

inline Device this_device(const char* name) {
  int device, shared, multiprocessors, cache;
  check_cuda(name, cudaGetDevice(&device));
  check_cuda(name, cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device));
  check_cuda(name, cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device));
  check_cuda(name, cudaDeviceGetAttribute(&cache, cudaDevAttrL2CacheSize, device));
  return {shared, multiprocessors, cache};
}

// A block's shared memory: all of it is dynamic, so that its size is known where the kernel is launched.
__device__ __forceinline__ float* shared_floats() {
  extern __shared__ float4 dynamic_shared[];
  return reinterpret_cast<float*>(dynamic_shared);
}

// Blocks of `threads` for so many pieces of work, as many as are worth having; kernels stride on where there are more.
inline unsigned blocks_for(int64_t pieces, int64_t most, int threads) {
  const int64_t blocks = (pieces + threads - 1) / threads;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

}  // namespace alps
