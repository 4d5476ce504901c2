// The gradient of attention.h: scores are computed again from the saved logarithms of the row sums.
#pragma once

#include "attention.h"

namespace glm3 {

// What the forward pass read and wrote, and the gradient of its output.
struct AttentionResult {
  const float* qkv;   // (batch * seq, qkv_width)
  const float* dout;  // (batch * seq, num_heads * head_dim)
  const float* out;   // likewise
  const float* lse;   // (batch, num_heads, seq)
};

namespace detail {

// Gradients of one (sequence, query head): dq goes to dqkv, dk and dv (padded_seq, padded_dim) stay apart.
class HeadGradient {
 public:
  HeadGradient(const AttentionShape& shape, const RotaryTables& tables, const PackedKeyValues& packed,
               const AttentionResult& result, Index sequence, Index head)
      : shape_(shape),
        tables_(tables),
        packed_(packed),
        result_(result),
        sequence_(sequence),
        head_(head),
        kv_head_(sequence * shape.num_kv_heads + head / shape.group()),
        dim_(shape.padded_dim()),
        queries_(kQueryTile * dim_),
        douts_(kQueryTile * dim_),
        dqueries_(kQueryTile * dim_) {}

  void run(float* dqkv, float* dkeys, float* dvalues) const {
    std::memset(dkeys, 0, shape_.head_size() * sizeof(float));
    std::memset(dvalues, 0, shape_.head_size() * sizeof(float));
    for (Index first = 0; first < shape_.seq; first += kQueryTile) {
      const Index end = first + kQueryTile < shape_.seq ? first + kQueryTile : shape_.seq;
      float shared[kQueryTile];
      load_tile(first, end, shared);
      for (Index key = 0; key < end; key += kKeyTile)
        add_tile(first, end, key, shared, dkeys + key * dim_, dvalues + key * dim_);
      store_dqueries(first, end, dqkv);
    }
  }

 private:
  // Packs queries and output gradients; shared[row] = dot(dout, out), the softmax's common term.
  void load_tile(Index first, Index end, float* shared) const {
    pack_queries(shape_, tables_, result_.qkv, sequence_, head_, first, end, queries_.data());
    for (Index token = first; token < end; ++token) {
      const Index offset = shape_.out_offset(sequence_, token, head_);
      pack_plain(shape_, result_.dout + offset, douts_ + (token - first) * dim_);
      shared[token - first] = sum_terms(shape_.head_dim, [&](Index i, auto lanes) {
        return load(result_.dout + offset + i, lanes) * load(result_.out + offset + i, lanes);
      });
    }
    std::memset(douts_ + (end - first) * dim_, 0, (first + kQueryTile - end) * dim_ * sizeof(float));
    std::memset(dqueries_.data(), 0, kQueryTile * dim_ * sizeof(float));
  }

  void add_tile(Index first, Index end, Index key, const float* shared, float* dkeys, float* dvalues) const {
    alignas(64) float weights[kQueryTile * kKeyTile], dscores[kQueryTile * kKeyTile];
    const Index columns = visible_columns(key, end), depth = shape_.head_dim;
    tile_product<Into::kOverwrite>({queries_.data(), dim_, 1}, packed_.keys_transposed(kv_head_, key), kKeyTile, weights,
                                   kKeyTile, kQueryTile, columns, depth);
    tile_product<Into::kOverwrite>({douts_.data(), dim_, 1}, packed_.values_transposed(kv_head_, key), kKeyTile,
                                   dscores, kKeyTile, kQueryTile, columns, depth);
    const float* lse = result_.lse + (sequence_ * shape_.num_heads + head_) * shape_.seq;
    for (Index row = 0; row < kQueryTile; ++row) {
      float* weight = weights + row * kKeyTile;
      float* dscore = dscores + row * kKeyTile;
      const bool is_padding = first + row >= end;
      const Index last = is_padding ? -1 : first + row;
      const float row_lse = is_padding ? 0.0f : lse[last], common = is_padding ? 0.0f : shared[row];
      for (Index j = 0; j < columns; j += kLanes) store(weight + j, exp(load(weight + j) - row_lse));
      mask_future(weight, last, key, columns, 0.0f);
      for (Index j = 0; j < columns; j += kLanes)
        store(dscore + j, load(weight + j) * (load(dscore + j) - common));
    }
    tile_product<Into::kAdd>({dscores, kKeyTile, 1}, packed_.keys(kv_head_, key), dim_, dqueries_.data(), dim_,
                             kQueryTile, dim_, columns);
    tile_product<Into::kAdd>({dscores, 1, kKeyTile}, queries_.data(), dim_, dkeys, dim_, columns, dim_, kQueryTile);
    tile_product<Into::kAdd>({weights, 1, kKeyTile}, douts_.data(), dim_, dvalues, dim_, columns, dim_, kQueryTile);
  }

