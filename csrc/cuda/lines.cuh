// Many transforms of one length in a block, given as functions of a line and an index: from memory, to memory, or both ways.
//
// Lengths that have a `Shape` are transformed in registers: N = A B by T threads, each of which holds a whole line's part, sums
// A numbers, multiplies by twiddles, meets the others once in shared memory, and sums B. Others go through shared memory pass by
// pass (fft.cuh), which is a Lines<0>. What a length takes decides how it is computed, and nothing else does, so that a line has
// the same bits whatever is beside it.
#pragma once

#include "fft.cuh"

namespace alps::cuda {

template <int N>
struct Shape {  // a thread sums A, then B, and one of them twice where that keeps T threads busy
  static constexpr int A = 1, B = 1, T = 1;
};
template <>
struct Shape<64> {
  static constexpr int A = 8, B = 8, T = 8;
};
template <>
struct Shape<128> {
  static constexpr int A = 16, B = 8, T = 8;
};
template <>
struct Shape<256> {
  static constexpr int A = 16, B = 16, T = 16;
};
template <>
struct Shape<320> {
  static constexpr int A = 16, B = 20, T = 20;
};

template <int N>
struct Length {
  static constexpr int VALUE = N;
};

// f(Length<n>()), or of 0 where there is no shape.
template <class Function>
void by_length(int64_t n, const Function& f) {
  switch (n) {
    case 64: return f(Length<64>());
    case 128: return f(Length<128>());
    case 256: return f(Length<256>());
    case 320: return f(Length<320>());
    default: return f(Length<0>());
  }
}

inline int threads_of_line(int64_t n) {  // or 0
  int threads = 0;
  by_length(n, [&](auto length) { threads = length.VALUE ? Shape<length.VALUE>::T : 0; });
  return threads;
}

struct Root {  // exp(-2 pi i k / n)
  double re, im;
};

ALPS_CONSTANT Root root_of(int k, int n) {
  const int quarters = (8 * k + n) / (2 * n);  // the nearest; the rest is within an eighth of a turn
  const double angle = 1.5707963267948966 * (4 * k - quarters * n) / n, square = angle * angle;
  double cosine = 0, sine = 0;
  for (int i = 9; i >= 0; --i) {
    cosine = 1 - cosine * square / ((2 * i + 1) * (2 * i + 2));
    sine = 1 - sine * square / ((2 * i + 2) * (2 * i + 3));
  }
  sine *= angle;
  const double re[] = {cosine, -sine, -cosine, sine}, im[] = {-sine, -cosine, sine, cosine};
  return {re[quarters % 4], im[quarters % 4]};
}

template <int N>
struct Roots {
  float2 at[N];
};

// exp(-2 pi i k / N), k of i
template <int N, class Index>
ALPS_CONSTANT Roots<N> roots_of(Index k) {
  Roots<N> all = {};
  for (int i = 0; i < N; ++i) {
    const Root root = root_of(k(i), N);
    all.at[i].x = static_cast<float>(root.re), all.at[i].y = static_cast<float>(root.im);
  }
  return all;
}

struct InOrder {
  ALPS_CONSTANT int operator()(int i) const { return i; }
};

template <int N>
struct OfSumAndNumber {  // of sum ka and number b at ka B + b, so that neighbouring threads read neighbours
  ALPS_CONSTANT int operator()(int i) const { return i / Shape<N>::B * (i % Shape<N>::B); }
};

template <int N>
__device__ const Roots<N> twiddles = roots_of<N>(OfSumAndNumber<N>());

// x_k <- sum_j x_j exp(-2 pi i j k / R), in natural order, for R up to 20.
template <int R>
__device__ __forceinline__ void sums(float (&re)[R], float (&im)[R]) {
  if constexpr (R <= 8) {
    butterfly<Thread, R>(re, im);
  } else {  // number j = S j1 + j2 and sum k = k1 + 4 k2
    static_assert(R == 16 || R == 20);
    constexpr int S = R / 4;
    constexpr Roots<R> roots = roots_of<R>(InOrder());
    float a[S][4], b[S][4];
    ALPS_UNROLL
    for (int j = 0; j < S; ++j) {
      ALPS_UNROLL
      for (int i = 0; i < 4; ++i) a[j][i] = re[S * i + j], b[j][i] = im[S * i + j];
      butterfly<Thread, 4>(a[j], b[j]);
    }
    ALPS_UNROLL
    for (int k = 0; k < 4; ++k) {
      float c[S], d[S];
      ALPS_UNROLL
      for (int j = 0; j < S; ++j) {
        const float x = a[j][k], y = b[j][k];
        const float2 w = roots.at[j * k];
        if (j * k == 0) c[j] = x, d[j] = y;
        else if (4 * j * k == R) c[j] = y, d[j] = -x;
        else c[j] = __fmaf_rn(-w.y, y, w.x * x), d[j] = __fmaf_rn(w.y, x, w.x * y);
      }
      butterfly<Thread, S>(c, d);
      ALPS_UNROLL
      for (int j = 0; j < S; ++j) re[k + 4 * j] = c[j], im[k + 4 * j] = d[j];
    }
  }
}

// In a block: `count` lines of N numbers; every thread calls all of it. `load(line)` gives a function of an index, and
// `store(line)` one of an index and a number. The index comes as a sum, whose second part is known to the compiler where N is, so
// that addresses are one and a distance. STANDING: neighbouring threads have neighbouring lines, of which there are SIDE_BY_SIDE;
// else they go along a line.
template <int N, bool STANDING>
class Lines {
  using S = Shape<N>;
  static constexpr int A = S::A, B = S::B, T = S::T, CELLS = A * (B + 1);
  static constexpr int ONE = (B + T - 1) / T, TWO = (A + T - 1) / T;  // sums of A, and of B, of a thread

