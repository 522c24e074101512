// A line:  m = U g U^H r,  x+ = U (g U^H r + sqrt(g') xi),  r = b + lin x - w grad; contract in alps_fast/ops/langevin_sense.py.
//
// A block takes a line and up to CHAIN_TILE chains, so that U comes from memory once for all. A warp takes 16 coefficients, then
// 16 pixels, of every chain: products of matrices on tensor cores, whose eight columns are as many chains. Eight terms of a
// complex sum are two times eight of real ones, real parts before imaginary ones: a number of U goes from global memory to the
// one lane that needs it, which asks for it while others are worked on. Each sum runs over its line in one order, whatever the
// number of chains, and a column knows nothing of those beside it.
#include "asynchronous.h"
#include "kernels.h"
#include "launch.h"
#include "level.h"
#include "noise.h"
#include "tensor_cores.h"
#include "vectors.h"

namespace alps::cuda {
namespace {

constexpr int WARPS = 8, THREADS = 32 * WARPS;
constexpr int HEIGHT = 16, TERMS = 8;  // of a warp's matrix of U: sums, and complex terms of each
constexpr int MOST_AHEAD = 2;          // such matrices on their way, of a warp
constexpr int64_t MOST_BLOCKS = 0x7fffffff;

template <int CHAIN_TILE>  // complex numbers of a row: of every chain the coefficient of m, then r, later the coefficient of x+
constexpr int PITCH = 2 * CHAIN_TILE + 2;  // rows begin on 16 bytes, and those of four lanes' terms in as many parts of the banks

template <int CHAIN_TILE>  // matrices of eight columns; column g of matrix i is chain TILES g + i, of four there are two
constexpr int TILES = CHAIN_TILE == 16 ? 2 : 1;

// Rows of shared memory: zeros follow those of a line, as matrices of terms end only there.
__host__ __device__ constexpr int64_t padded_to(int64_t n) {
  constexpr int64_t TURN = TERMS * MOST_AHEAD;
  return (n + TURN - 1) / TURN * TURN;
}

struct Lines {
  Stream random;
  uint32_t groups;
  bool whole_pixels;                 // states on 8 bytes
  int64_t pixels, to_line, to_next;  // of an image; from a line to the next one, and from a line's pixel to its next one
};

// What a lane (g, t) holds of U: terms k + 2 t and k + 2 t + 1 of two sums. ADJOINT: terms are rows, sums columns top + 2 g and
// top + 2 g + 1; else terms are columns, sums rows top + g and top + g + 8. PAIRS: two of a row come at once. Past a line's end
// it holds other terms of the same sums, which zeros meet, and past the last sum those of another, which nobody wants.
template <bool ADJOINT, bool PAIRS>
struct Numbers {
  const float2* first[ADJOINT ? 1 : 2];
  uint32_t n, right;  // to the sum's neighbour
  int left;           // terms from the lane's first on

  __device__ __forceinline__ Numbers(const float2* u, uint32_t n, uint32_t top) : n(n) {
    const uint32_t g = threadIdx.x % 32 / 4, term = threadIdx.x % 4 * 2;
    left = static_cast<int>(n - term);
    if constexpr (ADJOINT) {
      const uint32_t column = top + 2 * g < n ? top + 2 * g : n - (PAIRS ? 2 : 1);
      right = column + 1 < n;
      first[0] = u + term * n + column;
    } else {
#pragma unroll
      for (uint32_t i = 0; i < 2; ++i) first[i] = u + (top + g + 8 * i < n ? top + g + 8 * i : n - 1) * n + term;
    }
  }

  static __device__ __forceinline__ float4 two(const float2* from, uint32_t right) {
    if constexpr (PAIRS) return read_around(reinterpret_cast<const float4*>(from));
    const float2 a = from[0], b = from[right];
    return make_float4(a.x, a.y, b.x, b.y);
  }

  __device__ __forceinline__ void load(int k, float4 (&v)[2]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (ADJOINT && left > k + i) v[i] = two(first[0] + (k + i) * n, right);
      if (!ADJOINT && left > k) v[i] = two(first[i] + k, left > k + 1);
    }
  }

