// What this machine can do at most, for benchmarks: bytes read and numbers multiplied by the same threads.
#include "core/bfloat16_product.h"

using glm3::Index;

namespace {

// Keeps a value that nothing else uses.
template <class Value>
void keep(const Value& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

constexpr int kDots = 12;
constexpr Index kDotOperations = Index{kDots} * 2 * 4 * glm3::kChannels;
constexpr Index kTileSteps = 4, kTileOperations = kTileSteps * 4 * 2 * glm3::kTileSide * glm3::kTileSize;

void take_dots(Index rounds, int bits, int thread) {
  glm3::Ints sums[kDots];
  for (int i = 0; i < kDots; ++i) sums[i] = glm3::splat_ints(i);
  std::uint8_t bytes[glm3::kLevelBytes];
  for (int i = 0; i < glm3::kLevelBytes; ++i) bytes[i] = static_cast<std::uint8_t>((i + thread) % 15);
  const glm3::LevelVec levels = glm3::load_levels(bytes);
  for (Index round = 0; round < rounds; ++round) {
    std::int32_t inputs = static_cast<std::int32_t>(round) * 0x01010101;
#pragma GCC unroll 12
    for (int i = 0; i < kDots; ++i) {
      if (bits == 4) {
        glm3::add_dot<4>(sums[i], levels, inputs);
      } else {
        glm3::add_dot<8>(sums[i], levels, inputs);
      }
    }
  }
  glm3::Ints total = sums[0];
  for (int i = 1; i < kDots; ++i)
    for (int p = 0; p < glm3::kParts; ++p) total.part[p] += sums[i].part[p];
  keep(total);
}

// With numbers of many bits: processors multiply zeros faster.
void multiply_tiles(Index rounds) {
  constexpr Index kInputs = kTileSteps * glm3::kTileSize, kBits = 0x3c00;
  glm3::Scratch<glm3::BFloat16> inputs, weights;
  glm3::BFloat16 *x = inputs.of(2 * kInputs), *w = weights.of(2 * kInputs);
  for (Index i = 0; i < 2 * kInputs; ++i) {
    x[i].bits = static_cast<std::uint16_t>(kBits | (i * 40503 & 0x83ff));
    w[i].bits = static_cast<std::uint16_t>(kBits | (i * 30011 & 0x83ff));
  }
  glm3::Scratch<float> scratch;
  float* sums = scratch.of(4 * glm3::kTileSide * glm3::kTileSide);
  std::memset(sums, 0, 4 * glm3::kTileSide * glm3::kTileSide * sizeof(float));
  const glm3::Tiles tiles;
  for (Index round = 0; round < rounds; ++round) tiles.multiply_add<2>(x, kInputs, w, kTileSteps, sums, [] {});
  keep(sums[0]);
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

// Multiplies on every thread, `rounds` times, what stays in registers and the first cache, as products of so many
// tokens with weights of so many bits do. Returns how many operations that was.
Index glm3_multiply(Index rounds, int bits, Index tokens) {
  const bool tiled = glm3::goes_in_tiles(tokens);
  glm3::pool_tasks(glm3::Pool::size(), 1 << 30, [&](Index, int thread) {
    if (tiled) {
      multiply_tiles(rounds);
    } else {
      take_dots(rounds, bits, thread);
    }
  });
  return glm3::Pool::size() * rounds * (tiled ? kTileOperations : kDotOperations);
}

}  // extern "C"
#pragma GCC visibility pop
