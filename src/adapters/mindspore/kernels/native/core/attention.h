// Causal grouped-query attention over whole sequences, with rotary embedding, tile by tile.
//
// As in FlashAttention (Dao, 2022) no score matrix reaches memory: a tile of queries runs over the tiles of
// keys with a running maximum and sum. The logarithm of each row's sum is kept for the backward pass.
#pragma once

#include <cmath>
#include <limits>

#include "attention_shape.h"
#include "tile_product.h"

namespace glm3 {

namespace detail {

// The running softmax of a tile of queries: largest score, sum of exponentials, unnormalised output.
struct RunningSoftmax {
  float largest[kQueryTile];
  float sum[kQueryTile];

  RunningSoftmax() {
    for (Index row = 0; row < kQueryTile; ++row) {
      largest[row] = -std::numeric_limits<float>::infinity();
      sum[row] = 0.0f;
    }
  }

  // Turns `columns` scores of a row into exponentials; returns the factor for what was summed before.
  float absorb(Index row, float* scores, Index columns) {
    Vec largest_lanes = splat(largest[row]);
    for (Index j = 0; j < columns; j += kLanes) largest_lanes = max(load(scores + j), largest_lanes);
    const float next = max_lanes(largest_lanes);
    Vec sums{};
    for (Index j = 0; j < columns; j += kLanes) {
      const Vec e = exp(load(scores + j) - next);
      store(scores + j, e);
      sums += e;
    }
    const float factor = std::exp(largest[row] - next);
    sum[row] = sum[row] * factor + sum_lanes(sums);
    largest[row] = next;
    return factor;
  }
};

// How many keys of the tile at `first_key` the queries before `end` see, in whole vectors.
inline Index visible_columns(Index first_key, Index end) {
  const Index columns = round_up(end - first_key, kLanes);
  return columns < kKeyTile ? columns : kKeyTile;
}

// Sets the numbers of row `query` that stand for later keys.
inline void mask_future(float* row, Index query, Index first_key, Index columns, float value) {
  for (Index j = query + 1 > first_key ? query + 1 - first_key : 0; j < columns; ++j) row[j] = value;
}

// Packs queries [first, end) of a head, rotated and scaled; the rows up to kQueryTile are zero.
inline void pack_queries(const AttentionShape& shape, const RotaryTables& tables, const float* qkv, Index sequence,
                         Index head, Index first, Index end, float* queries) {
  const Index dim = shape.padded_dim();
  for (Index token = first; token < end; ++token)
    pack_rotated(shape, tables, qkv + shape.qkv_offset(sequence, token, head), token, shape.scale(),
                 queries + (token - first) * dim);
  std::memset(queries + (end - first) * dim, 0, (first + kQueryTile - end) * dim * sizeof(float));
}

}  // namespace detail

// out (batch * seq, num_heads * head_dim) and lse (batch, num_heads, seq) from qkv (batch * seq, qkv_width).
inline void attention(const AttentionShape& shape, const RotaryTables& tables, const float* qkv, float* out,
                      float* lse) {
  const PackedKeyValues packed(shape, tables, qkv, false);
  const Index dim = shape.padded_dim(), tiles = shape.query_tiles(), heads = shape.batch * shape.num_heads;
  parallel_tasks(heads * tiles, heads * shape.seq * shape.seq, [&](Index task) {
    const Index tile = tiles - 1 - task / heads;  // the longest first, so that threads end together
    const Index sequence = task % heads / shape.num_heads, head = task % shape.num_heads;
    const Index kv_head = sequence * shape.num_kv_heads + head / shape.group();
    const Index first = tile * kQueryTile, end = first + kQueryTile < shape.seq ? first + kQueryTile : shape.seq;
    const Buffer queries(kQueryTile * dim), sums(kQueryTile * dim);
    alignas(64) float scores[kQueryTile * kKeyTile];
    detail::pack_queries(shape, tables, qkv, sequence, head, first, end, queries.data());
    std::memset(sums.data(), 0, kQueryTile * dim * sizeof(float));
    detail::RunningSoftmax softmax;
    for (Index key = 0; key < end; key += kKeyTile) {
      const Index columns = detail::visible_columns(key, end);
      tile_product<Into::kOverwrite>({queries.data(), dim, 1}, packed.keys_transposed(kv_head, key), kKeyTile, scores,
                                     kKeyTile, kQueryTile, columns, shape.head_dim);
      for (Index row = 0; row < kQueryTile; ++row) {
        detail::mask_future(scores + row * kKeyTile, first + row, key, columns,
                            -std::numeric_limits<float>::infinity());
        const float factor = softmax.absorb(row, scores + row * kKeyTile, columns);
        if (factor != 1.0f)
          for (Index i = 0; i < dim; i += kLanes) store(sums + row * dim + i, load(sums + row * dim + i) * factor);
      }
      tile_product<Into::kAdd>({scores, kKeyTile, 1}, packed.values(kv_head, key), dim, sums.data(), dim, kQueryTile,
                               dim, columns);
    }
    for (Index token = first; token < end; ++token) {
      const Index row = token - first;
      const float reciprocal = 1.0f / softmax.sum[row];
      float* target = out + shape.out_offset(sequence, token, head);
      for_lanes(shape.head_dim,
                [&](Index i, auto lanes) { store(target + i, load(sums + row * dim + i, lanes) * reciprocal, lanes); });
      lse[(sequence * shape.num_heads + head) * shape.seq + token] = softmax.largest[row] + std::log(softmax.sum[row]);
    }
  });
}

}  // namespace glm3
