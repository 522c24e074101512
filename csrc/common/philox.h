// Philox4x32-10 and its normals: the one recipe of the CPU and the CUDA kernels, the same bits on each.
//
// `L` says what a vector of lanes is (csrc/cpu/lanes.h, csrc/cuda/lanes.h): types U (uint32), I (int32), F (float) and
// the operations that have no operator. Everything here is an integer operation or one that IEEE 754 rounds correctly
// (conversion, +, *, fma, sqrt), and no product feeds a sum except inside an fma, so a compiler has nothing to contract.
// The definition is alps_fast/ops/philox_normal.py; counter and key are those of its docstring.
#pragma once

#include <cstdint>
#include <type_traits>

#if defined(__CUDACC__)
#define ALPS_FN __device__ __forceinline__
#define ALPS_CONSTANT __host__ __device__ constexpr
#define ALPS_UNROLL _Pragma("unroll")
#else
#define ALPS_FN inline __attribute__((always_inline))
#define ALPS_CONSTANT constexpr
#define ALPS_UNROLL _Pragma("GCC unroll 16")
#endif

namespace alps {

constexpr int ROUNDS = 10;

struct Stream {  // what a whole launch shares
  uint32_t step, tag;
  uint32_t keys[ROUNDS][2];  // of every round, which a GPU takes from constant memory where it would add them up
};

inline Stream make_stream(uint64_t seed, uint32_t step, uint32_t tag) {
  constexpr uint32_t BUMP0 = 0x9E3779B9u, BUMP1 = 0xBB67AE85u;
  Stream stream = {step, tag, {}};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (auto& key : stream.keys) {
    key[0] = k0, key[1] = k1;
    k0 += BUMP0, k1 += BUMP1;
  }
  return stream;
}

// Lanes that multiply every other word keep even and odd ones apart through all rounds: L::Halves, whose upper words are
// never read, so that a product is its own low word and needs no repacking.
template <class L, class = void>
struct has_halves : std::false_type {};
template <class L>
struct has_halves<L, std::void_t<typename L::Halves>> : std::true_type {};

template <class L>
ALPS_FN void philox4x32(typename L::U c[4], const uint32_t (&keys)[ROUNDS][2]) {
  constexpr uint32_t M0 = 0xD2511F53u, M1 = 0xCD9E8D57u;
  if constexpr (has_halves<L>::value) {
    typename L::Halves w[4] = {L::split(c[0]), L::split(c[1]), L::split(c[2]), L::split(c[3])};
    ALPS_UNROLL
    for (int round = 0; round < ROUNDS; ++round) {
      const typename L::Halves p0 = L::product(w[0], M0), p1 = L::product(w[2], M1);
      w[0] = L::mix(L::high(p1), w[1], keys[round][0]);
      w[1] = p1;
      w[2] = L::mix(L::high(p0), w[3], keys[round][1]);
      w[3] = p0;
    }
    ALPS_UNROLL
    for (int i = 0; i < 4; ++i) c[i] = L::join(w[i]);
  } else {
    ALPS_UNROLL
    for (int round = 0; round < ROUNDS; ++round) {
      typename L::U h0, l0, h1, l1;
      L::mul_wide(c[0], M0, h0, l0);
      L::mul_wide(c[2], M1, h1, l1);
      c[0] = h1 ^ c[1] ^ keys[round][0];
      c[1] = l1;
      c[2] = h0 ^ c[3] ^ keys[round][1];
      c[3] = l0;
    }
  }
}

template <class L, int N>
ALPS_FN typename L::F horner(const float (&coefficients)[N], typename L::F x) {
  typename L::F value = L::broadcast(coefficients[0]);
  ALPS_UNROLL
  for (int i = 1; i < N; ++i) value = L::fma(value, x, L::broadcast(coefficients[i]));
  return value;
}

template <class L>
ALPS_FN typename L::F uniform(typename L::U word) {  // in (0, 1]
  return L::fma(L::to_float(word), L::broadcast(0x1p-32f), L::broadcast(0x1p-33f));
}

// (cos, sin)(2 pi angle / 2^32)
template <class L>
ALPS_FN void circle(typename L::U angle, typename L::F& cosine, typename L::F& sine) {
  using U = typename L::U;
  using I = typename L::I;
  using F = typename L::F;
  constexpr float SIN[] = {-1.9515295891e-4f, 8.3321608736e-3f, -1.6666654611e-1f};
  constexpr float COS[] = {2.443315711809948e-5f, -1.388731625493765e-3f, 4.166664568298827e-2f};
  constexpr float TURN = static_cast<float>(6.283185307179586 / 4294967296.0);

  const U quarter = (angle + 0x20000000u) >> 30;  // it is quarter * pi/2 + a, |a| <= pi/4
  const F a = L::to_float((I)(angle - (quarter << 30))) * TURN;
  const F w = a * a;
  const U s = L::bits(L::fma(horner<L>(SIN, w), a * w, a));
  const U c = L::bits(L::fma(horner<L>(COS, w), w * w, L::fma(L::broadcast(-0.5f), w, L::broadcast(1.0f))));
  const U swap = (s ^ c) & (0u - (quarter & 1u));
  cosine = L::from_bits(c ^ swap ^ (((quarter + 1u) & 2u) << 30));
  sine = L::from_bits(s ^ swap ^ ((quarter & 2u) << 30));
}

// (n0, n1) = sqrt(-2 ln u(r0)) (cos, sin)(2 pi r1 / 2^32)
template <class L>
ALPS_FN void box_muller(typename L::U r0, typename L::U r1, typename L::F& n0, typename L::F& n1) {
  using U = typename L::U;
  using I = typename L::I;
  using F = typename L::F;
  constexpr float LOG[] = {7.0376836292e-2f, -1.1514610310e-1f, 1.1676998740e-1f, -1.2420140846e-1f, 1.4249322787e-1f,
                           -1.6668057665e-1f, 2.0000714765e-1f, -2.4999993993e-1f, 3.3333331174e-1f};
  constexpr float LN2 = 0.693147180559945f;

  const U b = L::bits(uniform<L>(r0));
  const I e = (I)(b - 0x3F3504F3u) >> 23;  // u = 2^e (1 + f), 1 + f in [sqrt 1/2, sqrt 2)
  const F f = L::from_bits(b - ((U)e << 23)) - 1.0f;
  const F z = f * f;
  const F log1p = L::fma(f * z, horner<L>(LOG, f), L::fma(L::broadcast(-0.5f), z, f));
  const F radius = L::sqrt(L::fma(L::to_float(e), L::broadcast(LN2), log1p) * -2.0f);

  F cosine, sine;
  circle<L>(r1, cosine, sine);
  n0 = radius * cosine;
  n1 = radius * sine;
}

struct alignas(16) ChainId {  // a row of an op's `ids`, which is read at once
  int64_t counted;  // its index, and in the high 32 bits what is added to the step
  int64_t measurement;  // and bit 31, MIRRORED: minus the numbers of the chain without it
};

constexpr uint32_t MIRRORED = 0x80000000u;  // as a summand of the angles of box_muller half a turn, which changes both signs

template <class L>
struct ChainIds {  // of each lane
  typename L::U index, ahead, measurement;
};

template <class L>
ALPS_FN ChainIds<L> in_all_lanes(const ChainId& id) {
  using U = typename L::U;
  return {U{} + static_cast<uint32_t>(id.counted), U{} + static_cast<uint32_t>(id.counted >> 32),
          U{} + static_cast<uint32_t>(id.measurement)};
}

// The four normals of a quad: elements 4 quad + (0, 1, 2, 3) of the chain's image.
template <class L>
ALPS_FN void normal_quad(const Stream& stream, const ChainIds<L>& ids, typename L::U quad, typename L::F normals[4]) {
  using U = typename L::U;
  U words[4] = {quad, ids.ahead + stream.step, ids.index, (ids.measurement << 8) + stream.tag};
  philox4x32<L>(words, stream.keys);
  const U turn = ids.measurement & MIRRORED;
  box_muller<L>(words[0], words[1] ^ turn, normals[0], normals[1]);
  box_muller<L>(words[2], words[3] ^ turn, normals[2], normals[3]);
}

}  // namespace alps
