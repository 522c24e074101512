// psi, r = x - psi and grad = r - J^T r of the compact network; contract in alps_fast/ops/conv_grad.py.
//
// Layer by layer on planes that stay in L2 for images of about 64 x 64: a 3x3 convolution reads 128 bytes a pixel and
// spends 73,728 operations on them, so even planes in memory would feed it; what counts is the rate of the multiplications
// (conv_block.h). Bias, FiLM, activation, its derivative, residual and rounding happen on the sums before they are stored.
// Of the forward pass the derivative alone is kept, in bytes on the fast path. Images go one to a thread as far as they
// divide evenly, and the rest is shared, layer by layer; every sum is taken in one order either way.
#include "conv_block.h"
#include "kernels.h"
#include "memory.h"

#include <algorithm>

#include <omp.h>

namespace alps::ALPS_ISA {

using F = Lanes::F;

// Shape of a plane of pixels, channels last, in memory that has zeros around it: one pixel between rows, which pads both, and
// a row and more before and after, so that no tap of no block leaves the memory.
struct Shape {
  int64_t height, width;
  int64_t pitch() const { return width + 1; }
  int64_t pixels() const { return height * pitch(); }
  int64_t before() const { return pitch() + 1; }
  int64_t after() const { return pitch() + 1 + 64; }  // 64: more than a block, for its last rows
  int64_t all() const { return before() + pixels() + after(); }
};

struct Team {
  int thread, threads;
  void wait() const {
    if (threads > 1) {
#pragma omp barrier
    }
  }
  int64_t from(int64_t count) const { return count * thread / threads; }
  int64_t to(int64_t count) const { return count * (thread + 1) / threads; }
};

template <class Path, int64_t W>
class Network {
  using T = typename Path::T;
  using Kept = typename Path::Kept;
  static constexpr int64_t IN = Path::INPUT, ROWS = Path::ROWS;

 public:
  explicit Network(const ConvGrad& s) : s_(s) {
    fine_ = {(s.height + 7) / 8 * 4, (s.width + 7) / 8 * 4};
    middle_ = {fine_.height / 2, fine_.width / 2};
    coarse_ = {fine_.height / 4, fine_.width / 4};
  }

  size_t bytes() const {
    size_t sum = size_of<T>(fine_.all() * IN);
    for (const Shape& p : {fine_, middle_, coarse_}) sum += 2 * size_of<T>(p.all() * W);
    for (int i = 0; i < blocks(); ++i) sum += size_of<Kept>(shape_of(i).pixels() * W);
    return sum + size_of<double>(s_.height);
  }

  void run(int64_t image, Team team, char* memory) {
    team_ = team;
    image_ = image;
    film_ = s_.film_levels > 1 ? image : 0;
    const float* const edm = s_.coefficients + (s_.edm_levels > 1 ? image : 0);
    skip_ = edm[0], out_ = edm[s_.edm_levels], in_ = edm[2 * s_.edm_levels];
    w_ = static_cast<const T*>(s_.weights), bias_ = s_.biases;
    divide(memory);
    const int64_t numbers = int64_t(s_.channels) * s_.height * s_.width;
    const float* x = s_.x + image * numbers;
    float* grad = s_.grad + image * numbers;

    unshuffle(x, in_);
    forward_input();
    int i = 0;
    for (int k = 0; k < s_.blocks[0]; ++k) forward(i++, fine_, h_[0], active_[0]);
    gather(fine_, h_[0], middle_, h_[1], true);
    for (int k = 0; k < s_.blocks[1]; ++k) forward(i++, middle_, h_[1], active_[1]);
    gather(middle_, h_[1], coarse_, h_[2], true);
    for (int k = 0; k < s_.blocks[2]; ++k) forward(i++, coarse_, h_[2], active_[2]);
    scatter(coarse_, h_[2], middle_, h_[1], true);
    for (int k = 0; k < s_.blocks[1]; ++k) forward(i++, middle_, h_[1], active_[1]);
    scatter(middle_, h_[1], fine_, h_[0], true);
    for (int k = 0; k < s_.blocks[0]; ++k) forward(i++, fine_, h_[0], active_[0]);
    // grad holds r until the end
    forward_output(x, grad);
    residual_value(grad);

    unshuffle(grad, out_);
    backward_output();
    for (int k = 0; k < s_.blocks[0]; ++k) backward(--i, fine_, h_[0], active_[0]);
    gather(fine_, h_[0], middle_, h_[1], false);
    for (int k = 0; k < s_.blocks[1]; ++k) backward(--i, middle_, h_[1], active_[1]);
    gather(middle_, h_[1], coarse_, h_[2], false);
    for (int k = 0; k < s_.blocks[2]; ++k) backward(--i, coarse_, h_[2], active_[2]);
    scatter(coarse_, h_[2], middle_, h_[1], false);
    for (int k = 0; k < s_.blocks[1]; ++k) backward(--i, middle_, h_[1], active_[1]);
    scatter(middle_, h_[1], fine_, h_[0], false);
    for (int k = 0; k < s_.blocks[0]; ++k) backward(--i, fine_, h_[0], active_[0]);
    backward_input(grad);
    team_.wait();
  }

