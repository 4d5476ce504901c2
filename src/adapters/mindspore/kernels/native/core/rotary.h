// Rotary position embedding (Su et al., 2021) over the first numbers of a head, in interleaved pairs.
#pragma once

#include <cstring>

#include "vec.h"

namespace glm3 {

enum class Turn { kForward, kBackward };  // backward is the inverse rotation, which is also the gradient

// Rotates pairs (2i, 2i + 1) by the angles of cos, sin (rotary_dim / 2), scales, and copies the rest.
//
// source, target (head_dim); they may be the same.
template <Turn turn>
inline void rotate_head(const float* source, float* target, const float* cos, const float* sin, Index rotary_dim,
                        Index head_dim, float scale) {
  for (Index pair = 0; pair < rotary_dim / 2; ++pair) {
    const float even = source[2 * pair], odd = source[2 * pair + 1];
    const float c = cos[pair] * scale, s = (turn == Turn::kForward ? sin[pair] : -sin[pair]) * scale;
    target[2 * pair] = even * c - odd * s;
    target[2 * pair + 1] = odd * c + even * s;
  }
  for (Index i = rotary_dim; i < head_dim; ++i) target[i] = source[i] * scale;
}

}  // namespace glm3
