// Inputs rounded to eight bits on the fly, laid out for the products with packed weights.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "matrix.h"
#include "pool.h"
#include "scratch.h"

namespace glm3 {

constexpr Index kTileTokens = 8;  // the most tokens whose inputs lie interleaved

// Rounded inputs of a tile of `tokens` tokens. Four inputs of each token follow each other, then the next four.
// Each step of 32 inputs has a scale, and the sum of its rounded inputs, for each token.
struct InputTile {
  Index tokens;
  const std::int8_t* levels;  // (padded_in / 4, tokens, 4)
  const float* scales;        // (steps, tokens)
  const std::int32_t* sums;   // (steps, tokens)
};

typedef std::int8_t SmallVec __attribute__((vector_size(kLanes)));

class RoundedInputs {
 public:
  // Rounds x (tokens, in), padding inputs with zeros up to `padded_in`, a multiple of 32.
  //
  // The largest of 32 becomes 127. Of inputs that are not finite the scale is NaN, so that it shows.
  void round(const float* x, Index tokens, Index in, Index padded_in) {
    tokens_ = tokens, padded_in_ = padded_in, steps_ = padded_in / kStep;
    std::int8_t* levels = levels_.of(tokens * padded_in);
    float* scales = scales_.of(tokens * steps_);
    std::int32_t* sums = sums_.of(tokens * steps_);
    pool_tasks(ceil_div(tokens, kTileTokens), tokens * in / 4, [&](Index task, int) {
      const Index first = task * kTileTokens, width = tile_width(first);
      for (Index token = 0; token < width; ++token)
        round_token(x + (first + token) * in, in, token, width, levels + first * padded_in_, scales + first * steps_,
                    sums + first * steps_);
    });
  }

  Index tiles() const { return ceil_div(tokens_, kTileTokens); }
  Index tokens() const { return tokens_; }
  Index steps() const { return steps_; }
  InputTile tile(Index tile) {
    const Index first = tile * kTileTokens;
    return {tile_width(first), levels_.of(0) + first * padded_in_, scales_.of(0) + first * steps_,
            sums_.of(0) + first * steps_};
  }

 private:
  Index tile_width(Index first) const { return tokens_ - first < kTileTokens ? tokens_ - first : kTileTokens; }

  void round_token(const float* x, Index in, Index token, Index width, std::int8_t* levels, float* scales,
                   std::int32_t* sums) const {
    for (Index step = 0; step < steps_; ++step) {
      alignas(64) float values[kStep] = {};
      const Index first = step * kStep, count = in - first < kStep ? in - first : kStep;
      if (count > 0) std::memcpy(values, x + first, count * sizeof(float));
      Vec largest_lanes{};
      IntVec nan_lanes{};
      for (Index i = 0; i < kStep; i += kLanes) {
        const Vec value = load(values + i);
        const Vec size = value < Vec{} ? -value : value;
        largest_lanes = max(size, largest_lanes);
        nan_lanes |= (size - size) != Vec{};  // infinity and NaN
      }
      const float largest = max_lanes(largest_lanes);
      const bool finite = max_lanes(__builtin_convertvector(nan_lanes, Vec) * -1.0f) == 0.0f;
      const float inverse = finite && largest > 0.0f ? 127.0f / largest : 0.0f;
      IntVec sum_lanes{};
      std::int8_t rounded[kStep] = {};
      if (!std::isinf(inverse)) {  // it is for denormal inputs: nothing a product would keep
        constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
        for (Index i = 0; i < kStep; i += kLanes) {
          const Vec value = finite ? load(values + i) : Vec{};
          const IntVec level = __builtin_convertvector((value * inverse + kRounder) - kRounder, IntVec);
          const SmallVec bytes = __builtin_convertvector(level, SmallVec);
          std::memcpy(rounded + i, &bytes, sizeof bytes);
          sum_lanes += level;
        }
      }
      std::int32_t sum = 0;
      for (int lane = 0; lane < kLanes; ++lane) sum += sum_lanes[lane];
      scales[step * width + token] = finite ? largest / 127.0f : std::numeric_limits<float>::quiet_NaN();
      sums[step * width + token] = sum;
      for (Index i = 0; i < kStep; i += 4)
        std::memcpy(levels + ((first + i) / 4 * width + token) * 4, rounded + i, 4);
    }
  }

  Index tokens_ = 0, padded_in_ = 0, steps_ = 0;
  Scratch<std::int8_t> levels_;
  Scratch<float> scales_;
  Scratch<std::int32_t> sums_;
};

}  // namespace glm3
