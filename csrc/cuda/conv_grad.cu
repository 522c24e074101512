// psi, r = x - psi and grad = r - J^T r of the compact network, a launch a convolution, for images of any number and size;
// contract in alps_fast/ops/conv_grad.py: bfloat16 multiplications, or on Hopper those of float32 numbers in two pieces.
//
// Planes of activations lie outside, zeros around every image, and pass through L2: eight channels of every pixel, sixteen bytes,
// then the next eight. So does a tile in shared memory, and a copy of neighbouring threads is one piece here and there, where
// sixteen bytes to a place of their own each took the memory's time of half the products (counted on an H200: 32 wavefronts an
// instruction of a warp). A convolution is cut into tiles of 8 x 8 positions of all images. A block keeps its weights in shared
// memory and has several teams of warps, each with a tile and the next one's pixels, which come in meanwhile; while one team
// stores what it has, others multiply. What a tile's sums are does not depend on what else is computed, so an image has the same
// bits in any batch. Between products the warps' instructions are what a tile waits for, hence the zeros, which no copy has to
// ask about, and places that are counted on without a division.
//
// Any eight pixels of a row are 128 bytes on end, for `ldmatrix` in all banks, for the products of a warpgroup a matrix of 8 x 8;
// a tap of a convolution is another first pixel. 2 x 2 positions to one are four tiles of every other pixel. Weights wait in the
// order in which the products take them, and of every 32 channels that go out in one (`_eights_in_lanes` of
// alps_fast/ops/_conv_weights.py) that gives a lane of the sums eight channels on end.
//
// Of the forward pass c = phi' is kept in bytes, in the order in which the same lanes meet them again.
//
// Precision "high": a number is two of float16 (tensor_cores.h), of whose four products three count; what is left out is 2^-24 of
// a product. Bfloat16 would take three pieces and six products, TF32 three at half the rate from twice the bytes. Planes and
// tiles hold eights of channels of the first pieces, then of the second. Weights are 144 KB then, and a team has one tile: its
// pixels go to registers, half of what products would read of shared memory, and when the last are there the next tile's come.
// Tensor cores cut off what a sum has no bits for, so they sum up 48 terms at most, and additions to nearest do the rest. What is
// above 65504 has no float16 and becomes NaN; the backward pass, which is linear, is multiplied by a power of two that keeps it
// from there and from zero.
#include <algorithm>
#include <type_traits>

#include "asynchronous.h"
#include "kernels.h"
#include "launch.h"
#include "tensor_cores.h"
#include "vectors.h"
#include "warpgroup.h"

namespace alps::cuda {

constexpr int CHANNELS = 64;                      // of the network
constexpr int PIXEL = 2 * CHANNELS;               // bytes of a pixel of a plane, a piece of each number
constexpr int NARROW = 16;                        // channels of the unshuffled image, with zeros
constexpr int WHOLE = CHANNELS / 16, ENDS = NARROW / 16;  // 16 channels at a time
constexpr int PATCH = 8;                          // positions of a tile on a side
constexpr int MOST_PIXELS = (PATCH + 2) * (PATCH + 2);
constexpr int CHUNK = 16 * MOST_PIXELS;           // bytes of a tile from eight channels to the next
constexpr int TILE_BYTES = CHANNELS / 8 * CHUNK;
constexpr int WEIGHTS = 9 * CHANNELS * CHANNELS * 2;  // bytes, of the largest convolution, a piece of each
constexpr int CACHES = 4;                         // that the two finest planes of a launch's images fill, where an image does not

enum Finish { PUT, ADD, FILM, MASK };
enum Layer { HEAD, SQUARE, DOWN, UP, TAIL };

// Two neighbours in a row of an image, zeros beyond it.
__device__ __forceinline__ float2 image_pair(const ConvGrad& s, const float* image, int channel, int y, int x) {
  float2 pair = make_float2(0, 0);
  if (channel >= s.channels || y >= s.height || x >= s.width) return pair;
  const int at = (channel * s.height + y) * s.width + x;
  if (s.pairs) return pixel_at(true, image, at / 2);
  pair.x = image[at];
  if (x + 1 < s.width) pair.y = image[at + 1];
  return pair;
}

// Eight channels of a pixel of the unshuffled image * factor: 2 x 2 pixels to four channels. chunk counts the eights of the first
// pieces, then those of the second.
template <int PIECES>
__device__ __forceinline__ uint4 unshuffled(const ConvGrad& s, const float* image, float factor, int chunk, int y, int x) {
  const int eight = chunk % (NARROW / 8);
  uint32_t packed[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const float2 pair = image_pair(s, image, 2 * eight + k / 2, 2 * y + k % 2, 2 * x);
    if constexpr (PIECES == 1) {
      packed[k] = pack_bf16(factor * pair.x, factor * pair.y);
    } else {
      const Halves two = halves(factor * pair.x, factor * pair.y);
      packed[k] = chunk < NARROW / 8 ? two.high : two.low;
    }
  }
  return make_uint4(packed[0], packed[1], packed[2], packed[3]);
}

// 2^k near (|1 - c_skip| / c_in + c_out) c_out, or 2^-k: as large are the numbers c_out r that the backward pass begins with, if
// those of the forward pass are near one.
__device__ __forceinline__ float unit_of_backward(const float* edm, int64_t levels, bool inverse) {
  const float out = fabsf(edm[levels]), size = (fabsf(1 - edm[0]) / fabsf(edm[2 * levels]) + out) * out;
  const uint32_t exponent = __float_as_uint(size) >> 23, within = exponent < 27 ? 27 : exponent > 227 ? 227 : exponent;
  return __uint_as_float((inverse ? 254 - within : within) << 23);
}

constexpr float UNITS = 1 << 23;  // from here to its double a number's last byte counts units: quicker than a conversion

// Four sums, of two columns twice, to phi(scale v + shift), and phi'.
__device__ __forceinline__ void film(float (&v)[4], float2 scale, float2 shift, float (&slope)[4]) {
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float z = __fmaf_rn(v[e], e % 2 ? scale.y : scale.x, e % 2 ? shift.y : shift.x), above = z - 3.0f;
    slope[e] = __saturatef(__fmaf_rn(z, 1.0f / 6, 0.5f));
    v[e] = __fmaf_rn(3.0f * slope[e], slope[e], above < 0 ? 0.0f : above);  // NaN stays
  }
}