 public:
  // Of lines that lie, so that half a warp's cells are in banks of their own, and whether these have gaps as fft.cuh says.
  static constexpr int PITCH = (CELLS + 7) / 16 * 16 + 8;
  static constexpr bool GAPS = 16 % T == 0;
  static constexpr int SIDE_BY_SIDE = T <= 8 ? 16 : 8;  // lines that stand
  static constexpr int THREADS = SIDE_BY_SIDE * T;

  static int64_t bytes(int64_t count, int64_t) { return 8 * (STANDING ? SIDE_BY_SIDE * CELLS : count * PITCH); }

  __device__ Lines(const Transform&, float2*, uint32_t count, float2* memory)
      : line_(STANDING ? threadIdx.x % SIDE_BY_SIDE : threadIdx.x / T),
        t_(STANDING ? threadIdx.x / SIDE_BY_SIDE : threadIdx.x % T),
        there_(STANDING || line_ < count), memory_(memory), cells_(memory + (STANDING ? line_ : line_ * PITCH)) {}

  // Frequencies, and the memory is free again.
  template <class Load, class Store>
  __device__ __forceinline__ void forward(const Load& load, const Store& store, bool from_shared = false) const {
    float x[ONE][A], y[ONE][A];
    if (there_) take(load(line_), x, y);
    if (from_shared) sync();
    if (there_) sums_of_line(x, y);
    sync();
    if (there_) {
      float re[TWO][B], im[TWO][B];
      frequencies(re, im);
      const auto to = store(line_);
      for_frequencies([&](int j, int i, int k, int more) { to(k, more, make_float2(re[j][i], im[j][i])); });
    }
    sync();
  }

  template <class Load, class Store>
  __device__ __forceinline__ void inverse(const Load& load, const Store& store) const {
    float re[ONE][A], im[ONE][A];
    from_frequencies(load, re, im);
    if (there_) {
      const auto to = store(line_);
      for_line([&](int j, int i, int e, int more) { to(e, more, make_float2(re[j][i], im[j][i])); });
    }
  }

