// Mean cross-entropy over the rows whose label is not kIgnored.
//
// The forward pass keeps one number per row instead of the gradient: a gradient matrix of 1,536 rows of the
// full vocabulary would be 400 MB held from the forward to the backward pass.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include "parallel.h"
#include "vec.h"

namespace glm3 {

constexpr std::int32_t kIgnored = -100;

// Whether every label is kIgnored or a column of the logits.
inline bool labels_are_valid(const std::int32_t* labels, Index rows, Index vocab) {
  for (Index row = 0; row < rows; ++row)
    if (labels[row] != kIgnored && (labels[row] < 0 || labels[row] >= vocab)) return false;
  return true;
}

// 1 / (count + 1e-8): the weight of one counted row.
inline double row_weight(const std::int32_t* labels, Index rows) {
  Index count = 0;
  for (Index row = 0; row < rows; ++row) count += labels[row] != kIgnored;
  return 1.0 / (static_cast<double>(count) + 1e-8);
}

// What a row keeps for the backward pass. Apart, the two keep the digits that their sum would round away.
struct RowSum {
  float largest;
  float log_sum;  // of exp(x - largest)
};

// The RowSum of `size` numbers, read once.
inline RowSum row_sum(const float* x, Index size) {
  constexpr Index kBlock = 1024;  // stays in the first-level cache between its two readings
  float largest = -std::numeric_limits<float>::infinity(), sum = 0;
  for (Index begin = 0; begin < size; begin += kBlock) {
    const Index count = begin + kBlock < size ? kBlock : size - begin;
    const float* block = x + begin;
    Vec largest_lanes = splat(largest);
    for_lanes(count, [&](Index j, auto lanes) {
      largest_lanes = max(fill_unused(load(block + j, lanes), largest, lanes), largest_lanes);
    });
    const float next = max_lanes(largest_lanes);
    const float sum_here = sum_terms(
        count, [&](Index j, auto lanes) { return fill_unused(exp(load(block + j, lanes) - next), 0.0f, lanes); });
    sum = (begin == 0 ? 0.0f : sum * std::exp(largest - next)) + sum_here;
    largest = next;
  }
  return {largest, std::log(sum)};
}

// The mean of -log(softmax(row)[label]); 0 when no row counts. Returns false on a label out of range.
//
// logits (rows, vocab); labels (rows); row_sums (rows) are kept for the backward pass.
inline bool cross_entropy(const float* logits, const std::int32_t* labels, float* loss, RowSum* row_sums, Index rows,
                          Index vocab) {
  if (!labels_are_valid(labels, rows, vocab)) return false;
  parallel_ranges(rows, row_grain(vocab), rows * vocab, [&](Index, Index begin, Index end) {
    for (Index row = begin; row < end; ++row)
      row_sums[row] = labels[row] == kIgnored ? RowSum{} : row_sum(logits + row * vocab, vocab);
  });
  double total = 0;
  for (Index row = 0; row < rows; ++row)
    if (labels[row] != kIgnored)
      total += row_sums[row].log_sum - (static_cast<double>(logits[row * vocab + labels[row]]) - row_sums[row].largest);
  *loss = static_cast<float>(total * row_weight(labels, rows));
  return true;
}

// dlogits (rows, vocab) = upstream * (softmax - one_hot) / count; upstream carries a loss scale for free.
inline bool cross_entropy_backward(float upstream, const float* logits, const std::int32_t* labels,
                                   const RowSum* row_sums, float* dlogits, Index rows, Index vocab) {
  if (!labels_are_valid(labels, rows, vocab)) return false;
  const float weight = static_cast<float>(upstream * row_weight(labels, rows));
  parallel_ranges(rows, row_grain(vocab), rows * vocab, [&](Index, Index begin, Index end) {
    for (Index row = begin; row < end; ++row) {
      const float* in = logits + row * vocab;
      float* out = dlogits + row * vocab;
      if (labels[row] == kIgnored) {
        std::memset(out, 0, vocab * sizeof(float));
        continue;
      }
      const RowSum sum = row_sums[row];
      for_lanes(vocab, [&](Index j, auto lanes) {
        store(out + j, exp(load(in + j, lanes) - sum.largest - sum.log_sum) * weight, lanes);
      });
      out[labels[row]] -= weight;
    }
  });
  return true;
}

}  // namespace glm3
