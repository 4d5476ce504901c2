// Computes matrix products that come in at the standard input, for tests of another processor's instructions.
//
// A request is ten int64 (storage, group, out, in, tokens, bytes of data, scales and zeros, whether there is a bias,
// whether there is a residual) and then these arrays, x first. The answer is the outcome as int64, whether numbers
// beside the output were touched as int64, and the output. The first line of the answers names the instructions.
#include <cstdio>
#include <vector>

#include "inference.cpp"

namespace {

constexpr Index kGuard = 64;
constexpr float kCanary = -1234.5f;

template <typename T>
bool read(std::vector<T>& numbers) {
  return std::fread(numbers.data(), sizeof(T), numbers.size(), stdin) == numbers.size();
}

bool answer() {
  std::vector<std::int64_t> head(10);
  if (!read(head)) return false;
  const Index out = head[2], in = head[3], tokens = head[4];
  std::vector<float> x(tokens * in), bias(head[8] ? out : 0), residual(head[9] ? tokens * out : 0);
  std::vector<std::uint8_t> data(head[5]), scales(head[6]), zeros(head[7]);
  if (!read(x) || !read(data) || !read(scales) || !read(zeros) || !read(bias) || !read(residual)) return false;
  const auto pointer = [](auto& numbers) { return numbers.empty() ? nullptr : numbers.data(); };
  const glm3::Matrix matrix{head[0], head[1], out, in, data.data(), pointer(scales), pointer(zeros)};
  std::vector<float> y(tokens * out + 2 * kGuard, kCanary);
  std::int64_t said[2] = {glm3_product(&matrix, x.data(), pointer(bias), pointer(residual), y.data() + kGuard, tokens), 0};
  for (Index i = 0; i < kGuard; ++i)
    if (y[i] != kCanary || y[y.size() - 1 - i] != kCanary) said[1] = 1;
  std::fwrite(said, sizeof(said), 1, stdout);
  std::fwrite(y.data() + kGuard, sizeof(float), tokens * out, stdout);
  return std::fflush(stdout) == 0;
}

}  // namespace

int main() {
  std::printf("%s\n", glm3_dot_name());
  std::fflush(stdout);
  while (answer()) {
  }
}
