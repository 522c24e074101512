// psi, r = x - psi and grad = r - J^T r of the compact network in one launch, a block an image; contract in
// alps_fast/ops/conv_grad.py, bfloat16 multiplications.
//
// Planes of activations lie in shared memory, channels last, and convolutions are matrix products of a warp: TILE pixels by all
// channels, a tap and 16 channels at a time. The finest plane fills most of the memory, so a residual block h + W2 phi(W1 h)
// runs over it in steps: a step of phi goes into a ring of pixels, and h is updated a lag behind, when nothing reads the old h
// any more. At the coarser scales both planes fit; while these are at work the finest waits in memory, as what is kept of the
// forward pass does: c = phi' in bytes, in the order in which the same lanes meet them again.
//
// Sixteen bytes of pixel p lie where bits of p put them, so that the eight rows of a matrix meet all banks, whatever pixel is
// the first. (No order does so for any eight neighbours and for any eight that are two apart, as `gather` reads them.)
// Weights come straight from L2 in the order of lanes; the two products that follow are on their way meanwhile. Neither the
// steps nor the number of warps decide any bit of the gradient.
#include "conv.h"
#include "conv_tiles.h"
#include "launch.h"

namespace alps::cuda {

constexpr int NARROW_PIXEL = 2 * NARROW;
constexpr int TILE = 32;                   // pixels of a warp's products
constexpr int AHEAD = 2;                   // products whose weights are read before they are needed
constexpr int UNROLLED = 4;                // products a turn of the loop: a tap of a plane, or four of the image
constexpr int FEW_WARPS = 4, MANY_WARPS = 8;
constexpr int VECTORS = 6 * CHANNELS;      // floats: biases of four parts, scale, shift
static_assert(CHANNELS == 64 && PIXEL == 128, "a pixel of a plane is a row of all banks");
static_assert(WHOLE == UNROLLED && UNROLLED % AHEAD == 0, "a tap a turn, weights in registers of fixed numbers");

struct ConvLayout {       // of a block's shared memory, in bytes, and of its memory outside
  int height, width;      // of the finest plane
  int ring, lag;          // pixels
  int beside, zero, vectors, sums, bytes;
  int64_t workspace;      // bytes outside
};

// A convolution, the same for all threads. Planes are where they begin in shared memory; a pixel lies at its number & mask.
struct Convolution {
  int from, from_mask, height, width;  // the plane it reads
  int stride, first, side;             // taps: rows and columns first ... first + side - 1 from stride times the position
  bool narrow;
  int products;
  const uint4* weights;
};

__device__ __forceinline__ int place(int plane, int pixel, int chunk) {  // of 16 bytes
  return plane + pixel * PIXEL + ((chunk ^ (pixel & 7)) << 4);
}

__device__ __forceinline__ int narrow_place(int plane, int pixel, int chunk) {
  return plane + pixel * NARROW_PIXEL + ((chunk ^ (pixel >> 2 & 1)) << 4);
}

// The sums of TILE positions from `first` on, rows of two matrices, by Q times 16 outputs.
template <int Q>
__device__ __forceinline__ void convolve(const Convolution& c, const char* memory, int zero, int first, int columns,
                                         float (&sum)[2][2 * Q][4]) {
  const int lane = threadIdx.x % 32, half = lane / 16;
  int y[2], x[2], at[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int position = first + 16 * i + lane % 16;
    y[i] = position / columns * c.stride, x[i] = position % columns * c.stride;
  }
  const uint4* weights = c.weights + lane;
  uint4 b[AHEAD][Q];
#pragma unroll
  for (int k = 0; k < AHEAD; ++k, weights += 32 * Q)
#pragma unroll
    for (int q = 0; q < Q; ++q) b[k][q] = weights[32 * q];
  int row = c.first, column = c.first;
#pragma unroll 1
  for (int done = 0; done < c.products; done += UNROLLED) {
#pragma unroll
    for (int k = 0; k < UNROLLED; ++k, weights += 32 * Q) {
      if (k == 0 || c.narrow) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int v = y[i] + row, u = x[i] + column, pixel = (v * c.width + u) & c.from_mask;
          const bool inside = 0 <= v && v < c.height && 0 <= u && u < c.width;
          const int there = c.narrow ? narrow_place(c.from, pixel, half) : place(c.from, pixel, half);
          at[i] = inside ? there : zero | (there & (PIXEL - 1));  // zeros of the banks that would have been met
        }
        if (++column == c.first + c.side) column = c.first, ++row;
      }
      uint32_t a[2][4];
      const int chunks = c.narrow ? 0 : 2 * k << 4;
      load_matrices(memory + (at[0] ^ chunks), memory + (at[1] ^ chunks), a);
      multiply_add<Q>(a, b[k % AHEAD], sum);
#pragma unroll
      for (int q = 0; q < Q; ++q) b[k % AHEAD][q] = weights[32 * q];
    }
  }
}

