#include "base/clock.h"

#include <ctime>

#include "absl/time/clock.h"

namespace ll {
namespace {
class HostClock : public Clock {
 public:
  absl::Time Now() override { return absl::Now(); }
  absl::Duration Steady() override {
    timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return absl::DurationFromTimespec(ts);
  }
  void Sleep(absl::Duration d) override { absl::SleepFor(d); }
};
}  // namespace

Clock& RealClock() {
  static HostClock* clock = new HostClock;
  return *clock;
}
}  // namespace ll
