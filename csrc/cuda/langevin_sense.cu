// A line:  m = U g U^H r,  x+ = U (g U^H r + sqrt(g') xi),  r = b + lin x - w grad; contract in alps_fast/ops/langevin_sense.py.
//
// A block takes a line and up to CHAIN_TILE chains, so that U comes from memory once for all. A warp takes eight coefficients,
// then eight pixels, of every chain: products of matrices on tensor cores, whose eight columns are as many chains, and whose rows
// are the sums' real parts, then their imaginary ones. A number of U goes from global memory to the one lane that needs it, which
// asks for it while others are worked on. Each sum runs over its line in one order, whatever the number of chains, and a column
// knows nothing of those beside it.
//
// A number is two of float16 (tensor_cores.h), of whose four products three count. U's are split as they come, after a factor
// that keeps what is left of them from where float16 has fewer bits; rows wait in shared memory as they are multiplied, each
// chain's over a power of two from its largest number, which no order decides.
#include "asynchronous.h"
#include "kernels.h"
#include "launch.h"
#include "level.h"
#include "noise.h"
#include "tensor_cores.h"
#include "vectors.h"

namespace alps::cuda {
namespace {

constexpr int WARPS = 16, THREADS = 32 * WARPS;
constexpr int HEIGHT = 8, TERMS = 16;  // of a warp's matrix of U: sums, and terms of each
constexpr int64_t MOST_BLOCKS = 0x7fffffff;

// A row in shared memory is the four terms of a lane of each TERMS: 2 t, 2 t + 1, 2 t + 8, 2 t + 9. It has every chain's
// coefficients of m, then r, later the coefficients of x+. Each of them is two units of 16 bytes, in both places the same chain's:
// two complex numbers and two more, or as they are multiplied the four high halves and the four low ones, real parts first. Four
// rows begin in as many parts of the banks.
template <int CHAIN_TILE>
constexpr int PITCH = 4 * CHAIN_TILE + 2;

template <int CHAIN_TILE>  // matrices of eight columns; column g of matrix i is chain 8 i + g, of four there are two
constexpr int TILES = CHAIN_TILE == 16 ? 2 : 1;

__host__ __device__ constexpr int64_t rows_of(int64_t n) { return (n + TERMS - 1) / TERMS * (TERMS / 4); }

// Of a block, before its rows: the largest number of the two chains of each warp, as bits, and the factors that undo units.
template <int CHAIN_TILE>
struct alignas(16) Sizes {
  uint32_t largest[2][WARPS][2];
  float undo[2][CHAIN_TILE];
};

struct Lines {
  Stream random;
  uint32_t groups, n;
  bool whole_pixels;          // states on 8 bytes
  uint32_t to_line, to_next;  // pixels from a line to the next one, and from a line's pixel to its next one
  int64_t pixels;             // of an image
};

// What a lane (g, t) holds of U: terms k + 2 t, k + 2 t + 1, k + 2 t + 8, k + 2 t + 9 of sum top + g, column top + g of U where
// ADJOINT, else its row. EVEN: n is, and two numbers of a row on 16 bytes. Past a line's end it holds other terms of the same sum,
// which zeros meet, and past the last sum those of another, which nobody wants.
template <bool ADJOINT, bool EVEN>
class Numbers {
 public:
  float2 v[4] = {};

  __device__ __forceinline__ Numbers(const float2* u, uint32_t n) : u_(u), n_(n) {}

  __device__ __forceinline__ void begin(uint32_t top) {
    const uint32_t g = threadIdx.x % 32 / 4, sum = top + g < n_ ? top + g : n_ - 1;
    left_ = top < n_ ? static_cast<int>(n_) + end() - first() : 0;
    at_ = u_ + (ADJOINT ? first() * n_ + sum : sum * n_ + first());
    load();
  }

  __device__ __forceinline__ bool more() const { return left_ > 0; }

