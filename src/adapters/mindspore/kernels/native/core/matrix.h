// Weight matrices as they are stored: plain numbers row by row, or levels in the packed layout.
#pragma once

#include <cstdint>
#include <type_traits>

#include "dot.h"
#include "half.h"
#include "parallel.h"

namespace glm3 {

enum Storage : std::int64_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2, kInt8 = 3, kInt4 = 4 };

constexpr Index kStep = 32;  // inputs between two scalings; groups of a packed weight are multiples of it

// A weight (out, in). Plain: `data` alone. Packed: levels, scales and zero points as the layout says.
//
// `group` is the number of inputs that share a scale, 0 if all do; scales of groups are float16, of whole
// channels float32. `zeros` is null where the middle level stands for 0.
struct Matrix {
  std::int64_t storage, group, out, in;
  const void* data;
  const void* scales;
  const std::uint8_t* zeros;

  bool is_packed() const { return storage == kInt8 || storage == kInt4; }
  Index bits() const { return storage == kInt4 ? 4 : 8; }
  Index blocks() const { return ceil_div(out, kChannels); }
  Index padded_in() const { return round_up(in, group > 0 ? group : kStep); }
  Index groups() const { return group > 0 ? ceil_div(in, group) : 1; }
  Index block_bytes() const { return padded_in() * kChannels * bits() / 8; }
  const std::uint8_t* block(Index block) const {
    return static_cast<const std::uint8_t*>(data) + block * block_bytes();
  }

  bool is_valid() const {
    if (out <= 0 || in <= 0 || data == nullptr || storage < kFloat32 || storage > kInt4) return false;
    if (!is_packed()) return scales == nullptr && zeros == nullptr && group == 0;
    return scales != nullptr && group >= 0 && group % kStep == 0 && (zeros == nullptr || (bits() == 4 && group > 0));
  }
};

// Calls body(bits, zeros) with what a packed weight has of both, as constants.
template <class Body>
inline void with_packing(const Matrix& m, Body&& body) {
  using std::integral_constant;
  if (m.storage == kInt8) {
    body(integral_constant<int, 8>{}, std::false_type{});
  } else if (m.zeros == nullptr) {
    body(integral_constant<int, 4>{}, std::false_type{});
  } else {
    body(integral_constant<int, 4>{}, std::true_type{});
  }
}

// Scale and zero point of one group of a row block, both for each channel; the zero point is in levels.
inline Floats group_scale(const Matrix& m, Index block, Index group) {
  const Index offset = (block * m.groups() + group) * kChannels;
  if (m.group == 0) return load_floats(static_cast<const float*>(m.scales) + offset);
  Floats scale;
  for (int p = 0; p < kParts; ++p)
    scale.part[p] = load(static_cast<const Float16*>(m.scales) + offset + p * kLanes);
  return scale;
}

inline Floats group_zero(const Matrix& m, Index block, Index group) {
  constexpr float kSteps = 1.0f / 16.0f;
  const std::uint8_t* zeros = m.zeros + (block * m.groups() + group) * kChannels;
  alignas(64) float wide[kChannels];
  for (int channel = 0; channel < kChannels; ++channel) wide[channel] = static_cast<float>(zeros[channel]) * kSteps;
  return load_floats(wide);
}

// One row of a packed weight in float32, `target` (in).
inline void unpack_row(const Matrix& m, Index row, float* target) {
  const Index block = row / kChannels, channel = row % kChannels;
  const std::uint8_t* levels = m.block(block) + 4 * channel;
  for (Index first = 0; first < m.in; first += kStep) {
    const Index group = m.group > 0 ? first / m.group : 0;
    alignas(64) float scale[kChannels], zero[kChannels];
    store_floats(scale, group_scale(m, block, group));
    zero[channel] = static_cast<float>(1 << (m.bits() - 1));
    if (m.zeros != nullptr) store_floats(zero, group_zero(m, block, group));
    for (Index i = first; i < m.in && i < first + kStep; ++i) {
      int level;
      if (m.storage == kInt8) {
        level = levels[i / 4 * kLevelBytes + i % 4];
      } else {
        level = levels[i / 8 * kLevelBytes + i % 4] >> (i % 8 / 4 * 4) & 15;
      }
      target[i] = scale[channel] * (static_cast<float>(level) - zero[channel]);
    }
  }
}

// Rows `ids` (tokens) of a table of any storage, y (tokens, in); false if one is not there.
inline bool take_rows(const Matrix& table, const std::int32_t* ids, float* y, Index tokens) {
  for (Index token = 0; token < tokens; ++token)
    if (ids[token] < 0 || ids[token] >= table.out) return false;
  for (Index token = 0; token < tokens; ++token) {
    const Index row = ids[token];
    float* target = y + token * table.in;
    const auto widen = [&](const auto* numbers) {
      for_lanes(table.in, [&](Index i, auto lanes) { store(target + i, load(numbers + row * table.in + i, lanes), lanes); });
    };
    if (table.is_packed()) {
      unpack_row(table, row, target);
    } else if (table.storage == kFloat32) {
      widen(static_cast<const float*>(table.data));
    } else if (table.storage == kFloat16) {
      widen(static_cast<const Float16*>(table.data));
    } else {
      widen(static_cast<const BFloat16*>(table.data));
    }
  }
  return true;
}

}  // namespace glm3
