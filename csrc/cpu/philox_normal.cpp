// out[row][e] = element e of R_step of the row's chain; contract in alps_fast/ops/philox_normal.py.
#include "../common/philox.h"
#include "kernels.h"
#include "lanes.h"

namespace alps::ALPS_ISA {

constexpr int64_t BLOCK = 4096;  // elements of one piece of work
static_assert(BLOCK % STRIDE == 0, "a block holds whole vectors");

static void fill(const Stream& stream, const ChainIds<Lanes>& chain, int64_t first, int64_t last, float* out) {
  for (int64_t e = first; e < last; e += STRIDE) {
    Lanes::F normals[4];
    normal_quad<Lanes>(stream, chain, Lanes::quads() + static_cast<uint32_t>(e / 4), normals);
    Lanes::in_order(normals);
    if (e + STRIDE <= last) {
      ALPS_UNROLL
      for (int k = 0; k < 4; ++k) Lanes::save(normals[k], out + e + k * Lanes::width);
    } else {
      float tail[STRIDE];
      for (int k = 0; k < 4; ++k) Lanes::save(normals[k], tail + k * Lanes::width);
      std::memcpy(out + e, tail, sizeof(float) * static_cast<size_t>(last - e));
    }
  }
}

void philox_normal(const PhiloxNormal& s, int threads) {
  const Stream stream = make_stream(s.seed, s.step, s.tag);
#pragma omp parallel for collapse(2) num_threads(team(threads, s.rows * ((s.n + BLOCK - 1) / BLOCK))) schedule(static)
  for (int64_t row = 0; row < s.rows; ++row)
    for (int64_t first = 0; first < s.n; first += BLOCK)
      fill(stream, in_all_lanes<Lanes>(s.ids[row]), first, first + BLOCK < s.n ? first + BLOCK : s.n, s.out + row * s.n);
}

}  // namespace alps::ALPS_ISA
