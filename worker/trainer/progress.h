// What a training tells of itself: its steps, where their time goes, ranks that hold the others up,
// and the result (docs/faults.md names the fields).
#pragma once

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/guard/straggler.h"
#include "worker/trainer/setup.h"
#include "worker/trainer/step.h"

namespace ll {

// Model FLOPs utilisation of a step, 1-based `step`, on `ranks` devices of `peak_flops` each:
// (4 P T + 3.5 A) / (t peak), 6 P T for `full`. Frozen weights need no gradient of their own; A are
// the exact causal forward FLOPs of attention. null without a known peak.
nlohmann::ordered_json ModelFlopsUtilization(const Training& training, const StepReport& report,
                                             int64_t step, int ranks, double peak_flops);

// The ranks of a training and what their devices can do.
struct GangFacts {
  int rank = 0;                    // this one
  std::vector<std::string> hosts;  // by rank
  double peak_flops = 0;           // of this rank's device; 0: not known
};

// Of one rank; every rank has one and tells it the same. Not thread-safe.
class Progress {
 public:
  // All must outlive this.
  Progress(const Training& training, EventSink& events, GangFacts gang);

  // The step that `state` counts last has taken place: events `step` (rank 0, each logging_steps
  // and the last), `straggler` (rank 0), `times` (every rank of several, now and then).
  void Step(const StepReport& report, const TrainerState& state);
  // The loop waited so long to take a checkpoint; part of the next step's report.
  void WaitedForCheckpoint(double seconds) { checkpoint_seconds_ += seconds; }

  // Where training ended.
  struct End {
    int64_t first_step = 0;   // where this process began
    std::string checkpoint;   // the folder
    std::string stop_reason;  // of an end before the last step; else empty
  };
  // Event `done` (rank 0).
  void Done(const TrainerState& state, const End& end);

 private:
  int ranks() const { return static_cast<int>(gang_.hosts.size()); }
  nlohmann::ordered_json Times(const StepReport& report) const;
  void WatchRanks(const StepReport& report, int64_t step);
  void TellTimes(const StepReport& report, int64_t step);
  void TellStep(const StepReport& report, const TrainerState& state);

  const Training& training_;
  EventSink& events_;
  const GangFacts gang_;
  StragglerWatch stragglers_;
  int64_t tokens_ = 0;  // trained by this process's gang
  double seconds_ = 0;
  double checkpoint_seconds_ = 0;  // that steps waited for since the newest step event
  absl::Duration told_times_ = -absl::InfiniteDuration();
};

}  // namespace ll
