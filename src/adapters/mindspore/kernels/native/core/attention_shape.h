// The sizes of an attention problem, its tiles, and the packing of heads into them.
#pragma once

#include <cmath>
#include <cstring>

#include "parallel.h"
#include "rotary.h"
#include "vec.h"

namespace glm3 {

constexpr Index kQueryTile = 32;
constexpr Index kKeyTile = 64;

// A batch of equally long sequences with grouped query heads.
//
// A row of the joined projection holds num_heads queries, num_kv_heads keys, num_kv_heads values, head_dim
// numbers each; `num_heads / num_kv_heads` consecutive query heads share one key and value head.
struct AttentionShape {
  Index batch, seq, num_heads, num_kv_heads, head_dim, rotary_dim;

  Index qkv_width() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
  Index out_width() const { return num_heads * head_dim; }
  Index group() const { return num_heads / num_kv_heads; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }

  // Sizes of the padded copies that tiles are cut from; padding is zero.
  Index padded_dim() const { return round_up(head_dim, kLanes); }
  Index padded_seq() const { return round_up(seq, kKeyTile); }
  Index head_size() const { return padded_seq() * padded_dim(); }
  Index query_tiles() const { return ceil_div(seq, kQueryTile); }

  bool is_valid() const {
    return batch > 0 && seq > 0 && num_kv_heads > 0 && head_dim > 0 && num_heads > 0 &&
           num_heads % num_kv_heads == 0 && rotary_dim >= 0 && rotary_dim <= head_dim && rotary_dim % 2 == 0;
  }

  // Where head `head` (keys follow the queries, values the keys) of token `token` starts in qkv.
  Index qkv_offset(Index sequence, Index token, Index head) const {
    return (sequence * seq + token) * qkv_width() + head * head_dim;
  }
  Index out_offset(Index sequence, Index token, Index head) const {
    return (sequence * seq + token) * out_width() + head * head_dim;
  }
};

// cos and sin (seq, rotary_dim / 2), one row for each place in a sequence.
struct RotaryTables {
  const float* cos;
  const float* sin;
};

// Copies one head of a row into `target` (padded_dim), rotated and scaled.
inline void pack_rotated(const AttentionShape& shape, const RotaryTables& tables, const float* source, Index token,
                         float scale, float* target) {
  const Index half = shape.rotary_dim / 2;
  rotate_head<Turn::kForward>(source, target, tables.cos + token * half, tables.sin + token * half, shape.rotary_dim,
                              shape.head_dim, scale);
  for (Index i = shape.head_dim; i < shape.padded_dim(); ++i) target[i] = 0.0f;
}

inline void pack_plain(const AttentionShape& shape, const float* source, float* target) {
  std::memcpy(target, source, shape.head_dim * sizeof(float));
  for (Index i = shape.head_dim; i < shape.padded_dim(); ++i) target[i] = 0.0f;
}

// Rotated keys and plain values of every (sequence, kv head), each (padded_seq, padded_dim).
//
// Transposed copies hold tiles (padded_dim, kKeyTile), so that a tile product reads rows of keys.
class PackedKeyValues {
 public:
  PackedKeyValues(const AttentionShape& shape, const RotaryTables& tables, const float* qkv, bool transpose_values)
      : shape_(shape),
        keys_(heads() * shape.head_size()),
        keys_transposed_(heads() * shape.head_size()),
        values_(heads() * shape.head_size()),
        values_transposed_(transpose_values ? heads() * shape.head_size() : 0) {
    const Index tiles = shape.padded_seq() / kKeyTile;
    parallel_tasks(heads() * tiles, heads() * shape.head_size(), [&](Index task) {
      const Index head = task / tiles, first = task % tiles * kKeyTile;
      const Index sequence = head / shape.num_kv_heads, kv = head % shape.num_kv_heads;
      for (Index token = first; token < first + kKeyTile; ++token) {
        float* key = keys_ + offset(head, token);
        float* value = values_ + offset(head, token);
        if (token < shape.seq) {
          pack_rotated(shape, tables, qkv + shape.qkv_offset(sequence, token, shape.num_heads + kv), token, 1.0f, key);
          pack_plain(shape, qkv + shape.qkv_offset(sequence, token, shape.num_heads + shape.num_kv_heads + kv), value);
        } else {
          std::memset(key, 0, shape.padded_dim() * sizeof(float));
          std::memset(value, 0, shape.padded_dim() * sizeof(float));
        }
      }
      transpose(keys_ + offset(head, first), keys_transposed_ + offset(head, first));
      if (transpose_values) transpose(values_ + offset(head, first), values_transposed_ + offset(head, first));
    });
  }

  const float* keys(Index head, Index token) const { return keys_ + offset(head, token); }
  const float* values(Index head, Index token) const { return values_ + offset(head, token); }
  const float* keys_transposed(Index head, Index token) const { return keys_transposed_ + offset(head, token); }
  const float* values_transposed(Index head, Index token) const { return values_transposed_ + offset(head, token); }

 private:
  Index heads() const { return shape_.batch * shape_.num_kv_heads; }
  Index offset(Index head, Index token) const { return head * shape_.head_size() + token * shape_.padded_dim(); }

  void transpose(const float* tile, float* transposed) const {
    for (Index i = 0; i < shape_.padded_dim(); ++i)
      for (Index token = 0; token < kKeyTile; ++token)
        transposed[i * kKeyTile + token] = tile[token * shape_.padded_dim() + i];
  }

  AttentionShape shape_;
  Buffer keys_, keys_transposed_, values_, values_transposed_;
};

}  // namespace glm3
