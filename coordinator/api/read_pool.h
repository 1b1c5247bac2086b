// Threads for reads that take too long for the driver's: few, so that a thousand callers who ask
// for long histories at once neither run the process out of threads nor hold its cores.
#pragma once

#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace ll {

// Thread-safe.
class ReadPool {
 public:
  ReadPool(int threads, size_t most_waiting);
  ~ReadPool();  // what waits is done first
  // Has `read` called on one of the threads, in order. False: too many wait.
  bool Do(std::function<void()> read);

 private:
  void Run();

  const size_t most_waiting_;
  absl::Mutex mu_;
  std::deque<std::function<void()>> waiting_ ABSL_GUARDED_BY(mu_);
  bool ending_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace ll