  // `finish(line)`, a function of an index and a number, gives what all threads find by the function of a line and an index that
  // this returns, until the memory is needed again.
  template <class Load, class Finish>
  __device__ __forceinline__ auto inverse_shared(const Load& load, const Finish& finish) const {
    static_assert(!STANDING);
    float re[ONE][A], im[ONE][A];
    from_frequencies(load, re, im);
    sync();
    if (there_) {
      const auto finished = finish(line_);
      for_line([&](int j, int i, int e, int more) {
        (cells_ + e)[place(more)] = finished(e, more, make_float2(re[j][i], im[j][i]));
      });
    }
    __syncthreads();
    return [this](uint32_t line, uint32_t e) { return at(line, e); };
  }

  // Number e of a line that lies in shared memory: what forward_from_shared takes.
  __device__ __forceinline__ float2& at(uint32_t line, uint32_t e) const {
    static_assert(!STANDING);
    return memory_[line * PITCH + place(e)];
  }

  // After a barrier.
  template <class Store>
  __device__ __forceinline__ void forward_from_shared(const Store& store) const {
    const auto load = [&](uint32_t line) {
      return [from = &at(line, 0)](int t, int more) { return (from + t)[place(more)]; };
    };
    forward(load, store, true);
  }

  // Frequency k of a line in shared memory: what forward_to_shared leaves, and inverse_from_shared takes after a barrier.
  __device__ __forceinline__ float2& frequency(uint32_t line, uint32_t k) const {
    static_assert(STANDING);
    return memory_[(k % A * (B + 1) + k / A) * STRIDE + line];
  }

  template <class Load>
  __device__ __forceinline__ void forward_to_shared(const Load& load) const {
    float x[ONE][A], y[ONE][A];
    take(load(line_), x, y);
    sums_of_line(x, y);
    sync();
    float re[TWO][B], im[TWO][B];
    frequencies(re, im);
    for_frequencies([&](int j, int i, int, int) { of_sum(j, i) = make_float2(re[j][i], im[j][i]); });
    sync();
  }

  template <class Store>
  __device__ __forceinline__ void inverse_from_shared(const Store& store) const {
    float re[TWO][B], im[TWO][B], x[ONE][A], y[ONE][A];
    for_frequencies([&](int j, int i, int, int) {
      const float2 v = of_sum(j, i);
      re[j][i] = v.x, im[j][i] = v.y;
    });
    sums_of_frequencies(re, im);
    sync();
    line(x, y);
    const auto to = store(line_);
    for_line([&](int j, int i, int e, int more) { to(e, more, make_float2(x[j][i], y[j][i])); });
  }

  // Forward, a factor of every frequency, and back.
  template <class Load, class Factor, class Store>
  __device__ __forceinline__ void filter(const Load& load, const Factor& factor, const Store& store) const {
    float re[TWO][B], im[TWO][B], x[ONE][A], y[ONE][A];
    if (there_) take(load(line_), x, y), sums_of_line(x, y);
    sync();
    if (there_) {
      const auto of = factor(line_);
      float by[TWO][B];
      for_frequencies([&](int j, int i, int k, int more) { by[j][i] = of(k, more); });
      frequencies(re, im);
      for_frequencies([&](int j, int i, int, int) { re[j][i] *= by[j][i], im[j][i] *= by[j][i]; });
      sums_of_frequencies(re, im);  // to the cells that this thread has read
    }
    sync();
    if (there_) {
      line(x, y);
      const auto to = store(line_);
      for_line([&](int j, int i, int e, int more) { to(e, more, make_float2(x[j][i], y[j][i])); });
    }
  }

 private:
  __device__ __forceinline__ static void sync() {
    if (STANDING || 32 % T != 0) __syncthreads();
    else __syncwarp();
  }
  static constexpr int STRIDE = STANDING ? SIDE_BY_SIDE : 1;

  // Of number e in a line in shared memory; place(t + more) is t + place(more), as T divides 16 and `more` where there are gaps.
  __device__ __forceinline__ static constexpr uint32_t place(uint32_t e) { return GAPS ? padded(e) : e; }

