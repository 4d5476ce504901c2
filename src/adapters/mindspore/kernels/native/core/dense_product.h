// Products with weights stored as float32, float16 or bfloat16, row by row; sums are float32.
#pragma once

#include "bfloat16_product.h"
#include "packed_product.h"
#include "tile_product.h"

namespace glm3 {

namespace detail {

constexpr Index kFewTokens = 8;       // up to which a weight is only read, not copied into tiles
constexpr Index kPanelRows = 64;      // output channels of a tile
constexpr Index kPanelDepth = 256;    // inputs of a tile

// kRows channels by kTokens tokens: dot products along the inputs, added up in an order that depends on neither.
template <int kRows, int kTokens, class Number>
inline void few_tokens_rows(const Number* weight, Index in, const float* x, float* sums) {
  Vec totals[kRows][kTokens] = {};
  for_lanes(in, [&](Index i, auto lanes) {
    Vec inputs[kTokens];
    for (int token = 0; token < kTokens; ++token) inputs[token] = load(x + token * in + i, lanes);
    for (int row = 0; row < kRows; ++row) {
      __builtin_prefetch(weight + row * in + i + 4096 / static_cast<Index>(sizeof(Number)));
      const Vec numbers = load(weight + row * in + i, lanes);
      for (int token = 0; token < kTokens; ++token) totals[row][token] += numbers * inputs[token];
    }
  });
  for (int token = 0; token < kTokens; ++token)
    for (int row = 0; row < kRows; ++row) sums[token * kRows + row] = sum_lanes(totals[row][token]);
}

template <int kTokens, class Number>
inline void few_tokens(const Matrix& m, const Number* weight, const float* x, const Output& output) {
  constexpr Index kRowsAtOnce = kTokens <= 4 ? 4 : 2;  // whose sums are in registers together
  pool_tasks(ceil_div(m.out, kPanelRows), m.out * m.in / 4, [&](Index task, int) {
    const Index end = (task + 1) * kPanelRows < m.out ? (task + 1) * kPanelRows : m.out;
    Index row = task * kPanelRows;
    float sums[kTokens * kRowsAtOnce];
    const auto write = [&](Index count) {
      for (int token = 0; token < kTokens; ++token) write_output(output, token, row, m.out, sums + token * count, count);
    };
    for (; row + kRowsAtOnce <= end; row += kRowsAtOnce) {
      few_tokens_rows<kRowsAtOnce, kTokens>(weight + row * m.in, m.in, x, sums);
      write(kRowsAtOnce);
    }
    for (; row < end; ++row) {
      few_tokens_rows<1, kTokens>(weight + row * m.in, m.in, x, sums);
      write(1);
    }
  });
}

// Copies 64 channels by up to 256 inputs into `panel` (inputs, 64), widened; channels that are not there are 0.
template <class Number>
inline void pack_panel(const Matrix& m, const Number* weight, Index first_row, Index first_in, Index depth,
                       float* panel) {
  alignas(64) float row_numbers[kPanelDepth];
  for (Index row = 0; row < kPanelRows; ++row) {
    if (first_row + row < m.out) {
      const Number* source = weight + (first_row + row) * m.in + first_in;
      for_lanes(depth, [&](Index i, auto lanes) { store(row_numbers + i, load(source + i, lanes), lanes); });
    } else {
      std::memset(row_numbers, 0, sizeof row_numbers);
    }
    for (Index i = 0; i < depth; ++i) panel[i * kPanelRows + row] = row_numbers[i];
  }
}

template <class Number>
inline void many_tokens(const Matrix& m, const Number* weight, const float* x, Index tokens, Scratch<float>& scratch,
                        const Output& output) {
  const Index padded = round_up(tokens, kTileRows);  // x has room for them
  const Index room = kPanelDepth * kPanelRows + padded * kPanelRows;
  float* buffers = scratch.of(Pool::size() * room);
  pool_tasks(ceil_div(m.out, kPanelRows), m.out * m.in / 4 * tokens, [&](Index task, int thread) {
    float* panel = buffers + thread * room;
    float* sums = panel + kPanelDepth * kPanelRows;
    const Index first_row = task * kPanelRows;
    for (Index first = 0; first < m.in; first += kPanelDepth) {
      const Index depth = m.in - first < kPanelDepth ? m.in - first : kPanelDepth;
      pack_panel(m, weight, first_row, first, depth, panel);
      const Strided inputs{x + first, m.in, 1};
      if (first == 0) {
        tile_product<Into::kOverwrite>(inputs, panel, kPanelRows, sums, kPanelRows, padded, kPanelRows, depth);
      } else {
        tile_product<Into::kAdd>(inputs, panel, kPanelRows, sums, kPanelRows, padded, kPanelRows, depth);
      }
    }
    for (Index token = 0; token < tokens; ++token)
      write_output(output, token, first_row, m.out, sums + token * kPanelRows, kPanelRows);
  });
}

template <int kTokens = kFewTokens, class Number>
inline void few_tokens_of(const Matrix& m, const Number* weight, const float* x, Index tokens, const Output& output) {
  if constexpr (kTokens > 1)
    if (tokens < kTokens) return few_tokens_of<kTokens - 1>(m, weight, x, tokens, output);
  few_tokens<kTokens>(m, weight, x, output);
}

template <class Number>
inline void dense_product(const Matrix& m, const float* x, Index tokens, Scratch<float>& scratch,
                          const Output& output) {
  const Number* weight = static_cast<const Number*>(m.data);
  if (tokens <= kFewTokens) return few_tokens_of(m, weight, x, tokens, output);
  many_tokens(m, weight, x, tokens, scratch, output);
}

}  // namespace detail

// What products keep between calls: rounded inputs and room for sums.
struct ProductSpace {
  RoundedInputs inputs;
  BFloat16Inputs tiles;
  Scratch<float> sums, padded;
  Scratch<BFloat16> weights;
};

// output = x (tokens, in) times a weight of any storage, with its bias and residual.
inline void product(const Matrix& m, const float* x, Index tokens, ProductSpace& space, const Output& output) {
  if (m.is_packed() && goes_in_tiles(tokens)) {
    space.tiles.round(x, tokens, m.in);
    return bfloat16_product(m, space.tiles, space.weights, space.sums, output);
  }
  if (m.is_packed()) {
    space.inputs.round(x, tokens, m.in, m.padded_in());
    return packed_product(m, space.inputs, space.sums, output);
  }
  if (tokens > detail::kFewTokens && tokens % kTileRows != 0) {
    const Index padded = round_up(tokens, kTileRows);
    float* copy = space.padded.of(padded * m.in);
    std::memcpy(copy, x, tokens * m.in * sizeof(float));
    std::memset(copy + tokens * m.in, 0, (padded - tokens) * m.in * sizeof(float));
    x = copy;
  }
  switch (m.storage) {
    case kFloat16: return detail::dense_product<Float16>(m, x, tokens, space.sums, output);
    case kBFloat16: return detail::dense_product<BFloat16>(m, x, tokens, space.sums, output);
    default: return detail::dense_product<float>(m, x, tokens, space.sums, output);
  }
}

}  // namespace glm3
