// Which fire times of a schedule have come, and what becomes of each. Pure.
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "base/cron.h"
#include "coordinator/core/schedule.h"

namespace ll {

// How late a fire may be and still count as being on time.
inline constexpr absl::Duration kFireOnTime = absl::Minutes(1);
// Missed fires that `all` makes up for at once.
inline constexpr size_t kMaxMadeUpFor = 100;
// So many fires left out together are counted exactly.
inline constexpr int64_t kMaxCounted = 1000;

// Fire times left out for one reason.
struct LeftOut {
  absl::Time first, last;
  int64_t fires = 0;
  bool more = false;  // there were more than `fires`
  std::string reason;
};

struct DueFires {
  std::vector<LeftOut> left_out;  // in order of time, all before `fires`
  std::vector<absl::Time> fires;  // in order
  absl::Time next;                // the first after `now`
};

// `next_fire` <= `now` is the first fire time that was not decided on. Every time from it to `now`
// is in exactly one of the lists. The work is bounded, however long ago `next_fire` was.
DueFires DecideDue(const Cron& rule, const absl::TimeZone& zone, absl::Time next_fire,
                   absl::Time now, MissedPolicy missed, absl::Duration start_within);

}  // namespace ll
