// Root mean square normalisation of rows (Zhang and Sennrich, 2019).
#pragma once

#include <cmath>

#include "parallel.h"
#include "reduce.h"
#include "vec.h"

namespace glm3 {

// y = x * r * weight with r = 1 / sqrt(mean(x^2) + epsilon), per row.
//
// x, y (rows, width); weight (width); reciprocal_rms (rows) is kept for the backward pass.
inline void rms_norm(const float* x, const float* weight, float epsilon, float* y, float* reciprocal_rms, Index rows,
                     Index width) {
  parallel_ranges(rows, row_grain(width), rows * width, [&](Index, Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* in = x + row * width;
      float* out = y + row * width;
      const float squares = sum_terms(width, [&](Index j, auto lanes) {
        const Vec value = load(in + j, lanes);
        return value * value;
      });
      const float r = 1.0f / std::sqrt(squares / static_cast<float>(width) + epsilon);
      reciprocal_rms[row] = r;
      for_lanes(width, [&](Index j, auto lanes) {
        store(out + j, load(in + j, lanes) * r * load(weight + j, lanes), lanes);
      });
    }
  });
}

// Gradients of rms_norm: dx (rows, width) and dweight (width) from dy (rows, width).
//
// dx = r * dy * weight - x * r^3 * mean(dy * weight * x); dweight = sum over rows of dy * x * r.
inline void rms_norm_backward(const float* dy, const float* x, const float* weight, const float* reciprocal_rms,
                              float* dx, float* dweight, Index rows, Index width) {
  const Index pieces = ceil_div(rows, kRowsPerPiece);
  const Buffer partial(pieces * width);
  parallel_ranges(rows, kRowsPerPiece, rows * width, [&](Index piece, Index begin, Index end) {
    float* sums = partial + piece * width;
    std::memset(sums, 0, width * sizeof(float));
    for (Index row = begin; row < end; ++row) {
      const float* in = x + row * width;
      const float* grad = dy + row * width;
      float* out = dx + row * width;
      const float r = reciprocal_rms[row];
      const float products = sum_terms(width, [&](Index j, auto lanes) {
        const Vec value = load(in + j, lanes), g = load(grad + j, lanes);
        store(sums + j, load(sums + j, lanes) + g * value * r, lanes);
        return g * load(weight + j, lanes) * value;
      });
      const float shared = products * r * r * r / static_cast<float>(width);
      for_lanes(width, [&](Index j, auto lanes) {
        store(out + j, load(grad + j, lanes) * load(weight + j, lanes) * r - load(in + j, lanes) * shared, lanes);
      });
    }
  });
  sum_rows(partial.data(), dweight, pieces, width);
}

}  // namespace glm3
