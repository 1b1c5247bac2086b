// The scheduler's own time and what follows from silence.
//
// Leases and deadlines must not expire because the *coordinator* slept: the messages that would
// have renewed them wait in its queue. So the scheduler has a time of its own that moves only with
// its ticks and by at most kMaxTickStep each; a longer gap between two ticks counts as a pause of
// the coordinator and renews every lease. Wall time plays no part, and a restart begins anew with
// full leases.
#pragma once

#include <cstddef>

#include "absl/time/time.h"

namespace ll {

class SchedulerTime {
 public:
  explicit SchedulerTime(absl::Duration lease) : lease_(lease) {}

  static constexpr absl::Duration kMaxTickStep = absl::Seconds(2);
  static constexpr absl::Duration kPause = absl::Seconds(10);

  struct Advance {
    absl::Duration elapsed;  // own time that passed
    bool paused;             // the coordinator was away: renew all leases
  };
  // A tick at steady time `steady`.
  Advance Tick(absl::Duration steady);
  // The first moment, without an advance.
  void Start(absl::Duration steady) { last_tick_ = steady; }

  // Own time since start.
  absl::Duration now() const { return now_; }
  absl::Duration lease() const { return lease_; }
  bool LeaseExpired(absl::Duration silence) const { return silence > lease_; }

 private:
  absl::Duration lease_;
  absl::Duration last_tick_ = absl::ZeroDuration();
  absl::Duration now_ = absl::ZeroDuration();
};

// With more than half of the agents silent it is more likely that the coordinator is the one cut
// off; nothing may then be concluded from silence.
inline bool MajoritySilent(size_t silent, size_t known) { return 2 * silent > known; }

}  // namespace ll
