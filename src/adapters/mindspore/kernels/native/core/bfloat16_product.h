// Products of many tokens with packed weights, through tiles of bfloat16 numbers.
//
// Inputs are rounded to bfloat16, within a 512th of each (eight bits in steps of 32: a 254th of the step's largest),
// and so is what a level is worth; sums are float32, over the inputs from first to last, so that a token's result
// does not depend on how many others are computed beside it.
#pragma once

#include "bfloat16_inputs.h"
#include "packed_product.h"

namespace glm3 {

// The tokens for which widening the weights pays: with 24, products of integers still took a core 13.4 ms of its time
// and tiles 13.9, with 32 15.8 and 14.1 (dense_h_to_4h).
constexpr Index kFewestTiled = 25;

inline bool goes_in_tiles(Index tokens) { return tokens >= kFewestTiled && Tiles::available(); }

namespace detail {

constexpr Index kTiledTokens = 512;  // multiplied with weights before the next are, so that they stay in the cache
constexpr Index kMostPairs = 8;      // of row blocks in a task: inputs are read once for all of them
constexpr Index kTiledWeights = BFloat16Inputs::kChunkSteps * 2 * kTileSize;  // numbers of a pair's weights in a chunk

// What a level stands for: level * scale + offset.
struct Worth {
  Floats scale, offset;
};

// No scale is a NaN that rounding to bfloat16 could turn into a number.
template <int kBits, bool kZeros>
inline Worth group_worth(const Matrix& m, Index block, Index group) {
  Worth worth{group_scale(m, block, group), {}};
  Floats zero{};
  if constexpr (kZeros) zero = group_zero(m, block, group);
  for (int p = 0; p < kParts; ++p) {
    Vec& scale = worth.scale.part[p];
    scale = scale == scale ? scale : splat(std::numeric_limits<float>::quiet_NaN());
    worth.offset.part[p] = -scale * (kZeros ? zero.part[p] : splat(kBits == 4 ? 8.0f : 128.0f));
  }
  return worth;
}

// Two numbers of each channel side by side in bfloat16, to nearest, ties away from zero.
inline Ints pair_up(const Floats& first, const Floats& second) {
  Ints pairs;
  for (int p = 0; p < kParts; ++p) {
    const WordVec low = (reinterpret_cast<WordVec>(first.part[p]) + 0x8000u) >> 16;
    const WordVec high = (reinterpret_cast<WordVec>(second.part[p]) + 0x8000u) & 0xffff0000u;
    pairs.part[p] = reinterpret_cast<IntVec>(low | high);
  }
  return pairs;
}

// Widens a vector of levels to rows of a tile of weights: 8 inputs of each channel to 4 rows, or 4 to 2.
template <int kBits>
inline void widen_vector(const std::uint8_t* levels, const Worth& worth, BFloat16* rows) {
  const LevelVec vector = load_levels(levels);
  const auto number = [&](int input) {
    const int shift = kBits == 4 ? input % 4 * 8 + input / 4 * 4 : input * 8;
    Floats numbers;
    for (int p = 0; p < kParts; ++p) {
      const WordVec level = reinterpret_cast<WordVec>(vector.part[p]) >> shift & ((1u << kBits) - 1);
      const Vec wide = __builtin_convertvector(reinterpret_cast<IntVec>(level), Vec);
      numbers.part[p] = wide * worth.scale.part[p] + worth.offset.part[p];
    }
    return numbers;
  };
#pragma GCC unroll 4
  for (int input = 0; input < 32 / kBits; input += 2) {
    const Ints pairs = pair_up(number(input), number(input + 1));
    std::memcpy(rows + input / 2 * kTileDepth, &pairs, sizeof pairs);
  }
}

// Widens the weights of a pair of row blocks over the steps of a chunk, (steps, 2) tiles, a little at a time: the
// processor does it while it multiplies others. A block past the end repeats the last one.
template <int kBits, bool kZeros>
class Widener {
 public:
  explicit Widener(const Matrix& m) : m_(m), steps_per_group_((m.group > 0 ? m.group : m.padded_in()) / kStep) {}

  void begin(Index pair, Index first_step, Index steps, BFloat16* tiles) {
    first_block_ = 2 * pair, first_step_ = first_step, next_ = 0, end_ = 2 * steps * kVectors, tiles_ = tiles;
  }

  Index vectors() const { return end_; }

  // Widens the next vector of levels, and fetches the same of the next chunk.
  void advance() {
    if (next_ == end_) return;
    const Index tile = next_ / kVectors, vector = next_ % kVectors;
    if (vector == 0) {
      const Index step = first_step_ + tile / 2, wanted = first_block_ + tile % 2;
      const Index block = wanted < m_.blocks() ? wanted : m_.blocks() - 1;
      levels_ = m_.block(block) + step * kStepBytes;
      worth_ = group_worth<kBits, kZeros>(m_, block, step / steps_per_group_);
    }
    __builtin_prefetch(levels_ + BFloat16Inputs::kChunkSteps * kStepBytes, 0, 2);
    widen_vector<kBits>(levels_, worth_, tiles_ + tile * kTileSize + vector * (kTileSize / kVectors));
    levels_ += kLevelBytes;
    ++next_;
  }

  void finish() {
    while (next_ < end_) advance();
  }

