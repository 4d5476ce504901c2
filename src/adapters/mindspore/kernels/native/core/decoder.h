// One pass of new tokens through the whole network over a KV cache: what MindSpore would run as some three
// hundred operators, as one call.
#pragma once

#include "cached_attention.h"
#include "dense_product.h"
#include "rms_norm.h"
#include "swiglu.h"

namespace glm3 {

// A norm's weight or a bias, stored in one of the floating formats; `data` is null where there is none.
struct Vector {
  std::int64_t storage;
  const void* data;

  bool is_valid() const { return storage >= kFloat32 && storage <= kBFloat16; }

  // Its `size` numbers in float32; those of a narrow one stay in `scratch` until the next.
  const float* numbers(Index size, Scratch<float>& scratch) const {
    if (data == nullptr || storage == kFloat32) return static_cast<const float*>(data);
    float* wide = scratch.of(size);
    const auto widen = [&](const auto* halves) {
      for_lanes(size, [&](Index i, auto lanes) { store(wide + i, load(halves + i, lanes), lanes); });
    };
    if (storage == kFloat16) {
      widen(static_cast<const Float16*>(data));
    } else {
      widen(static_cast<const BFloat16*>(data));
    }
    return wide;
  }
};

// A product and its bias (out).
struct Projection {
  Matrix weight;
  Vector bias;
};

// The weights of one transformer block.
struct Block {
  Vector input_norm, post_attention_norm;
  Projection query_key_value, dense, dense_h_to_4h, dense_4h_to_h;
};

struct Network {
  std::int64_t num_layers, hidden, ffn, num_heads, num_kv_heads, head_dim, rotary_dim, vocab;
  std::int64_t residual_behind_norm;
  float epsilon;
  Matrix embedding;
  const Block* blocks;  // (num_layers)
  Vector final_norm;
  Projection output;

  Index qkv_width() const { return (num_heads + 2 * num_kv_heads) * head_dim; }
  Index attention_width() const { return num_heads * head_dim; }

  bool is_valid() const {
    const auto fits = [](const Projection& p, Index out, Index in) {
      return p.weight.is_valid() && p.bias.is_valid() && p.weight.out == out && p.weight.in == in;
    };
    const bool sizes = num_layers > 0 && hidden > 0 && ffn > 0 && num_kv_heads > 0 && num_heads > 0 &&
                       num_heads % num_kv_heads == 0 && head_dim > 0 && head_dim <= CachedAttention::kMostHeadDim &&
                       rotary_dim >= 0 && rotary_dim <= head_dim && rotary_dim % 2 == 0;
    if (!sizes || !embedding.is_valid() || embedding.out != vocab || embedding.in != hidden) return false;
    if (!fits(output, vocab, hidden) || !final_norm.is_valid()) return false;
    for (Index layer = 0; layer < num_layers; ++layer) {
      const Block& block = blocks[layer];
      if (!fits(block.query_key_value, qkv_width(), hidden) || !fits(block.dense, hidden, attention_width()) ||
          !fits(block.dense_h_to_4h, 2 * ffn, hidden) || !fits(block.dense_4h_to_h, hidden, ffn) ||
          !block.input_norm.is_valid() || block.input_norm.data == nullptr || !block.post_attention_norm.is_valid() ||
          block.post_attention_norm.data == nullptr)
        return false;
    }
    return true;
  }
};

// New tokens, packed row after row, and what is wanted of them.
struct Pass {
  std::int64_t tokens, span_count, wanted_count;
  const std::int32_t* ids;     // (tokens)
  const Span* spans;           // (span_count), in the order of the tokens
  const float* cos;            // (tokens, rotary_dim / 2)
  const float* sin;
  const std::int32_t* wanted;  // (wanted_count): the tokens whose logits are computed
  float* logits;               // (wanted_count, vocab)
  float* states;               // (num_layers + 1, tokens, hidden), or null: the embedding and each block's output

