// Dot products of small integers, four to a lane, for sixteen output channels at once.
//
// A vector holds four levels of each channel (see the layout of packed weights); a step multiplies them with
// four inputs that all channels share. Levels of four bits are 0..15 everywhere. Levels of eight bits are
// 0..255 where the processor multiplies unsigned by signed bytes, and first become -128..127 elsewhere.
#pragma once

#include <cstdint>
#include <cstring>

#include "vec.h"

#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace glm3 {

constexpr int kChannels = 16;               // of a row block
constexpr int kParts = kChannels / kLanes;  // registers that hold one number for each channel

typedef std::uint8_t ByteVec __attribute__((vector_size(kLanes * 4)));
typedef std::uint8_t UnalignedByteVec __attribute__((vector_size(kLanes * 4), aligned(1), may_alias));
typedef std::uint16_t PairVec __attribute__((vector_size(kLanes * 4)));

// A number for each channel; levels: four for each.
struct Floats {
  Vec part[kParts];
};
struct Ints {
  IntVec part[kParts];
};
struct LevelVec {
  ByteVec part[kParts];
};

constexpr int kLevelBytes = 4 * kChannels;

inline LevelVec load_levels(const std::uint8_t* source) {
  LevelVec levels;
  for (int p = 0; p < kParts; ++p)
    levels.part[p] = *reinterpret_cast<const UnalignedByteVec*>(source + p * 4 * kLanes);
  return levels;
}

inline void store_levels(std::uint8_t* target, LevelVec levels) {
  for (int p = 0; p < kParts; ++p) *reinterpret_cast<UnalignedByteVec*>(target + p * 4 * kLanes) = levels.part[p];
}

inline LevelVec low_halves(LevelVec levels) {
  for (int p = 0; p < kParts; ++p) levels.part[p] &= 15;
  return levels;
}

inline LevelVec high_halves(LevelVec levels) {
  for (int p = 0; p < kParts; ++p)
    levels.part[p] = reinterpret_cast<ByteVec>(reinterpret_cast<PairVec>(levels.part[p]) >> 4) & 15;
  return levels;
}

inline Ints splat_ints(std::int32_t value) {
  Ints ints;
  for (int p = 0; p < kParts; ++p) ints.part[p] = IntVec{} + value;
  return ints;
}

inline Floats load_floats(const float* source) {
  Floats floats;
  for (int p = 0; p < kParts; ++p) floats.part[p] = load(source + p * kLanes);
  return floats;
}

inline void store_floats(float* target, Floats floats) {
  for (int p = 0; p < kParts; ++p) store(target + p * kLanes, floats.part[p]);
}

inline Floats to_floats(Ints ints) {
  Floats floats;
  for (int p = 0; p < kParts; ++p) floats.part[p] = __builtin_convertvector(ints.part[p], Vec);
  return floats;
}

namespace detail {

#if defined(__AVX512VNNI__)

constexpr bool kUnsignedLevels = true;
constexpr const char* kDotName = "AVX-512 VNNI";
inline IntVec dot(IntVec sum, ByteVec levels, std::int32_t inputs) {
  return (IntVec)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)levels, _mm512_set1_epi32(inputs));
}
inline IntVec dot_small(IntVec sum, ByteVec levels, std::int32_t inputs) { return dot(sum, levels, inputs); }

#elif defined(__AVX512BW__)

constexpr bool kUnsignedLevels = false;
constexpr const char* kDotName = "AVX-512";
inline IntVec add_pairs(IntVec sum, __m512i products) {
  return sum + (IntVec)_mm512_madd_epi16(products, _mm512_set1_epi16(1));
}
inline IntVec dot_small(IntVec sum, ByteVec levels, std::int32_t inputs) {
  return add_pairs(sum, _mm512_maddubs_epi16((__m512i)levels, _mm512_set1_epi32(inputs)));
}
inline IntVec dot(IntVec sum, ByteVec levels, std::int32_t inputs) {
  const __m512i x = _mm512_set1_epi32(inputs), w = (__m512i)levels;
  const __m512i signed_x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
  return add_pairs(sum, _mm512_maddubs_epi16(_mm512_abs_epi8(w), signed_x));
}

#elif defined(__AVXVNNI__)

constexpr bool kUnsignedLevels = true;
constexpr const char* kDotName = "AVX VNNI";
inline IntVec dot(IntVec sum, ByteVec levels, std::int32_t inputs) {
  return (IntVec)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)levels, _mm256_set1_epi32(inputs));
}
inline IntVec dot_small(IntVec sum, ByteVec levels, std::int32_t inputs) { return dot(sum, levels, inputs); }

#elif defined(__AVX2__)

constexpr bool kUnsignedLevels = false;
constexpr const char* kDotName = "AVX2";
inline IntVec add_pairs(IntVec sum, __m256i products) {
  return sum + (IntVec)_mm256_madd_epi16(products, _mm256_set1_epi16(1));
}
inline IntVec dot_small(IntVec sum, ByteVec levels, std::int32_t inputs) {
  return add_pairs(sum, _mm256_maddubs_epi16((__m256i)levels, _mm256_set1_epi32(inputs)));
}
inline IntVec dot(IntVec sum, ByteVec levels, std::int32_t inputs) {
  const __m256i x = _mm256_set1_epi32(inputs), w = (__m256i)levels;
  return add_pairs(sum, _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)));
}

#elif defined(__ARM_FEATURE_DOTPROD)

constexpr bool kUnsignedLevels = false;
constexpr const char* kDotName = "NEON dot product";
inline IntVec dot(IntVec sum, ByteVec levels, std::int32_t inputs) {
  const int8x16_t x = vreinterpretq_s8_s32(vdupq_n_s32(inputs));
  return (IntVec)vdotq_s32((int32x4_t)sum, (int8x16_t)levels, x);
}
inline IntVec dot_small(IntVec sum, ByteVec levels, std::int32_t inputs) { return dot(sum, levels, inputs); }

#else

constexpr bool kUnsignedLevels = false;
constexpr const char* kDotName = "plain C++";
inline IntVec dot(IntVec sum, ByteVec levels, std::int32_t inputs) {
  const IntVec lanes = reinterpret_cast<IntVec>(levels);
  for (int j = 0; j < 4; ++j) {  // shifts up and down extend the sign of byte j
    const std::int32_t input = static_cast<std::int8_t>(inputs >> (8 * j));
    sum += ((lanes << (24 - 8 * j)) >> 24) * input;
  }
  return sum;
}
inline IntVec dot_small(IntVec sum, ByteVec levels, std::int32_t inputs) { return dot(sum, levels, inputs); }

#endif

}  // namespace detail

// What the dot product takes for a level that stands for 0; times the sum of the inputs it is too much.
template <int kBits>
constexpr int middle_level() {
  return kBits == 4 ? 8 : detail::kUnsignedLevels ? 128 : 0;
}

// Makes stored eight-bit levels what dot() takes.
inline LevelVec prepare_levels(LevelVec levels) {
  if constexpr (!detail::kUnsignedLevels)
    for (int p = 0; p < kParts; ++p) levels.part[p] ^= 0x80;
  return levels;
}

// Adds the products of four levels of each channel with the four signed bytes of `inputs`.
template <int kBits>
inline void add_dot(Ints& sums, const LevelVec& levels, std::int32_t inputs) {
  for (int p = 0; p < kParts; ++p)
    sums.part[p] = kBits == 4 ? detail::dot_small(sums.part[p], levels.part[p], inputs)
                              : detail::dot(sums.part[p], levels.part[p], inputs);
}

}  // namespace glm3
