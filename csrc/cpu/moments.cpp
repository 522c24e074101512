// Welford's update row after row, in the reference's order and with its roundings: the same bits as torch's.
// Contract in alps_fast/ops/moments.py. A tile's mean and M2 stay in L1 while every row of its group passes.
#include "kernels.h"
#include "lanes.h"

namespace alps::ALPS_ISA {

template <class T>
ALPS_INLINE void take(const T* __restrict x, T n, int64_t count, T* __restrict mean, T* __restrict m2) {
  for (int64_t e = 0; e < count; ++e) {
    const T delta = x[e] - mean[e];
    mean[e] += delta / n;
    m2[e] += delta * (x[e] - mean[e]);
  }
}

template <class T>
static void run(const Moments& s, int threads) {
  const T *const before[] = {static_cast<const T*>(s.mean), static_cast<const T*>(s.m2)}, *const x = static_cast<const T*>(s.x);
  T* const after[] = {static_cast<T*>(s.mean_after), static_cast<T*>(s.m2_after)};
  constexpr int64_t TILE = 8192 / sizeof(T);
  const int64_t each = s.rows / s.groups;
  for (int64_t group = 0; group < s.groups; ++group) {
    s.count_after[group] = s.count[group];
    for (int64_t row = group * each; row < (group + 1) * each; ++row) s.count_after[group] += s.keep[row];
  }
#pragma omp parallel for collapse(2) num_threads(team(threads, s.groups * ((s.n + TILE - 1) / TILE))) schedule(static)
  for (int64_t group = 0; group < s.groups; ++group)
    for (int64_t first = 0; first < s.n; first += TILE) {
      const int64_t count = s.n - first < TILE ? s.n - first : TILE;
      const size_t bytes = sizeof(T) * static_cast<size_t>(count);
      T *mean = after[0] + group * s.n + first, *m2 = after[1] + group * s.n + first;
      std::memcpy(mean, before[0] + group * s.n + first, bytes);
      std::memcpy(m2, before[1] + group * s.n + first, bytes);
      int64_t n = s.count[group];
      for (int64_t row = group * each; row < (group + 1) * each; ++row)
        if (s.keep[row]) take(x + row * s.n + first, static_cast<T>(++n), count, mean, m2);
    }
}

void moments(const Moments& s, int threads) { (s.is_double ? run<double> : run<float>)(s, threads); }

}  // namespace alps::ALPS_ISA
