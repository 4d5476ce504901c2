// Rounding of plain weights to packed ones, with the scale that just covers each group.
//
// Bit for bit what the numpy reference (domain/quantization) does: the same float32 operations in the same order.
#pragma once

#include <atomic>
#include <cmath>
#include <memory>

#include "matrix.h"
#include "pool.h"

namespace glm3 {

// Where a packed weight goes; `target` describes it, these are its arrays.
struct PackedArrays {
  std::uint8_t* data;
  void* scales;
  std::uint8_t* zeros;
};

namespace detail {

inline float round_scale(const Matrix& target, float step, void* scales, Index place) {
  if (target.group == 0) return static_cast<float*>(scales)[place] = step;
  Float16* half = static_cast<Float16*>(scales) + place;
  store(half, splat(step), Tail{1});
  return load(half, Tail{1})[0];
}

struct Rounding {
  float inverse, middle;
};

// Chooses scale and zero point of one group of a channel; the scale is not finite where it cannot be stored.
inline Rounding choose_scale(const Matrix& target, const float* x, Index count, const PackedArrays& arrays, Index place,
                             bool& storable) {
  float low = x[0], high = x[0];
  bool finite = std::isfinite(x[0]);
  for (Index i = 1; i < count; ++i) {
    low = x[i] < low ? x[i] : low;
    high = x[i] > high ? x[i] : high;
    finite &= std::isfinite(x[i]);
  }
  const bool small = target.bits() == 4;
  float step;
  if (target.zeros != nullptr) {
    low = low < 0.0f ? low : 0.0f;
    high = high > 0.0f ? high : 0.0f;
    step = (high - low) / 15.0f;
  } else if (small) {
    step = (-low >= high ? low : high) / -8.0f;
  } else {
    step = (-low > high ? -low : high) / 127.0f;
  }
  const float scale = round_scale(target, step, arrays.scales, place);
  storable &= finite && std::isfinite(scale);
  const float inverse = scale == 0.0f ? 0.0f : 1.0f / scale;
  if (target.zeros == nullptr) return {inverse, small ? 8.0f : 128.0f};
  float zero = std::nearbyint((-low * inverse) * 16.0f);
  zero = zero < 0.0f ? 0.0f : zero > 240.0f ? 240.0f : zero;
  arrays.zeros[place] = static_cast<std::uint8_t>(zero);
  return {inverse, zero / 16.0f};
}

// Rounds `count` numbers to levels. With a zero point in double, where the product is exact, so that it does not
// matter whether the compiler fuses it with the sum.
inline void round_levels(const Matrix& target, const float* x, Index count, const Rounding& rounding,
                         std::uint8_t* levels) {
  if (target.zeros != nullptr) {
    for (Index i = 0; i < count; ++i) {
      const double level = std::nearbyint(static_cast<double>(x[i]) * rounding.inverse + rounding.middle);
      levels[i] = static_cast<std::uint8_t>(level < 0.0 ? 0.0 : level > 15.0 ? 15.0 : level);
    }
    return;
  }
  const float lowest = target.bits() == 4 ? -8.0f : -127.0f, highest = target.bits() == 4 ? 7.0f : 127.0f;
  for (Index i = 0; i < count; ++i) {
    const float level = std::nearbyint(x[i] * rounding.inverse);
    levels[i] = static_cast<std::uint8_t>((level < lowest ? lowest : level > highest ? highest : level) + rounding.middle);
  }
}

inline void put_level(const Matrix& target, std::uint8_t* block, Index channel, Index input, std::uint8_t level) {
  if (target.storage == kInt8) {
    block[input / 4 * kLevelBytes + 4 * channel + input % 4] = level;
  } else {
    block[input / 8 * kLevelBytes + 4 * channel + input % 4] |= static_cast<std::uint8_t>(level << (input % 8 / 4 * 4));
  }
}

}  // namespace detail

// Rounds `source` (plain, out by in) into `arrays`; returns the first channel that cannot be stored, or -1.
inline Index quantize(const Matrix& source, const Matrix& target, const PackedArrays& arrays) {
  const Index padded = target.padded_in(), group = target.group > 0 ? target.group : padded;
  const std::uint8_t filler = target.zeros != nullptr ? 0 : target.bits() == 4 ? 8 : 128;
  std::atomic<Index> first_bad{target.out};
  pool_tasks(target.blocks(), target.out * target.in, [&](Index block, int) {
    std::uint8_t* levels = arrays.data + block * target.block_bytes();
    std::memset(levels, 0, target.block_bytes());
    const Buffer row(padded);
    const auto rounded = std::make_unique<std::uint8_t[]>(group);
    for (Index channel = 0; channel < kChannels; ++channel) {
      const Index place = block * kChannels + channel;
      bool storable = true;
      std::memset(row.data(), 0, padded * sizeof(float));
      if (place < target.out) {
        const std::int32_t id = static_cast<std::int32_t>(place);
        take_rows(source, &id, row.data(), 1);
      }
      for (Index first = 0, g = 0; first < padded; first += group, ++g) {
        const Index scale_place = (block * target.groups() + g) * kChannels + channel;
        const detail::Rounding rounding =
            detail::choose_scale(target, row + first, group, arrays, scale_place, storable);
        detail::round_levels(target, row + first, group, rounding, rounded.get());
        for (Index i = 0; i < group; ++i) {
          const bool present = place < target.out && first + i < target.in;
          detail::put_level(target, levels, channel, first + i, present ? rounded[i] : filler);
        }
      }
      if (!storable)
        for (Index seen = first_bad; place < seen && !first_bad.compare_exchange_weak(seen, place);) {
        }
    }
  });
  return first_bad < target.out ? first_bad.load() : -1;
}

}  // namespace glm3
