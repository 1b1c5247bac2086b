// Ctrl-C as an event instead of a death: a command that follows a job detaches and says how to come
// back.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/time/time.h"

namespace ll {

// Thread-safe, except for Arm. Without Arm, Ctrl-C ends the process as usual. One at a time in a
// process may be armed.
class Interrupt {
 public:
  Interrupt() = default;
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Starts to catch SIGINT, whichever thread it comes to.
  void Arm();
  bool raised() const { return raised_; }
  // What SIGINT does; a second one ends the process at once.
  void Raise();
  // Sleeps; true at once when Ctrl-C came.
  bool SleepFor(absl::Duration duration);

  // While it lives, Ctrl-C runs `stop` (at once when it came before).
  class Scope {
   public:
    Scope(Interrupt& interrupt, std::function<void()> stop);
    ~Scope();

   private:
    Interrupt& interrupt_;
  };

 private:
  std::atomic<bool> raised_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::function<void()> stop_;  // under mutex_
  std::thread thread_;
  int wake_fd_ = -1;
};

}  // namespace ll
