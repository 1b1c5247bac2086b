// What the agent shows at /metrics: ll_worker_* about itself, ll_rank_* about the ranks it runs.
// Job-level series come from the coordinator. Thread-safe where prometheus-cpp is: setters on one
// thread, collection on others.
#pragma once

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "rpc/metric_families.h"
#include "worker/agent/orders.h"
#include "worker/agent/trainer_event.h"

namespace ll {

class AgentMetrics {
 public:
  explicit AgentMetrics(const std::string& version);

  void SetWorker(bool connected, bool headless, int gangs, int busy_slots, int slots,
                 int64_t unacknowledged_reports);
  // Which rank runs on which GPU; the series of those not named any more end.
  struct GpuRank {
    GangKey gang;
    int rank = 0, gpu = 0;
  };
  void SetGpuRanks(const std::vector<GpuRank>& ranks);
  void CountDroppedLine() { dropped_lines_->Increment(); }
  void CountSession() { sessions_->Increment(); }
  void OnEvent(const GangKey& gang, int rank, const TrainerEvent& event);
  // The gang's series end.
  void Forget(const GangKey& gang);

  prometheus::Registry& registry() { return registry_; }

 private:
  struct RankSeries {
    prometheus::Counter* events;
    // Made with their first value: a rank that tells none has no series, rather than one of 0.
    std::map<prometheus::Family<prometheus::Gauge>*, prometheus::Gauge*> gauges;
    std::map<std::string, prometheus::Gauge*> phases;
  };
  void CountCheckpoint(const TrainerEvent& event);
  RankSeries& SeriesOf(const GangKey& gang, int rank);

  prometheus::Registry registry_;
  prometheus::Gauge *connected_, *headless_, *gangs_, *busy_slots_, *slots_,
      *unacknowledged_reports_;
  prometheus::Counter *dropped_lines_, *sessions_;
  prometheus::Family<prometheus::Counter>& checkpoints_;
  prometheus::Family<prometheus::Gauge>&step_, &tokens_per_second_, &step_seconds_,
      &peak_memory_bytes_, &phase_seconds_, &straggler_score_;
  prometheus::Family<prometheus::Counter>& events_;
  std::map<std::pair<GangKey, int>, RankSeries> ranks_;
  GaugeSet gpu_ranks_;
};

}  // namespace ll