  __device__ __forceinline__ void advance(int terms) {
    left -= terms;
#pragma unroll
    for (auto& from : first) from += ADJOINT ? terms * n : terms;
  }
};

__device__ __forceinline__ Split negative(Split x) { return {x.high ^ 0x80000000u, x.low ^ 0x80000000u}; }

// sums[part][tile][of real parts, of imaginary ones] += U or its adjoint times TERMS rows, from the lane's first number on.
template <bool ADJOINT, int CHAIN_TILE, int PARTS>
__device__ __forceinline__ void add(const float4 (&v)[2], const float2* rows, float (&sums)[PARTS][TILES<CHAIN_TILE>][2][4]) {
  constexpr int T = TILES<CHAIN_TILE>;
  Split u[2][4];
#pragma unroll
  for (int s = 0; s < 2; ++s)
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const float4 both = v[ADJOINT ? s : h];
      const bool second = ADJOINT ? h : s;
      u[s][h] = split(second ? both.z : both.x);
      u[s][2 + h] = split(second ? both.w : both.y);
    }
#pragma unroll
  for (int part = 0; part < PARTS; ++part) {
    float2 row[2][T];
#pragma unroll
    for (int s = 0; s < 2; ++s) {
      const float2* const of_lane = rows + s * PITCH<CHAIN_TILE> + part * CHAIN_TILE;
      if constexpr (T == 2) *reinterpret_cast<float4*>(row[s]) = *reinterpret_cast<const float4*>(of_lane);
      else row[s][0] = *of_lane;
    }
#pragma unroll
    for (int i = 0; i < T; ++i) {
      Split b[2][2][2];  // what real and imaginary parts of U meet in sums of either kind
#pragma unroll
      for (int s = 0; s < 2; ++s) {
        const Split real = split(row[s][i].x), imaginary = split(row[s][i].y);
        b[0][s][0] = real;
        b[0][s][1] = ADJOINT ? imaginary : negative(imaginary);
        b[1][s][0] = imaginary;
        b[1][s][1] = ADJOINT ? negative(real) : real;
      }
      multiply_add(u, b[0], sums[part][i][0]);
      multiply_add(u, b[1], sums[part][i][1]);
    }
  }
}

template <bool ADJOINT, int CHAIN_TILE, bool PAIRS, int PARTS>
__device__ __forceinline__ void product(const float2* u, uint32_t n, uint32_t top, const float2* rows,
                                        float (&sums)[PARTS][TILES<CHAIN_TILE>][2][4]) {
  // A matrix times two parts of 16 chains takes long enough for the next one to come, and more would not fit into registers.
  constexpr int AHEAD = PAIRS && (ADJOINT || CHAIN_TILE < 16) ? MOST_AHEAD : 1;
  Numbers<ADJOINT, PAIRS> numbers(u, n, top);
  float4 ahead[AHEAD][2] = {};
#pragma unroll
  for (int i = 0; i < AHEAD; ++i) numbers.load(TERMS * i, ahead[i]);
#pragma unroll 1
  for (uint32_t k = 0; k < n; k += TERMS * AHEAD, rows += TERMS * AHEAD * PITCH<CHAIN_TILE>) {
    numbers.advance(TERMS * AHEAD);
#pragma unroll
    for (int i = 0; i < AHEAD; ++i) {
      const float4 now[2] = {ahead[i][0], ahead[i][1]};
      numbers.load(TERMS * i, ahead[i]);
      add<ADJOINT, CHAIN_TILE, PARTS>(now, rows + TERMS * i * PITCH<CHAIN_TILE>, sums);
    }
  }
}