__device__ __forceinline__ void mask(float (&v)[4], const float (&slope)[4], float2 scale) {
#pragma unroll
  for (int e = 0; e < 4; ++e) v[e] *= slope[e] * (e % 2 ? scale.y : scale.x);
}

__device__ __forceinline__ uint32_t to_bytes(const float (&slope)[4]) {
  uint32_t ends[4];
#pragma unroll
  for (int e = 0; e < 4; ++e) ends[e] = __float_as_uint(__fmaf_rn(slope[e], 255.0f, UNITS));
  return __byte_perm(__byte_perm(ends[0], ends[1], 0x40), __byte_perm(ends[2], ends[3], 0x40), 0x5410);
}

__device__ __forceinline__ void of_bytes(uint32_t bytes, float (&slope)[4]) {
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    const float byte = __uint_as_float(__byte_perm(bytes, __float_as_uint(UNITS), 0x7650 | e)) - UNITS;
    slope[e] = byte * (1.0f / 255);
  }
}

// to = from - (skip from + factor F) of two neighbours in the image, F two sums and their biases; returns their energy.
__device__ __forceinline__ double put_residual(const ConvGrad& s, const float* from, float* to, int channel, int y, int x,
                                               float skip, float factor, float low, float high) {
  if (channel >= s.channels || y >= s.height || x >= s.width) return 0;
  const float2 here = image_pair(s, from, channel, y, x);
  float* const at = to + (channel * s.height + y) * s.width + x;
  const float2 value = make_float2(here.x - (skip * here.x + factor * low), here.y - (skip * here.y + factor * high));
  double energy = 0.5 * value.x * value.x;
  if (x + 1 < s.width) energy += 0.5 * value.y * value.y;
  if (s.pairs) put_pixel(true, at, 0, value);
  else at[0] = value.x;
  if (!s.pairs && x + 1 < s.width) at[1] = value.y;
  return energy;
}

template <Layer L>
struct Shape {
  static constexpr int HALO = L == DOWN || L == UP ? 0 : 1, SIDE = PATCH + 2 * HALO, TAPS = HALO ? 9 : 1;
  static constexpr int EIGHTS = L == HEAD ? NARROW / 8 : CHANNELS / 8;     // of channels that come in
  static constexpr int LOADS = L == DOWN ? 4 : 1, PARTS = L == UP ? 4 : 1;  // tiles to one, and the other way round
  static constexpr int Q = L == TAIL ? ENDS : WHOLE;                       // 16 channels that go out
  static constexpr int PART_BYTES = TAPS * EIGHTS / 2 * 16 * 16 * Q * 2;   // of weights, for the products of a tile
  static constexpr int BYTES = PART_BYTES * LOADS * PARTS;                 // a piece of each
};

struct Plane {  // of a scale: images with a pixel of zeros before them, and zeros behind up to whole tiles and a pixel more
  uint4* memory;
  int pitch, pixels;  // of a row, of eight channels of an image, or of a piece of these
};

struct Place {  // of a tile: its image, row, column, and part of four that go out
  int image, y, x, part;
};

struct ConvTiles {  // one launch
  ConvGrad s;       // of the images of the launch
  Plane from, to;
  uint4* kept;
  const uint4* weights;
  const float *bias, *scale, *shift;
  double* partial;  // of the energy, of each warp
  int height, width, rows, columns, tiles;  // positions that are multiplied; tiles of an image, and in all
  Place step;       // from a team's tile to its next
  int buffers;      // of a team: one where it has one tile, or an engine that wants no more
  bool transposed;
};

__host__ __device__ __forceinline__ Place place_of(const ConvTiles& c, int tile, int parts) {
  Place p;
  p.part = tile % parts, tile /= parts;
  p.x = tile % c.columns, tile /= c.columns;
  p.y = tile % c.rows, p.image = tile / c.rows;
  return p;
}

__device__ __forceinline__ bool carried(int& digit, int by, int base) {
  digit += by;
  const bool over = digit >= base;
  if (over) digit -= base;
  return over;
}

__device__ __forceinline__ Place next_place(const ConvTiles& c, Place p, int parts) {
  bool over = parts > 1 && carried(p.part, c.step.part, parts);
  over = carried(p.x, c.step.x + over, c.columns);
  over = carried(p.y, c.step.y + over, c.rows);
  p.image += c.step.image + over;
  return p;
}

template <int PIECES>
__device__ __forceinline__ uint4* pixel_of(const Plane& plane, int image, int y, int x) {  // its first channels; -1 ... too
  return plane.memory + int64_t(image) * (PIECES * CHANNELS / 8) * plane.pixels + ((y + 1) * plane.pitch + x + 1);
}

__device__ __forceinline__ int tap_of(int tap, int side) { return (tap / 3 * side + tap % 3) * 16; }

// A team of two warps, a warp 32 positions, on any tensor cores that have bfloat16.
struct OfWarps {
  static constexpr int WARPS = 2, MATRICES = 2;  // of 16 positions a warp
  static constexpr int TEAMS = 4, BUFFERS = 2;   // of a block and of a team at most
  static constexpr int PIECES = 1, KEPT = PATCH * PATCH * CHANNELS / 16;  // of a number; of a tile, in sixteen bytes
  static constexpr int MOST_THREADS = TEAMS * 32 * WARPS;
  static __device__ __forceinline__ void publish() {}

