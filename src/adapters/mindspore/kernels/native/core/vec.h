// Vectors of float32 lanes, as wide as the target's registers, and the few operations the kernels need.
//
// GCC and Clang compile these to AVX-512, AVX, NEON or SSE from one source, so that speed does not hang on
// the auto-vectoriser or on -ffast-math, and NaN and infinity keep their meaning.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace glm3 {

using Index = std::int64_t;

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float))));
typedef std::int32_t IntVec __attribute__((vector_size(kLanes * sizeof(std::int32_t))));
typedef float UnalignedVec __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

inline Vec splat(float value) { return value - Vec{}; }  // minus, because -0 + 0 would lose the sign

// How many lanes of a vector are in use: all of them, or the `count` that remain at the end of a row.
struct Full {};
struct Tail {
  Index count;
};

inline Vec load(const float* source, Full = {}) { return *reinterpret_cast<const UnalignedVec*>(source); }
inline void store(float* target, Vec value, Full = {}) { *reinterpret_cast<UnalignedVec*>(target) = value; }

inline Vec load(const float* source, Tail tail) {
  Vec value{};
  std::memcpy(&value, source, tail.count * sizeof(float));
  return value;
}

inline void store(float* target, Vec value, Tail tail) { std::memcpy(target, &value, tail.count * sizeof(float)); }

// Replaces the unused lanes, so that they do not count in a reduction.
inline Vec fill_unused(Vec value, float, Full) { return value; }
inline Vec fill_unused(Vec value, float filler, Tail tail) {
  for (Index lane = tail.count; lane < kLanes; ++lane) value[lane] = filler;
  return value;
}

// Calls body(offset, Full or Tail) for each vector of a row of `size` numbers.
template <class Body>
inline void for_lanes(Index size, Body&& body) {
  Index offset = 0;
  for (; offset + kLanes <= size; offset += kLanes) body(offset, Full{});
  if (offset < size) body(offset, Tail{size - offset});
}

inline Vec max(Vec a, Vec b) { return a > b ? a : b; }  // a NaN in `a` gives b
inline Vec min(Vec a, Vec b) { return a > b ? b : a; }  // a NaN in `a` stays

// Rounds to whole numbers, ties to even. By instructions, because a product is then never fused with the rounding.
inline Vec nearest(Vec value) {
#if defined(__AVX512F__)
  return (Vec)_mm512_roundscale_ps((__m512)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX__)
  return (Vec)_mm256_round_ps((__m256)value, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__aarch64__)
  return (Vec)vrndnq_f32((float32x4_t)value);
#else
  for (int lane = 0; lane < kLanes; ++lane) value[lane] = std::nearbyint(value[lane]);
  return value;
#endif
}

// Combines the upper half of the lanes with the lower until one is left: an order that never changes.
template <int kCount, class Value, class Combine>
inline float fold_lanes(Value value, Combine combine) {
  if constexpr (kCount == 1) {
    return value[0];
  } else {
    typedef float Half __attribute__((vector_size(kCount / 2 * sizeof(float))));
    Half low, high;
    std::memcpy(&low, &value, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&value) + sizeof low, sizeof high);
    return fold_lanes<kCount / 2>(combine(low, high), combine);
  }
}

inline float sum_lanes(Vec value) {
  return fold_lanes<kLanes>(value, [](auto a, auto b) { return a + b; });
}

inline float max_lanes(Vec value) {
  return fold_lanes<kLanes>(value, [](auto a, auto b) { return a > b ? a : b; });
}

// Sums term(offset, Full or Tail) over a row of `size` numbers; unused lanes of a term must be 0.
//
// Two sums in turn, because an addition takes four cycles and two can start in each.
template <class Term>
inline float sum_terms(Index size, Term&& term) {
  Vec even{}, odd{};
  Index offset = 0;
  for (; offset + 2 * kLanes <= size; offset += 2 * kLanes) {
    even += term(offset, Full{});
    odd += term(offset + kLanes, Full{});
  }
  if (offset + kLanes <= size) {
    even += term(offset, Full{});
    offset += kLanes;
  }
  if (offset < size) odd += term(offset, Tail{size - offset});
  return sum_lanes(even + odd);
}

// exp(x) within 1.3 units in the last place; 0 below -87, about 2e38 above 88, NaN for NaN.
//
// x = n ln 2 + r with |r| <= ln 2 / 2: 1 + r + r^2 q(r), scaled by 2^n in the exponent bits. The polynomial q
// has the least relative error of its degree (3e-9, by reweighted least squares).
inline Vec exp(Vec x) {
  constexpr float kLowest = -87.0f, kHighest = 88.0f;
  constexpr float kLog2E = 1.44269504f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec clamped = min(x, splat(kHighest));
  const Vec n = (clamped * kLog2E + kRounder) - kRounder;
  const Vec r = (clamped - n * kLn2High) - n * kLn2Low;
  Vec q = r * 1.38145325e-3f + 8.36874638e-3f;
  q = q * r + 4.16683927e-2f;
  q = q * r + 1.66665211e-1f;
  q = q * r + 4.99999940e-1f;
  const Vec fraction = q * (r * r) + r + 1.0f;
  const IntVec exponent = __builtin_convertvector(n, IntVec) + 127;
  const Vec result = fraction * reinterpret_cast<Vec>(exponent << 23);
  return x < splat(kLowest) ? Vec{} : result;
}

inline Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

}  // namespace glm3