template <int WARPS>
class ConvBlock {
  static constexpr int THREADS = 32 * WARPS, STEP = TILE * WARPS;

 public:
  __device__ ConvBlock(const ConvGrad& s, const ConvLayout& l)
      : s_(s), l_(l), memory_(reinterpret_cast<char*>(shared_floats())), vectors_(reinterpret_cast<float*>(memory_ + l.vectors)),
        pixels_(l.height * l.width) {
    if (threadIdx.x < PIXEL / 16) reinterpret_cast<uint4*>(memory_ + l.zero)[threadIdx.x] = make_uint4(0, 0, 0, 0);
  }

  __device__ void run(int64_t image) {
    const int64_t numbers = int64_t(s_.channels) * s_.height * s_.width, film_level = s_.film_levels > 1 ? image : 0;
    const float* edm = s_.coefficients + (s_.edm_levels > 1 ? image : 0);
    const float skip = edm[0], out = edm[s_.edm_levels], in = edm[2 * s_.edm_levels];
    const float* const x = s_.x + image * numbers;
    float* const r = s_.grad + image * numbers;  // until the end, which reads r where it writes the gradient
    uint4* const waiting = reinterpret_cast<uint4*>(static_cast<char*>(s_.workspace) + blockIdx.x * l_.workspace);
    uint4* kept = waiting + pixels_ * (PIXEL / 16);
    const uint4* weights = static_cast<const uint4*>(s_.weights);
    const float* biases = s_.biases;
    int film = 0;
    for (int pass = 0; pass < 2; ++pass) {
      const float* const source = pass ? r : x;
      unshuffle(source, pass ? out : in);
      double energy = 0;
      for (int stage = 0; stage <= 5; ++stage) {  // head, down, down, up, up, and their blocks; tail
        const int level = stage < 3 ? stage : stage < 5 ? 4 - stage : 0;
        if (stage == 4) exchange_finest(waiting, false);
        for (int i = -1; i < (stage < 5 ? s_.blocks[level] : 0); ++i) {
          const bool joint = i < 0;
          const int count = !joint || stage < 3 ? CHANNELS : stage < 5 ? 4 * CHANNELS : NARROW;
          if (pass && !joint) --film, kept -= kept_of(level);
          for (int v = threadIdx.x; v < count; v += THREADS) vectors_[v] = pass ? 0.0f : biases[v];
          if (!joint)
            for (int v = threadIdx.x; v < CHANNELS; v += THREADS) {
              const int64_t at = (film * s_.film_levels + film_level) * CHANNELS + v;
              vectors_[4 * CHANNELS + v] = s_.scale[at], vectors_[5 * CHANNELS + v] = s_.shift[at];
            }
          if (!pass) biases += count;
          __syncthreads();
          if (!joint) {
            residual_block(level, pass ? MASK : FILM, weights, kept);
            weights += 2 * SQUARE_PRODUCTS * WHOLE * 32;
          } else if (stage == 5) {
            energy = image_of(source, r, skip, pass ? in : out, weights);
            weights += SQUARE_PRODUCTS * ENDS * 32;
          } else {
            weights += join(stage, level, weights);
          }
          if (!pass && !joint) ++film, kept += kept_of(level);
          __syncthreads();
        }
        if (stage == 0) exchange_finest(waiting, true);
      }
      if (!pass) store_value(image, energy);
    }
  }

