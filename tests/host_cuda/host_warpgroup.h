// csrc/cuda/warpgroup.h on the CPU, by what the PTX ISA says of wgmma: matrices where descriptors without a swizzle say, read when
// the products are waited for; warp w of a warpgroup holds rows 16 w + g and 16 w + g + 8, columns 8 j + 2 t and the next. Sums
// of products with A in registers, which precision "high" is made of, are cut off.
#pragma once

#include <cuda_runtime.h>

#include <cstring>
#include <utility>
#include <vector>

#include "host_tensor_cores.h"

namespace alps {

inline uint64_t describe(const void* matrix, int along_k, int across) {
  const auto offset = static_cast<uint64_t>(static_cast<const char*>(matrix) - host_cuda::shared_memory);
  if (offset % 16 || along_k % 16 || across % 16) host_cuda::fail("a matrix is not aligned");
  return (offset & 0x3ffff) >> 4 | uint64_t(along_k >> 4) << 16 | uint64_t(across >> 4) << 32;
}

inline void publish_to_products() {}

inline std::vector<std::pair<uint64_t, uint64_t>>& products_on_their_way() {
  static std::vector<std::pair<uint64_t, uint64_t>> of_all[1024];
  return of_all[host_cuda::rank()];
}

inline void products_begin() {
  if (blockDim.x % 128) host_cuda::fail("a warpgroup is four warps");
}

inline void products_end() {}

template <int N>
void multiply_add(uint64_t a, uint64_t b, float (&)[N][4]) {
  products_on_their_way().push_back({a, b});
}

inline Sixteen line_of(uint64_t descriptor, unsigned line) {
  const auto field = [descriptor](int from) { return (descriptor >> from & 0x3fff) << 4; };
  if (descriptor >> 49) host_cuda::fail("a descriptor with an offset or a swizzle");
  const char* const first = host_cuda::shared_memory + field(0) + line / 8 * field(32) + line % 8 * 16;
  Sixteen numbers;
  for (int half = 0; half < 2; ++half) {
    const uint4 eight = *reinterpret_cast<const uint4*>(first + half * field(16));
    std::memcpy(numbers.pairs + 4 * half, &eight, 16);
  }
  return numbers;
}

// Not watched, and optimised: on copies.
[[gnu::noinline, gnu::optimize("O3"), gnu::no_sanitize("address", "undefined", "thread")]] inline float product_of(
    const Sixteen& row, const Sixteen& column, float sum) {
  double total = sum;
  for (int k = 0; k < 8; ++k)
    total += double(of_bf16(row.pairs[k] & 0xffffu)) * of_bf16(column.pairs[k] & 0xffffu) +
             double(of_bf16(row.pairs[k] >> 16)) * of_bf16(column.pairs[k] >> 16);
  return static_cast<float>(total);
}

struct OfRegisters {  // a product on its way, or of a lane's part of it what others need
  uint32_t a[4];
  uint64_t b;
  float (*sum)[4];
  bool add;
};

struct Waves {  // those on their way, and those before, which a slower lane may still look at
  std::vector<OfRegisters> of[2];
  unsigned turn = 0;
};
inline Waves waves[1024];

template <bool ADD, int N>
void multiply_held(const uint32_t (&a)[4], uint64_t b, float (&v)[N][4]) {
  Waves& mine = waves[host_cuda::rank()];
  mine.of[mine.turn].push_back({{a[0], a[1], a[2], a[3]}, b, v, ADD});
}

template <int... N>
void products_wait(float (&... sums)[N][4]) {
  const unsigned rank = host_cuda::rank(), lane = host_cuda::lane(), t = lane % 4;
  const std::pair<float (*)[4], unsigned> all[] = {{sums, N}...};
  const unsigned turn = waves[rank].turn;
  waves[rank].turn ^= 1;
  host_cuda::exchange(host_cuda::FULL, 0);  // of the whole warp
  waves[rank].of[turn ^ 1].clear();
  for (size_t i = 0; i < waves[rank].of[turn].size(); ++i) {
    const OfRegisters& mine = waves[rank].of[turn][i];
    Sixteen rows[2];
    for (unsigned from = 0; from < 4; ++from) {
      const auto& a = waves[rank - t + from].of[turn][i].a;
      for (unsigned r = 0; r < 2; ++r) rows[r].pairs[from] = a[r], rows[r].pairs[4 + from] = a[2 + r];
    }
    unsigned count = 0;
    for (const auto& [sum, eights] : all) count += sum == mine.sum ? eights : 0;
    if (count == 0) host_cuda::fail("a sum that nobody waits for");
    for (unsigned j = 0; j < count; ++j) {
      const Sixteen columns[2] = {line_of(mine.b, 8 * j + 2 * t), line_of(mine.b, 8 * j + 2 * t + 1)};
      cut_off_products_of(rows, columns, mine.sum[j], mine.add);
    }
  }
}

template <int N>
void products_wait(float (&v)[N][4]) {
  const unsigned lane = host_cuda::lane(), first = host_cuda::rank() % 128 / 32 * 16 + lane / 4;
  for (const auto& [a, b] : products_on_their_way()) {
    const Sixteen rows[2] = {line_of(a, first), line_of(a, first + 8)};
    for (unsigned j = 0; j < N; ++j) {
      const Sixteen columns[2] = {line_of(b, 8 * j + lane % 4 * 2), line_of(b, 8 * j + lane % 4 * 2 + 1)};
      for (unsigned e = 0; e < 4; ++e) v[j][e] = product_of(rows[e / 2], columns[e % 2], v[j][e]);
    }
  }
  products_on_their_way().clear();
}

}  // namespace alps
