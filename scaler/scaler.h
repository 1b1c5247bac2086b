// One round after the other: look at the StatefulSet and at the queue, decide, act.
#pragma once

#include <prometheus/registry.h>

#include <atomic>
#include <string>

#include "absl/status/status.h"
#include "base/clock.h"
#include "rpc/metric_families.h"
#include "scaler/coordinator.h"
#include "scaler/decide.h"
#include "scaler/kubernetes.h"

namespace ll {

class Scaler {
 public:
  // `clock` and `http` outlive it.
  Scaler(const ScalingLimits& limits, StatefulSetAddress stateful_set,
         ScalingCoordinator coordinator, Clock& clock, HttpTransport& http);

  // One round; some 30 s at most, where nobody answers. Returns how long to wait before the next
  // one: `poll`, longer after failures (twice as long each time, to a minute, and never less than
  // the API server asks for), and not at all after a change of somebody else came in between.
  absl::Duration Round(absl::Duration poll);

  // These two on any thread: whether rounds are made, and whether the last ones came to an end.
  bool alive() const;
  bool ready() const;
  prometheus::Registry& registry() { return registry_; }

 private:
  absl::Status TryRound();
  absl::Status Act(const ScalingPolicy::Step& step);  // on workers
  void Tell(const ScalingPolicy::Step& step, const ScalingView& view);
  int64_t NowMs() const { return absl::ToInt64Milliseconds(clock_.Steady()); }
  absl::Duration WaitAfter(const absl::Status& status, absl::Duration poll);

  ScalingPolicy policy_;
  StatefulSetScale scale_;
  ScalingCoordinator coordinator_;
  Clock& clock_;
  std::string said_;  // the last reason or failure, which is not said again
  int failures_ = 0;  // in a row
  int conflicts_ = 0;
  std::atomic<int64_t> began_ms_, succeeded_ms_;  // steady; of a round

  prometheus::Registry registry_;
  GaugeFamily& replicas_;
  GaugeFamily& wanted_;
  GaugeFamily& pending_;
  GaugeFamily& left_alone_;
  GaugeFamily& last_success_;
  CounterFamily& changes_;
  CounterFamily& failed_;
};

}  // namespace ll
