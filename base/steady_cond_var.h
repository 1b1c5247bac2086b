// A condition variable whose waits end by a clock that only goes forward. absl's end at a time of
// the wall clock: one that is set back by an hour makes a wait of a tenth of a second an hour long.
// So where others depend on who waits (leases, ticks, connections), it waits with this.
// Thread-safe.
#pragma once

#include <algorithm>
#include <chrono>
#include <condition_variable>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "base/clock.h"

namespace ll {

class SteadyCondVar {
 public:
  // At most `timeout`; may end early, as every such wait. The caller holds `mu`, before and after.
  void WaitFor(absl::Mutex& mu, absl::Duration timeout) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    Held held{mu};
    // A sum of now and forever would overflow.
    const absl::Duration bounded = std::clamp(timeout, absl::ZeroDuration(), absl::Hours(1));
    changed_.wait_for(held, absl::ToChronoNanoseconds(bounded));
  }
  // Until `done()`, which is asked under `mu`, or for `timeout`; what `done()` says in the end.
  template <typename Done>
  bool AwaitFor(absl::Mutex& mu, absl::Duration timeout, Done done)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    const absl::Duration end = RealClock().Steady() + timeout;
    while (!done()) {
      const absl::Duration left = end - RealClock().Steady();
      if (left <= absl::ZeroDuration()) return false;
      WaitFor(mu, left);
    }
    return true;
  }
  // After what is waited for was changed under the mutex.
  void SignalAll() { changed_.notify_all(); }

 private:
  struct Held {
    absl::Mutex& mu;
    void lock() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu.Lock(); }
    void unlock() ABSL_NO_THREAD_SAFETY_ANALYSIS { mu.Unlock(); }
  };
  std::condition_variable_any changed_;
};

}  // namespace ll
