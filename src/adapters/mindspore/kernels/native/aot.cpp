// The core as ahead-of-time operators of MindSpore (ops.Custom, "aot").
//
// An operator receives its inputs, then its outputs. It returns 0 when done; anything else makes MindSpore
// raise with that number, which is one of Refusal.
#include <cstring>
#include <new>

#include "core/adamw.h"
#include "core/attention.h"
#include "core/attention_backward.h"
#include "core/bias.h"
#include "core/cross_entropy.h"
#include "core/dropout.h"
#include "core/reduce.h"
#include "core/rms_norm.h"
#include "core/swiglu.h"

namespace {

using glm3::AttentionShape;
using glm3::Index;
using glm3::RotaryTables;

enum Refusal { kDone = 0, kBadLayout = 1, kBadLabel = 2, kNoMemory = 3 };

// The tensors of one call.
class Tensors {
 public:
  Tensors(int count, void** data, int* ranks, std::int64_t** shapes, const char** dtypes)
      : count_(count), data_(data), ranks_(ranks), shapes_(shapes), dtypes_(dtypes) {}

  float* floats(int i) const { return static_cast<float*>(data_[i]); }
  const std::int32_t* ints(int i) const { return static_cast<const std::int32_t*>(data_[i]); }
  Index size(int i) const {
    Index product = 1;
    for (int axis = 0; axis < ranks_[i]; ++axis) product *= shapes_[i][axis];
    return product;
  }
  Index width(int i) const { return ranks_[i] == 0 ? 1 : shapes_[i][ranks_[i] - 1]; }
  Index rows(int i) const { return width(i) == 0 ? 0 : size(i) / width(i); }

  // Whether there are `count` tensors, all float32 but for the one at `int_position`, which is of `int_type`.
  bool are(int count, int int_position = -1, const char* int_type = "int32") const {
    if (count_ != count) return false;
    for (int i = 0; i < count; ++i)
      if (std::strcmp(dtypes_[i], i == int_position ? int_type : "float32") != 0) return false;
    return true;
  }

 private:
  int count_;
  void** data_;
  int* ranks_;
  std::int64_t** shapes_;
  const char** dtypes_;
};

// The sizes follow from the tensors: half of each head is rotated, as in ChatGLM.
AttentionShape attention_shape(const Tensors& t, int qkv, int cos, int out) {
  AttentionShape shape{};
  shape.seq = t.rows(cos);
  shape.rotary_dim = 2 * t.width(cos);
  shape.head_dim = 2 * shape.rotary_dim;
  if (shape.seq == 0 || shape.head_dim == 0) return shape;
  shape.batch = t.rows(qkv) / shape.seq;
  shape.num_heads = t.width(out) / shape.head_dim;
  shape.num_kv_heads = (t.width(qkv) / shape.head_dim - shape.num_heads) / 2;
  return shape;
}

bool fits(const AttentionShape& shape, const Tensors& t, int qkv, int sin, int out, int lse) {
  return shape.is_valid() && t.width(qkv) == shape.qkv_width() && t.rows(qkv) == shape.batch * shape.seq &&
         t.size(sin) == shape.seq * shape.rotary_dim / 2 && t.size(out) == t.rows(qkv) * shape.out_width() &&
         t.size(lse) == shape.batch * shape.num_heads * shape.seq;
}

}  // namespace

// Defines an operator under MindSpore's calling convention; its body sees the tensors as `t`.
#define GLM3_OPERATOR(name)                                                                              \
  static int run_##name(const Tensors& t);                                                               \
  extern "C" __attribute__((visibility("default"))) int name(int count, void** data, int* ranks,         \
                                                             std::int64_t** shapes, const char** dtypes, \
                                                             void*, void*) {                             \
    try {                                                                                                \
      return run_##name(Tensors(count, data, ranks, shapes, dtypes));                                    \
    } catch (const std::bad_alloc&) {                                                                    \
      return kNoMemory;                                                                                  \
    }                                                                                                    \
  }                                                                                                      \
  static int run_##name(const Tensors& t)

// x, bias -> y
GLM3_OPERATOR(Glm3BiasAdd) {
  if (!t.are(3) || t.size(1) != t.width(0)) return kBadLayout;
  glm3::bias_add(t.floats(0), t.floats(1), t.floats(2), t.rows(0), t.width(0));
  return kDone;
}

// dy -> dbias
GLM3_OPERATOR(Glm3BiasBackward) {
  if (!t.are(2)) return kBadLayout;
  glm3::bias_backward(t.floats(0), t.floats(1), t.rows(0), t.width(0));
  return kDone;
}

// x, weight, epsilon -> y, reciprocal_rms
GLM3_OPERATOR(Glm3RmsNorm) {
  if (!t.are(5) || t.size(1) != t.width(0)) return kBadLayout;
  glm3::rms_norm(t.floats(0), t.floats(1), *t.floats(2), t.floats(3), t.floats(4), t.rows(0), t.width(0));
  return kDone;
}

