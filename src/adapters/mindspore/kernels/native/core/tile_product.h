// Products of small matrices that lie in the cache, for the tiles of attention.
#pragma once

#include "vec.h"

namespace glm3 {

// A matrix in memory: element (i, j) at data[i * row_stride + j * column_stride].
struct Strided {
  const float* data;
  Index row_stride, column_stride;
};

enum class Into { kOverwrite, kAdd };

namespace detail {

// kRows x (kVectors * kLanes) numbers of c = a b, kept in registers while `depth` runs.
template <Into into, int kRows, int kVectors>
inline void register_tile(Strided a, const float* b, Index b_stride, float* c, Index c_stride, Index depth) {
  Vec sums[kRows][kVectors];
  for (int row = 0; row < kRows; ++row)
    for (int v = 0; v < kVectors; ++v) sums[row][v] = into == Into::kAdd ? load(c + row * c_stride + v * kLanes) : Vec{};
  for (Index k = 0; k < depth; ++k) {
    Vec columns[kVectors];
    for (int v = 0; v < kVectors; ++v) columns[v] = load(b + k * b_stride + v * kLanes);
    for (int row = 0; row < kRows; ++row) {
      const float factor = a.data[row * a.row_stride + k * a.column_stride];
      for (int v = 0; v < kVectors; ++v) sums[row][v] += factor * columns[v];
    }
  }
  for (int row = 0; row < kRows; ++row)
    for (int v = 0; v < kVectors; ++v) store(c + row * c_stride + v * kLanes, sums[row][v]);
}

}  // namespace detail

constexpr Index kTileRows = 8;  // the rows of a product must be a multiple of it

// c (rows, columns) = or += a (rows, depth) times b (depth, columns).
//
// Rows are a multiple of kTileRows, columns of kLanes; b and c have rows of unit stride.
template <Into into>
inline void tile_product(Strided a, const float* b, Index b_stride, float* c, Index c_stride, Index rows,
                         Index columns, Index depth) {
  // 16 sums of AVX-512's 32 registers, 8 of the 16 that AVX and SSE have; NEON's 32 would allow more.
  constexpr int kWide = kLanes == 16 ? 4 : 2, kNarrow = kLanes == 16 ? 2 : 1;
  constexpr int kWideRows = 4, kNarrowRows = 8;
  Index j = 0;
  for (; j + kWide * kLanes <= columns; j += kWide * kLanes)
    for (Index i = 0; i < rows; i += kWideRows)
      detail::register_tile<into, kWideRows, kWide>({a.data + i * a.row_stride, a.row_stride, a.column_stride}, b + j,
                                                    b_stride, c + i * c_stride + j, c_stride, depth);
  for (; j + kNarrow * kLanes <= columns; j += kNarrow * kLanes)
    for (Index i = 0; i < rows; i += kNarrowRows)
      detail::register_tile<into, kNarrowRows, kNarrow>({a.data + i * a.row_stride, a.row_stride, a.column_stride},
                                                        b + j, b_stride, c + i * c_stride + j, c_stride, depth);
  for (; j < columns; j += kLanes)
    for (Index i = 0; i < rows; i += kNarrowRows)
      detail::register_tile<into, kNarrowRows, 1>({a.data + i * a.row_stride, a.row_stride, a.column_stride}, b + j,
                                                  b_stride, c + i * c_stride + j, c_stride, depth);
}

}  // namespace glm3