  bool fits(const Network& network, const CacheShape& cache) const {
    if (tokens <= 0 || span_count <= 0 || wanted_count < 0) return false;
    if (cache.num_kv_heads != network.num_kv_heads || cache.head_dim != network.head_dim) return false;
    if (cache.format < kCacheFloat32 || cache.format > kCacheInt8 || cache.block_size <= 0) return false;
    Index next = 0;
    for (Index s = 0; s < span_count; ++s) {
      const Span& span = spans[s];
      if (span.offset != next || !span.fits(cache)) return false;
      next += span.length;
    }
    for (Index i = 0; i < wanted_count; ++i)
      if (wanted[i] < 0 || wanted[i] >= tokens) return false;
    return next == tokens;
  }
};

// Memory that passes share: it grows to what the largest needs.
class Decoder {
 public:
  // Runs a pass and puts its keys and values into `layers` (num_layers); false if an id is not in the table.
  bool run(const Network& network, const CacheShape& cache, const LayerCache* layers, const Pass& pass) {
    const Index tokens = pass.tokens;
    float* x = x_.of(tokens * network.hidden);
    if (!take_rows(network.embedding, pass.ids, x, tokens)) return false;
    keep_state(network, pass, 0, x);
    const CachedAttention attention{cache, network.num_heads, {pass.cos, pass.sin, network.rotary_dim}};
    for (Index layer = 0; layer < network.num_layers; ++layer) {
      run_block(network, network.blocks[layer], attention, layers[layer], pass, x);
      keep_state(network, pass, layer + 1, x);
    }
    if (pass.wanted_count > 0) score(network, pass, x);
    return true;
  }

 private:
  static void keep_state(const Network& network, const Pass& pass, Index place, const float* x) {
    if (pass.states == nullptr) return;
    const Index size = pass.tokens * network.hidden;
    std::memcpy(pass.states + place * size, x, size * sizeof(float));
  }

  void project(const Projection& projection, const float* x, Index tokens, float* y, const float* residual = nullptr) {
    product(projection.weight, x, tokens, space_, {y, projection.bias.numbers(projection.weight.out, vector_), residual});
  }

  float* norm(const Network& network, const float* x, const Vector& vector, Index tokens) {
    const float* weight = vector.numbers(network.hidden, vector_);
    float* normed = normed_.of(tokens * network.hidden);
    float* reciprocals = reciprocals_.of(tokens);
    pool_tasks(tokens, tokens * network.hidden, [&](Index token, int) {
      const Index first = token * network.hidden;
      rms_norm(x + first, weight, network.epsilon, normed + first, reciprocals + token, 1, network.hidden);
    });
    return normed;
  }

  void run_block(const Network& network, const Block& block, const CachedAttention& attention, const LayerCache& layer,
                 const Pass& pass, float* x) {
    const Index tokens = pass.tokens;
    const float* normed = norm(network, x, block.input_norm, tokens);
    float* qkv = wide_.of(tokens * network.qkv_width());
    float* attended = middle_.of(tokens * network.attention_width());
    project(block.query_key_value, normed, tokens, qkv);
    attention.write(layer, qkv, pass.spans, pass.span_count);
    attention.read(layer, qkv, pass.spans, pass.span_count, tiles_, attended);
    project(block.dense, attended, tokens, x, network.residual_behind_norm ? normed : x);

    normed = norm(network, x, block.post_attention_norm, tokens);
    float* h = wide_.of(tokens * 2 * network.ffn);
    float* gated = middle_.of(tokens * network.ffn);
    project(block.dense_h_to_4h, normed, tokens, h);
    pool_tasks(tokens, tokens * network.ffn * 3,
               [&](Index token, int) { swiglu(h + token * 2 * network.ffn, gated + token * network.ffn, 1, network.ffn); });
    project(block.dense_4h_to_h, gated, tokens, x, network.residual_behind_norm ? normed : x);
  }

  void score(const Network& network, const Pass& pass, const float* x) {
    float* last = middle_.of(pass.wanted_count * network.hidden);
    for (Index i = 0; i < pass.wanted_count; ++i)
      std::memcpy(last + i * network.hidden, x + pass.wanted[i] * network.hidden, network.hidden * sizeof(float));
    const float* scored = network.final_norm.data == nullptr ? last : norm(network, last, network.final_norm, pass.wanted_count);
    project(network.output, scored, pass.wanted_count, pass.logits);
  }

  ProductSpace space_;
  Scratch<float> x_, normed_, reciprocals_, wide_, middle_, tiles_, vector_;
};

}  // namespace glm3