  // Of sum k and this thread's j-th number, and of this thread's j-th sum and number b.
  __device__ __forceinline__ float2& of_number(int k, int j) const {
    return (cells_ + t_ * STRIDE)[(k * (B + 1) + j * T) * STRIDE];
  }
  __device__ __forceinline__ float2& of_sum(int j, int b) const {
    return (cells_ + t_ * (B + 1) * STRIDE)[(j * T * (B + 1) + b) * STRIDE];
  }
  __device__ __forceinline__ float2 twiddle(int k, int j) const { return (twiddles<N>.at + t_)[k * B + j * T]; }

  // Whether this thread has a j-th sum of A, and of B.
  __device__ __forceinline__ bool begins(int j) const { return B % T == 0 || t_ + j * T < B; }
  __device__ __forceinline__ bool ends(int j) const { return A % T == 0 || t_ + j * T < A; }

  // f(j, i, index, more): the i-th number of that sum.
  template <class Function>
  __device__ __forceinline__ void for_line(const Function& f) const {
    ALPS_UNROLL
    for (int j = 0; j < ONE; ++j)
      if (begins(j)) {
        ALPS_UNROLL
        for (int i = 0; i < A; ++i) f(j, i, t_, j * T + B * i);
      }
  }
  template <class Function>
  __device__ __forceinline__ void for_frequencies(const Function& f) const {
    ALPS_UNROLL
    for (int j = 0; j < TWO; ++j)
      if (ends(j)) {
        ALPS_UNROLL
        for (int i = 0; i < B; ++i) f(j, i, t_, j * T + A * i);
      }
  }

  template <class From>
  __device__ __forceinline__ void take(const From& from, float (&re)[ONE][A], float (&im)[ONE][A]) const {
    for_line([&](int j, int i, int e, int more) {
      const float2 v = from(e, more);
      re[j][i] = v.x, im[j][i] = v.y;
    });
  }

  __device__ __forceinline__ void sums_of_line(float (&re)[ONE][A], float (&im)[ONE][A]) const {
    ALPS_UNROLL
    for (int j = 0; j < ONE; ++j)
      if (begins(j)) sums<A>(re[j], im[j]);
    for_line([&](int j, int k, int, int) {
      const float2 v = make_float2(re[j][k], im[j][k]);
      of_number(k, j) = k == 0 ? v : times(twiddle(k, j), v);
    });
  }

  __device__ __forceinline__ void frequencies(float (&re)[TWO][B], float (&im)[TWO][B]) const {
    for_frequencies([&](int j, int b, int, int) {
      const float2 v = of_sum(j, b);
      re[j][b] = v.x, im[j][b] = v.y;
    });
    ALPS_UNROLL
    for (int j = 0; j < TWO; ++j)
      if (ends(j)) sums<B>(re[j], im[j]);
  }

  __device__ __forceinline__ void sums_of_frequencies(float (&re)[TWO][B], float (&im)[TWO][B]) const {
    ALPS_UNROLL
    for (int j = 0; j < TWO; ++j)
      if (ends(j)) sums<B>(im[j], re[j]);
    for_frequencies([&](int j, int b, int, int) { of_sum(j, b) = make_float2(re[j][b], im[j][b]); });
  }

  __device__ __forceinline__ void line(float (&re)[ONE][A], float (&im)[ONE][A]) const {
    for_line([&](int j, int k, int, int) {
      float2 v = of_number(k, j);
      if (k > 0) v = conjugate_times(twiddle(k, j), v);
      re[j][k] = v.x, im[j][k] = v.y;
    });
    ALPS_UNROLL
    for (int j = 0; j < ONE; ++j)
      if (begins(j)) sums<A>(im[j], re[j]);
  }

  template <class Load>
  __device__ __forceinline__ void from_frequencies(const Load& load, float (&re)[ONE][A], float (&im)[ONE][A]) const {
    if (there_) {
      const auto from = load(line_);
      float x[TWO][B], y[TWO][B];
      for_frequencies([&](int j, int i, int k, int more) {
        const float2 v = from(k, more);
        x[j][i] = v.x, y[j][i] = v.y;
      });
      sums_of_frequencies(x, y);
    }
    sync();
    if (there_) line(re, im);
  }

