// Who a running job is and how it fares beside what was promised: four series a job, while it holds
// slots and five minutes longer. What its steps tell stands in metrics.h.
#pragma once

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "coordinator/runtime/driver_loop.h"
#include "coordinator/runtime/telemetry.h"
#include "rpc/metric_families.h"

namespace ll {

// Thread-safe.
class JobMetrics : public DriverListener {
 public:
  // `registry` and `clock` outlive this.
  JobMetrics(prometheus::Registry& registry, Clock& clock);

  // Steps of rank 0, once each and in order, attempt by attempt.
  void OnNews(const JobId& job, const TelemetryNews& news);

  // DriverListener
  void OnRecovered(const Scheduler& scheduler) override;
  void OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) override;
  void OnDeleted(const JobId& job) override;
  void OnTick(const Scheduler& scheduler) override;

 private:
  struct Series {
    int64_t epoch = -1;                                // that `info` shows
    int64_t checkpoint = -1;                           // newest step that is safe, as last seen
    absl::Duration safe_since = absl::ZeroDuration();  // when that was seen, steady time
    absl::Duration held = absl::ZeroDuration();        // with slots, as watched by this process
    int64_t highest_step = -1;
    double trained_seconds = 0;                                // of steps done for the first time
    double new_trained_seconds = 0, new_repeated_seconds = 0;  // not yet in the cluster's counters
    int ranks = 0;
    absl::Duration remove_at = absl::InfiniteDuration();  // steady time
    prometheus::Gauge *info = nullptr, *memory_forecast = nullptr, *goodput = nullptr,
                      *checkpoint_age = nullptr;
  };
  void Watch(const Job& job) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Update(const Job& job, absl::Duration elapsed, Series& series)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShowInfo(const Job& job, Series& series);
  void ShowCheckpointAge(const Job& job, Series& series);
  void CountSlots(absl::Duration elapsed, Series& series);
  void Remove(Series& series);

  Clock& clock_;
  GaugeFamily &info_, &memory_forecast_, &goodput_, &checkpoint_age_;
  prometheus::Counter &held_seconds_, &trained_seconds_, &repeated_seconds_;

  absl::Mutex mu_;
  absl::flat_hash_map<JobId, Series> series_ ABSL_GUARDED_BY(mu_);
  absl::Duration last_tick_ ABSL_GUARDED_BY(mu_) = absl::InfiniteDuration();  // steady time
};

}  // namespace ll