  template <Layer L>
  static __device__ __forceinline__ void multiply(const char* tile, const char* weights, float (&sum)[2][2 * Shape<L>::Q][4]) {
    constexpr int SIDE = Shape<L>::SIDE, Q = Shape<L>::Q;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % WARPS;
    const char* at[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int position = 32 * warp + 16 * i + lane % 16;
      at[i] = tile + (position / PATCH * SIDE + position % PATCH) * 16 + lane / 16 * CHUNK;
    }
    const uint4* b_of = reinterpret_cast<const uint4*>(weights) + lane;
#pragma unroll
    for (int tap = 0; tap < Shape<L>::TAPS; ++tap) {
#pragma unroll
      for (int k = 0; k < Shape<L>::EIGHTS / 2; ++k, b_of += 32 * Q) {
        uint32_t a[2][4];
        uint4 b[Q];
        const int there = tap_of(tap, SIDE) + 2 * k * CHUNK;
        load_matrices(at[0] + there, at[1] + there, a);
#pragma unroll
        for (int q = 0; q < Q; ++q) b[q] = b_of[32 * q];
        multiply_add<Q>(a, b, sum);
      }
    }
  }
};

// A team of four warps, a warp 16 positions, on Hopper's tensor cores.
struct OfWarpgroups {
  static constexpr int WARPS = 4, MATRICES = 1, TEAMS = 4, BUFFERS = 2, PIECES = 1, KEPT = OfWarps::KEPT;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDACC__)
  static constexpr int MOST_THREADS = TEAMS * 32 * WARPS;
#else
  static constexpr int MOST_THREADS = 32;  // by which the host sees that its device has none of them
#endif
  static __device__ __forceinline__ void publish() { publish_to_products(); }

  template <Layer L>
  static __device__ __forceinline__ void multiply(const char* tile, const char* weights, float (&sum)[1][2 * Shape<L>::Q][4]) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDACC__)
    constexpr int SIDE = Shape<L>::SIDE, N = 16 * Shape<L>::Q;
    const uint64_t a = describe(tile, CHUNK, 16 * SIDE), b = describe(weights, 16 * N, 128);
    products_begin();
#pragma unroll
    for (int tap = 0; tap < Shape<L>::TAPS; ++tap)
#pragma unroll
      for (int k = 0; k < Shape<L>::EIGHTS / 2; ++k)
        multiply_add(a + (tap_of(tap, SIDE) + 2 * k * CHUNK) / 16, b + (tap * Shape<L>::EIGHTS / 2 + k) * 2 * N, sum[0]);
    products_end();
    products_wait(sum[0]);
#else
    __trap();
#endif
  }
};

// The same with numbers in two pieces, pixels in registers: four rows of eight, which a warp's two rows meet by three taps.
struct OfPieces {
  static constexpr int WARPS = 4, MATRICES = 1, TEAMS = 3, BUFFERS = 1, PIECES = 2, KEPT = PATCH * PATCH * CHANNELS / 4;
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDACC__)
  static constexpr int MOST_THREADS = TEAMS * 32 * WARPS;
#else
  static constexpr int MOST_THREADS = 32;
#endif
  static __device__ __forceinline__ void publish() { publish_to_products(); }  // of weights alone

  // `tile_is_read` is called when all of it is in registers.
  template <Layer L, class Then>
  static __device__ __forceinline__ void multiply(const char* tile, const char* weights, float (&sum)[1][2 * Shape<L>::Q][4],
                                                  const Then& tile_is_read) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDACC__)
    constexpr int SIDE = Shape<L>::SIDE, N = 16 * Shape<L>::Q, TAPS = Shape<L>::TAPS == 9 ? 3 : 1, K = Shape<L>::EIGHTS / 2;
    constexpr int LOW = Shape<L>::BYTES / 16;  // from first pieces of weights to second
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % WARPS;
    const char* const at = tile + ((2 * warp + lane % 16 / 8) * SIDE + lane % 8) * 16 + lane / 16 * CHUNK;
    const uint64_t b = describe(weights, 16 * N, 128);
    float part[2 * Shape<L>::Q][4] = {}, small[2 * Shape<L>::Q][4] = {};  // of first pieces; of a first and a second
#pragma unroll 1
    for (int x = 0; x < TAPS; ++x)
#pragma unroll
      for (int k = 0; k < K; ++k) {
        uint32_t a[PIECES][TAPS][4];
#pragma unroll
        for (int p = 0; p < PIECES; ++p) {
          const char* const here = at + tap_of(x, SIDE) + (p * Shape<L>::EIGHTS + 2 * k) * CHUNK;
          if constexpr (TAPS == 1) {
            load_matrix(here, a[p][0]);
          } else {
            uint32_t two[2][4];
            load_matrices(here, here + tap_of(6, SIDE), two);
#pragma unroll
            for (int i = 0; i < 4; ++i) {
              a[p][0][i] = two[0][i], a[p][2][i] = two[1][i];
              a[p][1][i] = i % 2 ? two[1][i - 1] : two[0][i + 1];
            }
          }
        }
        products_begin();
#pragma unroll
        for (int y = 0; y < TAPS; ++y) {
          const uint64_t here = b + ((TAPS * y + x) * K + k) * 2 * N;
          multiply_held<true>(a[1][y], here, small);
          if (y == 0) multiply_held<false>(a[0][y], here, part);
          else multiply_held<true>(a[0][y], here, part);
          multiply_held<true>(a[0][y], here + LOW, small);
        }
        products_end();
        if (x == TAPS - 1 && k == K - 1) tile_is_read();
        products_wait(part, small);
#pragma unroll
        for (int j = 0; j < 2 * Shape<L>::Q; ++j)
#pragma unroll
          for (int e = 0; e < 4; ++e) sum[0][j][e] += part[j][e];
      }