 private:
  static constexpr Index kStepBytes = kStep * kChannels * kBits / 8, kVectors = kStepBytes / kLevelBytes;

  const Matrix& m_;
  Index steps_per_group_, first_block_ = 0, first_step_ = 0, next_ = 0, end_ = 0;
  const std::uint8_t* levels_ = nullptr;
  Worth worth_{};
  BFloat16* tiles_ = nullptr;
};

// sums (tokens, 32) += a chunk of the inputs, tiles of tokens from `first_tile` to `end`, times a pair of row blocks.
template <class Meanwhile>
inline void add_tiles(const Tiles& tiles, BFloat16Inputs& inputs, Index chunk, Index first_tile, Index end,
                      const BFloat16* weights, float* sums, Meanwhile&& meanwhile) {
  constexpr Index kRowSums = kTileSide * 2 * kTileSide;
  const Index stride = inputs.tile_stride(chunk), steps = inputs.chunk_steps(chunk);
  Index tile = first_tile;
  for (; tile + 2 <= end; tile += 2, sums += 2 * kRowSums)
    tiles.multiply_add<2>(inputs.at(chunk, tile), stride, weights, steps, sums, meanwhile);
  if (tile < end) tiles.multiply_add<1>(inputs.at(chunk, tile), stride, weights, steps, sums, meanwhile);
}

// Pairs of row blocks from `first` to `end` for tiles of tokens from `first_tile` to `end_tile`.
//
// Room: `weights` for those of a pair and a chunk, twice; `sums` (pairs, tokens, 32).
template <int kBits, bool kZeros>
inline void tiled_pairs(const Matrix& m, Index first, Index end, BFloat16Inputs& inputs, Index first_tile,
                        Index end_tile, BFloat16* weights, float* sums, const Output& output) {
  constexpr Index kWidth = 2 * kChannels;
  const Index pairs = end - first, pair_sums = (end_tile - first_tile) * kTileSide * kWidth;
  std::memset(sums, 0, pairs * pair_sums * sizeof(float));
  const Tiles tiles;
  Widener<kBits, kZeros> widener(m);
  const Index calls = ceil_div(end_tile - first_tile, 2) * inputs.chunk_steps(0);  // while a pair is multiplied
  const auto begin = [&](Index place) {  // the place of a chunk and a pair in the order that they are taken
    const Index chunk = place / pairs;
    if (chunk < inputs.chunks())
      widener.begin(first + place % pairs, chunk * BFloat16Inputs::kChunkSteps, inputs.chunk_steps(chunk),
                    weights + place % 2 * kTiledWeights);
  };
  begin(0);
  const Index at_once = ceil_div(widener.vectors(), calls);
  for (Index place = 0; place < inputs.chunks() * pairs; ++place) {
    widener.finish();
    begin(place + 1);
    add_tiles(tiles, inputs, place / pairs, first_tile, end_tile, weights + place % 2 * kTiledWeights,
              sums + place % pairs * pair_sums, [&] {
                for (Index i = 0; i < at_once; ++i) widener.advance();
              });
  }
  const Index first_token = first_tile * kTileSide, last = end_tile * kTileSide;
  for (Index token = first_token; token < last && token < inputs.tokens(); ++token)
    for (Index pair = first; pair < end; ++pair)
      write_output(output, token, pair * kWidth, m.out,
                   sums + (pair - first) * pair_sums + (token - first_token) * kWidth, kWidth);
}

template <int kBits, bool kZeros>
inline void bfloat16_product(const Matrix& m, BFloat16Inputs& inputs, Scratch<BFloat16>& weights, Scratch<float>& sums,
                             const Output& output) {
  constexpr Index kTiles = kTiledTokens / kTileSide;
  const Index pairs = ceil_div(m.blocks(), 2), wanted = ceil_div(pairs, kMostPairs), least = 4 * Pool::size();
  const Index run = ceil_div(pairs, round_up(wanted > least ? wanted : least, Pool::size()));  // so much for each thread
  const Index room = run * (inputs.tiles() < kTiles ? inputs.tiles() : kTiles) * kTileSide * 2 * kChannels;
  BFloat16* all_weights = weights.of(Pool::size() * 2 * kTiledWeights);
  float* all_sums = sums.of(Pool::size() * room);
  pool_tasks(ceil_div(pairs, run), m.out * m.in / 8 * inputs.tokens(), [&](Index task, int thread) {
    const Index first = task * run, end = first + run < pairs ? first + run : pairs;
    for (Index tile = 0; tile < inputs.tiles(); tile += kTiles) {
      const Index end_tile = tile + kTiles < inputs.tiles() ? tile + kTiles : inputs.tiles();
      tiled_pairs<kBits, kZeros>(m, first, end, inputs, tile, end_tile, all_weights + thread * 2 * kTiledWeights,
                                 all_sums + thread * room, output);
    }
  });
}

}  // namespace detail

// output = inputs times the packed weight.
inline void bfloat16_product(const Matrix& m, BFloat16Inputs& inputs, Scratch<BFloat16>& weights, Scratch<float>& sums,
                             const Output& output) {
  with_packing(m, [&](auto bits, auto zeros) {
    detail::bfloat16_product<bits, zeros>(m, inputs, weights, sums, output);
  });
}

}  // namespace glm3
