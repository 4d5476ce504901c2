// Work shared by threads so that results do not depend on their number or on who finishes first.
//
// Every task writes to places of its own; sums over tasks are kept per task and added in task order.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>
#include <new>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "vec.h"

namespace glm3 {

// The most threads a kernel starts; 0 leaves it to OpenMP (OMP_NUM_THREADS, else all cores).
//
// A global of ours, because OpenMP keeps its setting per calling thread and MindSpore calls from many.
inline std::atomic<int>& thread_limit() {
  static std::atomic<int> limit{0};
  return limit;
}

// Numbers touched below which starting threads costs more than it saves: about 5 us of one core.
constexpr Index kParallelWork = 16384;

inline int thread_count(Index tasks, Index work) {
#ifdef _OPENMP
  if (work < kParallelWork || tasks < 2) return 1;
  const int limit = thread_limit().load(std::memory_order_relaxed);
  const Index available = limit > 0 ? limit : omp_get_max_threads();
  return static_cast<int>(tasks < available ? tasks : available);
#else
  (void)tasks, (void)work;
  return 1;
#endif
}

// Runs body(task) for every task; `work` is the count of numbers touched by all of them.
//
// Tasks may differ in length: a thread takes the next one when it is free.
template <class Body>
inline void parallel_tasks(Index tasks, Index work, Body&& body) {
  [[maybe_unused]] const int threads = thread_count(tasks, work);
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
  for (Index task = 0; task < tasks; ++task) body(task);
}

inline Index ceil_div(Index a, Index b) { return (a + b - 1) / b; }
inline Index round_up(Index a, Index multiple) { return ceil_div(a, multiple) * multiple; }

// Rows of `width` numbers that make a task worth handing out: about 5 us of work.
inline Index row_grain(Index width) { return ceil_div(kParallelWork, width > 0 ? width : 1); }

// Cuts [0, size) into pieces of `grain` and runs body(piece, begin, end) for each.
//
// Pieces are alike, so each thread takes a run of them, the same in every call: what one kernel leaves in a
// core's cache the next finds there (a fifth of the time of the norm's gradient).
template <class Body>
inline void parallel_ranges(Index size, Index grain, Index work, Body&& body) {
  const Index pieces = ceil_div(size, grain);
  [[maybe_unused]] const int threads = thread_count(pieces, work);
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
  for (Index piece = 0; piece < pieces; ++piece) {
    const Index begin = piece * grain;
    body(piece, begin, begin + grain < size ? begin + grain : size);
  }
}

// Uninitialised floats, aligned to a cache line.
class Buffer {
 public:
  explicit Buffer(Index size)
      : data_(static_cast<float*>(::operator new(static_cast<std::size_t>(size) * sizeof(float), kAlignment))) {}

  float* data() const { return data_.get(); }
  float* operator+(Index offset) const { return data_.get() + offset; }
  float& operator[](Index i) const { return data_.get()[i]; }

 private:
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(float* data) const { ::operator delete(data, kAlignment); }
  };
  std::unique_ptr<float, Free> data_;
};

}  // namespace glm3
