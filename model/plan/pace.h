// How fast a training really goes, from the steps it has told of, and when it will end by that.
//
// The pace is the median of the newest kWindow steps' own times: one slow step (the first, one that
// waited for a disk) does not move it. What lies between steps (evaluation, checkpoints) shows in
// the times at which steps were told. The end is given as an interval between the two, widened by
// twice the standard error of the median. Pure; not thread-safe.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>

#include "absl/time/time.h"

namespace ll {

class StepPace {
 public:
  static constexpr size_t kWindow = 64;

  // A step that took so long and was told at `time`. One that does not come after the newest (a
  // resumed attempt, a rollback) or of another `epoch` begins anew.
  void Add(int64_t epoch, int64_t step, double step_seconds, absl::Time time);

  size_t steps() const { return window_.size(); }
  double median_seconds() const;  // 0: no step yet
  // Seconds from step to step by the times they were told at; 0 with fewer than two.
  double wall_seconds() const;
  // By how much of itself the median may be wrong.
  double relative_error() const;
  // How long so many steps will take: at least, and at most. Infinite where no step is known.
  std::pair<absl::Duration, absl::Duration> TimeFor(int64_t steps) const;

 private:
  struct Sample {
    int64_t step;
    double seconds;
    absl::Time time;
  };
  int64_t epoch_ = 0;
  std::deque<Sample> window_;
};

}  // namespace ll
