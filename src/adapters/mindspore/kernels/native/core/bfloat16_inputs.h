// Inputs rounded to bfloat16 and laid out in tiles, for the products of tiles.
#pragma once

#include <limits>

#include "pool.h"
#include "scratch.h"
#include "tiles.h"

namespace glm3 {

// Tiles lie by chunks of inputs, which products go through one after the other: (chunks, tiles of tokens, steps of the
// chunk, 16 tokens, 32 inputs). A chunk for 512 tokens and what it is multiplied with stay in a core's second cache.
class BFloat16Inputs {
 public:
  static constexpr Index kChunkSteps = 8;  // of 32 inputs; the last chunk may have fewer

  // Rounds x (tokens, in), padding with zeros to whole tiles. What is not finite becomes NaN, so that it shows.
  void round(const float* x, Index tokens, Index in) {
    tokens_ = tokens, steps_ = ceil_div(in, kTileDepth);
    numbers_.of(tiles() * steps_ * kTileSize);
    pool_tasks(tiles(), tokens * in / 4, [&](Index tile, int) {
      for (Index chunk = 0; chunk < chunks(); ++chunk) {
        BFloat16* target = at(chunk, tile);
        for (Index step = 0; step < chunk_steps(chunk); ++step) {
          const Index first = (chunk * kChunkSteps + step) * kTileDepth;
          for (Index row = 0; row < kTileSide; ++row, target += kTileDepth) {
            const Index token = tile * kTileSide + row;
            const Index present = token >= tokens ? 0 : in - first < kTileDepth ? in - first : kTileDepth;
            round_step(x + token * in + first, present, target);
          }
        }
      }
    });
  }

  Index tokens() const { return tokens_; }
  Index tiles() const { return ceil_div(tokens_, kTileSide); }
  Index steps() const { return steps_; }
  Index chunks() const { return ceil_div(steps_, kChunkSteps); }
  Index chunk_steps(Index chunk) const {
    const Index left = steps_ - chunk * kChunkSteps;
    return left < kChunkSteps ? left : kChunkSteps;
  }
  // A tile of tokens over the steps of a chunk; the next tile of tokens begins tile_stride(chunk) numbers behind.
  BFloat16* at(Index chunk, Index tile) {
    return numbers_.of(0) + chunk * kChunkSteps * tiles() * kTileSize + tile * tile_stride(chunk);
  }
  Index tile_stride(Index chunk) const { return chunk_steps(chunk) * kTileSize; }

 private:
  static void round_step(const float* x, Index present, BFloat16* target) {
    std::memset(target, 0, kTileDepth * sizeof(BFloat16));
    for_lanes(present, [&](Index i, auto lanes) {
      const Vec value = load(x + i, lanes);
      store(target + i, value - value == Vec{} ? value : splat(std::numeric_limits<float>::quiet_NaN()), lanes);
    });
  }

  Index tokens_ = 0, steps_ = 0;
  Scratch<BFloat16> numbers_;
};

}  // namespace glm3
