// Deletes what jobs have told with the jobs' records, on a thread of its own: of thousands that
// expire in one moment it takes half a minute, which the driver's thread does not have.
#pragma once

#include <deque>
#include <thread>

#include "absl/synchronization/mutex.h"
#include "coordinator/runtime/driver_loop.h"
#include "coordinator/runtime/telemetry.h"

namespace ll {

class TelemetryRemover : public DriverListener {
 public:
  explicit TelemetryRemover(Telemetry& telemetry);  // which outlives it
  ~TelemetryRemover() override;                     // what waits is found at the next start

  // Meanwhile another coordinator may have led: what is known of the files is read anew.
  void OnRecovered(const Scheduler& scheduler) override;
  void OnDeleted(const JobId& job) override;

 private:
  void Run();

  Telemetry& telemetry_;
  absl::Mutex mu_;
  std::deque<JobId> doomed_ ABSL_GUARDED_BY(mu_);
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

}  // namespace ll
