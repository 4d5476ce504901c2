// Products of rounded inputs with packed weights, for one token and for many.
//
// Each step of 32 inputs is summed in integers, exactly; steps are scaled and added in float32, first to last,
// so that a token's result does not depend on how many others are computed beside it.
#pragma once

#include "inputs.h"
#include "matrix.h"

namespace glm3 {

// Where results go: y (tokens, out) = product + bias (out) + residual (tokens, out); either may be null.
struct Output {
  float* y;
  const float* bias;
  const float* residual;
};

namespace detail {

// The numbers of tokens and row blocks computed at a time. AVX-512's 32 registers hold sums for 2 blocks and 8
// tokens (466 of 470 Gop/s of one core's dot products, 1 x 8: 380); others have half as many or half as wide.
constexpr int kTileBlocks = kLanes == 16 ? 2 : 1;
// How many tokens' sums stay in registers while a block of rows is unpacked into others (int4 on AVX-512, 8 tokens in
// the time of one: 1.4 times, 4: 1.2, 2: 1.06; unpacked through memory 1.95, 1.5 and 1.3).
constexpr int kFewPackedTokens = kLanes == 16 ? 8 : 1;
constexpr Index kChunkSteps = 16;  // steps unpacked at a time: what then is read again stays in the first cache

// Asks for what follows a page and a half behind `place`, beyond where the hardware stops, into the second cache:
// 0.91 of the read bandwidth of one core with one token, where the first cache took 0.85.
template <class Value>
inline void prefetch(const Value* place) {
  constexpr Index kAhead = 6144;
  __builtin_prefetch(reinterpret_cast<const char*>(place) + kAhead, 0, 2);
}

inline void write_output(const Output& output, Index token, Index first, Index out, const float* sums, Index count) {
  float* y = output.y + token * out + first;
  const float* residual = output.residual == nullptr ? nullptr : output.residual + token * out + first;
  const Index valid = out - first < count ? out - first : count;
  for_lanes(valid, [&](Index i, auto lanes) {
    Vec value = load(sums + i, lanes);
    if (output.bias != nullptr) value += load(output.bias + first + i, lanes);
    if (residual != nullptr) value += load(residual + i, lanes);
    store(y + i, value, lanes);
  });
}

// Adds one step's sums: sums += scale * input_scale * dots, less what the zero point makes too much.
inline void add_step(Floats& sums, const Floats& scale, float input_scale, const Ints& dots) {
  const Floats wide = to_floats(dots);
  for (int p = 0; p < kParts; ++p) sums.part[p] += (scale.part[p] * input_scale) * wide.part[p];
}
inline void subtract_zero(Floats& sums, const Floats& scaled_zero, float input_scale, std::int32_t input_sum) {
  const float offset = input_scale * static_cast<float>(input_sum);
  for (int p = 0; p < kParts; ++p) sums.part[p] -= scaled_zero.part[p] * offset;
}
inline Floats times(Floats a, const Floats& b) {
  for (int p = 0; p < kParts; ++p) a.part[p] *= b.part[p];
  return a;
}

inline std::int32_t four_inputs(const std::int8_t* levels) {
  std::int32_t inputs;
  std::memcpy(&inputs, levels, sizeof inputs);
  return inputs;
}

// A few tokens: weights are read once and unpacked in registers, so that what is computed for more tokens hides
// behind the reading. `target` (kTokens, 16).
template <int kBits, bool kZeros, int kTokens>
inline void few_tokens_block(const Matrix& m, Index block, const InputTile& inputs, float* target) {
  constexpr int kVectors = kBits == 4 ? kStep / 8 : kStep / 4;
  constexpr int kMiddle = kZeros ? 0 : middle_level<kBits>();
  constexpr int kChains = kTokens < 4 ? 2 : 1;  // sums of each token that do not wait for each other
  const std::uint8_t* levels = m.block(block);
  const Index steps = m.padded_in() / kStep, steps_per_group = m.group > 0 ? m.group / kStep : steps;
  Floats sums[kTokens] = {}, scale{}, scaled_zero{};
  for (Index step = 0; step < steps; ++step, levels += kVectors * kLevelBytes) {
    if (step % steps_per_group == 0) {
      scale = group_scale(m, block, step / steps_per_group);
      prefetch(static_cast<const Float16*>(m.scales) + (block * m.groups() + step / steps_per_group) * kChannels);
      if constexpr (kZeros) scaled_zero = times(scale, group_zero(m, block, step / steps_per_group));
    }
    const std::int8_t* x = inputs.levels + step * kStep * kTokens;
    const std::int32_t* input_sums = inputs.sums + step * kTokens;
    const float* input_scales = inputs.scales + step * kTokens;
    Ints dots[kTokens][kChains];
    for (int token = 0; token < kTokens; ++token)
      for (int chain = 0; chain < kChains; ++chain)
        dots[token][chain] = splat_ints(chain == 0 ? -kMiddle * input_sums[token] : 0);
    const auto add = [&](const LevelVec& vector, int four) {
      for (int token = 0; token < kTokens; ++token)
        add_dot<kBits>(dots[token][four % kChains], vector, four_inputs(x + (four * kTokens + token) * 4));
    };
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      prefetch(levels + i * kLevelBytes);
      const LevelVec vector = load_levels(levels + i * kLevelBytes);
      if constexpr (kBits == 4) {
        add(low_halves(vector), 2 * i);
        add(high_halves(vector), 2 * i + 1);
      } else {
        add(prepare_levels(vector), i);
      }
    }
    for (int token = 0; token < kTokens; ++token) {
      if constexpr (kChains == 2)
        for (int p = 0; p < kParts; ++p) dots[token][0].part[p] += dots[token][1].part[p];
      add_step(sums[token], scale, input_scales[token], dots[token][0]);
      if constexpr (kZeros) subtract_zero(sums[token], scaled_zero, input_scales[token], input_sums[token]);
    }
  }
  for (int token = 0; token < kTokens; ++token) store_floats(target + token * kChannels, sums[token]);
}

template <int kBits, bool kZeros, int kTokens = kFewPackedTokens>
inline void few_tokens_block_of(const Matrix& m, Index block, const InputTile& inputs, float* target) {
  if constexpr (kTokens > 1)
    if (inputs.tokens < kTokens) return few_tokens_block_of<kBits, kZeros, kTokens - 1>(m, block, inputs, target);
  few_tokens_block<kBits, kZeros, kTokens>(m, block, inputs, target);
}

// A chunk of a few row blocks, a byte for each level, with its scales in float32. Blocks past the end repeat the
// last one; nothing of them is written.
struct UnpackedChunk {
  alignas(64) std::uint8_t levels[kChunkSteps][kTileBlocks][kStep * kChannels];
  alignas(64) float scales[kChunkSteps][kTileBlocks][kChannels];
  alignas(64) float scaled_zeros[kChunkSteps][kTileBlocks][kChannels];

