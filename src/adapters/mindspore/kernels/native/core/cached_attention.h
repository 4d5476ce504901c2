// Causal grouped-query attention of new tokens over a KV cache.
//
// The query heads that share a key head, of one token or of several, are the lanes of vectors: keys and values
// are used in the order in which they are cached, the softmax needs no sum across lanes, and one token with
// sixteen heads fills what many tokens fill. No score matrix reaches memory.
#pragma once

#include <cmath>
#include <limits>

#include "inputs.h"
#include "kv_cache.h"
#include "rotary.h"
#include "tile_product.h"

namespace glm3 {

// New tokens of one sequence: tokens [offset, offset + length) of a packed pass, at positions from `start` on.
struct Span {
  BlockTable table;
  std::int64_t offset, start, length;

  bool fits(const CacheShape& cache) const {
    return length > 0 && start >= 0 && cache.holds(table, start + length);
  }
};

// cos and sin (tokens, rotary_dim / 2): one row for each token of the pass.
struct PassTables {
  const float* cos;
  const float* sin;
  Index rotary_dim;
};

namespace detail {

constexpr Index kCachedKeys = 64;                 // of a tile
constexpr Index kMostColumns = 64;                // queries of a tile
constexpr Index kMostVectors = kMostColumns / kLanes;

// A tile of queries: each column is one head of one token, scaled and rotated; columns are padded to vectors.
struct QueryTile {
  Index columns, vectors;
  float* queries;                      // (head_dim, columns padded)
  float* sums;                         // (head_dim, columns padded)
  float* keys;                         // (kCachedKeys, head_dim), and values in their turn
  float* scores;                       // (kCachedKeys, columns padded)
  alignas(64) std::int32_t last[kMostColumns];  // the last position that a column sees
  Vec largest[kMostVectors], total[kMostVectors];

  Index stride() const { return vectors * kLanes; }

  static Index room(Index head_dim) {
    return head_dim * (2 * kMostColumns + kCachedKeys) + kCachedKeys * kMostColumns;
  }

  QueryTile(float* buffer, Index head_dim, Index count) : columns(count), vectors(ceil_div(count, kLanes)) {
    queries = buffer;
    sums = queries + head_dim * kMostColumns;
    keys = sums + head_dim * kMostColumns;
    scores = keys + kCachedKeys * head_dim;
    std::memset(sums, 0, head_dim * stride() * sizeof(float));
    for (Index v = 0; v < vectors; ++v) {
      largest[v] = splat(-std::numeric_limits<float>::infinity());
      total[v] = Vec{};
    }
  }

  // Makes scores of keys from `first` on exponentials, and scales what was summed before.
  void absorb(Index first, Index count, Index head_dim) {
    for (Index v = 0; v < vectors; ++v) {
      IntVec end;
      std::memcpy(&end, last + v * kLanes, sizeof end);
      Vec next = largest[v];
      for (Index key = 0; key < count; ++key) {
        float* score = scores + key * stride() + v * kLanes;
        const IntVec seen = (IntVec{} + static_cast<std::int32_t>(first + key)) <= end;
        const Vec value = seen ? load(score) : splat(-std::numeric_limits<float>::infinity());
        store(score, value);
        next = max(value, next);
      }
      Vec sum{};
      for (Index key = 0; key < count; ++key) {
        float* score = scores + key * stride() + v * kLanes;
        const Vec e = exp(load(score) - next);
        store(score, e);
        sum += e;
      }
      const Vec factor = exp(largest[v] - next);
      total[v] = total[v] * factor + sum;
      largest[v] = next;
      for (Index i = 0; i < head_dim; ++i) {
        float* target = sums + i * stride() + v * kLanes;
        store(target, load(target) * factor);
      }
    }
  }
};

}  // namespace detail

// The attention of one layer in one pass.
struct CachedAttention {
  CacheShape cache;
  std::int64_t num_heads;
  PassTables tables;

  Index group() const { return num_heads / cache.num_kv_heads; }
  Index qkv_width() const { return (num_heads + 2 * cache.num_kv_heads) * cache.head_dim; }
  Index out_width() const { return num_heads * cache.head_dim; }
  Index tokens_per_tile() const { return group() >= detail::kMostColumns ? 1 : detail::kMostColumns / group(); }

  // Puts rotated keys and plain values of the new tokens into the cache.
  void write(const LayerCache& layer, const float* qkv, const Span* spans, Index span_count) const {
    for (Index s = 0; s < span_count; ++s) {
      const Span& span = spans[s];
      pool_tasks(span.length, span.length * cache.num_kv_heads * cache.head_dim * 2, [&](Index i, int) {
        const Index token = span.offset + i, half = tables.rotary_dim / 2;
        alignas(64) float key[kMostHeadDim];
        for (Index head = 0, place = cache.place(span.table, span.start + i, 0); head < cache.num_kv_heads;
             ++head, ++place) {
          const float* source = qkv + token * qkv_width() + (num_heads + head) * cache.head_dim;
          rotate_head<Turn::kForward>(source, key, tables.cos + token * half, tables.sin + token * half,
                                      tables.rotary_dim, cache.head_dim, 1.0f);
          write_head(cache, layer.keys, layer.key_scales, place, key);
          write_head(cache, layer.values, layer.value_scales, place, source + cache.num_kv_heads * cache.head_dim);
        }
      });
    }
  }