  // The next TERMS.
  __device__ __forceinline__ void load() {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int term = i / 2 * 8 + i % 2;
      if (!ADJOINT && EVEN) {
        if (i % 2 == 0 && left_ > end() + term) {
          const float4 two = read_around(reinterpret_cast<const float4*>(at_ + term));
          v[i] = make_float2(two.x, two.y), v[i + 1] = make_float2(two.z, two.w);
        }
      } else if (left_ > end() + (EVEN ? i / 2 * 8 : term)) {
        v[i] = read_around(ADJOINT ? further(term) : at_ + term);
      }
    }
    left_ -= TERMS;
    at_ = ADJOINT ? further(TERMS) : at_ + TERMS;
  }

 private:
  __device__ __forceinline__ static int first() { return threadIdx.x % 4 * 2; }
  // What is left past the line's last term. Either way of counting is right, and leaves some GPUs too few registers.
#if __CUDA_ARCH__ >= 1000
  __device__ __forceinline__ int end() const { return first(); }
#else
  __device__ __forceinline__ int end() const { return -n_ % TERMS; }
#endif
  __device__ __forceinline__ const float2* further(int terms) const { return at_ + static_cast<uint64_t>(n_) * terms; }

  const float2 *u_, *at_ = nullptr;
  uint32_t n_;
  int left_ = 0;  // terms from the lane's first on that nobody asked for, and end(): of all lanes or of none above zero
};

// sums[part][tile][chain 2 t, 2 t + 1 of real parts, of imaginary ones] += U or its adjoint times rows, from the lane's first unit
// on; `numbers` has its first terms.
template <bool ADJOINT, int CHAIN_TILE, bool EVEN, int PARTS>
__device__ __forceinline__ void product(Numbers<ADJOINT, EVEN>& numbers, const uint4* units,
                                        float (&sums)[PARTS][TILES<CHAIN_TILE>][4]) {
#pragma unroll 1
  for (bool more = true; more; units += TERMS / 4 * PITCH<CHAIN_TILE>) {
    Halves a[4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float2 first = numbers.v[2 * i], second = numbers.v[2 * i + 1];
      a[2 * i] = finer_halves(first.x, second.x);
      a[2 * i + 1] = finer_halves(first.y, second.y);
    }
    more = numbers.more();
    numbers.load();
#pragma unroll
    for (int part = 0; part < PARTS; ++part)
#pragma unroll
      for (int i = 0; i < TILES<CHAIN_TILE>; ++i) {
        const uint4* const of_tile = units + 2 * part * CHAIN_TILE + 8 * i;
        multiply_add_complex<ADJOINT>(a, of_tile[0], of_tile[CHAIN_TILE], sums[part][i]);
      }
  }
}

__device__ __forceinline__ uint32_t larger(uint32_t size, float2 of) {
  const uint32_t real = __float_as_uint(of.x) & 0x7fffffffu, imaginary = __float_as_uint(of.y) & 0x7fffffffu;
  const uint32_t more = real > imaginary ? real : imaginary;
  return size > more ? size : more;
}

// The two chains of a warp, whose lanes take them in turn.
__device__ __forceinline__ void put_largest(uint32_t size, uint32_t (&of_warps)[WARPS][2]) {
#pragma unroll
  for (unsigned with = 2; with < 32; with *= 2) {
    const uint32_t other = __shfl_xor_sync(0xffffffffu, size, with);
    size = size > other ? size : other;
  }
  if (threadIdx.x % 32 < 2) of_warps[threadIdx.x / 32][threadIdx.x % 2] = size;
}

// All of a part as they are multiplied: over a power of two, by which the largest is 2^14 to 2^15, or 1 where it is tiny.
template <int CHAIN_TILE>
__device__ __forceinline__ void to_halves(uint4* units, int part, uint32_t n, Sizes<CHAIN_TILE>& sizes) {
  constexpr uint32_t COUPLES = CHAIN_TILE / 2;
  const uint32_t chain = threadIdx.x % CHAIN_TILE;
  uint32_t size = 0;
#pragma unroll
  for (uint32_t warp = 0; warp < WARPS; warp += COUPLES) {
    const uint32_t other = sizes.largest[part][warp + chain / 2][chain % 2];
    size = size > other ? size : other;
  }
  const uint32_t exponent = size >> 23 < 15 ? 253 : 268 - (size >> 23);
  const float factor = __uint_as_float(exponent << 23);
  if (threadIdx.x < CHAIN_TILE) sizes.undo[part][chain] = __uint_as_float((254 - exponent) << 23) * (1 / FINER);
#pragma unroll 1
  for (uint32_t row = threadIdx.x / CHAIN_TILE; row < rows_of(n); row += THREADS / CHAIN_TILE) {
    uint4* const of_row = units + row * PITCH<CHAIN_TILE> + 2 * part * CHAIN_TILE + chain;
    Halves real[2], imaginary[2];
#pragma unroll
    for (uint32_t i = 0; i < 2; ++i) {
      const uint32_t k = row / 4 * TERMS + row % 4 * 2 + 8 * i;
      float4 two = *reinterpret_cast<const float4*>(of_row + i * CHAIN_TILE);
      if (k >= n) two.x = two.y = 0;  // zeros follow a line
      if (k + 1 >= n) two.z = two.w = 0;
      real[i] = halves(factor * two.x, factor * two.z, 1), imaginary[i] = halves(factor * two.y, factor * two.w, 1);
    }
    of_row[0] = make_uint4(real[0].high, real[1].high, imaginary[0].high, imaginary[1].high);
    of_row[CHAIN_TILE] = make_uint4(real[0].low, real[1].low, imaginary[0].low, imaginary[1].low);
  }
}

template <int CHAIN_TILE, bool NOISY, bool EVEN>
__global__ void __launch_bounds__(THREADS, 2) langevin_sense_kernel(SenseStep s, Lines at) {
  constexpr int T = TILES<CHAIN_TILE>, PARTS = NOISY ? 2 : 1, COUPLES = CHAIN_TILE / 2, AT_ONCE = 4;
  const uint32_t n = at.n, warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  auto& sizes = *reinterpret_cast<Sizes<CHAIN_TILE>*>(shared_floats());
  uint4* const units = reinterpret_cast<uint4*>(&sizes + 1);
  float* const spreads = reinterpret_cast<float*>(units + rows_of(n) * PITCH<CHAIN_TILE>);  // of the noise
  const uint32_t line = blockIdx.x / at.groups;
  const int64_t first = static_cast<int64_t>(blockIdx.x % at.groups) * CHAIN_TILE;
  const auto pixel_of = [&](uint32_t k) { return line * at.to_line + k * at.to_next; };
  const auto number_of = [&](uint32_t k, int part, uint32_t chain) -> float2& {
    const uint32_t row = k / TERMS * 4 + k % 8 / 2, unit = 2 * part + k / 8 % 2;
    return reinterpret_cast<float2*>(units + row * PITCH<CHAIN_TILE> + unit * CHAIN_TILE + chain)[k % 2];
  };
  const int chains = static_cast<int>(s.rows - first < CHAIN_TILE ? s.rows - first : CHAIN_TILE);
  const float2* const u = reinterpret_cast<const float2*>(s.u) + line * s.n * s.n;
  const float* const eigenvalues = s.eigenvalues + line * s.n;
  Numbers<true, EVEN> columns(u, n);
  columns.begin(HEIGHT * warp);

  // Two chains of a warp, whose lanes take a pixel of each in turn; warps left over share pixels.
  const uint32_t c = warp % COUPLES * 2 + lane % 2, from = warp / COUPLES * 16 + lane / 2, stride = WARPS / COUPLES * 16;
  const bool known = static_cast<int>(c) < chains;
  const int64_t image = (first + c) * 2 * at.pixels;
  const float* const data = s.b + (known ? (first + c) / (s.rows / s.measurements) * 2 * at.pixels : 0);
  uint32_t largest = 0;
#pragma unroll 1
  for (uint32_t top = from; top < n; top += AT_ONCE * stride) {
    float2 x[AT_ONCE] = {}, grad[AT_ONCE] = {}, r[AT_ONCE] = {};
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const uint32_t k = top + i * stride;
      if (known && k < n) {
        const uint32_t pixel = pixel_of(k);
        x[i] = pixel_at(at.whole_pixels, s.x + image, pixel), grad[i] = pixel_at(at.whole_pixels, s.grad + image, pixel);
        r[i] = pixel_at(at.whole_pixels, data, pixel);
      }
    }
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const uint32_t k = top + i * stride;
      if (k >= n) break;
      const float lin = lin_of(s), w = w_of(s);
      const float2 value = make_float2(__fmaf_rn(-w, grad[i].x, __fmaf_rn(lin, x[i].x, r[i].x)),
                                       __fmaf_rn(-w, grad[i].y, __fmaf_rn(lin, x[i].y, r[i].y)));
      number_of(k, 1, c) = value;
      largest = larger(largest, value);
    }
  }
