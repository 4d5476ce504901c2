// The inference kernels under C names. Shapes and rules stand beside each core function.
//
// Functions that can refuse their input return 0 when done and 1 when refused, 2 when memory is short.
#include <new>
#include <string>

#include "core/decoder.h"
#include "core/processor.h"
#include "core/quantize.h"

using glm3::Index;

namespace {

enum Outcome { kComputed = 0, kRefusedInput = 1, kOutOfMemory = 2 };

// Threads of the caller may run different models at once; each has scratch memory of its own.
glm3::ProductSpace& product_space() {
  thread_local glm3::ProductSpace space;
  return space;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Whether this processor has the instructions that the library was compiled for.
int glm3_runs_here() { return glm3::runs_here(); }

// The instructions that products use.
const char* glm3_dot_name() {
  static const std::string name = std::string(glm3::detail::kDotName) + (glm3::Tiles::available() ? ", AMX" : "");
  return name.c_str();
}

// The fewest tokens whose products with packed weights are computed in tiles of bfloat16, or 0: never.
Index glm3_bfloat16_tokens() { return glm3::Tiles::available() ? glm3::kFewestTiled : 0; }

void glm3_widen(Index storage, const void* x, float* y, Index size) {
  using namespace glm3;
  const auto widen = [&](const auto* numbers) {
    for_lanes(size, [&](Index i, auto lanes) { store(y + i, load(numbers + i, lanes), lanes); });
  };
  if (storage == kFloat16) return widen(static_cast<const Float16*>(x));
  if (storage == kBFloat16) return widen(static_cast<const BFloat16*>(x));
  widen(static_cast<const float*>(x));
}

void glm3_narrow(const float* x, void* y, Index size) {
  auto* target = static_cast<glm3::Float16*>(y);
  glm3::for_lanes(size, [&](Index i, auto lanes) { glm3::store(target + i, glm3::load(x + i, lanes), lanes); });
}

int glm3_take_rows(const glm3::Matrix* table, const std::int32_t* ids, float* y, Index tokens) {
  if (!table->is_valid()) return kRefusedInput;
  return glm3::take_rows(*table, ids, y, tokens) ? kComputed : kRefusedInput;
}

int glm3_product(const glm3::Matrix* weight, const float* x, const float* bias, const float* residual, float* y,
                 Index tokens) {
  if (!weight->is_valid() || tokens <= 0) return kRefusedInput;
  try {
    glm3::product(*weight, x, tokens, product_space(), {y, bias, residual});
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kComputed;
}

// Returns the first output channel that cannot be stored, -1 where all can, or -2 where the matrices do not fit.
Index glm3_quantize(const glm3::Matrix* source, const glm3::Matrix* target, const glm3::PackedArrays* arrays) {
  if (!source->is_valid() || source->is_packed() || !target->is_valid() || !target->is_packed() ||
      source->out != target->out || source->in != target->in)
    return -2;
  return glm3::quantize(*source, *target, *arrays);
}

// Writes the new tokens of qkv into the cache of one layer, then attends over it.
int glm3_cached_attention(const glm3::CachedAttention* attention, const glm3::LayerCache* layer, const float* qkv,
                          const glm3::Span* spans, Index span_count, float* out) {
  if (attention->num_heads % attention->cache.num_kv_heads != 0) return kRefusedInput;
  for (Index s = 0; s < span_count; ++s)
    if (!spans[s].fits(attention->cache)) return kRefusedInput;
  try {
    glm3::Scratch<float> scratch;
    attention->write(*layer, qkv, spans, span_count);
    attention->read(*layer, qkv, spans, span_count, scratch, out);
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
  return kComputed;
}

glm3::Decoder* glm3_new_decoder() { return new (std::nothrow) glm3::Decoder; }

void glm3_free_decoder(glm3::Decoder* decoder) { delete decoder; }

// One pass at a time through one decoder.
int glm3_decode(glm3::Decoder* decoder, const glm3::Network* network, const glm3::CacheShape* cache,
                const glm3::LayerCache* layers, const glm3::Pass* pass) {
  if (!network->is_valid() || !pass->fits(*network, *cache)) return kRefusedInput;
  try {
    return decoder->run(*network, *cache, layers, *pass) ? kComputed : kRefusedInput;
  } catch (const std::bad_alloc&) {
    return kOutOfMemory;
  }
}

}  // extern "C"
#pragma GCC visibility pop
