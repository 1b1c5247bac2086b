// What the trackers (tracker/tracker.h) are told: the coordinator's own events, off unless one is
// configured. Tells and forgets: it waits for none of them.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "coordinator/runtime/driver_loop.h"
#include "coordinator/runtime/telemetry.h"
#include "coordinator/tracker_options.h"
#include "prometheus/registry.h"
#include "storage/http.h"
#include "tracker/tracker_queue.h"

namespace ll {

// The trackers of these options. Errors name the flag: an address that is none, an unreadable file.
absl::StatusOr<std::vector<std::unique_ptr<Tracker>>> MakeTrackers(const TrackerOptions& options,
                                                                   const std::string& version,
                                                                   HttpTransport& transport);

// The resolved spec's keys that are set, as texts.
std::vector<std::pair<std::string, std::string>> SpecParams(const std::string& resolved_spec);

// A listener of the driver and of telemetry. Thread-safe.
class TrackerFeed : public DriverListener {
 public:
  // `registry` and `clock` outlive this.
  TrackerFeed(std::vector<std::unique_ptr<Tracker>> trackers, TrackerQueue::Options queue,
              prometheus::Registry& registry, Clock& clock);

  void OnNews(const JobId& job, const TelemetryNews& news);

  // DriverListener
  void OnRecovered(const Scheduler& scheduler) override;
  void OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) override;
  void OnDeleted(const JobId& job) override;

 private:
  struct Known {
    std::shared_ptr<const TrackedJob> job;
    int64_t told = 0;  // of its transitions
    int64_t epoch = 0, step = 0;
  };
  // Telemetry may come in after the end: so many ended jobs are still known.
  static constexpr size_t kEndedJobs = 256;

  void TellTransitions(const Job& job, bool replayed) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Tell(const TrackerEvent& event);

  Clock& clock_;
  std::vector<std::unique_ptr<TrackerQueue>> queues_;
  absl::Mutex mu_;
  std::map<JobId, Known> known_ ABSL_GUARDED_BY(mu_);
  std::deque<JobId> ended_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