#pragma unroll 1
  for (uint32_t k = threadIdx.x; NOISY && k < n; k += THREADS)
    spreads[k] = 1 / __fsqrt_rn(__fmaf_rn(eigenvalues[k], inv_eta2_of(s), noise_lam_of(s)));
  put_largest(largest, sizes.largest[1]);
  __syncthreads();
  to_halves<CHAIN_TILE>(units, 1, n, sizes);
  const uint4* const of_lane = units + t * PITCH<CHAIN_TILE> + g % CHAIN_TILE;
  __syncthreads();
#pragma unroll 1
  for (uint32_t turn = 0; turn + HEIGHT * warp < n; turn += HEIGHT * WARPS) {
    float sums[1][T][4] = {};
    product<true, CHAIN_TILE>(columns, of_lane + 2 * CHAIN_TILE, sums);
    columns.begin(turn + HEIGHT * WARPS + HEIGHT * warp);
    const uint32_t k = turn + HEIGHT * warp + g;
    if (k >= n || 2 * t >= CHAIN_TILE) continue;
    const float gain = 1 / __fmaf_rn(eigenvalues[k], inv_eta2_of(s), lam_of(s));
#pragma unroll
    for (int i = 0; i < T; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        // Of lanes that share banks some take the second chain first.
        const bool second = (h ^ (g / 2)) % 2;
        const float(&m)[4] = sums[0][i];
        const uint32_t chain = 8 * i + 2 * t + second;
        const float undo = sizes.undo[1][chain];
        number_of(k, 0, chain) = make_float2((second ? m[1] : m[0]) * undo * gain, (second ? m[3] : m[2]) * undo * gain);
      }
  }
  __syncthreads();
  uint32_t largest_noisy = 0;
  largest = 0;
  const auto add_noise = [&](uint32_t k, float2 drawn) {
    const float spread = spreads[k];
    const float2 m = number_of(k, 0, c);
    const float2 noisy = make_float2(__fmaf_rn(drawn.x, spread, m.x), __fmaf_rn(drawn.y, spread, m.y));
    number_of(k, 1, c) = noisy;
    largest = larger(largest, m), largest_noisy = larger(largest_noisy, noisy);
  };
  if (!NOISY && known) {
#pragma unroll 1
    for (uint32_t k = from; k < n; k += stride) largest = larger(largest, number_of(k, 0, c));
  } else if (known && s.noise == GIVEN) {
#pragma unroll 1
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
      const uint32_t pixel = pixel_of(0) + k * at.to_next;
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
  Numbers<false, EVEN> pixels(u, n);
  pixels.begin(HEIGHT * warp);
  put_largest(largest, sizes.largest[0]);
  if constexpr (NOISY) put_largest(largest_noisy, sizes.largest[1]);
  __syncthreads();
#pragma unroll
  for (int part = 0; part < PARTS; ++part) to_halves<CHAIN_TILE>(units, part, n, sizes);
  __syncthreads();
#pragma unroll 1
  for (uint32_t turn = 0; turn + HEIGHT * warp < n; turn += HEIGHT * WARPS) {
    float sums[PARTS][T][4] = {};
    product<false, CHAIN_TILE>(pixels, of_lane, sums);
    const uint32_t j = turn + threadIdx.x / 4;
    pixels.begin(turn + HEIGHT * WARPS + HEIGHT * warp);
    if (j >= n) continue;
    int64_t pixel = (first + 2 * t) * at.pixels + pixel_of(j);
#pragma unroll
    for (int i = 0; i < T; ++i, pixel += 6 * at.pixels)
#pragma unroll
      for (int h = 0; h < 2; ++h, pixel += at.pixels) {
        const int chain = static_cast<int>(8 * i + 2 * t) + h;
        if (chain >= chains) break;
        const float(&m)[4] = sums[0][i], (&noisy)[4] = sums[PARTS - 1][i];
        const float undo = sizes.undo[0][chain], undo_noisy = sizes.undo[PARTS - 1][chain];
        put_pixel(at.whole_pixels, s.mean, pixel, make_float2(m[h] * undo, m[2 + h] * undo));
        put_pixel(at.whole_pixels, s.after, pixel, make_float2(noisy[h] * undo_noisy, noisy[2 + h] * undo_noisy));
      }
  }
}