// dy, x, weight, reciprocal_rms -> dx, dweight
GLM3_OPERATOR(Glm3RmsNormBackward) {
  if (!t.are(6) || t.size(2) != t.width(1)) return kBadLayout;
  glm3::rms_norm_backward(t.floats(0), t.floats(1), t.floats(2), t.floats(3), t.floats(4), t.floats(5), t.rows(1),
                          t.width(1));
  return kDone;
}

// h -> y
GLM3_OPERATOR(Glm3SwiGLU) {
  if (!t.are(2) || t.width(0) != 2 * t.width(1)) return kBadLayout;
  glm3::swiglu(t.floats(0), t.floats(1), t.rows(0), t.width(1));
  return kDone;
}

// dy, h -> dh
GLM3_OPERATOR(Glm3SwiGLUBackward) {
  if (!t.are(3) || t.width(1) != 2 * t.width(0)) return kBadLayout;
  glm3::swiglu_backward(t.floats(0), t.floats(1), t.floats(2), t.rows(1), t.width(0));
  return kDone;
}

// qkv, cos, sin -> out, lse
GLM3_OPERATOR(Glm3Attention) {
  if (!t.are(5)) return kBadLayout;
  const AttentionShape shape = attention_shape(t, 0, 1, 3);
  if (!fits(shape, t, 0, 2, 3, 4)) return kBadLayout;
  glm3::attention(shape, RotaryTables{t.floats(1), t.floats(2)}, t.floats(0), t.floats(3), t.floats(4));
  return kDone;
}

// dout, qkv, cos, sin, out, lse -> dqkv
GLM3_OPERATOR(Glm3AttentionBackward) {
  if (!t.are(7)) return kBadLayout;
  const AttentionShape shape = attention_shape(t, 1, 2, 4);
  if (!fits(shape, t, 1, 3, 4, 5)) return kBadLayout;
  glm3::attention_backward(shape, RotaryTables{t.floats(2), t.floats(3)},
                           {t.floats(1), t.floats(0), t.floats(4), t.floats(5)}, t.floats(6));
  return kDone;
}

// x, key, (threshold, scale) -> y
GLM3_OPERATOR(Glm3Dropout) {
  if (!t.are(4, 1, "uint32") || t.size(1) != 1 || t.size(2) != 2 || t.size(3) != t.size(0)) return kBadLayout;
  std::uint32_t key;
  std::memcpy(&key, t.ints(1), sizeof key);
  glm3::dropout(t.floats(0), key, t.floats(2)[0], t.floats(2)[1], t.floats(3), t.size(0));
  return kDone;
}

// logits, labels -> loss, row_sums (rows, 2)
GLM3_OPERATOR(Glm3CrossEntropy) {
  if (!t.are(4, 1) || t.size(1) != t.rows(0) || t.size(3) != 2 * t.rows(0)) return kBadLayout;
  auto* row_sums = reinterpret_cast<glm3::RowSum*>(t.floats(3));
  const bool done = glm3::cross_entropy(t.floats(0), t.ints(1), t.floats(2), row_sums, t.rows(0), t.width(0));
  return done ? kDone : kBadLabel;
}

// dloss, labels, logits, row_sums -> dlogits
GLM3_OPERATOR(Glm3CrossEntropyBackward) {
  if (!t.are(5, 1) || t.size(1) != t.rows(2) || t.size(3) != 2 * t.rows(2)) return kBadLayout;
  const auto* row_sums = reinterpret_cast<const glm3::RowSum*>(t.floats(3));
  const bool done = glm3::cross_entropy_backward(*t.floats(0), t.floats(2), t.ints(1), row_sums, t.floats(4),
                                                 t.rows(2), t.width(2));
  return done ? kDone : kBadLabel;
}

// parameter, m, v, gradient, settings -> a number that says the update is done
GLM3_OPERATOR(Glm3AdamW) {
  if (!t.are(6) || t.size(4) != glm3::kAdamWSettings || t.size(1) != t.size(0) || t.size(2) != t.size(0) ||
      t.size(3) != t.size(0))
    return kBadLayout;
  glm3::AdamWSettings settings;
  std::memcpy(&settings, t.floats(4), sizeof settings);
  glm3::adamw(t.floats(0), t.floats(1), t.floats(2), t.floats(3), settings, t.size(0));
  *t.floats(5) = settings.apply;
  return kDone;
}

// x -> the sum of its squares
GLM3_OPERATOR(Glm3SumOfSquares) {
  if (!t.are(2) || t.size(1) != 1) return kBadLayout;
  *t.floats(1) = static_cast<float>(glm3::sum_of_squares(t.floats(0), t.size(0)));
  return kDone;
}
