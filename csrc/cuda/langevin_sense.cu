// A line:  m = U g U^H r,  x+ = U (g U^H r + sqrt(g') xi),  r = b + lin x - w grad; contract in alps_fast/ops/langevin_sense.py.
//
// A block takes a line and up to CHAINS chains, so that U comes from memory once for all of them. A thread takes a coefficient,
// then a pixel, of every chain: each number of U goes from global memory to the one thread that needs it, and what it is
// multiplied with is one address for a whole warp. Each sum runs over its line in order, whatever the number of chains. In the
// second product two lanes read their two rows of U together, 32 bytes of the one and 32 of the other, and swap halves: so no
// sector is asked for twice.
#include "kernels.h"
#include "launch.h"
#include "noise.h"
#include "vectors.h"

namespace alps::cuda {
namespace {

constexpr int MOST_THREADS = 320;  // with 16 chains and their noise a thread keeps 64 sums
constexpr int64_t MOST_BLOCKS = 0x7fffffff;

template <int CHAINS>  // complex numbers of a row: of every chain the coefficient of m, then r, later the coefficient of x+
constexpr int PITCH = 2 * CHAINS + 2;  // rows begin on 16 bytes, and those of eight threads in as many parts of the banks

struct Lines {
  Stream random;
  uint32_t groups;
  bool whole_pixels, pairs;  // states on 8 bytes; two numbers of a row of U on 16
};

template <bool ADJOINT, int COUNT>  // sums += u times a row, or conj(u) times it
__device__ __forceinline__ void add(float2 u, const float2* row, float2 (&sums)[COUNT]) {
  const float b = ADJOINT ? -u.y : u.y;
#pragma unroll
  for (int c = 0; c < COUNT; c += 2) {
    const float4 v = *reinterpret_cast<const float4*>(row + c);
    sums[c].x = __fmaf_rn(-b, v.y, __fmaf_rn(u.x, v.x, sums[c].x));
    sums[c].y = __fmaf_rn(b, v.x, __fmaf_rn(u.x, v.y, sums[c].y));
    sums[c + 1].x = __fmaf_rn(-b, v.w, __fmaf_rn(u.x, v.z, sums[c + 1].x));
    sums[c + 1].y = __fmaf_rn(b, v.z, __fmaf_rn(u.x, v.w, sums[c + 1].y));
  }
}

// What the other lane of two neighbours has.
__device__ __forceinline__ float4 of_neighbour(float4 v) {
  constexpr unsigned ALL = 0xffffffffu;
  return make_float4(__shfl_xor_sync(ALL, v.x, 1), __shfl_xor_sync(ALL, v.y, 1), __shfl_xor_sync(ALL, v.z, 1),
                     __shfl_xor_sync(ALL, v.w, 1));
}

template <int CHAINS, bool NOISY>
__global__ void __launch_bounds__(MOST_THREADS, CHAINS == 16 ? 0 : 1) langevin_sense_kernel(SenseStep s, Lines at) {
  constexpr int SUMS = NOISY ? 2 * CHAINS : CHAINS;
  float2* const rows = reinterpret_cast<float2*>(shared_floats());
  const uint32_t n = s.n, lane = threadIdx.x, threads = blockDim.x;
  const int64_t line = blockIdx.x / at.groups, first = blockIdx.x % at.groups * CHAINS, pixels = s.lines * s.n;
  const int64_t begin = s.axis == 0 ? line : line * n, apart = s.axis == 0 ? s.lines : 1, each = s.rows / s.measurements;
  const int chains = static_cast<int>(s.rows - first < CHAINS ? s.rows - first : CHAINS);
  const float2* u = reinterpret_cast<const float2*>(s.u) + line * n * n;
  const float* eigenvalues = s.eigenvalues + line * n;
#pragma unroll 1
  for (int c = 0; c < CHAINS; ++c) {
    const int64_t image = (first + c) * 2 * pixels, data = (first + c) / each * 2 * pixels;
    for (uint32_t k = lane; k < n; k += threads) {
      float2 r = make_float2(0, 0);
      if (c < chains) {
        const int64_t pixel = begin + k * apart;
        const float2 x = pixel_at(at.whole_pixels, s.x + image, pixel), grad = pixel_at(at.whole_pixels, s.grad + image, pixel);
        r = pixel_at(at.whole_pixels, s.b + data, pixel);
        r.x = __fmaf_rn(-s.w, grad.x, __fmaf_rn(s.lin, x.x, r.x));
        r.y = __fmaf_rn(-s.w, grad.y, __fmaf_rn(s.lin, x.y, r.y));
      }
      rows[k * PITCH<CHAINS> + CHAINS + c] = r;
    }
  }
  __syncthreads();
  for (uint32_t k = lane; k < n; k += threads) {
    float2 sums[CHAINS] = {};
#pragma unroll 4
    for (uint32_t i = 0; i < n; ++i) add<true>(u[i * n + k], rows + i * PITCH<CHAINS> + CHAINS, sums);
    const float gain = 1 / __fmaf_rn(eigenvalues[k], s.inv_eta2, s.lam);
#pragma unroll
    for (int c = 0; c < CHAINS; ++c) rows[k * PITCH<CHAINS> + c] = make_float2(sums[c].x * gain, sums[c].y * gain);
  }
  __syncthreads();
  if constexpr (NOISY) {
#pragma unroll 1
    for (int c = 0; c < chains; ++c)
      for (uint32_t k = lane; k < n; k += threads) {
        const int64_t pixel = begin + k * apart, row = first + c;
        const float spread = 1 / __fsqrt_rn(__fmaf_rn(eigenvalues[k], s.inv_eta2, s.noise_lam));
        float2 drawn;
        if (s.noise == GIVEN) {
          drawn = pixel_at(at.whole_pixels, s.xi + row * 2 * pixels, pixel);
        } else {
          float xi[4];
          const Chain chain = s.chains[row];
          const uint32_t quad = static_cast<uint32_t>(pixel / 2);
          if (s.noise == AVERAGED) step_noise<AVERAGED>(at.random, chain, quad, xi);
          else step_noise<INDEPENDENT>(at.random, chain, quad, xi);
          drawn = pixel % 2 ? make_float2(xi[2], xi[3]) : make_float2(xi[0], xi[1]);
        }
        float2* const of_k = rows + k * PITCH<CHAINS> + c;
        of_k[CHAINS] = make_float2(__fmaf_rn(drawn.x, spread, of_k[0].x), __fmaf_rn(drawn.y, spread, of_k[0].y));
      }
    __syncthreads();
  }
  for (uint32_t top = lane & ~31u; top < n; top += threads) {  // whole warps
    const uint32_t j = top + lane % 32;
    float2 sums[SUMS] = {};
    if (at.pairs) {
      const bool odd = lane % 2;
      const float4* const two_rows = reinterpret_cast<const float4*>(u + (j & ~1u) * n);
#pragma unroll 1
      for (uint32_t k = 0; k < n; k += 4) {
        float4 above = {}, below = {};
        if (j < n && k + 2 * odd < n) above = two_rows[k / 2 + odd], below = two_rows[(n + k) / 2 + odd];
        const float4 other = of_neighbour(odd ? above : below), next = odd ? below : other;
        float4 now = odd ? other : above;
#pragma unroll 1
        for (uint32_t i = k; i < k + 4 && i < n; i += 2, now = next) {
          add<false>(make_float2(now.x, now.y), rows + i * PITCH<CHAINS>, sums);
          add<false>(make_float2(now.z, now.w), rows + (i + 1) * PITCH<CHAINS>, sums);
        }
      }
    } else if (j < n) {
#pragma unroll 1
      for (uint32_t k = 0; k < n; ++k) add<false>(u[j * n + k], rows + k * PITCH<CHAINS>, sums);
    }
    if (j >= n) continue;
    int64_t pixel = first * pixels + begin + j * apart;
#pragma unroll
    for (int c = 0; c < CHAINS; ++c, pixel += pixels)
      if (c < chains) {
        put_pixel(at.whole_pixels, s.mean, pixel, sums[c]);
        put_pixel(at.whole_pixels, s.after, pixel, sums[NOISY ? CHAINS + c : c]);
      }
  }
}

template <int CHAINS>
int64_t bytes(int64_t n) { return 8 * n * PITCH<CHAINS>; }

template <int CHAINS>
void run(const SenseStep& s, cudaStream_t stream) {
  const int64_t groups = (s.rows + CHAINS - 1) / CHAINS;
  if (s.lines * groups > MOST_BLOCKS) throw std::invalid_argument("langevin_sense: more than 2^31 - 1 lines of groups of chains");
  const Lines at = {make_stream(s.seed, s.step, LANGEVIN), static_cast<uint32_t>(groups),
                    on_bytes<8>(s.x, s.grad, s.b, s.xi, s.after, s.mean), s.n % 2 == 0 && on_16_bytes(s.u)};
  const int64_t turns = (s.n + MOST_THREADS - 1) / MOST_THREADS, threads = ((s.n + turns - 1) / turns + 31) / 32 * 32;
  launch("langevin_sense", s.noise == NO_NOISE ? langevin_sense_kernel<CHAINS, false> : langevin_sense_kernel<CHAINS, true>,
         dim3(static_cast<unsigned>(s.lines * groups)), dim3(static_cast<unsigned>(threads)),
         static_cast<size_t>(bytes<CHAINS>(s.n)), stream, s, at);
}

}  // namespace

bool langevin_sense_fits(const SenseStep& s) { return bytes<4>(s.n) <= this_device("langevin_sense").shared; }

void langevin_sense(const SenseStep& s, cudaStream_t stream) {
  const int64_t shared = this_device("langevin_sense").shared;
  if (s.rows == 0) return;
  if (s.rows > 8 && bytes<16>(s.n) <= shared) run<16>(s, stream);
  else if (s.rows > 4 && bytes<8>(s.n) <= shared) run<8>(s, stream);
  else run<4>(s, stream);
}

}  // namespace alps::cuda