template <int CHAIN_TILE>
int64_t bytes(int64_t n) { return static_cast<int64_t>(sizeof(Sizes<CHAIN_TILE>)) + 16 * rows_of(n) * PITCH<CHAIN_TILE> + 4 * n; }

template <int CHAIN_TILE>
void run(const SenseStep& s, cudaStream_t stream) {
  const int64_t groups = (s.rows + CHAIN_TILE - 1) / CHAIN_TILE;
  if (s.lines * groups > MOST_BLOCKS) throw std::invalid_argument("langevin_sense: more than 2^31 - 1 lines of groups of chains");
  const Lines at = {make_stream(s.seed, s.step, LANGEVIN), static_cast<uint32_t>(groups), static_cast<uint32_t>(s.n),
                    on_bytes<8>(s.x, s.grad, s.b, s.xi, s.after, s.mean), static_cast<uint32_t>(s.axis == 0 ? 1 : s.n),
                    static_cast<uint32_t>(s.axis == 0 ? s.lines : 1), s.lines * s.n};
  const bool even = s.n % 2 == 0 && on_16_bytes(s.u);
  const auto quiet = even ? langevin_sense_kernel<CHAIN_TILE, false, true> : langevin_sense_kernel<CHAIN_TILE, false, false>;
  const auto noisy = even ? langevin_sense_kernel<CHAIN_TILE, true, true> : langevin_sense_kernel<CHAIN_TILE, true, false>;
  launch("langevin_sense", s.noise == NO_NOISE ? quiet : noisy, dim3(static_cast<unsigned>(s.lines * groups)), dim3(THREADS),
         static_cast<size_t>(bytes<CHAIN_TILE>(s.n)), stream, s, at);
}

}  // namespace

bool langevin_sense_fits(const SenseStep& s) {
  return bytes<4>(s.n) <= this_device("langevin_sense").shared && s.lines * s.n <= UINT32_MAX;  // which count its pixels
}

void langevin_sense(const SenseStep& s, cudaStream_t stream) {
  const int64_t shared = this_device("langevin_sense").shared;
  if (s.rows == 0) return;
  if (s.rows > 8 && bytes<16>(s.n) <= shared) run<16>(s, stream);
  else if (s.rows > 4 && bytes<8>(s.n) <= shared) run<8>(s, stream);
  else run<4>(s, stream);
}

}  // namespace alps::cuda
