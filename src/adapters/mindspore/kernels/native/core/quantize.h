// Rounding of plain weights to packed ones.
//
// Bit for bit what the numpy reference (domain/quantization) does.
#pragma once

#include <atomic>

#include "pool.h"
#include "scales.h"

namespace glm3 {

namespace detail {

// Rounds one input of each channel to a level. With a zero point in double, where the product is exact, so that it
// does not matter whether the compiler fuses it with the sum.
inline Ints round_levels(const Matrix& target, const float* x, const Rounding& rounding) {
  Floats levels;
  if (target.zeros != nullptr) {
    PerChannel<float> rounded;
    for (int c = 0; c < kChannels; ++c) {
      const double level = std::nearbyint(static_cast<double>(x[c]) * rounding.inverse[c] + rounding.middle[c]);
      rounded[c] = static_cast<float>(level < 0.0 ? 0.0 : level > 15.0 ? 15.0 : level);
    }
    levels = load_floats(rounded.of);
  } else {
    const float lowest = target.bits() == 4 ? -8.0f : -127.0f, highest = target.bits() == 4 ? 7.0f : 127.0f;
    for (int p = 0; p < kParts; ++p) {
      const Vec level = nearest(load(x + p * kLanes) * load(rounding.inverse.of + p * kLanes));
      levels.part[p] = clamp(level, lowest, highest) + load(rounding.middle.of + p * kLanes);
    }
  }
  Ints whole;
  for (int p = 0; p < kParts; ++p) whole.part[p] = __builtin_convertvector(levels.part[p], IntVec);
  return whole;
}

// Rounds four inputs of each channel, the first in the lowest byte; inputs from `present` on become `filler`.
inline Ints round_four(const Matrix& target, const float* x, Index present, int filler, const Rounding& rounding) {
  Ints word{};
  for (int j = 0; j < 4; ++j) {
    const Ints levels = j < present ? round_levels(target, x + j * kChannels, rounding) : Ints{};
    for (int p = 0; p < kParts; ++p) word.part[p] |= (j < present ? levels.part[p] : IntVec{} + filler) << 8 * j;
  }
  return word;
}

// Rounds a group `x` (count, channels), of which the first `present` inputs are there, to `levels`.
inline void round_group(const Matrix& target, const float* x, Index count, Index present, const Rounding& rounding,
                        std::uint8_t* levels) {
  const int filler = target.zeros != nullptr ? 0 : target.bits() == 4 ? 8 : 128;
  const auto four = [&](Index i) { return round_four(target, x + i * kChannels, present - i, filler, rounding); };
  const Index step = target.bits() == 4 ? 8 : 4;
  for (Index i = 0; i < count; i += step, levels += kLevelBytes) {
    Ints word = four(i);
    if (step == 8) {
      const Ints upper = four(i + 4);
      for (int p = 0; p < kParts; ++p) word.part[p] |= upper.part[p] << 4;
    }
    std::memcpy(levels, &word, sizeof word);
  }
}

// Brings inputs first to first + count of a block's rows (channels, width) together: (count, channels).
inline void gather_inputs(const float* rows, Index width, Index first, Index count, float* together) {
  for (Index i = 0; i < count; ++i)
    for (int c = 0; c < kChannels; ++c) together[i * kChannels + c] = rows[c * width + first + i];
}

}  // namespace detail

// Rounds `source` (plain, out by in) into `arrays`; returns the first channel that cannot be stored, or -1.
inline Index quantize(const Matrix& source, const Matrix& target, const PackedArrays& arrays) {
  const Index padded = target.padded_in(), count = target.group > 0 ? target.group : padded;
  std::atomic<Index> first_bad{target.out};
  pool_tasks(target.blocks(), target.out * target.in, [&](Index block, int) {
    const Buffer rows(kChannels * padded), together(kChannels * count), whole(kChannels * count);
    std::memset(rows.data(), 0, kChannels * padded * sizeof(float));
    const Index channels = target.out - block * kChannels < kChannels ? target.out - block * kChannels : kChannels;
    for (Index channel = 0; channel < channels; ++channel) {
      const std::int32_t id = static_cast<std::int32_t>(block * kChannels + channel);
      take_rows(source, &id, rows + channel * padded, 1);
    }
    detail::PerChannel<bool> storable;
    for (bool& channel : storable.of) channel = true;
    std::uint8_t* levels = arrays.data + block * target.block_bytes();
    for (Index first = 0, g = 0; first < padded; first += count, ++g) {
      const Index place = (block * target.groups() + g) * kChannels;
      detail::gather_inputs(rows.data(), padded, first, count, together.data());
      const detail::Rounding rounding =
          detail::choose_scales(target, together.data(), count, arrays, place, whole.data(), storable);
      detail::round_group(target, together.data(), count, target.in - first, rounding,
                          levels + first * kChannels * target.bits() / 8);
    }
    for (Index channel = 0; channel < channels; ++channel) {
      const Index bad = block * kChannels + channel;
      if (storable[static_cast<int>(channel)]) continue;
      for (Index seen = first_bad; bad < seen && !first_bad.compare_exchange_weak(seen, bad);) {
      }
    }
  });
  return first_bad < target.out ? first_bad.load() : -1;
}

}  // namespace glm3