 private:
  static size_t align(size_t bytes) { return (bytes + 127) / 128 * 128 + 128; }  // and a step aside, against cache aliasing
  template <class U>
  static size_t size_of(int64_t count) {
    return align(sizeof(U) * static_cast<size_t>(count));
  }

  int blocks() const { return 2 * s_.blocks[0] + 2 * s_.blocks[1] + s_.blocks[2]; }

  const Shape& shape_of(int i) const {
    const int a = s_.blocks[0], b = a + s_.blocks[1], c = b + s_.blocks[2], d = c + s_.blocks[1];
    return i < a || i >= d ? fine_ : i < b || i >= c ? middle_ : coarse_;
  }

  // Planes and what is kept, in one piece of memory; the zeros before and after every plane are this thread's to write.
  void divide(char* memory) {
    auto plane = [&](const Shape& p, int64_t channels) {
      T* all = reinterpret_cast<T*>(memory);
      memory += size_of<T>(p.all() * channels);
      if (team_.thread == 0) {
        std::memset(all, 0, sizeof(T) * static_cast<size_t>(p.before() * channels));
        std::memset(all + (p.before() + p.pixels()) * channels, 0, sizeof(T) * static_cast<size_t>(p.after() * channels));
      }
      return all + p.before() * channels;
    };
    const Shape* shapes[] = {&fine_, &middle_, &coarse_};
    input_ = plane(fine_, IN);
    for (int k = 0; k < 3; ++k) h_[k] = plane(*shapes[k], W), active_[k] = plane(*shapes[k], W);
    for (int i = 0; i < blocks(); ++i) {
      kept_[i] = reinterpret_cast<Kept*>(memory);
      memory += size_of<Kept>(shape_of(i).pixels() * W);
    }
    row_values_ = reinterpret_cast<double*>(memory);
  }

  // A 3x3 convolution of K channels to N: `last(pixel, n, sums, vectors)` turns 32 sums of a pixel into what it stores;
  // `border(pixel)` sees the pixels between rows. Blocks run over the plane as one line of pixels.
  template <int64_t K, int64_t N, class Last, class Border>
  void convolve(const Shape& p, const T* in, Last last, Border border) {
    const int64_t row = p.pitch() * K;
    const int64_t taps[9] = {-row - K, -row, -row + K, -K, 0, K, row - K, row, row + K};
    const int64_t count = (p.pixels() + ROWS - 1) / ROWS;
    alignas(64) float sums[2][ROWS * COLUMNS];
    int64_t m = 0, end = 0, column = 0, channel = 0, filled = 0;  // pixels of the block before that are still to be stored
    const float* from = sums[0];
    auto store = [&] {
      if (column == p.width) border(m), column = 0;
      else last(m, channel, from), ++column;
      ++m, from += COLUMNS;
    };
    for (int64_t n = 0; n < N; n += COLUMNS, w_ += 9 * K * COLUMNS)
      for (int64_t b = team_.from(count); b < team_.to(count); ++b) {
        const int64_t first = b * ROWS;
        Path::template block<K, K>(in + first * K, taps, 9, w_, sums[filled], [&] {
          if (m < end) store();
          if (m < end) store();
        });
        while (m < end) store();
        m = first, end = std::min(first + ROWS, p.pixels()), column = first % p.pitch(), channel = n;
        from = sums[filled], filled = 1 - filled;
      }
    while (m < end) store();
    team_.wait();
  }