  uint32_t line_;
  int t_;
  bool there_;
  float2 *memory_, *cells_;
};

// In shared memory, pass by pass.
template <bool STANDING>
class Lines<0, STANDING> {
 public:
  static constexpr int SIDE_BY_SIDE = 16, THREADS = 448, PITCH = 0;  // at most; as pitch_of says
  static constexpr bool GAPS = true;

  static int64_t bytes(int64_t count, int64_t n) {
    return 8 * (STANDING ? n * count : count * pitch_of(static_cast<uint32_t>(n)));
  }

  __device__ Lines(const Transform& plan, float2* tables, uint32_t count, float2* memory)  // tables: filled by a kernel before
      : plan_(plan), by_n_(plan.n), all_(STANDING ? columns_of(count, count) : rows_of(count, pitch_of(plan.n))), cells_(memory),
        tables_(tables, plan.n) {}

  __device__ __forceinline__ float2& at(uint32_t line, uint32_t e) const { return cells_[all_(line, e)]; }
  __device__ __forceinline__ float2& frequency(uint32_t line, uint32_t k) const { return at(line, tables_.place[k]); }

  template <class Load, class Store>
  __device__ __forceinline__ void forward(const Load& load, const Store& store) const {
    take(load);
    forward_from_shared(store);
  }

  template <class Store>
  __device__ __forceinline__ void forward_from_shared(const Store& store) const {
    transform<false>(plan_, tables_.roots, all_, cells_);
    each([&](uint32_t line, uint32_t k) { store(line)(static_cast<int>(k), 0, frequency(line, k)); });
    __syncthreads();
  }

  template <class Load, class Store>
  __device__ __forceinline__ void inverse(const Load& load, const Store& store) const {
    take_frequencies(load);
    inverse_from_shared(store);
  }

  template <class Load>
  __device__ __forceinline__ void forward_to_shared(const Load& load) const {
    take(load);
    transform<false>(plan_, tables_.roots, all_, cells_);
  }

  template <class Store>
  __device__ __forceinline__ void inverse_from_shared(const Store& store) const {
    transform<true>(plan_, tables_.roots, all_, cells_);
    each([&](uint32_t line, uint32_t e) { store(line)(static_cast<int>(e), 0, at(line, e)); });
  }

  template <class Load, class Finish>
  __device__ __forceinline__ auto inverse_shared(const Load& load, const Finish& finish) const {
    take_frequencies(load);
    transform<true>(plan_, tables_.roots, all_, cells_);
    return [this, &finish](uint32_t line, uint32_t e) { return finish(line)(static_cast<int>(e), 0, at(line, e)); };
  }

  template <class Load, class Factor, class Store>
  __device__ __forceinline__ void filter(const Load& load, const Factor& factor, const Store& store) const {
    forward_to_shared(load);
    each([&](uint32_t line, uint32_t k) {
      float2& z = frequency(line, k);
      const float by = factor(line)(static_cast<int>(k), 0);
      z = make_float2(z.x * by, z.y * by);
    });
    __syncthreads();
    inverse_from_shared(store);
  }

 private:
  template <class Load>
  __device__ __forceinline__ void take(const Load& load) const {
    each([&](uint32_t line, uint32_t e) { at(line, e) = load(line)(static_cast<int>(e), 0); });
    __syncthreads();
  }
  template <class Load>
  __device__ __forceinline__ void take_frequencies(const Load& load) const {
    each([&](uint32_t line, uint32_t k) { frequency(line, k) = load(line)(static_cast<int>(k), 0); });
    __syncthreads();
  }

  template <class Function>
  __device__ __forceinline__ void each(const Function& f) const {
    const uint32_t n = plan_.n, count = all_.count.by;
    for (uint32_t i = threadIdx.x; i < n * count; i += blockDim.x) {
      const uint32_t of = STANDING ? all_.count(i) : by_n_(i);
      if (STANDING) f(i - of * count, of);
      else f(of, i - of * n);
    }
  }

  Transform plan_;
  Divisor by_n_;
  Sequences all_;
  float2* cells_;
  Tables tables_;
};

}  // namespace alps::cuda
