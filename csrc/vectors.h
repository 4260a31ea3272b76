// Vectors of 4, 8 or 16 numbers in the compiler's own types: the same source serves
// every instruction set. Included by kernels.cpp alone, once per set, so everything is
// in an unnamed namespace: no two sets may share a function.
#pragma once

#include <stdint.h>
#include <string.h>

namespace {

template <int L>
struct VectorOf {
  typedef float Float __attribute__((vector_size(L * 4)));
  typedef uint32_t Bits __attribute__((vector_size(L * 4)));
  typedef uint16_t Half __attribute__((vector_size(L * 2)));
};
template <int L>
using Vector = typename VectorOf<L>::Float;

#define INLINE [[gnu::always_inline]] inline
#define INLINE_LAMBDA __attribute__((always_inline))

// Calls body(k) for k = 0 ... N - 1, each a constant: a loop that is certainly
// unrolled, so that arrays of vectors stay in registers.
template <int K>
struct Constant {
  static constexpr int value = K;
};
template <int N, int K = 0, class Body>
INLINE void unroll(Body &&body) {
  if constexpr (K < N) {
    body(Constant<K>{});
    unroll<N, K + 1>(body);
  }
}

// Memory needs no alignment.
template <int L>
INLINE Vector<L> load(const float *from) {
  Vector<L> v;
  memcpy(&v, from, sizeof v);
  return v;
}

// bfloat16 is the upper half of a float32.
template <int L>
INLINE Vector<L> load(const uint16_t *from) {
  typename VectorOf<L>::Half half;
  memcpy(&half, from, sizeof half);
  const auto bits = __builtin_convertvector(half, typename VectorOf<L>::Bits) << 16;
  return (Vector<L>)bits;
}

template <int L>
INLINE void store(float *to, Vector<L> v) {
  memcpy(to, &v, sizeof v);
}

// Rounds to nearest, ties to even; a NaN stays one.
template <int L>
INLINE void store(uint16_t *to, Vector<L> v) {
  typedef typename VectorOf<L>::Bits Bits;
  const Bits bits = (Bits)v;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Bits nan = (bits >> 16) | 0x40;
  const auto half =
      __builtin_convertvector(v == v ? rounded : nan, typename VectorOf<L>::Half);
  memcpy(to, &half, sizeof half);
}

INLINE float load_one(const float *from) { return *from; }
INLINE float load_one(const uint16_t *from) {
  const uint32_t bits = uint32_t(*from) << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
INLINE void store_one(float *to, float value) { *to = value; }
INLINE void store_one(uint16_t *to, float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  const uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  *to = uint16_t(value == value ? rounded : (bits >> 16) | 0x40);
}

template <int L>
INLINE Vector<L> broadcast(float value) {
  return value - Vector<L>{};  // unlike a sum with zero, needs no instruction
}

// Transposes a square of L x L numbers: 4 x 4 squares first, whose 128-bit parts then
// move to their place.
INLINE void transpose(Vector<4> (&v)[4]) {
  const auto a = __builtin_shufflevector(v[0], v[1], 0, 4, 1, 5);
  const auto b = __builtin_shufflevector(v[0], v[1], 2, 6, 3, 7);
  const auto c = __builtin_shufflevector(v[2], v[3], 0, 4, 1, 5);
  const auto d = __builtin_shufflevector(v[2], v[3], 2, 6, 3, 7);
  v[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
  v[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
  v[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
  v[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
}

#if LANES >= 8
INLINE void transpose(Vector<8> (&v)[8]) {
  Vector<8> t[8];
  for (int i = 0; i < 8; i += 4) {
    const auto a = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
    const auto b = __builtin_shufflevector(v[i], v[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    const auto c =
        __builtin_shufflevector(v[i + 2], v[i + 3], 0, 8, 1, 9, 4, 12, 5, 13);
    const auto d =
        __builtin_shufflevector(v[i + 2], v[i + 3], 2, 10, 3, 11, 6, 14, 7, 15);
    t[i] = __builtin_shufflevector(a, c, 0, 1, 8, 9, 4, 5, 12, 13);
    t[i + 1] = __builtin_shufflevector(a, c, 2, 3, 10, 11, 6, 7, 14, 15);
    t[i + 2] = __builtin_shufflevector(b, d, 0, 1, 8, 9, 4, 5, 12, 13);
    t[i + 3] = __builtin_shufflevector(b, d, 2, 3, 10, 11, 6, 7, 14, 15);
  }
  for (int i = 0; i < 4; ++i) {
    v[i] = __builtin_shufflevector(t[i], t[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    v[i + 4] = __builtin_shufflevector(t[i], t[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
}
#endif

#if LANES >= 16
// Parts 0, 2 (or 1, 3) of a, then those of b.
#define EVEN_PARTS(a, b)                                                              \
  __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, \
                          27)
#define ODD_PARTS(a, b)                                                             \
  __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, \
                          30, 31)
INLINE void transpose(Vector<16> (&v)[16]) {
  Vector<16> t[16];
  for (int i = 0; i < 16; i += 4) {
#define LOW(p, q)                                                                     \
  __builtin_shufflevector(p, q, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, \
                          29)
#define HIGH(p, q)                                                                  \
  __builtin_shufflevector(p, q, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, \
                          15, 31)
#define LOW_PAIRS(p, q)                                                               \
  __builtin_shufflevector(p, q, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, \
                          29)
#define HIGH_PAIRS(p, q)                                                            \
  __builtin_shufflevector(p, q, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, \
                          30, 31)
    const auto a = LOW(v[i], v[i + 1]), b = HIGH(v[i], v[i + 1]);
    const auto c = LOW(v[i + 2], v[i + 3]), d = HIGH(v[i + 2], v[i + 3]);
    t[i] = LOW_PAIRS(a, c);
    t[i + 1] = HIGH_PAIRS(a, c);
    t[i + 2] = LOW_PAIRS(b, d);
    t[i + 3] = HIGH_PAIRS(b, d);
#undef LOW
#undef HIGH
#undef LOW_PAIRS
#undef HIGH_PAIRS
  }
  for (int i = 0; i < 4; ++i) {
    const auto a = EVEN_PARTS(t[i], t[i + 4]), b = ODD_PARTS(t[i], t[i + 4]);
    const auto c = EVEN_PARTS(t[i + 8], t[i + 12]), d = ODD_PARTS(t[i + 8], t[i + 12]);
    v[i] = EVEN_PARTS(a, c);
    v[i + 4] = EVEN_PARTS(b, d);
    v[i + 8] = ODD_PARTS(a, c);
    v[i + 12] = ODD_PARTS(b, d);
  }
}
#undef EVEN_PARTS
#undef ODD_PARTS
#endif

}  // namespace