#pragma unroll
    for (int j = 0; j < 2 * Shape<L>::Q; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sum[0][j][e] = __fmaf_rn(small[j][e], 1 / FINER, sum[0][j][e]);
#else
    __trap();
#endif
  }
};

// The pixels that tiles read; `load` of 2 x 2.
template <Layer L, int THREADS, int PIECES>
class Fetch {
  static constexpr int SIDE = Shape<L>::SIDE, HALO = Shape<L>::HALO, STRIDE = L == DOWN ? 2 : 1, PIXELS = SIDE * SIDE;
  static constexpr int COUNT = Shape<L>::EIGHTS * PIXELS, TURNS = (COUNT + THREADS - 1) / THREADS;  // sixteen bytes of a piece
  static constexpr int STEP = PIXELS == MOST_PIXELS ? 16 * THREADS : THREADS / PIXELS * CHUNK;      // bytes of a turn
  static_assert(PIXELS == MOST_PIXELS || THREADS % PIXELS == 0, "the same pixel at every turn, or one after another");

 public:
  __device__ __forceinline__ explicit Fetch(const ConvTiles& c) : c_(c), member_(threadIdx.x % THREADS) {
    if constexpr (L != HEAD) {
#pragma unroll
      for (int k = 0; k < TURNS; ++k) {
        const int q = (member_ + k * THREADS) % PIXELS, eight = (member_ + k * THREADS) / PIXELS;
        away_[k] = STRIDE * (q / SIDE * c.from.pitch + q % SIDE) + eight * c.from.pixels;
      }
    }
  }

  __device__ __forceinline__ void operator()(const Place& p, int load, char* tile) const {
    char* const at = tile + member_ / PIXELS * CHUNK + member_ % PIXELS * 16;
    const int y = STRIDE * PATCH * p.y - HALO + load / 2, x = STRIDE * PATCH * p.x - HALO + load % 2;
    if constexpr (L == HEAD) {
      const float* const edm = c_.s.coefficients + (c_.s.edm_levels > 1 ? p.image : 0);
      float factor = edm[(c_.transposed ? 1 : 2) * c_.s.edm_levels];
      if (PIECES > 1 && c_.transposed) factor *= unit_of_backward(edm, c_.s.edm_levels, true);
      const int64_t numbers = int64_t(c_.s.channels) * c_.s.height * c_.s.width;
      const float* const image = (c_.transposed ? c_.s.grad : c_.s.x) + p.image * numbers;
#pragma unroll 1
      for (int k = 0; member_ + k * THREADS < PIECES * COUNT; ++k) {
        const int m = member_ + k * THREADS, v = y + m % PIXELS / SIDE, u = x + m % PIXELS % SIDE;
        const bool inside = 0 <= v && v < c_.height && 0 <= u && u < c_.width;
        *reinterpret_cast<uint4*>(at + k * STEP) =
            inside ? unshuffled<PIECES>(c_.s, image, factor, m / PIXELS, v, u) : make_uint4(0, 0, 0, 0);
      }
    } else {
      const uint4* const from = pixel_of<PIECES>(c_.from, p.image, y, x);
#pragma unroll
      for (int piece = 0; piece < PIECES; ++piece)
#pragma unroll
        for (int k = 0; k < TURNS; ++k)
          if ((k + 1) * THREADS <= COUNT || member_ + k * THREADS < COUNT)
            copy_16(at + piece * (CHANNELS / 8 * CHUNK) + k * STEP, from + piece * (CHANNELS / 8) * c_.from.pixels + away_[k]);
    }
  }

 private:
  const ConvTiles& c_;
  const int member_;
  int away_[L == HEAD ? 1 : TURNS];  // from a tile's first pixel
};

__device__ __forceinline__ void to_words(uint4 four, uint32_t (&v)[4]) {
  v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
}

__device__ __forceinline__ uint4 of_words(const uint32_t (&v)[4]) { return make_uint4(v[0], v[1], v[2], v[3]); }

// What a team stores of a tile's sums, a plane. A lane holds of two rows eight channels of each 32.
template <class Engine, Layer L, Finish F>
class PlaneOf {
  static constexpr int MATRICES = Engine::MATRICES, PIECES = Engine::PIECES;
  static constexpr int WORDS = PIECES == 1 ? 1 : 4;  // of sixteen bytes, that keep eight channels of two rows

 public:
  __device__ __forceinline__ PlaneOf(const ConvTiles& c, const Place& p)
      : c_(c), p_(p), lane_(threadIdx.x % 32), y_(PATCH * p.y + 2 * MATRICES * (threadIdx.x / 32 % Engine::WARPS)),
        x_(PATCH * p.x + lane_ / 4) {
    to_ = pixel_of<PIECES>(c.to, p.image, SPREAD * y_ + p.part / 2, SPREAD * x_ + p.part % 2) + lane_ % 4 * c.to.pixels;
    if constexpr (F == FILM || F == MASK) {
      const int64_t tile = (int64_t(p.image) * c.rows + p.y) * c.columns + p.x;
      kept_ = c.kept + tile * Engine::KEPT + 2 * MATRICES * WORDS * (threadIdx.x / 32 % Engine::WARPS) * 32 + lane_;
    }
  }

  // What it needs of memory, to be on its way while products are made; of two pieces as far as the L2 cache.
  __device__ __forceinline__ void read() {
    if constexpr (PIECES == 1) {
      to_registers();
    } else {
#pragma unroll
      for (int i = 0; i < 2 * PIECES * 2; ++i) {
        if constexpr (F == ADD) {
          if (known(0, i % 2)) ask_ahead(at(0, i % 2, i / 2 % 2, i / 4));
        }
        if constexpr (F == MASK) ask_ahead(kept_ + i * 32);
      }
    }
  }

