// A bias added to every row, and its gradient.
#pragma once

#include "parallel.h"
#include "reduce.h"
#include "vec.h"

namespace glm3 {

// y = x + bias, row by row: x, y (rows, width); bias (width).
inline void bias_add(const float* x, const float* bias, float* y, Index rows, Index width) {
  parallel_ranges(rows, row_grain(width), rows * width, [&](Index, Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      for_lanes(width, [&](Index j, auto lanes) {
        store(y + row * width + j, load(x + row * width + j, lanes) + load(bias + j, lanes), lanes);
      });
  });
}

// dbias (width): the sum of dy (rows, width) over its rows.
inline void bias_backward(const float* dy, float* dbias, Index rows, Index width) {
  const Index pieces = ceil_div(rows, kRowsPerPiece);
  const Buffer partial(pieces * width);
  parallel_ranges(rows, kRowsPerPiece, rows * width, [&](Index piece, Index begin, Index end) {
    sum_rows(dy + begin * width, partial + piece * width, end - begin, width);
  });
  sum_rows(partial.data(), dbias, pieces, width);
}

}  // namespace glm3
