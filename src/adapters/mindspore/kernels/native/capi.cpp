// The core under C names, for callers other than MindSpore. Shapes and rules stand beside each core function.
//
// Functions that can refuse their input return 0 when done and 1 when refused.
#include "core/adamw.h"
#include "core/attention.h"
#include "core/attention_backward.h"
#include "core/bias.h"
#include "core/cross_entropy.h"
#include "core/dropout.h"
#include "core/parallel.h"
#include "core/reduce.h"
#include "core/rms_norm.h"
#include "core/swiglu.h"

using glm3::AttentionShape;
using glm3::Index;
using glm3::RotaryTables;

#pragma GCC visibility push(default)
extern "C" {

void glm3_set_threads(int threads) { glm3::thread_limit() = threads; }

void glm3_exp(const float* x, float* y, Index size) {
  glm3::for_lanes(size, [&](Index i, auto lanes) { glm3::store(y + i, glm3::exp(glm3::load(x + i, lanes)), lanes); });
}

void glm3_bias_add(const float* x, const float* bias, float* y, Index rows, Index width) {
  glm3::bias_add(x, bias, y, rows, width);
}

void glm3_bias_backward(const float* dy, float* dbias, Index rows, Index width) {
  glm3::bias_backward(dy, dbias, rows, width);
}

void glm3_rms_norm(const float* x, const float* weight, float epsilon, float* y, float* reciprocal_rms, Index rows,
                   Index width) {
  glm3::rms_norm(x, weight, epsilon, y, reciprocal_rms, rows, width);
}

void glm3_rms_norm_backward(const float* dy, const float* x, const float* weight, const float* reciprocal_rms,
                            float* dx, float* dweight, Index rows, Index width) {
  glm3::rms_norm_backward(dy, x, weight, reciprocal_rms, dx, dweight, rows, width);
}

void glm3_swiglu(const float* h, float* y, Index rows, Index width) { glm3::swiglu(h, y, rows, width); }

void glm3_swiglu_backward(const float* dy, const float* h, float* dh, Index rows, Index width) {
  glm3::swiglu_backward(dy, h, dh, rows, width);
}

int glm3_attention(const AttentionShape* shape, const float* cos, const float* sin, const float* qkv, float* out,
                   float* lse) {
  if (!shape->is_valid()) return 1;
  glm3::attention(*shape, RotaryTables{cos, sin}, qkv, out, lse);
  return 0;
}

int glm3_attention_backward(const AttentionShape* shape, const float* cos, const float* sin, const float* dout,
                            const float* qkv, const float* out, const float* lse, float* dqkv) {
  if (!shape->is_valid()) return 1;
  glm3::attention_backward(*shape, RotaryTables{cos, sin}, {qkv, dout, out, lse}, dqkv);
  return 0;
}

void glm3_dropout(const float* x, std::uint32_t key, float threshold, float scale, float* y, Index size) {
  glm3::dropout(x, key, threshold, scale, y, size);
}

int glm3_cross_entropy(const float* logits, const std::int32_t* labels, float* loss, glm3::RowSum* row_sums, Index rows,
                       Index vocab) {
  return glm3::cross_entropy(logits, labels, loss, row_sums, rows, vocab) ? 0 : 1;
}

int glm3_cross_entropy_backward(float upstream, const float* logits, const std::int32_t* labels, const glm3::RowSum* row_sums,
                                float* dlogits, Index rows, Index vocab) {
  return glm3::cross_entropy_backward(upstream, logits, labels, row_sums, dlogits, rows, vocab) ? 0 : 1;
}

void glm3_adamw(float* parameter, float* m, float* v, const float* gradient, const glm3::AdamWSettings* settings,
                Index size) {
  glm3::adamw(parameter, m, v, gradient, *settings, size);
}

double glm3_sum_of_squares(const float* x, Index size) { return glm3::sum_of_squares(x, size); }

}  // extern "C"
#pragma GCC visibility pop