template <int CHAIN_TILE, bool NOISY, bool PAIRS>
__global__ void __launch_bounds__(THREADS, 2) langevin_sense_kernel(SenseStep s, Lines at) {
  constexpr int T = TILES<CHAIN_TILE>, PARTS = NOISY ? 2 : 1, COUPLES = CHAIN_TILE / 2, AT_ONCE = 4;
  float2* const rows = reinterpret_cast<float2*>(shared_floats());
  const uint32_t n = s.n, padded = padded_to(n), warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const uint32_t line = blockIdx.x / at.groups;
  const int64_t first = static_cast<int64_t>(blockIdx.x % at.groups) * CHAIN_TILE;
  const auto pixel_of = [&](uint32_t k) { return line * at.to_line + k * at.to_next; };
  const int chains = static_cast<int>(s.rows - first < CHAIN_TILE ? s.rows - first : CHAIN_TILE);
  const float2* const u = reinterpret_cast<const float2*>(s.u) + line * s.n * s.n;
  const float* const eigenvalues = s.eigenvalues + line * s.n;

  // Two chains of a warp, whose lanes take a pixel of each in turn; warps left over share pixels.
  const uint32_t c = warp % COUPLES * 2 + lane % 2, from = warp / COUPLES * 16 + lane / 2, stride = WARPS / COUPLES * 16;
  const bool known = static_cast<int>(c) < chains;
  const int64_t image = (first + c) * 2 * at.pixels;
  const float* const data = s.b + (known ? (first + c) / (s.rows / s.measurements) * 2 * at.pixels : 0);
#pragma unroll 1
  for (uint32_t top = from; top < padded; top += AT_ONCE * stride) {
    float2 x[AT_ONCE] = {}, grad[AT_ONCE] = {}, r[AT_ONCE] = {};
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const uint32_t k = top + i * stride;
      if (known && k < n) {
        const int64_t pixel = pixel_of(k);
        x[i] = pixel_at(at.whole_pixels, s.x + image, pixel), grad[i] = pixel_at(at.whole_pixels, s.grad + image, pixel);
        r[i] = pixel_at(at.whole_pixels, data, pixel);
      }
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const uint32_t k = top + i * stride;
      if (k >= padded) break;
      const float lin = lin_of(s), w = w_of(s);
      float2* const of_k = rows + k * PITCH<CHAIN_TILE> + c;
      of_k[CHAIN_TILE] = make_float2(__fmaf_rn(-w, grad[i].x, __fmaf_rn(lin, x[i].x, r[i].x)),
                                 __fmaf_rn(-w, grad[i].y, __fmaf_rn(lin, x[i].y, r[i].y)));
      if (k >= n) of_k[0] = make_float2(0, 0);
    }
  }
  const float2* const of_lane = rows + 2 * t * PITCH<CHAIN_TILE> + T * (g % CHAIN_TILE);
  __syncthreads();
#pragma unroll 1
  for (uint32_t top = HEIGHT * warp; top < n; top += HEIGHT * WARPS) {
    float sums[1][T][2][4] = {};
    product<true, CHAIN_TILE, PAIRS>(u, n, top, of_lane + CHAIN_TILE, sums);
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
      const uint32_t k = top + 2 * g + h;
      if (k >= n || 2 * t >= CHAIN_TILE) continue;
      const float gain = 1 / __fmaf_rn(eigenvalues[k], inv_eta2_of(s), lam_of(s));
      float2* const of_k = rows + k * PITCH<CHAIN_TILE> + 2 * T * t;
      float2 m[2 * T];
#pragma unroll
      for (int q = 0; q < 2 * T; ++q)
        m[q] = make_float2(sums[0][q % T][0][2 * h + q / T] * gain, sums[0][q % T][1][2 * h + q / T] * gain);
      // In an order of the lane's own, so that no two of half a warp write to one bank at once.
#pragma unroll
      for (int bit = 1; bit < 2 * T; bit *= 2)
#pragma unroll
        for (int q = 0; q < 2 * T; ++q)
          if (!(q & bit) && g & bit) {
            const float2 other = m[q];
            m[q] = m[q + bit], m[q + bit] = other;
          }
#pragma unroll
      for (int q = 0; q < 2 * T; ++q) of_k[q ^ g % (2 * T)] = m[q];
    }
  }
  __syncthreads();
  if constexpr (NOISY) {
    const auto add_noise = [&](uint32_t k, float2 drawn) {
      const float spread = 1 / __fsqrt_rn(__fmaf_rn(eigenvalues[k], inv_eta2_of(s), noise_lam_of(s)));
      float2* const of_k = rows + k * PITCH<CHAIN_TILE> + c;
      of_k[CHAIN_TILE] = make_float2(__fmaf_rn(drawn.x, spread, of_k[0].x), __fmaf_rn(drawn.y, spread, of_k[0].y));
    };
    if (known && s.noise == GIVEN) {
      for (uint32_t k = from; k < n; k += stride) add_noise(k, pixel_at(at.whole_pixels, s.xi + image, pixel_of(k)));
    } else if (known) {
      // A quad is two pixels side by side: along a row both are of this line.
      const bool both = at.to_next == 1;
      const ChainId chain = s.ids[first + c];
      const int before = both ? static_cast<int>(pixel_of(0) % 2) : 0;  // of the first quad's pixels
      const uint32_t quads = both ? (n + before + 1) / 2 : n;
#pragma unroll 1
      for (uint32_t i = from; i < quads; i += stride) {
        const int k = both ? 2 * static_cast<int>(i) - before : static_cast<int>(i);
        const int64_t pixel = pixel_of(0) + k * at.to_next;
        float xi[4];
        if (s.noise == AVERAGED) step_noise<AVERAGED>(at.random, chain, static_cast<uint32_t>(pixel / 2), xi);
        else step_noise<INDEPENDENT>(at.random, chain, static_cast<uint32_t>(pixel / 2), xi);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
          // Of lanes that share banks some take the second pixel first.
          const bool second = both ? (h ^ (lane / 8)) % 2 : pixel % 2;
          const int to = both ? k + second : k;
          if (to >= 0 && to < static_cast<int>(n) && (both || !h))
            add_noise(to, second ? make_float2(xi[2], xi[3]) : make_float2(xi[0], xi[1]));
        }
      }
    }
    __syncthreads();
  }
