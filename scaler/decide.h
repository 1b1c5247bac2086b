// How many workers a set of them should have, and the next step towards that. Pure: no I/O and no
// clock of its own.
//
// Workers are numbered from 0, as a StatefulSet's pods are, and only the last ones can be taken
// away. So a surplus is cordoned from the end: what runs there goes on, nothing new is placed, and
// a worker goes once it is seen both cordoned and idle.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/time/time.h"

namespace ll {

struct ScalingLimits {
  int least = 0, most = 1;     // workers
  int slots_per_worker = 1;    // until a worker has told
  absl::Duration quiet_time;   // that fewer must have been enough before a worker goes
  absl::Duration manual_time;  // that a number which somebody else set is left alone
};

// What the coordinator knows of a worker, whether it is there now or was once.
struct ScalingWorker {
  enum class Cordon { kNone, kScaler, kOther };
  int slots = 0;
  int held = 0;  // slots with ranks on them
  Cordon cordon = Cordon::kNone;
};

struct ScalingView {
  int replicas = 0;                      // that the set is asked for now
  std::map<int, ScalingWorker> workers;  // by ordinal; one that never came is missing
  int64_t pending_slots = 0;             // that waiting gangs want and may have (PendingSlots)
};

// A gang that waits, and what its queue may still hold.
struct WaitingGang {
  std::string job_id, queue;
  int slots = 1;
};
struct QueueRoom {
  std::optional<int64_t> slots, gangs;  // absent: without limit
};
// Slots that the gangs could hold together. Those beyond the room of their queue would not start on
// any number of workers; the jobs among `holders` were seen with slots since, and wait no longer.
int64_t PendingSlots(const std::vector<WaitingGang>& gangs, const std::set<std::string>& holders,
                     std::map<std::string, QueueRoom> rooms);

// Decides one round after the other. Times are `now` of a steady clock. Not thread-safe.
class ScalingPolicy {
 public:
  struct Step {
    std::vector<int> uncordon, cordon;  // ordinals; to be done first
    std::optional<int> replicas;        // to be asked for then
    int wanted = 0;                     // by what runs and waits
    bool left_alone = false;            // somebody else's number
    std::string reason;                 // one sentence
  };

  explicit ScalingPolicy(const ScalingLimits& limits) : limits_(limits) {}

  Step Decide(const ScalingView& view, absl::Duration now);

  // What became of asking for `replicas`, so that a later change of somebody else is told from it.
  void Asking(int replicas) { asked_ = replicas; }
  void Set(int replicas) { known_ = replicas, asked_.reset(); }
  void Refused() { asked_.reset(); }  // certainly not done; without a word it may have been

 private:
  int SlotsOf(const ScalingView& view, int ordinal) const;
  int Wanted(const ScalingView& view) const;
  bool LeaveAlone(const ScalingView& view, absl::Duration now, Step& step);
  void Shrink(const ScalingView& view, absl::Duration now, Step& step);

  const ScalingLimits limits_;
  std::optional<int> known_, asked_;  // last seen or set; asked for without an answer
  absl::Duration manual_until_ = -absl::InfiniteDuration();
  // The most workers that were wanted since `enough_since_`, less than there are.
  std::optional<int> enough_;
  absl::Duration enough_since_;
};

}  // namespace ll
