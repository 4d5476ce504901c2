// The scales and the zero points of weights that are rounded, a group of all channels of a row block at a time.
//
// Bit for bit what the numpy reference (domain/quantization/scales) chooses, where the search is explained: sums
// are of whole numbers below 2^24, exact in any order, and no product is added to anything it could be fused with.
#pragma once

#include <cmath>

#include "matrix.h"

namespace glm3 {

// Where a packed weight goes; `target` describes it, these are its arrays.
struct PackedArrays {
  std::uint8_t* data;
  void* scales;
  std::uint8_t* zeros;
};

namespace detail {

// One number for each channel of a row block.
template <class Number>
struct alignas(64) PerChannel {
  Number of[kChannels];
  Number& operator[](int channel) { return of[channel]; }
  const Number& operator[](int channel) const { return of[channel]; }
};

constexpr float kDivisors[] = {7.25f, 7.625f, 8.0f, 8.375f, 8.75f, 9.25f, 9.75f, 10.5f};
constexpr float kWidths[] = {0.75f, 0.8125f, 0.875f, 0.9375f, 1.0f};
constexpr float kShifts[] = {-4.0f, 0.0f, 4.0f};
constexpr float kZeroSteps = 16.0f, kHighestZero = 240.0f, kFixedPoint = 8192.0f;
constexpr Index kExactTerms = 128;  // so many products of a level and a whole number have an exact sum

// The numbers of one group, `x` (count, channels), and what is known of them.
struct Group {
  const float* x;
  Index count;
  PerChannel<float> low, high, unit;  // `unit` brings the largest to kFixedPoint
  PerChannel<bool> finite;
};

// What the rounding of a group goes by; `middle` is the level that stands for 0.
struct Rounding {
  PerChannel<float> inverse, middle;
};

// The best scale so far, and how much of the squared numbers it explains.
struct Best {
  PerChannel<double> score, scale;
  PerChannel<float> zero;
};

inline Vec clamp(Vec value, float lowest, float highest) { return min(max(value, splat(lowest)), splat(highest)); }

inline float clipped_zero(float zero) { return zero < 0.0f ? 0.0f : zero > kHighestZero ? kHighestZero : zero; }

inline float inverse_of(float scale) { return scale == 0.0f ? 0.0f : 1.0f / scale; }

inline Group group_of(const float* x, Index count) {
  Group group{x, count, {}, {}, {}, {}};
  for (int p = 0; p < kParts; ++p) {
    Vec low = load(x + p * kLanes), high = low, nothing{};
    for (Index i = 0; i < count; ++i) {
      const Vec value = load(x + i * kChannels + p * kLanes);
      low = value < low ? value : low;
      high = value > high ? value : high;
      nothing += value - value;  // NaN for what is not finite
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      const int channel = p * kLanes + lane;
      group.low[channel] = low[lane];
      group.high[channel] = high[lane];
      group.finite[channel] = nothing[lane] == 0.0f;
      group.unit[channel] = kFixedPoint / (-low[lane] > high[lane] ? -low[lane] : high[lane]);
    }
  }
  return group;
}

// Rounds scales as they are stored, from `place` on.
inline PerChannel<float> store_scales(const Matrix& target, const PerChannel<float>& scales, void* stored, Index place) {
  PerChannel<float> rounded = scales;
  for (int p = 0; p < kParts; ++p) {
    if (target.group == 0) {
      store(static_cast<float*>(stored) + place + p * kLanes, load(scales.of + p * kLanes));
    } else {
      Float16* half = static_cast<Float16*>(stored) + place + p * kLanes;
      store(half, load(scales.of + p * kLanes));
      store(rounded.of + p * kLanes, load(half));
    }
  }
  return rounded;
}

// Keeps, channel by channel, the better of what is known and a rounding with these sums of levels.
inline void keep_better(const PerChannel<double>& products, const PerChannel<double>& squares,
                        const PerChannel<float>& zero, double factor, Best& best) {
  for (int c = 0; c < kChannels; ++c) {
    const double scale = squares[c] > 0.0 ? products[c] / squares[c] : 0.0, score = scale * products[c];
    const bool better = score > best.score[c];
    best.score[c] = better ? score : best.score[c];
    best.scale[c] = better ? factor * scale : best.scale[c];
    best.zero[c] = better ? zero[c] : best.zero[c];
  }
}

inline void try_symmetric(const Group& group, const float* whole, const PerChannel<float>& inverse, Best& best) {
  PerChannel<double> products{}, squares{};
  for (int p = 0; p < kParts; ++p) {
    const Vec factor = load(inverse.of + p * kLanes);
    for (Index first = 0; first < group.count; first += kExactTerms) {
      const Index end = first + kExactTerms < group.count ? first + kExactTerms : group.count;
      Vec some_products{}, some_squares{};
      for (Index i = first; i < end; ++i) {
        const Index place = i * kChannels + p * kLanes;
        const Vec level = clamp(nearest(load(group.x + place) * factor), -8.0f, 7.0f);
        some_products += level * load(whole + place);
        some_squares += level * level;
      }
      for (int lane = 0; lane < kLanes; ++lane) {
        products[p * kLanes + lane] += some_products[lane];
        squares[p * kLanes + lane] += some_squares[lane];
      }
    }
  }
  keep_better(products, squares, {}, 1.0, best);
}

inline void try_with_zero(const Group& group, const float* whole, const PerChannel<float>& inverse,
                          const PerChannel<float>& zero, Best& best) {
  PerChannel<double> products, squares;
  for (int p = 0; p < kParts; ++p) {
    const Vec factor = load(inverse.of + p * kLanes) * kZeroSteps, middle = load(zero.of + p * kLanes);
    Vec level_products{}, level_squares{}, levels{}, numbers{};
    for (Index i = 0; i < group.count; ++i) {
      const Index place = i * kChannels + p * kLanes;
      const Vec sixteenths = nearest(load(group.x + place) * factor) + middle, number = load(whole + place);
      const Vec level = clamp(nearest(sixteenths * (1.0f / kZeroSteps)), 0.0f, 15.0f);
      level_products += level * number;
      level_squares += level * level;
      levels += level;
      numbers += number;
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      const int channel = p * kLanes + lane;
      const double steps = kZeroSteps, z = zero[channel];
      products[channel] = steps * level_products[lane] - z * numbers[lane];
      squares[channel] = steps * steps * level_squares[lane] - 2.0 * steps * z * levels[lane] + group.count * z * z;
    }
  }
  keep_better(products, squares, zero, kZeroSteps, best);
}

// Tries the scales of a group; `whole` receives its numbers in fixed point.
inline Best best_scales(const Matrix& target, const Group& group, float* whole) {
  for (Index i = 0; i < group.count; ++i)
    for (int p = 0; p < kParts; ++p) {
      const Index place = i * kChannels + p * kLanes;
      store(whole + place, nearest(load(group.x + place) * load(group.unit.of + p * kLanes)));
    }
  Best best{{}, {}, {}};
  for (int c = 0; c < kChannels; ++c) best.score[c] = -1.0;
  PerChannel<float> inverse, zero;
  if (target.zeros == nullptr) {
    for (const float divisor : kDivisors) {
      for (int c = 0; c < kChannels; ++c)
        inverse[c] = -divisor / (-group.low[c] >= group.high[c] ? group.low[c] : group.high[c]);
      try_symmetric(group, whole, inverse, best);
    }
    return best;
  }
  for (const float width : kWidths)
    for (const float shift : kShifts) {
      for (int c = 0; c < kChannels; ++c) {
        const float step = (group.high[c] - group.low[c]) / 15.0f, middle = (group.high[c] + group.low[c]) * 0.5f;
        inverse[c] = 1.0f / (step * width);
        zero[c] = clipped_zero(std::nearbyint(middle * (inverse[c] * -kZeroSteps)) + (kHighestZero / 2.0f + shift));
      }
      try_with_zero(group, whole, inverse, zero, best);
    }
  return best;
}

// Chooses and stores scales and zero points of group `g` of a row block, `x` (count, channels). `storable` becomes
// false where a number or the scale that covers the group is not finite; `whole` is room for as many numbers.
inline Rounding choose_scales(const Matrix& target, const float* x, Index count, const PackedArrays& arrays,
                              Index place, float* whole, PerChannel<bool>& storable) {
  Group group = group_of(x, count);
  const bool small = target.bits() == 4, shifted = target.zeros != nullptr;
  PerChannel<float> covering;
  for (int c = 0; c < kChannels; ++c) {
    float &low = group.low[c], &high = group.high[c];
    if (shifted) {
      low = low < 0.0f ? low : 0.0f;
      high = high > 0.0f ? high : 0.0f;
      covering[c] = (high - low) / 15.0f;
    } else if (small) {
      covering[c] = (-low >= high ? low : high) / -8.0f;
    } else {
      covering[c] = (-low > high ? -low : high) / 127.0f;
    }
  }
  PerChannel<float> scales = store_scales(target, covering, arrays.scales, place), zero{};
  for (int c = 0; c < kChannels; ++c) {
    storable[c] &= group.finite[c] && std::isfinite(scales[c]);
    if (shifted) zero[c] = clipped_zero(std::nearbyint(-group.low[c] * inverse_of(scales[c]) * kZeroSteps));
  }
  if (small) {
    const Best best = best_scales(target, group, whole);
    PerChannel<float> searched;
    for (int c = 0; c < kChannels; ++c) searched[c] = static_cast<float>(best.scale[c] / group.unit[c]);
    const PerChannel<float> stored = store_scales(target, searched, arrays.scales, place);
    for (int c = 0; c < kChannels; ++c) {
      const bool usable = std::isfinite(group.unit[c]) && std::isfinite(scales[c]) && std::isfinite(stored[c]);
      if (usable && stored[c] != 0.0f) {
        covering[c] = searched[c];
        zero[c] = best.zero[c];
      }
    }
    scales = store_scales(target, covering, arrays.scales, place);
  }
  Rounding rounding;
  for (int c = 0; c < kChannels; ++c) {
    rounding.inverse[c] = inverse_of(scales[c]);
    rounding.middle[c] = shifted ? zero[c] / kZeroSteps : small ? 8.0f : 128.0f;
    if (shifted) arrays.zeros[place + c] = static_cast<std::uint8_t>(zero[c]);
  }
  return rounding;
}

}  // namespace detail

}  // namespace glm3
