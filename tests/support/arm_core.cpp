// Calls the kernels for a process on another processor, to test what they do with this one's instructions.
//
// The first line out names the instructions of dot products. A request is a function's name, copies of the caller's
// memory, and the arguments: integers and addresses in 64 bits, floating numbers as double. A copy is its address at
// the caller, its size, whether it is a structure that may hold addresses, and its bytes. An answer is what the
// function returned and then every copy that is no structure, in the order in which they came.
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "library.cpp"

namespace {

using Word = std::int64_t;

void read(void* target, Word size) {
  if (size > 0 && std::fread(target, 1, size, stdin) != static_cast<std::size_t>(size)) std::exit(0);
}

Word read_word() {
  Word word;
  read(&word, sizeof word);
  return word;
}

struct Copy {
  Word address, size, is_structure;
  std::vector<unsigned char> room;

  // As far from a cache line as at the caller.
  unsigned char* place() {
    const auto start = reinterpret_cast<std::uintptr_t>(room.data());
    return room.data() + (64 - start % 64) % 64 + address % 64;
  }
};

class Copies {
 public:
  Copies() {
    for (Word count = read_word(); count > 0; --count) {
      Copy copy{read_word(), read_word(), read_word(), {}};
      copy.room.resize(copy.size + 128);
      read(copy.place(), copy.size);
      copies_.push_back(std::move(copy));
    }
    for (Copy& copy : copies_)
      for (Word i = 0; copy.is_structure && i + 8 <= copy.size; i += 8) {
        Word word;
        std::memcpy(&word, copy.place() + i, sizeof word);
        if (void* here = find(word)) std::memcpy(copy.place() + i, &here, sizeof here);
      }
  }

  void* find(Word address) {
    for (Copy& copy : copies_)
      if (address >= copy.address && address < copy.address + copy.size) return copy.place() + (address - copy.address);
    return nullptr;
  }

  void write() {
    for (Copy& copy : copies_)
      if (!copy.is_structure) std::fwrite(copy.place(), 1, copy.size, stdout);
  }

 private:
  std::vector<Copy> copies_;
};

template <class To>
To argument(Copies& copies, Word word) {
  if constexpr (std::is_pointer_v<To>) {
    return reinterpret_cast<To>(copies.find(word));
  } else if constexpr (std::is_floating_point_v<To>) {
    double number;
    std::memcpy(&number, &word, sizeof number);
    return static_cast<To>(number);
  } else {
    return static_cast<To>(word);
  }
}

using Function = std::function<Word(Copies&, const std::vector<Word>&)>;

template <class Result, class... Parameters, std::size_t... kPlaces>
Function callable(Result (*function)(Parameters...), std::index_sequence<kPlaces...>) {
  return [function](Copies& copies, const std::vector<Word>& words) {
    Word result = 0;
    if constexpr (std::is_void_v<Result>) {
      function(argument<Parameters>(copies, words.at(kPlaces))...);
    } else {
      const Result found = function(argument<Parameters>(copies, words.at(kPlaces))...);
      if constexpr (std::is_floating_point_v<Result>) {
        const double number = found;
        std::memcpy(&result, &number, sizeof number);
      } else {
        result = found;
      }
    }
    return result;
  };
}

template <class Result, class... Parameters>
Function callable(Result (*function)(Parameters...)) {
  return callable(function, std::index_sequence_for<Parameters...>());
}

#define GLM3_CALLABLE(name) {#name, callable(glm3_##name)}

const std::map<std::string, Function> kFunctions = {
    GLM3_CALLABLE(set_threads),
    GLM3_CALLABLE(exp),
    GLM3_CALLABLE(bias_add),
    GLM3_CALLABLE(bias_backward),
    GLM3_CALLABLE(rms_norm),
    GLM3_CALLABLE(rms_norm_backward),
    GLM3_CALLABLE(swiglu),
    GLM3_CALLABLE(swiglu_backward),
    GLM3_CALLABLE(attention),
    GLM3_CALLABLE(attention_backward),
    GLM3_CALLABLE(dropout),
    GLM3_CALLABLE(cross_entropy),
    GLM3_CALLABLE(cross_entropy_backward),
    GLM3_CALLABLE(adamw),
    GLM3_CALLABLE(sum_of_squares),
    GLM3_CALLABLE(bfloat16_tokens),
    GLM3_CALLABLE(widen),
    GLM3_CALLABLE(narrow),
    GLM3_CALLABLE(take_rows),
    GLM3_CALLABLE(product),
    GLM3_CALLABLE(quantize),
    GLM3_CALLABLE(cached_attention),
};

void answer() {
  std::string name(read_word(), ' ');
  read(name.data(), name.size());
  Copies copies;
  std::vector<Word> words(read_word());
  for (Word& word : words) word = read_word();
  const Word result = kFunctions.at(name)(copies, words);
  std::fwrite(&result, sizeof result, 1, stdout);
  copies.write();
  std::fflush(stdout);
}

}  // namespace

int main() {
  std::printf("%s\n", glm3_dot_name());
  std::fflush(stdout);
  while (true) answer();
}
