// Sums whose order is fixed by the shape alone.
#pragma once

#include <vector>

#include "parallel.h"
#include "vec.h"

namespace glm3 {

constexpr Index kRowsPerPiece = 32;  // rows that one task sums before the pieces are added in order

// total (width): the sum of x (rows, width) over its rows, first to last.
inline void sum_rows(const float* x, float* total, Index rows, Index width) {
  for_lanes(width, [&](Index j, auto lanes) {
    Vec sum{};
    for (Index row = 0; row < rows; ++row) sum += load(x + row * width + j, lanes);
    store(total + j, sum, lanes);
  });
}

// The sum of squares of x (size), in double precision: finite exactly if every number is.
inline double sum_of_squares(const float* x, Index size) {
  constexpr Index kGrain = 32768;
  std::vector<double> partial(ceil_div(size, kGrain));
  parallel_ranges(size, kGrain, size, [&](Index piece, Index begin, Index end) {
    double sums[kLanes] = {};
    Index i = begin;
    for (; i + kLanes <= end; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) sums[lane] += static_cast<double>(x[i + lane]) * x[i + lane];
    double total = 0;
    for (; i < end; ++i) total += static_cast<double>(x[i]) * x[i];
    for (const double sum : sums) total += sum;
    partial[piece] = total;
  });
  double total = 0;
  for (const double piece : partial) total += piece;
  return total;
}

}  // namespace glm3