 private:
  __device__ int plane(int level) const {  // the coarsest lies over the finest, which waits outside
    return level == 0 ? 0 : level == 1 ? l_.beside : pixels_ / 4 * PIXEL;
  }
  __device__ int pixels(int level) const { return pixels_ >> 2 * level; }
  __device__ int kept_of(int level) const { return (pixels(level) + TILE - 1) / TILE * (TILE * CHANNELS / 16); }

  // image * factor beside the finest plane: 2 x 2 pixels to four channels.
  __device__ void unshuffle(const float* image, float factor) {
    for (int i = threadIdx.x; i < 2 * pixels_; i += THREADS) {
      const int chunk = i >= pixels_, pixel = i - chunk * pixels_;
      *reinterpret_cast<uint4*>(memory_ + narrow_place(l_.beside, pixel, chunk)) =
          unshuffled(s_, image, factor, chunk, pixel / l_.width, pixel % l_.width);
    }
  }

  __device__ void exchange_finest(uint4* waiting, bool save) {
    uint4* const finest = reinterpret_cast<uint4*>(memory_);
    for (int i = threadIdx.x; i < pixels_ * (PIXEL / 16); i += THREADS) (save ? waiting : finest)[i] = (save ? finest : waiting)[i];
  }

  // h += W2 phi(scale W1 h + shift) + bias, or g += W1^T (c scale W2^T g). A step of the first convolution goes before one of
  // the second, which follows a lag behind: it reads a row and a pixel on either side, and so does the first.
  __device__ void residual_block(int level, Finish finish, const uint4* weights, uint4* kept) {
    const int height = l_.height >> level, width = l_.width >> level, count = pixels(level);
    const int beside = level == 0 ? l_.beside : level == 1 ? 0 : 5 * (pixels_ / 16) * PIXEL;
    const bool in_ring = level == 0 && count > l_.ring;
    const int mask = in_ring ? l_.ring - 1 : -1, lag = in_ring ? l_.lag : (count + STEP - 1) / STEP * STEP;
    const int turns = 2 * ((count + lag + STEP - 1) / STEP);
    for (int turn = 0; turn < turns; ++turn) {
      const bool second = turn % 2;
      const int first = turn / 2 * STEP - (second ? lag : 0) + static_cast<int>(threadIdx.x) / 32 * TILE;
      if (0 <= first && first < count) {
        const Convolution c = {second ? beside : plane(level), second ? mask : -1, height, width, 1, -1, 3, false, SQUARE_PRODUCTS,
                               weights + (second ? SQUARE_PRODUCTS * WHOLE * 32 : 0)};
        tile(c, second ? ADD : finish, first, width, count, second ? plane(level) : beside, second ? -1 : mask, 0, false,
             kept + first / TILE * (TILE * CHANNELS / 16));
      }
      __syncthreads();
    }
  }

  // The head, 2 x 2 positions to one of the next scale, or one to 2 x 2 of the scale before, added to what is there. Returns
  // how far the weights went.
  __device__ int join(int stage, int level, const uint4* weights) {
    const bool head = stage == 0, up = stage > 2;
    const int from = head ? 0 : up ? level + 1 : level - 1, parts = up ? 4 : 1;
    const int products = head ? (9 * ENDS + UNROLLED - 1) / UNROLLED * UNROLLED : up ? WHOLE : 4 * WHOLE;
    const int domain = up ? from : level, count = pixels(domain);
    for (int turn = 0; turn < parts * ((count + STEP - 1) / STEP); ++turn) {
      const int part = turn % parts, first = turn / parts * STEP + static_cast<int>(threadIdx.x) / 32 * TILE;
      if (first >= count) continue;
      const Convolution c = {head ? l_.beside : plane(from), -1, l_.height >> from, l_.width >> from, head || up ? 1 : 2,
                             head ? -1 : 0, head ? 3 : up ? 1 : 2, head, products, weights + part * (products * WHOLE * 32)};
      tile(c, up ? ADD : PUT, first, l_.width >> domain, count, plane(level), -1, part, up, nullptr);
    }
    return parts * products * WHOLE * 32;
  }

