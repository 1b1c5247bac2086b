// A clock that moves only when told. Thread-safe. Tests and the simulator.
#pragma once

#include "absl/synchronization/mutex.h"
#include "base/clock.h"

namespace ll {

class FakeClock : public Clock {
 public:
  explicit FakeClock(absl::Time start = absl::FromUnixSeconds(1'700'000'000)) : now_(start) {}

  absl::Time Now() override;
  absl::Duration Steady() override;
  // Blocks until Advance has moved the clock by `d`.
  void Sleep(absl::Duration d) override;

  // Moves wall and steady time together.
  void Advance(absl::Duration d);
  // Moves only wall time, as an administrator or NTP does.
  void StepWall(absl::Duration d);

 private:
  absl::Mutex mu_;
  absl::Time now_ ABSL_GUARDED_BY(mu_);
  absl::Duration steady_ ABSL_GUARDED_BY(mu_) = absl::ZeroDuration();
};

}  // namespace ll