  void zero(T* pixel) { std::memset(pixel, 0, sizeof(T) * W); }

  template <class Each>
  ALPS_INLINE void vectors(Each each) {
    ALPS_UNROLL
    for (int64_t v = 0; v < COLUMNS; v += Lanes::width) each(v);
  }

  void forward_input() {
    const float* bias = bias_;
    bias_ += W;
    T* h = h_[0];
    convolve<IN, W>(fine_, input_, [=](int64_t m, int64_t n, const float* sums) {
      vectors([=](int64_t v) { Path::save(Lanes::load(sums + v) + Lanes::load(bias + n + v), h + m * W + n + v); });
    }, [=](int64_t m) { zero(h + m * W); });
  }

  // h += W2 phi(scale * W1 h + shift) + bias, and c = phi' is kept
  void forward(int i, const Shape& p, T* h, T* active) {
    const float *scale = s_.scale + (i * s_.film_levels + film_) * W, *shift = s_.shift + (i * s_.film_levels + film_) * W;
    Kept* kept = kept_[i];
    convolve<W, W>(p, h, [=](int64_t m, int64_t n, const float* sums) {
      vectors([=](int64_t v) {
        const F z = Lanes::fma(Lanes::load(sums + v), Lanes::load(scale + n + v), Lanes::load(shift + n + v));
        const F ramp = Lanes::fma(z, Lanes::broadcast(1.0f / 6), Lanes::broadcast(0.5f)), nothing = Lanes::broadcast(0);
        const F one = Lanes::broadcast(1), c = ramp > nothing ? (ramp < one ? ramp : one) : (z == z ? nothing : z);
        const F above = z - Lanes::broadcast(3);
        Path::save(Lanes::fma(c * Lanes::broadcast(3), c, above > nothing ? above : nothing), active + m * W + n + v);
        Path::save_kept(c, kept + m * W + n + v);
      });
    }, [=](int64_t m) { zero(active + m * W); });
    const float* bias = bias_;
    bias_ += W;
    convolve<W, W>(p, active, [=](int64_t m, int64_t n, const float* sums) {
      T* at = h + m * W + n;
      vectors([=](int64_t v) { Path::save(Lanes::load(sums + v) + Lanes::load(bias + n + v) + Path::load(at + v), at + v); });
    }, [](int64_t) {});
  }

  // g += W1^T (c * scale * W2^T g)
  void backward(int i, const Shape& p, T* g, T* inner) {
    const float* scale = s_.scale + (i * s_.film_levels + film_) * W;
    const Kept* kept = kept_[i];
    convolve<W, W>(p, g, [=](int64_t m, int64_t n, const float* sums) {
      vectors([=](int64_t v) {
        const F slope = Path::load_kept(kept + m * W + n + v) * Lanes::load(scale + n + v);
        Path::save(Lanes::load(sums + v) * slope, inner + m * W + n + v);
      });
    }, [=](int64_t m) { zero(inner + m * W); });
    convolve<W, W>(p, inner, [=](int64_t m, int64_t n, const float* sums) {
      T* at = g + m * W + n;
      vectors([=](int64_t v) { Path::save(Lanes::load(sums + v) + Path::load(at + v), at + v); });
    }, [](int64_t) {});
  }

