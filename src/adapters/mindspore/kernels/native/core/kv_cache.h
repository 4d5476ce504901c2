// Keys and values of the tokens that were seen, in float32, float16 or eight bits.
#pragma once

#include <cmath>

#include "half.h"
#include "parallel.h"

namespace glm3 {

enum CacheFormat : std::int64_t { kCacheFloat32 = 0, kCacheFloat16 = 1, kCacheInt8 = 2 };

// The cache of one layer, a pool of blocks: keys and values (blocks, block_size, num_kv_heads, head_dim).
//
// Eight-bit numbers have a float32 scale for each head of each token: (blocks, block_size, num_kv_heads).
struct LayerCache {
  void* keys;
  void* values;
  float* key_scales;
  float* value_scales;
};

// Where a sequence is in the pool: its position p is place p % block_size of block table[p / block_size].
struct BlockTable {
  const std::int32_t* blocks;
  std::int64_t count;
};

struct CacheShape {
  std::int64_t format, blocks, block_size, num_kv_heads, head_dim;

  Index place(const BlockTable& table, Index position, Index head) const {
    const Index block = table.blocks[position / block_size];
    return (block * block_size + position % block_size) * num_kv_heads + head;
  }

  // How many places from `position` on follow each other in memory.
  Index run(Index position) const { return block_size - position % block_size; }

  // Whether the table says where each of `length` positions is.
  bool holds(const BlockTable& table, Index length) const {
    const Index needed = (length + block_size - 1) / block_size;
    if (needed > table.count) return false;
    for (Index i = 0; i < needed; ++i)
      if (table.blocks[i] < 0 || table.blocks[i] >= blocks) return false;
    return true;
  }
};

namespace detail {

inline float largest_size(const float* x, Index size) {
  Vec lanes_max{};
  for_lanes(size, [&](Index i, auto lanes) {
    const Vec value = load(x + i, lanes);
    lanes_max = max(value < Vec{} ? -value : value, lanes_max);
  });
  return max_lanes(lanes_max);
}

inline void write_int8(const float* x, std::int8_t* target, float* scale, Index size) {
  bool finite = true;
  for (Index i = 0; i < size; ++i) finite &= std::isfinite(x[i]);
  const float largest = finite ? largest_size(x, size) : std::nanf("");
  const float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;  // what is smaller counts as 0
  *scale = largest / 127.0f;
  for (Index i = 0; i < size; ++i)
    target[i] = inverse > 0.0f ? static_cast<std::int8_t>(std::nearbyint(x[i] * inverse)) : std::int8_t{0};
}

}  // namespace detail

// Stores one head of one token, x (head_dim), at `place`.
inline void write_head(const CacheShape& shape, void* numbers, float* scales, Index place, const float* x) {
  const Index offset = place * shape.head_dim;
  if (shape.format == kCacheInt8) {
    detail::write_int8(x, static_cast<std::int8_t*>(numbers) + offset, scales + place, shape.head_dim);
  } else if (shape.format == kCacheFloat16) {
    Float16* target = static_cast<Float16*>(numbers) + offset;
    for_lanes(shape.head_dim, [&](Index i, auto lanes) { store(target + i, load(x + i, lanes), lanes); });
  } else {
    std::memcpy(static_cast<float*>(numbers) + offset, x, shape.head_dim * sizeof(float));
  }
}

namespace detail {

// Widens one head of `count` tokens that follow each other from `place` on.
inline void read_run(const CacheShape& shape, const void* numbers, const float* scales, Index place, Index count,
                     float* target) {
  for (Index token = 0; token < count; ++token, place += shape.num_kv_heads, target += shape.head_dim) {
    const Index offset = place * shape.head_dim;
    if (shape.format == kCacheInt8) {
      const std::int8_t* source = static_cast<const std::int8_t*>(numbers) + offset;
      for (Index i = 0; i < shape.head_dim; ++i) target[i] = scales[place] * static_cast<float>(source[i]);
    } else if (shape.format == kCacheFloat16) {
      const Float16* source = static_cast<const Float16*>(numbers) + offset;
      for_lanes(shape.head_dim, [&](Index i, auto lanes) { store(target + i, load(source + i, lanes), lanes); });
    } else {
      std::memcpy(target, static_cast<const float*>(numbers) + offset, shape.head_dim * sizeof(float));
    }
  }
}

}  // namespace detail

// Widens one head of `count` tokens from `position` on into `target` (count, head_dim).
inline void read_heads(const CacheShape& shape, const void* numbers, const float* scales, const BlockTable& table,
                       Index position, Index head, Index count, float* target) {
  while (count > 0) {
    const Index run = shape.run(position) < count ? shape.run(position) : count;
    detail::read_run(shape, numbers, scales, shape.place(table, position, head), run, target);
    position += run;
    count -= run;
    target += run * shape.head_dim;
  }
}

}  // namespace glm3
