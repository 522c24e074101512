// What fibers.cpp and threads.cpp share.
#pragma once

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "cuda_runtime.h"

#define HOST_CUDA_STATE                                                                           \
  thread_local uint3 threadIdx, blockIdx;                                                         \
  thread_local dim3 blockDim, gridDim;                                                            \
  namespace alps {                                                                                \
  alignas(1024) float4 dynamic_shared[host_cuda::MOST_SHARED / 16];                               \
  }                                                                                               \
  char* const host_cuda::shared_memory = reinterpret_cast<char*>(alps::dynamic_shared);           \
  extern "C" {                                                                                    \
  void host_cuda_seed(uint64_t seed) { host_cuda::random_source.seed(seed); }                     \
  cudaStream_t host_cuda_begin() { return host_cuda::begin_capture(); }                           \
  void host_cuda_record(cudaStream_t stream, void (*call)()) { host_cuda::record(stream, call); } \
  cudaGraph_t host_cuda_end(cudaStream_t stream) { return host_cuda::end_capture(stream); }       \
  void host_cuda_replay(cudaGraph_t graph) { host_cuda::replay(graph); }                          \
  }

namespace host_cuda {

inline std::mt19937_64 random_source;

uint64_t random_number() { return random_source(); }

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "host_cuda: %s\n", what);
  std::fflush(stderr);
  std::abort();
}

inline uint3 position(uint64_t i, dim3 size) {
  return {static_cast<unsigned>(i % size.x), static_cast<unsigned>(i / size.x % size.y),
          static_cast<unsigned>(i / size.x / size.y)};
}

inline uint64_t volume(dim3 size) { return uint64_t(size.x) * size.y * size.z; }

inline unsigned whole_warps(dim3 block) {
  const uint64_t threads = volume(block);
  if (threads % WARP) fail("a block is not whole warps");
  return static_cast<unsigned>(threads / WARP);
}

inline void check_mask(unsigned mask) {
  if (mask != FULL) fail("a warp collective of part of a warp");
}

constexpr int TEAMS = 16;  // barriers of a block

inline void check_team(int number, int count) {
  if (number < 1 || number >= TEAMS || count <= 0 || count % static_cast<int>(WARP)) fail("a barrier of no team");
}

// Numbers 0 … count − 1 in an order of the seed's choice.
inline std::vector<uint64_t> shuffled(uint64_t count) {
  std::vector<uint64_t> order(count);
  for (uint64_t i = 0; i < count; ++i) order[i] = i;
  std::shuffle(order.begin(), order.end(), random_source);
  return order;
}

}  // namespace host_cuda