  __device__ __forceinline__ void store(float (&sum)[MATRICES][2 * WHOLE][4]) {
    if constexpr (PIECES > 1) to_registers();
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float scale[8], shift[8], bias[8] = {};
      if constexpr (F == FILM || F == MASK) eight_of(of_film(c_.scale), h, scale);
      if constexpr (F == FILM) eight_of(of_film(c_.shift), h, shift);
      if constexpr (F == PUT || F == ADD) {
        if (c_.bias) eight_of(c_.bias + p_.part * CHANNELS, h, bias);
      }
#pragma unroll
      for (int i = 0; i < MATRICES; ++i) {
        uint32_t rows[2][PIECES][4], before[2][PIECES][4], kept[WORDS][4];
        if constexpr (F == MASK) {
#pragma unroll
          for (int j = 0; j < WORDS; ++j) to_words(held_[i][j][h], kept[j]);
        }
        if constexpr (F == ADD) {
#pragma unroll
          for (int k = 0; k < 2 * PIECES; ++k) to_words(held_[i][k][h], before[k / PIECES][k % PIECES]);
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float (&v)[4] = sum[i][4 * h + j];
          if constexpr (F == FILM) {
            float slope[4];
            film(v, make_float2(scale[2 * j], scale[2 * j + 1]), make_float2(shift[2 * j], shift[2 * j + 1]), slope);
            keep(slope, kept, j);
          } else if constexpr (F == MASK) {
            float slope[4];
            recall(kept, j, slope);
            mask(v, slope, make_float2(scale[2 * j], scale[2 * j + 1]));
          } else {
#pragma unroll
            for (int e = 0; e < 4; ++e) v[e] += bias[2 * j + e % 2];
          }
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            if constexpr (F == ADD) add_pair(before[k], j, v + 2 * k);
            put_pair(v + 2 * k, rows[k], j);
          }
        }
#pragma unroll
        for (int k = 0; k < 2; ++k)
          if (known(i, k)) {
#pragma unroll
            for (int p = 0; p < PIECES; ++p) *at(i, k, h, p) = of_words(rows[k][p]);
          }
        if constexpr (F == FILM) {
#pragma unroll
          for (int j = 0; j < WORDS; ++j) kept_[((2 * i + h) * WORDS + j) * 32] = of_words(kept[j]);
        }
      }
    }
  }

 private:
  static constexpr int SPREAD = L == UP ? 2 : 1;

  __device__ __forceinline__ void to_registers() {
#pragma unroll
    for (int i = 0; i < MATRICES; ++i)
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if constexpr (F == ADD) {
#pragma unroll
          for (int k = 0; k < 2; ++k)
#pragma unroll
            for (int p = 0; p < PIECES; ++p)
              held_[i][k * PIECES + p][h] = known(i, k) ? read_now(at(i, k, h, p)) : make_uint4(0, 0, 0, 0);
        }
        if constexpr (F == MASK) {
#pragma unroll
          for (int j = 0; j < WORDS; ++j) held_[i][j][h] = read_now(kept_ + ((2 * i + h) * WORDS + j) * 32);
        }
      }
  }

  static __device__ __forceinline__ void keep(const float (&slope)[4], uint32_t (&kept)[WORDS][4], int j) {
    if constexpr (PIECES == 1) {
      kept[0][j] = to_bytes(slope);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) kept[j][e] = __float_as_uint(slope[e]);
    }
  }
  static __device__ __forceinline__ void recall(const uint32_t (&kept)[WORDS][4], int j, float (&slope)[4]) {
    if constexpr (PIECES == 1) {
      of_bytes(kept[0][j], slope);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) slope[e] = __uint_as_float(kept[j][e]);
    }
  }
  static __device__ __forceinline__ void add_pair(const uint32_t (&before)[PIECES][4], int j, float* v) {
    if constexpr (PIECES == 1) {
      v[0] += __uint_as_float(before[0][j] << 16);
      v[1] += __uint_as_float(before[0][j] & 0xffff0000u);
    } else {
      const float2 there = joined({before[0][j], before[1][j]});
      v[0] += there.x, v[1] += there.y;
    }
  }
  static __device__ __forceinline__ void put_pair(const float* v, uint32_t (&rows)[PIECES][4], int j) {
    if constexpr (PIECES == 1) {
      rows[0][j] = pack_bf16(v[0], v[1]);
    } else {
      const Halves two = halves(v[0], v[1]);
      rows[0][j] = two.high, rows[1][j] = two.low;
    }
  }

  __device__ __forceinline__ bool known(int i, int k) const { return y_ + 2 * i + k < c_.height && x_ < c_.width; }
  __device__ __forceinline__ uint4* at(int i, int k, int h, int piece) const {
    return to_ + (2 * i + k) * SPREAD * c_.to.pitch + (piece * CHANNELS / 8 + 4 * h) * c_.to.pixels;
  }
  __device__ __forceinline__ void eight_of(const float* vectors, int h, float (&eight)[8]) const {
    const float4* const from = reinterpret_cast<const float4*>(vectors) + 8 * h + lane_ % 4 * 2;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const float4 four = from[k];
      eight[4 * k] = four.x, eight[4 * k + 1] = four.y, eight[4 * k + 2] = four.z, eight[4 * k + 3] = four.w;
    }
  }
  __device__ __forceinline__ const float* of_film(const float* vectors) const {
    return vectors + (c_.s.film_levels > 1 ? p_.image : 0) * CHANNELS;
  }

  const ConvTiles& c_;
  const Place& p_;
  const int lane_, y_, x_;
  uint4 *to_, *kept_;
  uint4 held_[MATRICES][2 * PIECES][2];
};

// to = from - (skip from + factor F) of a tile, and of the forward pass its energy; of the other the energy of the whole image.
template <class Engine>
class ImageOf {
  static constexpr int MATRICES = Engine::MATRICES, WARPS = Engine::WARPS;

 public:
  __device__ __forceinline__ ImageOf(const ConvTiles& c, const Place& p) : c_(c), p_(p) {}
  __device__ __forceinline__ void read() {}

