// out[row][e] = element e of R_step of the row's chain; contract in alps_fast/ops/philox_normal.py. One thread a quad.
#include "../common/philox.h"
#include "kernels.h"
#include "lanes.h"
#include "launch.h"

namespace alps::cuda {

constexpr int THREADS = 256;
constexpr int64_t MAX_BLOCKS = 4096;  // of one row; threads stride on where there are more quads
constexpr int64_t MAX_ROWS = 65535;   // limit of gridDim.y
static_assert(THREADS % 32 == 0, "whole warps");

template <bool ALIGNED>  // n % 4 == 0 and out on 16 bytes: one 16-byte store a quad
__global__ void __launch_bounds__(THREADS)
    philox_normal_kernel(const ChainId* __restrict__ ids, int64_t rows, int64_t n, Stream random, float* __restrict__ out) {
  const int64_t quads = (n + 3) / 4;
  for (int64_t row = blockIdx.y; row < rows; row += gridDim.y) {
    const uint4 words = *reinterpret_cast<const uint4*>(ids + row);  // of a ChainId, read at once
    const ChainIds<Thread> chain = {words.x, words.y, words.z};
    float* image = out + row * n;
    for (int64_t quad = int64_t(blockIdx.x) * THREADS + threadIdx.x; quad < quads; quad += int64_t(gridDim.x) * THREADS) {
      float v[4];
      normal_quad<Thread>(random, chain, static_cast<uint32_t>(quad), v);
      if constexpr (ALIGNED) {
        reinterpret_cast<float4*>(image)[quad] = make_float4(v[0], v[1], v[2], v[3]);
      } else {
        for (int i = 0; i < 4; ++i)
          if (4 * quad + i < n) image[4 * quad + i] = v[i];
      }
    }
  }
}

void philox_normal(const PhiloxNormal& s, cudaStream_t stream) {
  if (s.rows == 0) return;
  const dim3 grid(blocks_for((s.n + 3) / 4, MAX_BLOCKS, THREADS), blocks_for(s.rows, MAX_ROWS, 1));
  const bool aligned = s.n % 4 == 0 && reinterpret_cast<uintptr_t>(s.out) % 16 == 0;
  launch("philox_normal", aligned ? philox_normal_kernel<true> : philox_normal_kernel<false>, grid, dim3(THREADS), 0, stream,
         s.ids, s.rows, s.n, make_stream(s.seed, s.step, s.tag), s.out);
}

}  // namespace alps::cuda
