// csrc/cuda/asynchronous.h on the CPU: what is copied arrives when its thread waits for it, not before.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <vector>

namespace alps {

struct Copy16 {
  char* to;
  const char* from;
};

inline std::vector<Copy16>& copies_on_their_way() {
  static std::vector<Copy16> of_all[1024];
  return of_all[host_cuda::rank()];
}

inline void copy_16(void* shared, const void* global) {
  if ((reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global)) % 16) host_cuda::fail("a copy is not aligned");
  copies_on_their_way().push_back({static_cast<char*>(shared), static_cast<const char*>(global)});
}

inline void copies_wait() {
  for (const Copy16& copy : copies_on_their_way()) std::memcpy(copy.to, copy.from, 16);
  copies_on_their_way().clear();
}

inline uint4 read_now(const uint4* global) { return *global; }
inline void ask_ahead(const uint4* global) { static_cast<void>(read_now(global)); }
inline float4 read_around(const float4* global) { return *global; }
inline float2 read_around(const float2* global) { return *global; }

inline void team_barrier(int number, int threads) { host_cuda::sync_team(number, threads); }

inline void kernels_before_wait() {}  // kernels run one after another
inline void next_kernel_may_begin() {}

}  // namespace alps
