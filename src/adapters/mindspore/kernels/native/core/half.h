// Numbers stored in sixteen bits, float16 and bfloat16, and how they widen and narrow.
#pragma once

#include <cstdint>
#include <cstring>

#include "vec.h"

#if defined(__F16C__) || defined(__AVX512F__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace glm3 {

typedef std::uint16_t ShortVec __attribute__((vector_size(kLanes * sizeof(std::uint16_t))));
typedef std::uint32_t WordVec __attribute__((vector_size(kLanes * sizeof(std::uint32_t))));
typedef std::uint16_t UnalignedShortVec
    __attribute__((vector_size(kLanes * sizeof(std::uint16_t)), aligned(2), may_alias));

// What the bits of a stored number mean; both are carried as uint16.
struct Float16 {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

namespace detail {

// Any float16 is a float32 of 112 less in the exponent; its infinity and NaN are set apart.
inline Vec widen_float16_plainly(ShortVec half) {
  const WordVec wide = __builtin_convertvector(half, WordVec);
  const WordVec sign = (wide & 0x8000u) << 16, rest = wide & 0x7fffu;
  const WordVec finite = reinterpret_cast<WordVec>(reinterpret_cast<Vec>(rest << 13) * 0x1p112f);
  const WordVec special = (rest << 13) | 0x7f800000u;
  return reinterpret_cast<Vec>((rest >= 0x7c00u ? special : finite) | sign);
}

// Rounds to nearest, ties to even; too large becomes infinite.
inline std::uint16_t narrow_to_float16_plainly(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const std::uint32_t sign = bits >> 16 & 0x8000u, rest = bits & 0x7fffffffu;
  if (rest > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (rest >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (rest < 0x38800000u) {  // adding a half rounds at the step of the smallest float16
    float small;
    std::memcpy(&small, &rest, sizeof small);
    small += 0.5f;
    std::uint32_t rounded;
    std::memcpy(&rounded, &small, sizeof rounded);
    return static_cast<std::uint16_t>(sign | (rounded - 0x3f000000u));
  }
  const std::uint32_t rounded = rest + 0xfffu + (rest >> 13 & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

inline ShortVec load_shorts(const std::uint16_t* source) {
  return *reinterpret_cast<const UnalignedShortVec*>(source);
}

}  // namespace detail

inline Vec load(const Float16* source, Full = {}) {
#if defined(__AVX512F__)
  return (Vec)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
#elif defined(__F16C__) && defined(__AVX__)
  return (Vec)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
#elif defined(__aarch64__)
  return (Vec)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&source->bits)));
#else
  return detail::widen_float16_plainly(detail::load_shorts(&source->bits));
#endif
}

inline Vec load(const BFloat16* source, Full = {}) {
  return reinterpret_cast<Vec>(__builtin_convertvector(detail::load_shorts(&source->bits), WordVec) << 16);
}

template <class Half>
inline Vec load(const Half* source, Tail tail) {
  Half padded[kLanes] = {};
  std::memcpy(padded, source, tail.count * sizeof(Half));
  return load(padded);
}

inline void store(Float16* target, Vec value, Full = {}) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__) && defined(__AVX__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(target), _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
  vst1_u16(&target->bits, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)value)));
#else
  for (int lane = 0; lane < kLanes; ++lane) target[lane].bits = detail::narrow_to_float16_plainly(value[lane]);
#endif
}

// Rounds to nearest, ties to even; a NaN stays one.
inline void store(BFloat16* target, Vec value, Full = {}) {
  const WordVec bits = reinterpret_cast<WordVec>(value);
  const WordVec rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  const ShortVec narrow = __builtin_convertvector(value == value ? rounded : bits >> 16 | 0x40u, ShortVec);
  std::memcpy(target, &narrow, sizeof narrow);
}

template <class Half>
inline void store(Half* target, Vec value, Tail tail) {
  Half padded[kLanes];
  store(padded, value);
  std::memcpy(target, padded, tail.count * sizeof(Half));
}

}  // namespace glm3
