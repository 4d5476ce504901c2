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

// Bits of a word in which processors say what they have, and whether the compiler was free to use it.
struct InstructionSet {
  bool free;
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

constexpr unsigned kTellsSaved = 1u << 27;  // of k1C: XGETBV is there

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

#else

constexpr InstructionSet kInstructionSets[] = {{false, 0, 0}};  // nothing is known of others

#endif

#undef GLM3_SET
#undef GLM3_TEXT

constexpr std::uint64_t needed_bits(int word) {
  std::uint64_t bits = 0;
  for (const InstructionSet& set : kInstructionSets)
    if (set.free && set.word == word) bits |= set.bits;
  return bits;
}

// What a word must say for the library to run.
template <int kWord>
constexpr std::uint64_t kNeeded = needed_bits(kWord);

}  // namespace detail

#if defined(__x86_64__)

// Runs before it is known what may run: on instructions of the first such processors, which is why nothing is called,
// and nothing kept in memory, which a compiler might clear with wider ones all the same.
__attribute__((noinline, target("arch=x86-64,general-regs-only,no-popcnt,no-lzcnt,no-movbe,no-bmi,no-bmi2,no-tbm")))
inline bool runs_here() {
  using namespace detail;
  unsigned a, b, c, d, last, saved = 0, later_a = 0, later_d = 0;
  __cpuid(0, last, b, c, d);
  __cpuid(1, a, b, c, d);
  if (c & kTellsSaved) asm("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
  std::uint64_t lacking = (kNeeded<k1C> & ~c) | (kNeeded<kSaved> & ~saved);
  a = b = c = d = 0;
  if (last >= 7) __cpuid_count(7, 0, a, b, c, d);
  lacking |= (kNeeded<k7B> & ~b) | (kNeeded<k7C> & ~c) | (kNeeded<k7D> & ~d);
  if (a >= 1) __cpuid_count(7, 1, later_a, b, c, later_d);
  lacking |= (kNeeded<k71A> & ~later_a) | (kNeeded<k71D> & ~later_d);
  __cpuid(0x80000000u, last, b, c, d);
  c = 0;
  if (last > 0x80000000u) __cpuid(0x80000001u, a, b, c, d);
  lacking |= kNeeded<k80000001C> & ~c;
  return lacking == 0;
}

#elif defined(__aarch64__) && defined(__linux__)

inline bool runs_here() {
  using namespace detail;
  return ((kNeeded<kHwcap> & ~getauxval(AT_HWCAP)) | (kNeeded<kHwcap2> & ~getauxval(AT_HWCAP2))) == 0;
}

#else

inline bool runs_here() { return true; }

#endif

}  // namespace glm3
