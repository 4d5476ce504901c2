// Products of whole tiles of bfloat16 numbers, summed in float32: Intel's AMX, where the processor has it.
#pragma once

#include <cstdint>

#include "half.h"

#if defined(__linux__) && (defined(__AMX_BF16__) || defined(__AMXBF16__))  // the latter: clang++ before 16
#include <sys/syscall.h>
#include <unistd.h>
#define GLM3_AMX 1
#endif

namespace glm3 {

constexpr Index kTileSide = 16;                   // tokens of a tile of inputs, channels of a tile of weights
constexpr Index kTileDepth = 32;                  // inputs of both
constexpr Index kTileSize = kTileSide * kTileDepth;

// Tiles are the calling thread's while an object of this class lives: one at a time.
//
// A tile of inputs is (16 tokens, 32 inputs), one of weights (16 pairs of inputs, 16 channels, 2).
class Tiles {
 public:
  // Whether the processor has tiles and the system lets this process use them; asked once.
  static bool available();

#if defined(GLM3_AMX)
  Tiles() {
    const Shape shape;
    asm volatile("ldtilecfg %0" : : "m"(shape));  // gcc 12's _tile_loadconfig reads 8 bytes of the 64
  }
  ~Tiles() { asm volatile("tilerelease"); }
#else
  Tiles() = default;
#endif
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;

  // sums (kRows * 16, 32) += inputs times weights over `steps` tiles: one or two tiles of tokens by two of channels.
  //
  // `inputs` (steps, 16, 32) of one tile of tokens, the second `stride` numbers behind; `weights` (steps, 2) tiles.
  // meanwhile() is called once a step, for work that does not wait for tiles.
  template <int kRows, class Meanwhile>
  void multiply_add(const BFloat16* inputs, Index stride, const BFloat16* weights, Index steps, float* sums,
                    Meanwhile&& meanwhile) const;

 private:
#if defined(GLM3_AMX)
  struct Shape {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  };
  static_assert(sizeof(Shape) == 64, "what the instruction reads");
#endif
};

#if defined(GLM3_AMX)

inline bool Tiles::available() {
  static const bool granted = [] {
    constexpr long kRequestPermission = 0x1023, kTileData = 18;  // of arch_prctl
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  }();
  return granted;
}

// By instructions: the compilers' functions for tiles do not tell which memory they read.
#define GLM3_TILE_LOAD(tile, place) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(place), "r"(row_bytes) : "memory")
#define GLM3_TILE_STORE(tile, place) \
  asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(place), "r"(row_bytes) : "memory")
#define GLM3_TILE_PRODUCT(sums, inputs, weights) \
  asm volatile("tdpbf16ps %%tmm" #weights ", %%tmm" #inputs ", %%tmm" #sums : :)

template <int kRows, class Meanwhile>
inline void Tiles::multiply_add(const BFloat16* inputs, Index stride, const BFloat16* weights, Index steps, float* sums,
                                Meanwhile&& meanwhile) const {
  static_assert(kRows == 1 || kRows == 2, "tiles 0 to 3 hold the sums, 4 and 5 inputs, 6 and 7 weights");
  float* second = sums + kTileSide * 2 * kTileSide;
  Index row_bytes = 2 * kTileSide * sizeof(float);
  GLM3_TILE_LOAD(0, sums);
  GLM3_TILE_LOAD(1, sums + kTileSide);
  if constexpr (kRows == 2) {
    GLM3_TILE_LOAD(2, second);
    GLM3_TILE_LOAD(3, second + kTileSide);
  }
  row_bytes = kTileDepth * sizeof(BFloat16);
  for (Index step = 0; step < steps; ++step, inputs += kTileSize, weights += 2 * kTileSize) {
    GLM3_TILE_LOAD(4, inputs);
    GLM3_TILE_LOAD(6, weights);
    GLM3_TILE_PRODUCT(0, 4, 6);
    GLM3_TILE_LOAD(7, weights + kTileSize);
    GLM3_TILE_PRODUCT(1, 4, 7);
    if constexpr (kRows == 2) {
      GLM3_TILE_LOAD(5, inputs + stride);
      GLM3_TILE_PRODUCT(2, 5, 6);
      GLM3_TILE_PRODUCT(3, 5, 7);
    }
    meanwhile();
  }
  row_bytes = 2 * kTileSide * sizeof(float);
  GLM3_TILE_STORE(0, sums);
  GLM3_TILE_STORE(1, sums + kTileSide);
  if constexpr (kRows == 2) {
    GLM3_TILE_STORE(2, second);
    GLM3_TILE_STORE(3, second + kTileSide);
  }
}

#undef GLM3_TILE_LOAD
#undef GLM3_TILE_STORE
#undef GLM3_TILE_PRODUCT

#elif defined(GLM3_PLAIN_TILES)  // what the instructions do, so that tests can follow the rest on any processor

inline bool Tiles::available() { return true; }

template <int kRows, class Meanwhile>
inline void Tiles::multiply_add(const BFloat16* inputs, Index stride, const BFloat16* weights, Index steps, float* sums,
                                Meanwhile&& meanwhile) const {
  const auto wide = [](BFloat16 number) {
    const std::uint32_t bits = std::uint32_t{number.bits} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
  };
  for (Index token = 0; token < kRows * kTileSide; ++token)
    for (Index channel = 0; channel < 2 * kTileSide; ++channel) {
      float& sum = sums[token * 2 * kTileSide + channel];
      for (Index i = 0; i < steps * kTileDepth; ++i) {
        const Index step = i / kTileDepth, input = i % kTileDepth;
        const BFloat16* x = inputs + token / kTileSide * stride + step * kTileSize + token % kTileSide * kTileDepth;
        const BFloat16* w = weights + (2 * step + channel / kTileSide) * kTileSize + channel % kTileSide * 2;
        sum += wide(x[input]) * wide(w[input / 2 * kTileDepth + input % 2]);
      }
    }
  for (Index step = 0; step < steps; ++step) meanwhile();
}

#else

inline bool Tiles::available() { return false; }

template <int kRows, class Meanwhile>
inline void Tiles::multiply_add(const BFloat16*, Index, const BFloat16*, Index, float*, Meanwhile&&) const {}

#endif

}  // namespace glm3
