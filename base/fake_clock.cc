#include "base/fake_clock.h"

namespace ll {

absl::Time FakeClock::Now() {
  absl::MutexLock lock(&mu_);
  return now_;
}

absl::Duration FakeClock::Steady() {
  absl::MutexLock lock(&mu_);
  return steady_;
}

void FakeClock::Sleep(absl::Duration d) {
  absl::MutexLock lock(&mu_);
  const absl::Duration until = steady_ + d;
  auto due = [this, until]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return steady_ >= until; };
  mu_.Await(absl::Condition(&due));
}

void FakeClock::Advance(absl::Duration d) {
  absl::MutexLock lock(&mu_);
  now_ += d;
  steady_ += d;
}

void FakeClock::StepWall(absl::Duration d) {
  absl::MutexLock lock(&mu_);
  now_ += d;
}

}  // namespace ll
