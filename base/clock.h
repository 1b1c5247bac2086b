// Time, injected. Wall time is for stamps people read; steady time is for durations and leases,
// never goes back and counts suspend (CLOCK_BOOTTIME). Thread-safe.
#pragma once

#include "absl/time/time.h"

namespace ll {

class Clock {
 public:
  virtual ~Clock() = default;
  virtual absl::Time Now() = 0;
  // Time since an arbitrary point; only differences mean something.
  virtual absl::Duration Steady() = 0;
  virtual void Sleep(absl::Duration d) = 0;
};

// The host's clocks. Never deleted.
Clock& RealClock();

}  // namespace ll
