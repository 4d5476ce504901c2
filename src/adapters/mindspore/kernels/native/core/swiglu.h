// The gated activation of the feed-forward block (Shazeer, 2020): silu(gate) * up.
#pragma once

#include "parallel.h"
#include "vec.h"

namespace glm3 {

// y (rows, width) from h (rows, 2 * width), whose rows hold gate, then up.
inline void swiglu(const float* h, float* y, Index rows, Index width) {
  parallel_ranges(rows, row_grain(width), 3 * rows * width, [&](Index, Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* gate = h + row * 2 * width;
      const float* up = gate + width;
      float* out = y + row * width;
      for_lanes(width, [&](Index j, auto lanes) {
        const Vec g = load(gate + j, lanes);
        store(out + j, g * sigmoid(g) * load(up + j, lanes), lanes);
      });
    }
  });
}

// dh (rows, 2 * width) from dy (rows, width) and the forward input h.
inline void swiglu_backward(const float* dy, const float* h, float* dh, Index rows, Index width) {
  parallel_ranges(rows, row_grain(width), 5 * rows * width, [&](Index, Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* gate = h + row * 2 * width;
      const float* up = gate + width;
      const float* grad = dy + row * width;
      float* dgate = dh + row * 2 * width;
      float* dup = dgate + width;
      for_lanes(width, [&](Index j, auto lanes) {
        const Vec g = load(gate + j, lanes), d = load(grad + j, lanes), s = sigmoid(g);
        store(dgate + j, d * load(up + j, lanes) * s * (1.0f + g * (1.0f - s)), lanes);
        store(dup + j, d * g * s, lanes);
      });
    }
  });
}

}  // namespace glm3