  // A warp's TILE positions of one convolution, from their products to what is stored.
  __device__ __forceinline__ void tile(const Convolution& c, Finish finish, int first, int columns, int count, int to, int to_mask,
                                       int part, bool spread, uint4* kept) {
    float sum[2][2 * WHOLE][4] = {};
    convolve<WHOLE>(c, memory_, l_.zero, first, columns, sum);
    const int lane = threadIdx.x % 32, n = lane % 4 * 2;
    const float *bias = vectors_ + part * CHANNELS + n, *scale = vectors_ + 4 * CHANNELS + n, *shift = scale + CHANNELS;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      int pixel[2];
      bool known[2];
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int position = first + 16 * i + 8 * k + lane / 4;
        known[k] = position < count;
        pixel[k] = position & to_mask;
        if (spread) pixel[k] = (position / columns * 2 + part / 2) * 2 * columns + position % columns * 2 + part % 2;
      }
      uint32_t bytes[2 * WHOLE] = {};  // c of four sums each
      if (finish == MASK) {
#pragma unroll
        for (int v = 0; v < 2; ++v) {
          const uint4 four = kept[(2 * i + v) * 32 + lane];
          bytes[4 * v] = four.x, bytes[4 * v + 1] = four.y, bytes[4 * v + 2] = four.z, bytes[4 * v + 3] = four.w;
        }
      }
#pragma unroll
      for (int j = 0; j < 2 * WHOLE; ++j) {
        float (&v)[4] = sum[i][j];
        if (finish == FILM) {
          bytes[j] = film(v, make_float2(scale[8 * j], scale[8 * j + 1]), make_float2(shift[8 * j], shift[8 * j + 1]));
        } else if (finish == MASK) {
          mask(v, bytes[j], make_float2(scale[8 * j], scale[8 * j + 1]));
        } else {
#pragma unroll
          for (int e = 0; e < 4; ++e) v[e] += bias[8 * j + e % 2];
        }
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          if (!known[k]) continue;
          uint32_t* const at = reinterpret_cast<uint32_t*>(memory_ + place(to, pixel[k], j)) + lane % 4;
          float low = v[2 * k], high = v[2 * k + 1];
          if (finish == ADD) low += __uint_as_float(*at << 16), high += __uint_as_float(*at & 0xffff0000u);
          *at = pack_bf16(low, high);
        }
      }
      if (finish == FILM) {
#pragma unroll
        for (int v = 0; v < 2; ++v)
          kept[(2 * i + v) * 32 + lane] = make_uint4(bytes[4 * v], bytes[4 * v + 1], bytes[4 * v + 2], bytes[4 * v + 3]);
      }
    }
  }

  // to = from - (skip from + factor F), and this thread's part of the energy; F's channels are 2 x 2 pixels.
  __device__ double image_of(const float* from, float* to, float skip, float factor, const uint4* weights) {
    double energy = 0;
    const int lane = threadIdx.x % 32;
    for (int first = static_cast<int>(threadIdx.x) / 32 * TILE; first < pixels_; first += STEP) {
      const Convolution c = {plane(0), -1, l_.height, l_.width, 1, -1, 3, false, SQUARE_PRODUCTS, weights};
      float sum[2][2 * ENDS][4] = {};
      convolve<ENDS>(c, memory_, l_.zero, first, l_.width, sum);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int position = first + 8 * i + lane / 4;
        const int y = position / l_.width * 2 + lane % 2, x = position % l_.width * 2;
#pragma unroll
        for (int j = 0; j < 2 * ENDS; ++j) {
          const float *const bias = vectors_ + 8 * j + lane % 4 * 2, *const v = sum[i / 2][j] + i % 2 * 2;
          if (position < pixels_)
            energy += put_residual(s_, from, to, 2 * j + lane % 4 / 2, y, x, skip, factor, v[0] + bias[0], v[1] + bias[1]);
        }
      }
    }
    return energy;
  }

  __device__ void store_value(int64_t image, double energy) {
#pragma unroll
    for (int by = 16; by > 0; by /= 2) energy += __shfl_xor_sync(0xffffffffu, energy, by);
    double* const sums = reinterpret_cast<double*>(memory_ + l_.sums);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = energy;
    __syncthreads();
    if (threadIdx.x > 0) return;
    double total = 0;
    for (int i = 0; i < WARPS; ++i) total += sums[i];
    s_.value[image] = static_cast<float>(total);
  }

  const ConvGrad& s_;
  const ConvLayout& l_;
  char* const memory_;
  float* const vectors_;
  const int pixels_;  // of the finest plane
};

