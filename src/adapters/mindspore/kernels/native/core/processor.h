// Whether this processor has the instructions that the compiler was free to use.
//
// Asked of the processor itself, because each compiler's __builtin_cpu_supports lacks some of the names. AMX is not
// here: no compiler uses it unasked, and whoever does must first ask the system.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace glm3 {

namespace detail {

// What a processor says it has, a bit for each set of instructions.
struct Words {
  std::uint64_t word[8];
};

// The bits of a set, and whether the compiler was free to use it.
struct InstructionSet {
  bool needed;
  int word;
  std::uint64_t bits;
};

constexpr std::uint64_t bit(int place) { return std::uint64_t{1} << place; }

// Whether a macro of the compiler is set: then it is a number, and else stays its own name.
#define GLM3_TEXT(text) #text
#define GLM3_SET(macro) (GLM3_TEXT(macro)[0] != '_')

#if defined(__x86_64__)

// Registers that CPUID fills, named by leaf as Intel's manual numbers them, and what the system saves (XCR0).
enum Word { k1C, k7B, k7C, k7D, k71A, k71D, k80000001C, kSaved };

constexpr InstructionSet kInstructionSets[] = {
    {GLM3_SET(__SSE3__), k1C, bit(0)},
    {GLM3_SET(__SSSE3__), k1C, bit(9)},
    {GLM3_SET(__FMA__), k1C, bit(12)},
    {GLM3_SET(__SSE4_1__), k1C, bit(19)},
    {GLM3_SET(__SSE4_2__), k1C, bit(20)},
    {GLM3_SET(__MOVBE__), k1C, bit(22)},
    {GLM3_SET(__POPCNT__), k1C, bit(23)},
    {GLM3_SET(__AVX__), k1C, bit(28)},
    {GLM3_SET(__F16C__), k1C, bit(29)},
    {GLM3_SET(__BMI__), k7B, bit(3)},
    {GLM3_SET(__AVX2__), k7B, bit(5)},
    {GLM3_SET(__BMI2__), k7B, bit(8)},
    {GLM3_SET(__AVX512F__), k7B, bit(16)},
    {GLM3_SET(__AVX512DQ__), k7B, bit(17)},
    {GLM3_SET(__AVX512IFMA__), k7B, bit(21)},
    {GLM3_SET(__AVX512CD__), k7B, bit(28)},
    {GLM3_SET(__AVX512BW__), k7B, bit(30)},
    {GLM3_SET(__AVX512VL__), k7B, bit(31)},
    {GLM3_SET(__AVX512VBMI__), k7C, bit(1)},
    {GLM3_SET(__AVX512VBMI2__), k7C, bit(6)},
    {GLM3_SET(__GFNI__), k7C, bit(8)},
    {GLM3_SET(__AVX512VNNI__), k7C, bit(11)},
    {GLM3_SET(__AVX512BITALG__), k7C, bit(12)},
    {GLM3_SET(__AVX512VPOPCNTDQ__), k7C, bit(14)},
    {GLM3_SET(__AVX512FP16__), k7D, bit(23)},
    {GLM3_SET(__AVXVNNI__), k71A, bit(4)},
    {GLM3_SET(__AVX512BF16__), k71A, bit(5)},
    {GLM3_SET(__AVXIFMA__), k71A, bit(23)},
    {GLM3_SET(__AVXVNNIINT8__), k71D, bit(4)},
    {GLM3_SET(__AVXNECONVERT__), k71D, bit(5)},
    {GLM3_SET(__APX_F__), k71D, bit(21)},
    {GLM3_SET(__LZCNT__), k80000001C, bit(5)},
    {GLM3_SET(__XOP__), k80000001C, bit(11)},
    {GLM3_SET(__FMA4__), k80000001C, bit(16)},
    {GLM3_SET(__TBM__), k80000001C, bit(21)},
    {GLM3_SET(__AVX__), kSaved, bit(1) | bit(2)},
    {GLM3_SET(__AVX512F__), kSaved, bit(5) | bit(6) | bit(7)},
    {GLM3_SET(__APX_F__), kSaved, bit(19)},
};

constexpr std::uint64_t kSavesRegisters = bit(27);  // of k1C: XGETBV tells which

// For functions that run before it is known what may run: instructions of the first such processors only.
#define GLM3_EVERYWHERE \
  __attribute__((noinline, target("arch=x86-64,no-sse3,no-popcnt,no-lzcnt,no-movbe,no-bmi,no-bmi2")))

GLM3_EVERYWHERE inline Words processor_words() {
  Words words{};
  unsigned a, b, c, d;
  __cpuid(0, a, b, c, d);
  const unsigned last = a;
  __cpuid(1, a, b, c, d);
  words.word[k1C] = c;
  if (c & kSavesRegisters) {
    unsigned low, high;
    asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    words.word[kSaved] = low;
  }
  if (last >= 7) {
    __cpuid_count(7, 0, a, b, c, d);
    words.word[k7B] = b, words.word[k7C] = c, words.word[k7D] = d;
    if (a >= 1) {
      __cpuid_count(7, 1, a, b, c, d);
      words.word[k71A] = a, words.word[k71D] = d;
    }
  }
  __cpuid(0x80000000u, a, b, c, d);
  if (a >= 0x80000001u) {
    __cpuid(0x80000001u, a, b, c, d);
    words.word[k80000001C] = c;
  }
  return words;
}

#elif defined(__aarch64__) && defined(__linux__)

enum Word { kHwcap, kHwcap2 };

// Linux numbers the bits, in asm/hwcap.h.
constexpr InstructionSet kInstructionSets[] = {
    {GLM3_SET(__ARM_FEATURE_CRC32), kHwcap, bit(7)},
    {GLM3_SET(__ARM_FEATURE_ATOMICS), kHwcap, bit(8)},
    {GLM3_SET(__ARM_FEATURE_FP16_SCALAR_ARITHMETIC), kHwcap, bit(9)},
    {GLM3_SET(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC), kHwcap, bit(10)},
    {GLM3_SET(__ARM_FEATURE_QRDMX), kHwcap, bit(12)},
    {GLM3_SET(__ARM_FEATURE_COMPLEX), kHwcap, bit(14)},
    {GLM3_SET(__ARM_FEATURE_RCPC), kHwcap, bit(15)},
    {GLM3_SET(__ARM_FEATURE_SHA3), kHwcap, bit(17)},
    {GLM3_SET(__ARM_FEATURE_DOTPROD), kHwcap, bit(20)},
    {GLM3_SET(__ARM_FEATURE_SVE), kHwcap, bit(22)},
    {GLM3_SET(__ARM_FEATURE_FP16_FML), kHwcap, bit(23)},
    {GLM3_SET(__ARM_FEATURE_SVE2), kHwcap2, bit(1)},
    {GLM3_SET(__ARM_FEATURE_FRINT), kHwcap2, bit(8)},
    {GLM3_SET(__ARM_FEATURE_MATMUL_INT8), kHwcap2, bit(13)},
    {GLM3_SET(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC), kHwcap2, bit(14)},
    {GLM3_SET(__ARM_FEATURE_CSSC), kHwcap2, bit(34)},
    {GLM3_SET(__ARM_FEATURE_MOPS), kHwcap2, bit(43)},
};

#define GLM3_EVERYWHERE __attribute__((noinline))

GLM3_EVERYWHERE inline Words processor_words() { return {{getauxval(AT_HWCAP), getauxval(AT_HWCAP2)}}; }

#else  // of others nothing is known

constexpr InstructionSet kInstructionSets[] = {{false, 0, 0}};

#define GLM3_EVERYWHERE

inline Words processor_words() { return {}; }

#endif

constexpr Words needed_words() {
  Words words{};
  for (const InstructionSet& set : kInstructionSets)
    if (set.needed) words.word[set.word] |= set.bits;
  return words;
}

}  // namespace detail

GLM3_EVERYWHERE inline bool runs_here() {
  constexpr detail::Words needed = detail::needed_words();
  const detail::Words present = detail::processor_words();
  for (int i = 0; i < 8; ++i)
    if (needed.word[i] & ~present.word[i]) return false;
  return true;
}

#undef GLM3_EVERYWHERE
#undef GLM3_SET
#undef GLM3_TEXT

}  // namespace glm3