  __device__ __forceinline__ void store(float (&sum)[MATRICES][2 * ENDS][4]) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % WARPS;
    const int64_t numbers = int64_t(c_.s.channels) * c_.s.height * c_.s.width;
    const float* const edm = c_.s.coefficients + (c_.s.edm_levels > 1 ? p_.image : 0);
    const float skip = edm[0];
    float factor = edm[(c_.transposed ? 2 : 1) * c_.s.edm_levels];
    if (Engine::PIECES > 1 && c_.transposed) factor *= unit_of_backward(edm, c_.s.edm_levels, false);
    const float* const from = (c_.transposed ? c_.s.grad : c_.s.x) + p_.image * numbers;
    double energy = 0;
#pragma unroll
    for (int i = 0; i < MATRICES; ++i)
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int y = PATCH * p_.y + 2 * (warp * MATRICES + i) + k, x = PATCH * p_.x + lane / 4;
#pragma unroll
        for (int j = 0; j < 2 * ENDS; ++j) {
          const float* const v = sum[i][j] + 2 * k;
          const float* const bias = c_.bias + 8 * j + lane % 4 * 2;
          energy += put_residual(c_.s, from, c_.s.grad + p_.image * numbers, 2 * j + lane % 4 / 2, 2 * y + lane % 2, 2 * x, skip,
                                 factor, c_.bias ? v[0] + bias[0] : v[0], c_.bias ? v[1] + bias[1] : v[1]);
        }
      }
    const int tile = p_.y * c_.columns + p_.x, of_image = c_.rows * c_.columns;
    double* const partial = c_.partial + int64_t(p_.image) * of_image * WARPS;
    if (!c_.transposed) {
      energy = of_warp(energy);
      if (lane == 0) partial[tile * WARPS + warp] = energy;
    } else if (tile == 0 && warp == 0) {
      energy = 0;
      for (int i = lane; i < of_image * WARPS; i += 32) energy += partial[i];
      energy = of_warp(energy);
      if (lane == 0) c_.s.value[p_.image] = static_cast<float>(energy);
    }
  }

 private:
  static __device__ __forceinline__ double of_warp(double part) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) part += __shfl_xor_sync(0xffffffffu, part, by);
    return part;
  }

  const ConvTiles& c_;
  const Place& p_;
};

template <class Engine, Layer L, Finish F>
struct StoreOf {
  using type = PlaneOf<Engine, L, F>;
};
template <class Engine, Finish F>
struct StoreOf<Engine, TAIL, F> {
  using type = ImageOf<Engine>;
};

enum Multipliers { BY_WARPS, BY_WARPGROUPS, BY_PIECES };

template <int BY>
using EngineOf = std::conditional_t<BY == BY_PIECES, OfPieces, std::conditional_t<BY == BY_WARPGROUPS, OfWarpgroups, OfWarps>>;

template <int BY, int LAYER, int FINISH>
__global__ void __launch_bounds__(EngineOf<BY>::MOST_THREADS, 1) conv_tiles_kernel(const __grid_constant__ ConvTiles c) {
  using Engine = EngineOf<BY>;
  constexpr Layer L = static_cast<Layer>(LAYER);
  using S = Shape<L>;
  using Store = typename StoreOf<Engine, L, static_cast<Finish>(FINISH)>::type;
  constexpr int THREADS = 32 * Engine::WARPS, ALL_BYTES = Engine::PIECES * S::BYTES, ONE_TILE = Engine::PIECES * TILE_BYTES;
  char* const memory = reinterpret_cast<char*>(shared_floats());
  const int team = __shfl_sync(0xffffffffu, threadIdx.x / THREADS, 0), teams = blockDim.x / THREADS;  // the same for a warp
  char* const tiles = memory + ALL_BYTES + c.buffers * team * ONE_TILE;
  next_kernel_may_begin();
  for (int i = threadIdx.x; i < ALL_BYTES / 16; i += blockDim.x) copy_16(memory + 16 * i, c.weights + i);
  const Fetch<L, THREADS, Engine::PIECES> fetch(c);
  const int step = gridDim.x * teams;
  int tile = blockIdx.x + gridDim.x * team, turn = 0;
  Place here = place_of(c, tile, S::PARTS);
  kernels_before_wait();
  if (tile < c.tiles) fetch(here, 0, tiles);
  copies_wait();
  Engine::publish();
  __syncthreads();
  for (; tile < c.tiles; tile += step) {
    Store finish(c, here);
    Place next = here;
    float sum[Engine::MATRICES][2 * S::Q][4] = {};
#pragma unroll 1
    for (int load = 0; load < S::LOADS; ++load, turn ^= 1) {
      const char* const weights = memory + (load + here.part) * S::PART_BYTES;
      const bool last = load + 1 == S::LOADS, more = !last || tile + step < c.tiles;
      if constexpr (Engine::BUFFERS == 2) {
        if (load == 0) finish.read();     // before a barrier, behind which no compiler moves it
        team_barrier(1 + team, THREADS);  // the tile is there, and nobody reads the one before any more
        if (last) next = next_place(c, here, S::PARTS);
        if (more) fetch(next, last ? 0 : load + 1, tiles + (turn ^ 1) * ONE_TILE);
        Engine::template multiply<L>(tiles + turn * ONE_TILE, weights, sum);
        copies_wait();
        Engine::publish();  // before anything is stored, which it would wait for
      } else {
        if (load == 0) Store(c, here).read();
        copies_wait();
        team_barrier(1 + team, THREADS);
        Engine::template multiply<L>(tiles, weights, sum, [&] {
          team_barrier(1 + team, THREADS);
          if (last) next = next_place(c, here, S::PARTS);
          if (more) fetch(next, last ? 0 : load + 1, tiles);
        });
      }
    }
    if constexpr (Engine::BUFFERS == 2) finish.store(sum);
    else Store(c, here).store(sum);  // made anew, which spares registers
    here = next;
  }
}