  template <int kBits, bool kZeros>
  void unpack(const Matrix& m, Index first_block, Index first_step, Index steps) {
    constexpr Index kStepBytes = kStep * kChannels * kBits / 8;
    const Index steps_per_group = m.group > 0 ? m.group / kStep : m.padded_in() / kStep;
    for (Index step = 0; step < steps; ++step)
      for (int block = 0; block < kTileBlocks; ++block) {
        const Index place = first_block + block < m.blocks() ? first_block + block : m.blocks() - 1;
        const std::uint8_t* source = m.block(place) + (first_step + step) * kStepBytes;
        std::uint8_t* target = levels[step][block];
        for (Index i = 0; i < kStepBytes; i += kLevelBytes) {
          prefetch(source + i);
          const LevelVec vector = load_levels(source + i);
          if constexpr (kBits == 4) {
            store_levels(target + 2 * i, low_halves(vector));
            store_levels(target + 2 * i + kLevelBytes, high_halves(vector));
          } else {
            store_levels(target + i, prepare_levels(vector));
          }
        }
        const Index group = (first_step + step) / steps_per_group;
        const Floats scale = group_scale(m, place, group);
        store_floats(scales[step][block], scale);
        if constexpr (kZeros)
          store_floats(scaled_zeros[step][block], times(scale, group_zero(m, place, group)));
      }
  }
};

// Adds a chunk's products with kTokens tokens to sums (kTokens, kTileBlocks, 16).
template <int kBits, bool kZeros, int kTokens>
inline void add_chunk(const UnpackedChunk& chunk, Index first_step, Index steps, const InputTile& inputs,
                      float* sums) {
  constexpr int kMiddle = kZeros ? 0 : middle_level<kBits>();
  Floats totals[kTokens][kTileBlocks];
  for (int token = 0; token < kTokens; ++token)
    for (int block = 0; block < kTileBlocks; ++block)
      totals[token][block] = load_floats(sums + (token * kTileBlocks + block) * kChannels);
  for (Index step = 0; step < steps; ++step) {
    const Index place = first_step + step;
    const std::int8_t* x = inputs.levels + place * kStep * kTokens;
    Ints dots[kTokens][kTileBlocks];
    for (int token = 0; token < kTokens; ++token)
      for (int block = 0; block < kTileBlocks; ++block)
        dots[token][block] = splat_ints(-kMiddle * inputs.sums[place * kTokens + token]);
#pragma GCC unroll 8
    for (Index i = 0; i < kStep / 4; ++i) {
      LevelVec levels[kTileBlocks];
      for (int block = 0; block < kTileBlocks; ++block)
        levels[block] = load_levels(chunk.levels[step][block] + i * kLevelBytes);
      for (int token = 0; token < kTokens; ++token) {
        const std::int32_t four = four_inputs(x + (i * kTokens + token) * 4);
        for (int block = 0; block < kTileBlocks; ++block) add_dot<kBits>(dots[token][block], levels[block], four);
      }
    }
    for (int block = 0; block < kTileBlocks; ++block) {
      const Floats scale = load_floats(chunk.scales[step][block]);
      for (int token = 0; token < kTokens; ++token) {
        const float input_scale = inputs.scales[place * kTokens + token];
        add_step(totals[token][block], scale, input_scale, dots[token][block]);
        if constexpr (kZeros)
          subtract_zero(totals[token][block], load_floats(chunk.scaled_zeros[step][block]), input_scale,
                        inputs.sums[place * kTokens + token]);
      }
    }
  }
  for (int token = 0; token < kTokens; ++token)
    for (int block = 0; block < kTileBlocks; ++block)
      store_floats(sums + (token * kTileBlocks + block) * kChannels, totals[token][block]);
}

template <int kBits, bool kZeros, int kTokens = kTileTokens>
inline void add_chunk_of(const UnpackedChunk& chunk, Index first_step, Index steps, const InputTile& inputs,
                         float* sums) {
  if constexpr (kTokens == 1) {
    add_chunk<kBits, kZeros, 1>(chunk, first_step, steps, inputs, sums);
  } else if (inputs.tokens == kTokens) {
    add_chunk<kBits, kZeros, kTokens>(chunk, first_step, steps, inputs, sums);
  } else {
    add_chunk_of<kBits, kZeros, kTokens - 1>(chunk, first_step, steps, inputs, sums);
  }
}

// A few row blocks for all tokens. `sums` has room for them: (tokens, kTileBlocks, 16).
template <int kBits, bool kZeros>
inline void many_tokens_blocks(const Matrix& m, Index first_block, RoundedInputs& inputs, float* sums,
                               const Output& output) {
  constexpr Index kWidth = kTileBlocks * kChannels;
  UnpackedChunk chunk;
  std::memset(sums, 0, inputs.tokens() * kWidth * sizeof(float));
  for (Index step = 0; step < inputs.steps(); step += kChunkSteps) {
    const Index steps = inputs.steps() - step < kChunkSteps ? inputs.steps() - step : kChunkSteps;
    chunk.template unpack<kBits, kZeros>(m, first_block, step, steps);
    for (Index tile = 0; tile < inputs.tiles(); ++tile)
      add_chunk_of<kBits, kZeros>(chunk, step, steps, inputs.tile(tile), sums + tile * kTileTokens * kWidth);
  }
  for (Index token = 0; token < inputs.tokens(); ++token)
    write_output(output, token, first_block * kChannels, m.out, sums + token * kWidth, kWidth);
}

template <int kBits, bool kZeros>
inline void packed_product(const Matrix& m, RoundedInputs& inputs, Scratch<float>& scratch, const Output& output) {
  const Index work = m.out * m.in / 8 * inputs.tokens();
  if (inputs.tokens() <= kFewPackedTokens) {
    constexpr Index kRun = 8;  // row blocks in a task: one stream of a few pages
    pool_tasks(ceil_div(m.blocks(), kRun), work, [&](Index task, int) {
      for (Index block = task * kRun; block < m.blocks() && block < (task + 1) * kRun; ++block) {
        alignas(64) float sums[kFewPackedTokens * kChannels];
        few_tokens_block_of<kBits, kZeros>(m, block, inputs.tile(0), sums);
        for (Index token = 0; token < inputs.tokens(); ++token)
          write_output(output, token, block * kChannels, m.out, sums + token * kChannels, kChannels);
      }
    });
    return;
  }
  const Index room = inputs.tokens() * kTileBlocks * kChannels;
  float* sums = scratch.of(Pool::size() * room);
  pool_tasks(ceil_div(m.blocks(), kTileBlocks), work, [&](Index task, int thread) {
    many_tokens_blocks<kBits, kZeros>(m, task * kTileBlocks, inputs, sums + thread * room, output);
  });
}

}  // namespace detail

// output = inputs times the packed weight; `inputs` were rounded with the weight's padded_in.
inline void packed_product(const Matrix& m, RoundedInputs& inputs, Scratch<float>& scratch, const Output& output) {
  with_packing(m, [&](auto bits, auto zeros) { detail::packed_product<bits, zeros>(m, inputs, scratch, output); });
}

}  // namespace glm3