  // Four pixels of `from` to one of `to`: the 2x2 strided convolution, and the transpose of `scatter`.
  void gather(const Shape& from, const T* in, const Shape& to, T* out, bool biased) {
    const int64_t row = from.pitch() * W;
    const int64_t taps[4] = {0, W, row, row + W};
    alignas(64) float sums[ROWS * COLUMNS];
    const float* bias = biased ? bias_ : nullptr;
    for (int64_t n = 0; n < W; n += COLUMNS, w_ += 4 * W * COLUMNS)
      for (int64_t y = team_.from(to.height); y < team_.to(to.height); ++y) {
        for (int64_t x = 0; x < to.width; x += ROWS) {
          Path::template block<2 * W, W>(in + 2 * (y * row + x * W), taps, 4, w_, sums, [] {});
          for (int64_t m = x; m < std::min(x + ROWS, to.width); ++m) {
            const float* of_pixel = sums + (m - x) * COLUMNS;  // [=] would copy all the sums
            vectors([=](int64_t v) {
              const F sum = Lanes::load(of_pixel + v);
              Path::save(biased ? sum + Lanes::load(bias + n + v) : sum, out + (y * to.pitch() + m) * W + n + v);
            });
          }
        }
        zero(out + (y * to.pitch() + to.width) * W);
      }
    if (biased) bias_ += W;
    team_.wait();
  }

  // One pixel of `from` to four of `to`, added to what is there: 1x1 convolution and shuffle, and the transpose of `gather`.
  void scatter(const Shape& from, const T* in, const Shape& to, T* out, bool biased) {
    const int64_t taps[1] = {0};
    alignas(64) float sums[ROWS * COLUMNS];
    for (int64_t part = 0; part < 4; ++part) {
      const float* bias = biased ? bias_ + part * W : nullptr;
      for (int64_t n = 0; n < W; n += COLUMNS, w_ += W * COLUMNS)
        for (int64_t y = team_.from(from.height); y < team_.to(from.height); ++y)
          for (int64_t x = 0; x < from.width; x += ROWS) {
            Path::template block<W, W>(in + (y * from.pitch() + x) * W, taps, 1, w_, sums, [] {});
            for (int64_t m = x; m < std::min(x + ROWS, from.width); ++m) {
              T* at = out + ((2 * y + part / 2) * to.pitch() + 2 * m + part % 2) * W + n;
              const float* of_pixel = sums + (m - x) * COLUMNS;
              vectors([=](int64_t v) {
                const F sum = Lanes::load(of_pixel + v) + Path::load(at + v);
                Path::save(biased ? sum + Lanes::load(bias + n + v) : sum, at + v);
              });
            }
          }
    }
    if (biased) bias_ += 4 * W;
    team_.wait();
  }

  // image * factor, 2x2 pixels to four channels, zeros beyond the image and its channels
  void unshuffle(const float* image, float factor) {
    for (int64_t y = team_.from(fine_.height); y < team_.to(fine_.height); ++y) {
      T* row = input_ + y * fine_.pitch() * IN;
      std::memset(row, 0, sizeof(T) * static_cast<size_t>(fine_.pitch() * IN));
      for (int64_t c = 0; c < s_.channels; ++c)
        for (int64_t part = 0; part < 4; ++part) {
          const int64_t line = 2 * y + part / 2;
          if (line >= s_.height) continue;
          const float* from = image + (c * s_.height + line) * s_.width;
          for (int64_t x = 0, at = part % 2; at < s_.width; ++x, at += 2) Path::put(factor * from[at], row + x * IN + 4 * c + part);
        }
    }
    team_.wait();
  }

  // r = x - (skip x + out F)
  void forward_output(const float* x, float* r) {
    const float* bias = bias_;
    convolve<W, COLUMNS>(fine_, h_[0], [&](int64_t m, int64_t, const float* sums) {
      each_number(m, [&](int64_t at, int64_t channel) { r[at] = x[at] - (skip_ * x[at] + out_ * (sums[channel] + bias[channel])); });
    }, [](int64_t) {});
  }

  void residual_value(const float* r) {
    for (int64_t y = team_.from(s_.height); y < team_.to(s_.height); ++y) {
      double sum = 0;
      for (int64_t c = 0; c < s_.channels; ++c)
        for (int64_t x = 0; x < s_.width; ++x) {
          const double v = r[(c * s_.height + y) * s_.width + x];
          sum += v * v;
        }
      row_values_[y] = sum;
    }
    team_.wait();
    if (team_.thread > 0) return;
    double sum = 0;
    for (int64_t y = 0; y < s_.height; ++y) sum += row_values_[y];
    s_.value[image_] = static_cast<float>(0.5 * sum);
  }

