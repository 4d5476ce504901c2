// Threads for inference: ready within microseconds while a pass runs, asleep soon after it.
//
// OpenMP's workers either spin for as long as the process lives or sleep between any two kernels; a token
// passes some two hundred of them. These wait actively for a moment, then sleep. Every task writes to places
// of its own, so results depend on neither the number of threads nor on who finishes first.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "parallel.h"

namespace glm3 {

namespace detail {

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Waits actively until ready() holds or a moment has passed; returns whether it holds.
template <class Ready>
inline bool wait_briefly(Ready&& ready) {
  constexpr auto kMoment = std::chrono::microseconds(60);  // longer than the serial work between two kernels
  constexpr int kLooks = 32;
  const auto end = std::chrono::steady_clock::now() + kMoment;
  do {
    for (int look = 0; look < kLooks; ++look) {
      if (ready()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < end);
  return ready();
}

}  // namespace detail

class Pool {
 public:
  // The one pool of the process; its threads start with the first work that needs them.
  static Pool& shared() {
    static Pool* pool = new Pool;  // never destroyed: threads of a process that exits must not wait for it
    return *pool;
  }

  // Threads that work at a time, the caller among them.
  static int size() {
    const int limit = thread_limit().load(std::memory_order_relaxed);
    const int available = limit > 0 ? limit : static_cast<int>(std::thread::hardware_concurrency());
    return available > 1 ? available : 1;
  }

  // Runs body(thread) on `threads` threads, the caller's being 0, and returns when all are done.
  template <class Body>
  void run(int threads, Body&& body) {
    if (threads <= 1) {
      body(0);
      return;
    }
    const std::lock_guard<std::mutex> one_at_a_time(callers_);
    start(threads - 1);
    call_ = [](void* context, int thread) { (*static_cast<std::remove_reference_t<Body>*>(context))(thread); };
    context_ = &body;
    running_.store(threads - 1, std::memory_order_relaxed);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      const Call last = calls_.load(std::memory_order_relaxed);
      calls_.store(((last >> kThreadBits) + 1) << kThreadBits | static_cast<Call>(threads), std::memory_order_release);
    }
    wake_.notify_all();
    body(0);
    const auto done = [this] { return running_.load(std::memory_order_acquire) == 0; };
    if (!detail::wait_briefly(done)) {
      std::unique_lock<std::mutex> lock(mutex_);
      done_.wait(lock, done);
    }
  }

 private:
  using Call = std::uint64_t;  // the number of a call, and in the low bits how many threads take part
  static constexpr int kThreadBits = 16;
  static constexpr Call kThreadMask = (Call{1} << kThreadBits) - 1;

  void start(int workers) {
    while (static_cast<int>(workers_.size()) < workers) {
      const int thread = static_cast<int>(workers_.size()) + 1;
      const Call seen = calls_.load(std::memory_order_relaxed);
      workers_.emplace_back([this, thread, seen] { serve(thread, seen); });
      workers_.back().detach();
    }
  }

  void serve(int thread, Call seen) {
    for (;;) {
      const auto called = [this, seen] { return calls_.load(std::memory_order_acquire) != seen; };
      if (!detail::wait_briefly(called)) {
        std::unique_lock<std::mutex> lock(mutex_);
        wake_.wait(lock, called);
      }
      // One that has no part in a call may see it late, or never; the others are waited for.
      seen = calls_.load(std::memory_order_acquire);
      if (thread >= static_cast<int>(seen & kThreadMask)) continue;
      call_(context_, thread);
      if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
        const std::lock_guard<std::mutex> lock(mutex_);
        done_.notify_one();
      }
    }
  }

  std::mutex callers_, mutex_;
  std::condition_variable wake_, done_;
  std::atomic<Call> calls_{0};
  std::atomic<int> running_{0};
  void (*call_)(void*, int) = nullptr;
  void* context_ = nullptr;
  std::vector<std::thread> workers_;
};

// Runs body(task, thread) for every task; `work` is the count of numbers touched by all of them.
template <class Body>
inline void pool_tasks(Index tasks, Index work, Body&& body) {
  const Index most = work < kParallelWork ? 1 : Pool::size();
  const int threads = static_cast<int>(tasks < most ? tasks : most);
  std::atomic<Index> next{0};
  Pool::shared().run(threads, [&](int thread) {
    for (Index task; (task = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) body(task, thread);
  });
}

}  // namespace glm3