template <int WARPS>
__global__ void __launch_bounds__(32 * WARPS)
    conv_grad_kernel(const __grid_constant__ ConvGrad s, const __grid_constant__ ConvLayout l) {
  ConvBlock<WARPS> block(s, l);
  for (int64_t image = blockIdx.x; image < s.images; image += gridDim.x) block.run(image);
}

// For so many warps; bytes is half a gigabyte where the image is too large to ask.
static ConvLayout lay_out(const ConvGrad& s, int warps) {
  ConvLayout l = {};
  constexpr int64_t TOO_LARGE = 1 << 12;  // pixels of the finest plane: a megabyte of shared memory
  const int64_t height = (s.height + 7) / 8 * 4, width = (s.width + 7) / 8 * 4;
  l.bytes = 1 << 29;
  if (height > TOO_LARGE || width > TOO_LARGE || height * width > TOO_LARGE) return l;
  const int step = TILE * warps, pixels = static_cast<int>(height * width);
  l.height = static_cast<int>(height), l.width = static_cast<int>(width);
  l.lag = (l.width + TILE) / TILE * TILE;
  for (l.ring = step; l.ring < step + l.lag + l.width + 1; l.ring *= 2) {}
  const int of_ring = PIXEL * (l.ring < pixels ? l.ring : pixels), of_middle = pixels / 4 * PIXEL;
  l.beside = pixels * PIXEL;
  l.zero = l.beside + (of_ring > of_middle ? of_ring : of_middle);
  l.vectors = l.zero + PIXEL;
  l.sums = l.vectors + static_cast<int>(sizeof(float)) * VECTORS;
  l.bytes = l.sums + static_cast<int>(sizeof(double)) * warps;
  l.workspace = int64_t(pixels) * PIXEL;
  for (int level = 0; level < 3; ++level)
    l.workspace += int64_t(level < 2 ? 2 : 1) * s.blocks[level] * ((pixels >> 2 * level) + TILE - 1) / TILE * (TILE * CHANNELS);
  return l;
}

constexpr int RESERVED = 1 << 10;  // bytes of shared memory that the device keeps of every block

// Many warps share an image that leaves no room for a second; which it is depends on the image's size and the device alone.
static bool many_warps(const ConvGrad& s, const Device& device) {
  return 2 * lay_out(s, FEW_WARPS).bytes + RESERVED > device.shared && lay_out(s, MANY_WARPS).bytes <= device.shared;
}

static int64_t blocks_of(const ConvGrad& s, const ConvLayout& l, const Device& device) {
  const int64_t at_once = device.multiprocessors * ((device.shared + RESERVED) / (l.bytes + RESERVED));
  return s.images < at_once ? s.images : at_once;
}

int64_t conv_grad_workspace(const ConvGrad& s) {
  const Device device = this_device("conv_grad");
  const ConvLayout l = lay_out(s, many_warps(s, device) ? MANY_WARPS : FEW_WARPS);
  return l.bytes > device.shared ? -1 : l.workspace * blocks_of(s, l, device);
}

template <int WARPS>
static void run(const ConvGrad& s, const Device& device, cudaStream_t stream) {
  const ConvLayout l = lay_out(s, WARPS);
  launch("conv_grad", conv_grad_kernel<WARPS>, dim3(static_cast<unsigned>(blocks_of(s, l, device))), dim3(32 * WARPS),
         static_cast<size_t>(l.bytes), stream, s, l);
}

void conv_grad(ConvGrad s, cudaStream_t stream) {
  if (s.images == 0) return;
  s.pairs = s.width % 2 == 0 && on_bytes<8>(s.x, s.grad);
  const Device device = this_device("conv_grad");
  (many_warps(s, device) ? run<MANY_WARPS> : run<FEW_WARPS>)(s, device, stream);
}

}  // namespace alps::cuda