struct Borders {  // of all planes of a scale, eight channels of an image after another
  uint4* memory;
  int planes, pitch, pixels, height, width;
};

struct AllBorders {
  Borders of[3];
};

// The zeros of all planes, a pixel a thread; a scale a sheet of blocks.
__global__ void __launch_bounds__(256) conv_borders_kernel(const __grid_constant__ AllBorders all) {
  const Borders& b = all.of[blockIdx.z];
  const int beside = b.pitch - b.width, above = b.pitch, sides = b.height * beside, count = b.pixels - b.height * b.width;
  next_kernel_may_begin();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    int pixel = i;
    if (i >= above && i < above + sides) {
      const int y = (i - above) / beside, x = (i - above) % beside;  // the pixel before a row, then those after
      pixel = above + y * b.pitch + (x == 0 ? 0 : b.width + x);
    } else if (i >= above + sides) {
      pixel = i + b.height * b.width;
    }
    for (int plane = blockIdx.y; plane < b.planes; plane += gridDim.y)
      b.memory[int64_t(plane) * b.pixels + pixel] = make_uint4(0, 0, 0, 0);
  }
}

struct TilesLayout {  // of the memory outside, in bytes
  int height[3], width[3], rows[3], pitch[3], tiles[3];  // of a scale of an image; of its plane; tiles
  int64_t group, plane[3], kept, partial, bytes;  // images of a launch; where the first of two planes of a scale begins
};

// Bytes are -1 where an image is too large to count.
template <class Engine>
static TilesLayout lay_out_tiles(const ConvGrad& s, const Device& device) {
  TilesLayout l = {};
  constexpr int BYTES = Engine::PIECES * PIXEL;
  constexpr int64_t MOST = (int64_t(1) << 28) / Engine::PIECES, LONGEST = int64_t(1) << 22;  // pixels of a plane, of a row
  constexpr int64_t COARSEST = 8 * PATCH;  // pixels of the image to a tile of the coarsest scale
  const int64_t height = (s.height + COARSEST - 1) / COARSEST * COARSEST / 2;
  const int64_t width = (s.width + COARSEST - 1) / COARSEST * COARSEST / 2;
  l.bytes = -1;
  if (height > MOST || width > LONGEST || (height + 2) * (width + 2) > MOST) return l;
  const int64_t at_once = CACHES * device.cache / (2 * BYTES * height * width), most = at_once < 1 ? 1 : at_once;
  const int64_t groups = (s.images + most - 1) / most;
  l.group = (s.images + groups - 1) / groups;
  int64_t kept = 0;
  for (int scale = 0; scale < 3; ++scale) {
    const int fine = 8 >> (2 - scale);  // pixels of the image to a position
    l.height[scale] = static_cast<int>((s.height + INT64_C(7)) / 8 * (8 / fine));
    l.width[scale] = static_cast<int>((s.width + INT64_C(7)) / 8 * (8 / fine));
    l.rows[scale] = static_cast<int>(height >> scale) + 2, l.pitch[scale] = static_cast<int>(width >> scale) + 2;
    l.tiles[scale] = (l.height[scale] + PATCH - 1) / PATCH * ((l.width[scale] + PATCH - 1) / PATCH);
    l.plane[scale] = l.kept;
    l.kept += 2 * l.group * l.rows[scale] * l.pitch[scale] * BYTES;
    kept += int64_t(scale < 2 ? 2 : 1) * s.blocks[scale] * l.tiles[scale] * Engine::KEPT * 16;
  }
  l.partial = l.kept + l.group * kept;
  l.bytes = l.partial + l.group * l.tiles[0] * Engine::WARPS * static_cast<int64_t>(sizeof(double));
  return l;
}

// The launches of a call, in order.
template <int BY>
class Launches {
  using Engine = EngineOf<BY>;

 public:
  Launches(const ConvGrad& s, const TilesLayout& l, const Device& device, int teams, cudaStream_t stream)
      : all_(s), l_(l), device_(device), teams_(teams), stream_(stream), memory_(static_cast<char*>(s.workspace)) {}

  void run() {
    borders();
    const int64_t numbers = int64_t(all_.channels) * all_.height * all_.width;
    for (int64_t first = 0; first < all_.images; first += l_.group) {
      ConvGrad& s = c_.s = all_;
      s.images = all_.images - first < l_.group ? all_.images - first : l_.group;
      s.x += first * numbers, s.grad += first * numbers, s.value += first;
      if (s.film_levels > 1) s.scale += first * CHANNELS, s.shift += first * CHANNELS;
      if (s.edm_levels > 1) s.coefficients += first;
      weights_ = static_cast<const uint4*>(s.weights), biases_ = s.biases;
      kept_ = reinterpret_cast<uint4*>(memory_ + l_.kept);
      c_.partial = reinterpret_cast<double*>(memory_ + l_.partial);
      film_ = 0;
      for (const bool transposed : {false, true}) {
        c_.transposed = transposed;
        layer<HEAD, PUT>(0, {}, plane(0));
        blocks(0);
        layer<DOWN, PUT>(1, plane(0), plane(1));
        blocks(1);
        layer<DOWN, PUT>(2, plane(1), plane(2));
        blocks(2);
        layer<UP, ADD>(2, plane(2), plane(1));
        blocks(1);
        layer<UP, ADD>(1, plane(1), plane(0));
        blocks(0);
        layer<TAIL, PUT>(0, plane(0), {});
      }
    }
  }

 private:
  Plane plane(int scale, bool second = false) const {
    const int pixels = l_.rows[scale] * l_.pitch[scale];
    return {reinterpret_cast<uint4*>(memory_ + l_.plane[scale] + (second ? l_.group * pixels * Engine::PIECES * PIXEL : 0)),
            l_.pitch[scale], pixels};
  }