#pragma unroll 1
  for (uint32_t top = HEIGHT * warp; top < n; top += HEIGHT * WARPS) {
    float sums[PARTS][T][2][4] = {};
    product<false, CHAIN_TILE, PAIRS>(u, n, top, of_lane, sums);
#pragma unroll
    for (uint32_t h = 0; h < 2; ++h) {
      const uint32_t j = top + g + 8 * h;
      if (j >= n) continue;
      int64_t pixel = (first + 2 * T * t) * at.pixels + pixel_of(j);
#pragma unroll
      for (int q = 0; q < 2 * T; ++q, pixel += at.pixels) {
        if (static_cast<int>(2 * T * t) + q >= chains) break;
        const int i = 2 * h + q / T;
        const float(&m)[2][4] = sums[0][q % T], (&noisy)[2][4] = sums[PARTS - 1][q % T];
        put_pixel(at.whole_pixels, s.mean, pixel, make_float2(m[0][i], m[1][i]));
        put_pixel(at.whole_pixels, s.after, pixel, make_float2(noisy[0][i], noisy[1][i]));
      }
    }
  }
}

template <int CHAIN_TILE>
int64_t bytes(int64_t n) { return 8 * padded_to(n) * PITCH<CHAIN_TILE>; }

template <int CHAIN_TILE>
void run(const SenseStep& s, cudaStream_t stream) {
  const int64_t groups = (s.rows + CHAIN_TILE - 1) / CHAIN_TILE;
  if (s.lines * groups > MOST_BLOCKS) throw std::invalid_argument("langevin_sense: more than 2^31 - 1 lines of groups of chains");
  const Lines at = {make_stream(s.seed, s.step, LANGEVIN), static_cast<uint32_t>(groups),
                    on_bytes<8>(s.x, s.grad, s.b, s.xi, s.after, s.mean), s.lines * s.n, s.axis == 0 ? 1 : s.n,
                    s.axis == 0 ? s.lines : 1};
  const bool pairs = s.n % 2 == 0 && on_16_bytes(s.u);  // two numbers of a row of U on 16 bytes
  const auto quiet = pairs ? langevin_sense_kernel<CHAIN_TILE, false, true> : langevin_sense_kernel<CHAIN_TILE, false, false>;
  const auto noisy = pairs ? langevin_sense_kernel<CHAIN_TILE, true, true> : langevin_sense_kernel<CHAIN_TILE, true, false>;
  launch("langevin_sense", s.noise == NO_NOISE ? quiet : noisy, dim3(static_cast<unsigned>(s.lines * groups)), dim3(THREADS),
         static_cast<size_t>(bytes<CHAIN_TILE>(s.n)), stream, s, at);
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
