#include "coordinator/core/lease.h"

#include <algorithm>

namespace ll {

constexpr absl::Duration SchedulerTime::kMaxTickStep;
constexpr absl::Duration SchedulerTime::kPause;

SchedulerTime::Advance SchedulerTime::Tick(absl::Duration steady) {
  const absl::Duration gap = std::max(steady - last_tick_, absl::ZeroDuration());
  last_tick_ = std::max(last_tick_, steady);
  const absl::Duration elapsed = std::min(gap, kMaxTickStep);
  now_ += elapsed;
  return {elapsed, gap > kPause};
}

}  // namespace ll
