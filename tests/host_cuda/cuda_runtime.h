// What csrc/cuda uses of the CUDA runtime, for g++: kernels run on the CPU, by fibers.cpp or by threads.cpp.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>

#include "host_graphs.h"

#define __global__
#define __host__
#define __device__
#define __grid_constant__
#define __shared__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct uint3 {
  unsigned x, y, z;
};

struct dim3 : uint3 {
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : uint3{x, y, z} {}
};

struct alignas(8) float2 {
  float x, y;
};

struct alignas(8) int2 {
  int x, y;
};

struct alignas(16) float4 {
  float x, y, z, w;
};

struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};

struct alignas(16) double2 {
  double x, y;
};

inline float2 make_float2(float x, float y) { return {x, y}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }

inline float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fsqrt_rn(float x) { return __builtin_sqrtf(x); }
inline float __uint2float_rn(uint32_t x) { return static_cast<float>(x); }
inline float __int2float_rn(int32_t x) { return static_cast<float>(x); }
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t(a) * b) >> 32); }

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f; }  // NaN to zero

inline uint32_t __byte_perm(uint32_t low, uint32_t high, uint32_t which) {
  const uint64_t bytes = static_cast<uint64_t>(high) << 32 | low;
  uint32_t out = 0;
  for (int i = 0; i < 4; ++i) out |= static_cast<uint32_t>(bytes >> 8 * (which >> 4 * i & 7) & 255) << 8 * i;
  return out;
}

inline float __uint_as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

extern thread_local uint3 threadIdx, blockIdx;
extern thread_local dim3 blockDim, gridDim;

namespace host_cuda {

constexpr size_t MOST_SHARED = 227 << 10;  // bytes a block can have from sm_90 on
constexpr size_t PLAIN_SHARED = 48 << 10;  // without cudaFuncSetAttribute
constexpr unsigned WARP = 32, FULL = 0xffffffffu;
extern char* const shared_memory;

struct Launched {  // which kernel, and its parameters: what a launch is, beside what it does
  const void* kernel;
  const void* const* parameters;
  const size_t* bytes;
  size_t count;
};

// A grid's blocks one after another, each with its shared memory poisoned; or all of it handed to a recorder (record.cpp).
void run(dim3 grid, dim3 block, size_t shared, const std::function<void()>& thread, const Launched& what);

struct Device {
  int shared = MOST_SHARED, multiprocessors = 16, cache = 48 << 10;  // of which a few images take more than half
  bool is_hopper = true;
};
inline Device device;
void sync_threads();
void sync_team(int number, int count);  // threads of the block that have this number, of 1 to 15
[[noreturn]] void fail(const char* what);
const uint64_t* exchange(unsigned mask, uint64_t mine);  // what every lane of the warp brought

inline unsigned rank() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
inline unsigned lane() { return rank() % WARP; }

inline size_t& raised_limit() {
  static size_t bytes = PLAIN_SHARED;
  return bytes;
}

template <class T>
T shuffle(unsigned mask, T value, unsigned from) {
  static_assert(sizeof(T) <= 8, "as CUDA's");
  uint64_t mine = 0;
  std::memcpy(&mine, &value, sizeof value);
  const uint64_t* all = exchange(mask, mine);
  if (from < WARP) std::memcpy(&value, all + from, sizeof value);
  return value;
}

}  // namespace host_cuda

inline void __syncthreads() { host_cuda::sync_threads(); }
inline void __syncwarp(unsigned mask = host_cuda::FULL) { host_cuda::exchange(mask, 0); }

inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* all = host_cuda::exchange(mask, predicate != 0);
  unsigned bits = 0;
  for (unsigned i = 0; i < host_cuda::WARP; ++i) bits |= static_cast<unsigned>(all[i]) << i;
  return bits;
}

template <class T>
T __shfl_sync(unsigned mask, T value, unsigned from) {
  return host_cuda::shuffle(mask, value, from % host_cuda::WARP);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, unsigned with) {
  return host_cuda::shuffle(mask, value, host_cuda::lane() ^ with);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by) {
  return host_cuda::shuffle(mask, value, host_cuda::lane() + by);
}

enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin, cudaDevAttrMultiProcessorCount, cudaDevAttrL2CacheSize };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };

enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization };

struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  struct {
    int programmaticStreamSerializationAllowed;
  } val;
};

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes;
  cudaStream_t stream;
  cudaLaunchAttribute* attrs;
  unsigned numAttrs;
};

inline const char* cudaGetErrorString(cudaError_t error) {
  const char* const said[] = {"no error", "invalid argument", "invalid configuration argument", "a launch beside the capture"};
  return said[error];
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const char* const few = std::getenv("HOST_CUDA_MULTIPROCESSORS");
  const host_cuda::Device& it = host_cuda::device;
  const int values[] = {it.shared, few ? std::atoi(few) : it.multiprocessors, it.cache};
  *value = values[attribute];
  return cudaSuccess;
}

struct cudaFuncAttributes {
  int maxThreadsPerBlock;
};

template <class Kernel>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, Kernel) {
  found->maxThreadsPerBlock = host_cuda::device.is_hopper ? 1024 : 32;  // as conv_grad.cu bounds what only Hopper has
  return cudaSuccess;
}

template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel, cudaFuncAttribute, int bytes) {
  if (bytes > host_cuda::device.shared) return cudaErrorInvalidConfiguration;
  host_cuda::raised_limit() = static_cast<size_t>(bytes);
  return cudaSuccess;
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments&&... arguments) {
  const dim3 grid = config->gridDim, block = config->blockDim;
  const size_t limit = host_cuda::raised_limit();
  host_cuda::raised_limit() = host_cuda::PLAIN_SHARED;
  if (grid.x == 0 || grid.x > 0x7fffffffu || grid.y == 0 || grid.y > 65535 || grid.z == 0 || grid.z > 65535 || block.x == 0 ||
      block.y == 0 || block.z == 0 || block.x * block.y * block.z > 1024 || config->dynamicSmemBytes > limit)
    return cudaErrorInvalidConfiguration;
  if (host_cuda::captures && !(config->stream && config->stream->graph)) return cudaErrorStreamCaptureImplicit;
  const std::tuple<Parameters...> parameters(std::forward<Arguments>(arguments)...);
  const auto go = [=, shared = config->dynamicSmemBytes] {
    std::apply(
        [&](const Parameters&... each) {
          const void* const at[] = {&each..., nullptr};
          const size_t bytes[] = {sizeof each..., 0};
          host_cuda::run(grid, block, shared, [&] { kernel(each...); },
                         {reinterpret_cast<const void*>(kernel), at, bytes, sizeof...(each)});
        },
        parameters);
  };
  if (host_cuda::captures) host_cuda::record(config->stream, go);
  else go();
  return cudaSuccess;
}
