// What the whole cluster does: queues, slots, attempts, the store. Series grow with the queues and
// the kinds of devices, never with the jobs.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "coordinator/runtime/driver_loop.h"
#include "rpc/metric_families.h"

namespace ll {

// Thread-safe.
class ClusterMetrics : public DriverListener {
 public:
  // Queues with series of their own, the first by name; the others share the name "(others)".
  static constexpr size_t kMaxQueues = 25;
  // Queues and slots are counted this often: it walks over every job.
  static constexpr absl::Duration kRefresh = absl::Seconds(5);

  // `registry` and `clock` outlive this. `version` of the program.
  ClusterMetrics(prometheus::Registry& registry, Clock& clock, const std::string& version);

  // DriverListener
  void OnRecovered(const Scheduler& scheduler) override;
  void OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) override;
  void OnDeleted(const JobId& job) override;
  void OnTick(const Scheduler& scheduler) override;
  void OnCommit(absl::Duration took, bool durable) override;
  void OnServing(const absl::Status& status) override;

 private:
  // Of a job, as last counted.
  struct Seen {
    int64_t epoch = 0;
    int retries = 0, preemptions = 0, resizes = 0;
    bool over = false;
  };
  static Seen SeenOf(const Job& job);
  void Count(const Job& job, const Seen& before, const Seen& now);
  void ShowQueues(const Scheduler& scheduler) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ShowSlots(const Scheduler& scheduler) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  Clock& clock_;
  prometheus::Gauge& serving_;
  CounterFamily &restarts_, &ended_;
  prometheus::Counter &attempts_, &commits_failed_;
  prometheus::Histogram& commit_seconds_;

  absl::Mutex mu_;
  GaugeSet queue_jobs_ ABSL_GUARDED_BY(mu_), pending_gpus_ ABSL_GUARDED_BY(mu_),
      held_gpus_ ABSL_GUARDED_BY(mu_), quota_gpus_ ABSL_GUARDED_BY(mu_),
      max_gpus_ ABSL_GUARDED_BY(mu_), share_ ABSL_GUARDED_BY(mu_), weight_ ABSL_GUARDED_BY(mu_),
      oldest_wait_ ABSL_GUARDED_BY(mu_),
      oldest_job_ ABSL_GUARDED_BY(mu_), slots_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<JobId, Seen> seen_ ABSL_GUARDED_BY(mu_);
  absl::Duration next_refresh_ ABSL_GUARDED_BY(mu_) = -absl::InfiniteDuration();  // steady time
};

}  // namespace ll