  void store_dqueries(Index first, Index end, float* dqkv) const {
    const Index half = shape_.rotary_dim / 2;
    for (Index token = first; token < end; ++token)
      rotate_head<Turn::kBackward>(dqueries_ + (token - first) * dim_,
                                   dqkv + shape_.qkv_offset(sequence_, token, head_), tables_.cos + token * half,
                                   tables_.sin + token * half, shape_.rotary_dim, shape_.head_dim, shape_.scale());
  }

  const AttentionShape& shape_;
  const RotaryTables& tables_;
  const PackedKeyValues& packed_;
  const AttentionResult& result_;
  Index sequence_, head_, kv_head_, dim_;
  Buffer queries_, douts_, dqueries_;
};

}  // namespace detail

// dqkv (batch * seq, qkv_width): the gradient of the joined projection.
inline void attention_backward(const AttentionShape& shape, const RotaryTables& tables, const AttentionResult& result,
                               float* dqkv) {
  const PackedKeyValues packed(shape, tables, result.qkv, true);
  const Index heads = shape.batch * shape.num_heads, kv_heads = shape.batch * shape.num_kv_heads;
  const Index dim = shape.padded_dim(), size = shape.head_size(), work = heads * shape.seq * shape.seq;
  const Buffer dkeys(heads * size), dvalues(heads * size);
  parallel_tasks(heads, work, [&](Index task) {
    const detail::HeadGradient gradient(shape, tables, packed, result, task / shape.num_heads,
                                        task % shape.num_heads);
    gradient.run(dqkv, dkeys + task * size, dvalues + task * size);
  });
  const Index half = shape.rotary_dim / 2, group = shape.group();
  parallel_tasks(kv_heads, heads * size, [&](Index task) {
    const Index sequence = task / shape.num_kv_heads, kv = task % shape.num_kv_heads;
    float* dkey = dkeys + (sequence * shape.num_heads + kv * group) * size;
    float* dvalue = dvalues + (sequence * shape.num_heads + kv * group) * size;
    for (Index token = 0; token < shape.seq; ++token) {
      const Index row = token * dim;
      for (Index member = 1; member < group; ++member)
        for (Index i = 0; i < dim; i += kLanes) {
          store(dkey + row + i, load(dkey + row + i) + load(dkey + member * size + row + i));
          store(dvalue + row + i, load(dvalue + row + i) + load(dvalue + member * size + row + i));
        }
      rotate_head<Turn::kBackward>(dkey + row, dqkv + shape.qkv_offset(sequence, token, shape.num_heads + kv),
                                   tables.cos + token * half, tables.sin + token * half, shape.rotary_dim,
                                   shape.head_dim, 1.0f);
      std::memcpy(dqkv + shape.qkv_offset(sequence, token, shape.num_heads + shape.num_kv_heads + kv), dvalue + row,
                  shape.head_dim * sizeof(float));
    }
  });
}

}  // namespace glm3
