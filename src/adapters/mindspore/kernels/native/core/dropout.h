// Numbers set to zero at random, where the place and a key alone decide which.
#pragma once

#include <cstdint>

#include "parallel.h"

namespace glm3 {

// C. Wellons' 32-bit finaliser ("lowbias32"), with the key between its first and its second round.
inline std::uint32_t mixed_place(std::uint32_t place, std::uint32_t key) {
  std::uint32_t bits = (place ^ (place >> 16)) * 0x7FEB352Du;
  bits ^= key;
  bits = (bits ^ (bits >> 16)) * 0x7FEB352Du;
  return (bits ^ (bits >> 15)) * 0x846CA68Bu;
}

// y = x * scale where the hash, cut to 24 bits, is at least `threshold`, else x * 0; x, y (size).
//
// Of a gradient it is its own backward pass: no mask is kept. NaN and infinity stay visible.
inline void dropout(const float* x, std::uint32_t key, float threshold, float scale, float* y, Index size) {
  parallel_ranges(size, kParallelWork, 4 * size, [=](Index, Index begin, Index end) {
    const float* from = x + begin;
    float* to = y + begin;
    const auto first = static_cast<std::uint32_t>(begin);
    const auto count = static_cast<std::int32_t>(end - begin);
#pragma omp simd
    for (std::int32_t i = 0; i < count; ++i) {
      const std::uint32_t bits = mixed_place(first + static_cast<std::uint32_t>(i), key) >> 8;
      const auto uniform = static_cast<float>(static_cast<std::int32_t>(bits));  // exact: 24 bits
      to[i] = from[i] * (uniform >= threshold ? scale : 0.0f);
    }
  });
}

}  // namespace glm3