  void borders() {
    AllBorders all;
    int64_t most = 0;
    for (int scale = 0; scale < 3; ++scale) {
      const Plane of = plane(scale);
      all.of[scale] = {of.memory, static_cast<int>(2 * l_.group * (Engine::PIECES * CHANNELS / 8)), of.pitch, of.pixels,
                       l_.height[scale], l_.width[scale]};
      most = std::max(most, int64_t(of.pixels) - int64_t(l_.height[scale]) * l_.width[scale]);
    }
    const dim3 grid(blocks_for(most, 64, 256), blocks_for(all.of[0].planes, 1024, 1), 3);
    launch("conv_grad", conv_borders_kernel, grid, dim3(256), 0, stream_, all);
  }

  // h += W2 phi(scale W1 h + shift) + bias, or g += W1^T (c scale W2^T g), through the second plane of the scale.
  void blocks(int scale) {
    const Plane between = plane(scale, true);
    const int64_t kept = l_.group * l_.tiles[scale] * Engine::KEPT;
    for (int i = 0; i < all_.blocks[scale]; ++i) {
      if (c_.transposed) --film_, kept_ -= kept;
      c_.kept = kept_;
      c_.scale = c_.s.scale + film_ * all_.film_levels * CHANNELS, c_.shift = c_.s.shift + film_ * all_.film_levels * CHANNELS;
      if (c_.transposed) layer<SQUARE, MASK>(scale, plane(scale), between);
      else layer<SQUARE, FILM>(scale, plane(scale), between);
      layer<SQUARE, ADD>(scale, between, plane(scale));
      if (!c_.transposed) ++film_, kept_ += kept;
    }
  }

  template <Layer L, Finish F>
  void layer(int scale, const Plane& from, const Plane& to) {
    using S = Shape<L>;
    c_.from = from, c_.to = to, c_.weights = weights_;
    weights_ += Engine::PIECES * S::BYTES / 16;
    c_.bias = nullptr;
    if (!c_.transposed && (F == PUT || F == ADD)) c_.bias = biases_, biases_ += 16 * S::Q * S::PARTS;
    c_.height = l_.height[scale], c_.width = l_.width[scale];
    c_.rows = (c_.height + PATCH - 1) / PATCH, c_.columns = (c_.width + PATCH - 1) / PATCH;
    c_.tiles = static_cast<int>(c_.s.images * l_.tiles[scale] * S::PARTS);
    // No more than there is to do: so little leaves room beside it for the next launch's blocks, which then have their weights.
    const int blocks = static_cast<int>(c_.tiles < device_.multiprocessors ? c_.tiles : device_.multiprocessors);
    const int of_block = (c_.tiles + blocks - 1) / blocks, teams = of_block < teams_ ? of_block : teams_;
    c_.buffers = of_block > teams || S::LOADS > 1 ? Engine::BUFFERS : 1;
    c_.step = place_of(c_, blocks * teams, S::PARTS);
    const dim3 grid = static_cast<unsigned>(blocks), block = static_cast<unsigned>(teams * 32 * Engine::WARPS);
    const auto kernel = conv_tiles_kernel<BY, L, F>;
    const size_t shared = Engine::PIECES * (S::BYTES + teams * c_.buffers * TILE_BYTES);
    if (BY != BY_WARPS) launch_early("conv_grad", kernel, grid, block, shared, stream_, c_);
    else launch("conv_grad", kernel, grid, block, shared, stream_, c_);
  }

  const ConvGrad all_;
  const TilesLayout& l_;
  const Device& device_;
  const int teams_;
  const cudaStream_t stream_;
  char* const memory_;
  ConvTiles c_ = {};
  const uint4* weights_ = nullptr;
  const float* biases_ = nullptr;
  uint4* kept_ = nullptr;
  int film_ = 0;
};

template <class Engine>
static int teams_of(const Device& device) {
  const int64_t teams = (device.shared / Engine::PIECES - WEIGHTS) / (Engine::BUFFERS * TILE_BYTES);
  return static_cast<int>(teams < Engine::TEAMS ? teams : Engine::TEAMS);
}

bool conv_has_warpgroups() {
  cudaFuncAttributes found;
  check_cuda("conv_grad", cudaFuncGetAttributes(&found, conv_tiles_kernel<BY_WARPGROUPS, SQUARE, ADD>));
  return found.maxThreadsPerBlock >= OfWarpgroups::TEAMS * 32 * OfWarpgroups::WARPS;
}

template <int BY>
static int64_t workspace_of(const ConvGrad& s) {
  const Device device = this_device("conv_grad");
  if (teams_of<EngineOf<BY>>(device) < 2) return -1;  // nobody multiplies while the only one stores
  return lay_out_tiles<EngineOf<BY>>(s, device).bytes;
}

int64_t conv_grad_workspace(const ConvGrad& s, bool warpgroups) {
  if (!s.in_bfloat16) return warpgroups ? workspace_of<BY_PIECES>(s) : -1;
  return warpgroups ? workspace_of<BY_WARPGROUPS>(s) : workspace_of<BY_WARPS>(s);
}

template <int BY>
static void run_tiles(const ConvGrad& s, cudaStream_t stream) {
  const Device device = this_device("conv_grad");
  const TilesLayout l = lay_out_tiles<EngineOf<BY>>(s, device);
  Launches<BY>(s, l, device, teams_of<EngineOf<BY>>(device), stream).run();
}

void conv_grad(ConvGrad s, bool warpgroups, cudaStream_t stream) {
  if (s.images == 0) return;
  s.pairs = s.width % 2 == 0 && on_bytes<8>(s.x, s.grad);
  (!s.in_bfloat16 ? run_tiles<BY_PIECES> : warpgroups ? run_tiles<BY_WARPGROUPS> : run_tiles<BY_WARPS>)(s, stream);
}

}  // namespace alps::cuda