  // out (tokens, num_heads * head_dim): what the queries of qkv read from the cache, which holds the new tokens.
  void read(const LayerCache& layer, const float* qkv, const Span* spans, Index span_count, Scratch<float>& scratch,
            float* out) const {
    const Index room = detail::QueryTile::room(cache.head_dim);
    float* buffers = scratch.of(Pool::size() * room);
    Index tiles = 0, work = 0;
    for (Index s = 0; s < span_count; ++s) {
      tiles += ceil_div(spans[s].length, tokens_per_tile());
      work += spans[s].length * (spans[s].start + spans[s].length) * out_width() / 8;
    }
    pool_tasks(tiles * cache.num_kv_heads, work, [&](Index task, int thread) {
      // The last tiles see the most keys; they come first.
      Index tile = tiles - 1 - task / cache.num_kv_heads, s = 0;
      while (tile >= ceil_div(spans[s].length, tokens_per_tile())) tile -= ceil_div(spans[s++].length, tokens_per_tile());
      read_tile(layer, qkv, spans[s], tile * tokens_per_tile(), task % cache.num_kv_heads, buffers + thread * room, out);
    });
  }

  static constexpr Index kMostHeadDim = 512;

 private:
  // The tokens of a tile from `first` of the span on, for one key head; wide groups take several turns.
  void read_tile(const LayerCache& layer, const float* qkv, const Span& span, Index first, Index kv_head, float* buffer,
                 float* out) const {
    const Index tokens = span.length - first < tokens_per_tile() ? span.length - first : tokens_per_tile();
    for (Index column = 0; column < tokens * group(); column += detail::kMostColumns) {
      const Index left = tokens * group() - column;
      detail::QueryTile tile(buffer, cache.head_dim, left < detail::kMostColumns ? left : detail::kMostColumns);
      gather(tile, qkv, span, first, kv_head, column);
      const Index end = span.start + first + tokens;
      for (Index key = 0; key < end; key += detail::kCachedKeys) add_keys(tile, layer, span.table, kv_head, key, end);
      scatter(tile, span, first, kv_head, column, out);
    }
  }

  void gather(detail::QueryTile& tile, const float* qkv, const Span& span, Index first, Index kv_head,
              Index first_column) const {
    const Index half = tables.rotary_dim / 2;
    const float scale = 1.0f / std::sqrt(static_cast<float>(cache.head_dim));
    alignas(64) float query[kMostHeadDim];
    for (Index column = 0; column < tile.stride(); ++column) {
      if (column >= tile.columns) {  // padding repeats the last query, so that it stays finite
        for (Index i = 0; i < cache.head_dim; ++i)
          tile.queries[i * tile.stride() + column] = tile.queries[i * tile.stride() + tile.columns - 1];
        tile.last[column] = tile.last[tile.columns - 1];
        continue;
      }
      const Index place = first_column + column, token = span.offset + first + place / group();
      const float* source = qkv + token * qkv_width() + (kv_head * group() + place % group()) * cache.head_dim;
      rotate_head<Turn::kForward>(source, query, tables.cos + token * half, tables.sin + token * half,
                                  tables.rotary_dim, cache.head_dim, scale);
      for (Index i = 0; i < cache.head_dim; ++i) tile.queries[i * tile.stride() + column] = query[i];
      tile.last[column] = static_cast<std::int32_t>(span.start + first + place / group());
    }
  }

  void add_keys(detail::QueryTile& tile, const LayerCache& layer, const BlockTable& table, Index kv_head, Index first,
                Index end) const {
    const Index dim = cache.head_dim;
    const Index count = end - first < detail::kCachedKeys ? end - first : detail::kCachedKeys;
    const Index padded = round_up(count, kTileRows);
    const auto take = [&](const void* numbers, const float* scales) {
      read_heads(cache, numbers, scales, table, first, kv_head, count, tile.keys);
      std::memset(tile.keys + count * dim, 0, (padded - count) * dim * sizeof(float));
    };
    take(layer.keys, layer.key_scales);
    tile_product<Into::kOverwrite>({tile.keys, dim, 1}, tile.queries, tile.stride(), tile.scores, tile.stride(), padded,
                                   tile.stride(), dim);
    tile.absorb(first, count, dim);
    take(layer.values, layer.value_scales);
    add_values(tile, count);
  }

  // sums (head_dim, columns) += values^T (head_dim, keys) times exponentials (keys, columns).
  void add_values(detail::QueryTile& tile, Index count) const {
    const Index dim = cache.head_dim, whole = dim / kTileRows * kTileRows;
    tile_product<Into::kAdd>({tile.keys, 1, dim}, tile.scores, tile.stride(), tile.sums, tile.stride(), whole,
                             tile.stride(), count);
    for (Index i = whole; i < dim; ++i)
      for (Index v = 0; v < tile.vectors; ++v) {
        float* target = tile.sums + i * tile.stride() + v * kLanes;
        Vec sum = load(target);
        for (Index key = 0; key < count; ++key)
          sum += tile.keys[key * dim + i] * load(tile.scores + key * tile.stride() + v * kLanes);
        store(target, sum);
      }
  }

  void scatter(const detail::QueryTile& tile, const Span& span, Index first, Index kv_head, Index first_column,
               float* out) const {
    for (Index column = 0; column < tile.columns; ++column) {
      const Index place = first_column + column, token = span.offset + first + place / group();
      float* target = out + token * out_width() + (kv_head * group() + place % group()) * cache.head_dim;
      const float reciprocal = 1.0f / tile.total[column / kLanes][column % kLanes];
      for (Index i = 0; i < cache.head_dim; ++i) target[i] = tile.sums[i * tile.stride() + column] * reciprocal;
    }
  }
};

}  // namespace glm3
