// Welford's update row after row, in the reference's order and with its roundings: the same bits as torch's.
// Contract in alps_fast/ops/moments.py. A thread keeps the mean and M2 of 16 bytes' elements in registers over all rows.
#include "kernels.h"
#include "launch.h"
#include "vectors.h"

namespace alps::cuda {

constexpr int THREADS = 128;
constexpr int AHEAD = 4;  // rows read before the first of them is used
constexpr int64_t MAX_BLOCKS = 8192;
constexpr int64_t MAX_GROUPS = 65535;  // limit of gridDim.y
static_assert(THREADS % 32 == 0, "whole warps");

template <class T>
constexpr int BLOCKS = sizeof(T) == 4 ? 8 : 6;  // a multiprocessor; where ptxas is left to choose, it takes more and spills

// `store` by the vector's index: of what a loop leaves, to array + first, nvcc stores one element after another.
// Here alone: langevin_pixel would take 64 registers for it, where it takes 43.
template <bool ALIGNED, class T>
__device__ __forceinline__ void store_vector(T* array, int64_t first, int64_t n, const T (&v)[WIDTH<T>]) {
  using Vector = typename VectorOf<T>::type;
  if constexpr (ALIGNED) reinterpret_cast<Vector*>(array)[first / WIDTH<T>] = *reinterpret_cast<const Vector*>(v);
  else store<false>(array, first, n, v);
}

template <class T, bool ALIGNED>
__global__ void __launch_bounds__(THREADS, BLOCKS<T>)
    moments_kernel(const int64_t* __restrict__ count, const T* __restrict__ mean, const T* __restrict__ m2,
                   const T* __restrict__ x, const bool* __restrict__ keep, int64_t* __restrict__ count_after,
                   T* __restrict__ mean_after, T* __restrict__ m2_after, int64_t groups, int64_t each, int64_t n) {
  constexpr int V = WIDTH<T>;
  for (int64_t group = blockIdx.y; group < groups; group += gridDim.y) {
    const int64_t begin = group * each, end = begin + each;
    if (blockIdx.x == 0 && threadIdx.x == 0) {
      int64_t taken = count[group];
      for (int64_t row = begin; row < end; ++row) taken += keep[row];
      count_after[group] = taken;
    }
#pragma unroll 1  // else registers are kept for loads of the next turn
    for (int64_t first = V * (int64_t(blockIdx.x) * THREADS + threadIdx.x); first < n; first += V * int64_t(gridDim.x) * THREADS) {
      T average[V], squares[V];
      load<ALIGNED>(mean + group * n, first, n, average);
      load<ALIGNED>(m2 + group * n, first, n, squares);
      int64_t taken = count[group];
      for (int64_t row = begin; row < end; row += AHEAD) {
        T values[AHEAD][V];
#pragma unroll
        for (int k = 0; k < AHEAD; ++k)
          if (row + k < end) load<ALIGNED>(x + (row + k) * n, first, n, values[k]);
#pragma unroll
        for (int k = 0; k < AHEAD; ++k)
          if (row + k < end && keep[row + k]) {
            const T rows_taken = static_cast<T>(++taken);
#pragma unroll
            for (int i = 0; i < V; ++i) {
              const T delta = values[k][i] - average[i];
              average[i] += delta / rows_taken;
              squares[i] += delta * (values[k][i] - average[i]);
            }
          }
      }
      store_vector<ALIGNED>(mean_after + group * n, first, n, average);
      store_vector<ALIGNED>(m2_after + group * n, first, n, squares);
    }
  }
}

template <class T>
static void run(const Moments& s, cudaStream_t stream) {
  const T *const mean = static_cast<const T*>(s.mean), *const m2 = static_cast<const T*>(s.m2), *const x = static_cast<const T*>(s.x);
  T *const mean_after = static_cast<T*>(s.mean_after), *const m2_after = static_cast<T*>(s.m2_after);
  const bool aligned = s.n % WIDTH<T> == 0 && on_16_bytes(mean, m2, x, mean_after, m2_after);
  const dim3 grid(blocks_for((s.n + WIDTH<T> - 1) / WIDTH<T>, MAX_BLOCKS, THREADS), blocks_for(s.groups, MAX_GROUPS, 1));
  launch("moments", aligned ? moments_kernel<T, true> : moments_kernel<T, false>, grid, dim3(THREADS), 0, stream, s.count, mean,
         m2, x, s.keep, s.count_after, mean_after, m2_after, s.groups, s.rows / s.groups, s.n);
}

void moments(const Moments& s, cudaStream_t stream) { (s.is_double ? run<double> : run<float>)(s, stream); }

}  // namespace alps::cuda
