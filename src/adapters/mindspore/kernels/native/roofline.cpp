// What this machine can do at most, for benchmarks: bytes read and dot products taken by the same threads.
#include "core/dot.h"
#include "core/pool.h"

using glm3::Index;

namespace {

// Keeps a value that nothing else uses.
template <class Value>
void keep(const Value& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

void glm3_set_threads(int threads) { glm3::thread_limit() = threads; }

// Reads floats (a multiple of 2^18) once, and returns their sum so that they are read.
float glm3_read(const float* data, Index size) {
  constexpr Index kPiece = 1 << 18;
  std::atomic<float> total{0.0f};
  glm3::pool_tasks(size / kPiece, size, [&](Index task, int) {
    glm3::Vec sums[4] = {};
    const float* piece = data + task * kPiece;
    for (Index i = 0; i < kPiece; i += 4 * glm3::kLanes)
      for (int j = 0; j < 4; ++j) {
        __builtin_prefetch(piece + i + j * glm3::kLanes + 1024);
        sums[j] += glm3::load(piece + i + j * glm3::kLanes);
      }
    total = total + glm3::sum_lanes(sums[0] + sums[1] + sums[2] + sums[3]);
  });
  return total;
}

// Takes `rounds` times 12 dot products of levels with inputs, all in registers, on every thread.
//
// Each is 2 * 4 * 16 operations.
void glm3_dots(Index rounds, int bits) {
  glm3::pool_tasks(glm3::Pool::size(), 1 << 30, [&](Index, int thread) {
    constexpr int kSums = 12;
    glm3::Ints sums[kSums];
    for (int i = 0; i < kSums; ++i) sums[i] = glm3::splat_ints(i);
    std::uint8_t bytes[glm3::kLevelBytes];
    for (int i = 0; i < glm3::kLevelBytes; ++i) bytes[i] = static_cast<std::uint8_t>((i + thread) % 15);
    const glm3::LevelVec levels = glm3::load_levels(bytes);
    for (Index round = 0; round < rounds; ++round) {
      std::int32_t inputs = static_cast<std::int32_t>(round) * 0x01010101;
#pragma GCC unroll 12
      for (int i = 0; i < kSums; ++i) {
        if (bits == 4) {
          glm3::add_dot<4>(sums[i], levels, inputs);
        } else {
          glm3::add_dot<8>(sums[i], levels, inputs);
        }
      }
    }
    glm3::Ints total = sums[0];
    for (int i = 1; i < kSums; ++i)
      for (int p = 0; p < glm3::kParts; ++p) total.part[p] += sums[i].part[p];
    keep(total);
  });
}

}  // extern "C"
#pragma GCC visibility pop