  void backward_output() {
    T* g = h_[0];
    convolve<IN, W>(fine_, input_, [=](int64_t m, int64_t n, const float* sums) {
      vectors([=](int64_t v) { Path::save(Lanes::load(sums + v), g + m * W + n + v); });
    }, [=](int64_t m) { zero(g + m * W); });
  }

  // grad = r - (skip r + in F^T)
  void backward_input(float* grad) {
    convolve<W, COLUMNS>(fine_, h_[0], [&](int64_t m, int64_t, const float* sums) {
      each_number(m, [&](int64_t at, int64_t channel) { grad[at] = grad[at] - (skip_ * grad[at] + in_ * sums[channel]); });
    }, [](int64_t) {});
  }

  // The image's numbers that the channels of a fine pixel stand for.
  template <class Each>
  void each_number(int64_t m, Each each) {
    const int64_t y = m / fine_.pitch() * 2, x = m % fine_.pitch() * 2;
    for (int64_t c = 0; c < s_.channels; ++c)
      for (int64_t part = 0; part < 4; ++part)
        if (y + part / 2 < s_.height && x + part % 2 < s_.width)
          each((c * s_.height + y + part / 2) * s_.width + x + part % 2, 4 * c + part);
  }

  const ConvGrad& s_;
  Shape fine_, middle_, coarse_;
  Team team_{0, 1};
  int64_t image_ = 0, film_ = 0;
  float skip_ = 0, out_ = 0, in_ = 0;
  const T* w_ = nullptr;  // moves through the weights, which are packed in the order of use
  const float* bias_ = nullptr;
  T *input_ = nullptr, *h_[3] = {}, *active_[3] = {};
  Kept* kept_[MOST_BLOCKS] = {};
  double* row_values_ = nullptr;
};

template <class Path, int64_t W>
static size_t bytes_of_image(const ConvGrad& s) {
  return (Network<Path, W>(s).bytes() + 4095) / 4096 * 4096 + 4096 * 5;  // 5: teammates' planes a bit apart
}

// Images at work at a time.
static int64_t at_once(const ConvGrad& s, int threads) { return s.images < threads ? 1 : threads; }

template <class Path, int64_t W>
static void run(const ConvGrad& s, int threads) {
  const int64_t alone = s.images / threads * threads;  // images that have a thread to themselves
  const size_t bytes = bytes_of_image<Path, W>(s);
  const Floats shared(static_cast<int64_t>(bytes / sizeof(float)) * at_once(s, threads));
  char* const memory = reinterpret_cast<char*>(shared.data);
#pragma omp parallel num_threads(threads)
  {
    const int thread = omp_get_thread_num(), team = omp_get_num_threads();
    Path::begin();
    Network<Path, W> network(s);
    for (int64_t image = thread; image < alone; image += team)
      network.run(image, {0, 1}, memory + bytes * static_cast<size_t>(thread));
#pragma omp barrier
    for (int64_t image = alone; image < s.images; ++image) network.run(image, {thread, team}, memory);
    Path::end();
  }
}

template <class Path>
static void run(const ConvGrad& s, int threads) {
  switch (s.width_of_network) {
    case 32: return run<Path, 32>(s, threads);
    default: return run<Path, 64>(s, threads);
  }
}

template <class Path>
static size_t bytes_of_image(const ConvGrad& s) {
  return s.width_of_network == 32 ? bytes_of_image<Path, 32>(s) : bytes_of_image<Path, 64>(s);
}

void conv_grad(const ConvGrad& s, int threads) {
#if defined(__AVX512BF16__)
  if (s.in_bfloat16) return run<Bfloat16>(s, threads);
#endif
  run<Single>(s, threads);
}

int64_t conv_grad_bytes(const ConvGrad& s, int threads) {
#if defined(__AVX512BF16__)
  if (s.in_bfloat16) return static_cast<int64_t>(bytes_of_image<Bfloat16>(s)) * at_once(s, threads);
#endif
  return static_cast<int64_t>(bytes_of_image<Single>(s)) * at_once(s, threads);
}

}  // namespace alps::ALPS_ISA
