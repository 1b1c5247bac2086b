// Streams that follow a job: Watch and Logs.
//
// A follower holds cursors, not data: when the job changes or telemetry arrives it is woken and
// pulls what is next from the files, one message in flight. A slow reader therefore costs one
// message of memory; one that takes nothing for kMaxStall is dropped. Followers with a long history
// to tell take turns (turns.h).
#pragma once

#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/api/turns.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/runtime/telemetry.h"
#include "proto/job.pb.h"

namespace ll {

inline constexpr absl::Duration kMaxStall = absl::Minutes(2);

// A job at one moment, as every follower of it sees it.
struct JobSnapshot {
  std::shared_ptr<const v1::Job> job;  // with history
  int64_t transitions = 0;             // in all; the history holds the newest
};
JobSnapshot SnapshotOf(const Job& job, const Telemetry& telemetry);

class Follower : public TurnTaker {
 public:
  // Thread-safe; must not block.
  virtual void OnJob(JobSnapshot snapshot) = 0;
  virtual void OnJobDeleted() = 0;
  // This coordinator can no longer tell what becomes of the job.
  virtual void OnNotServing(const absl::Status& why) = 0;
  // New telemetry, or a second has passed.
  virtual void OnWake() = 0;
};

// Tells followers. Thread-safe.
class FollowHub : public DriverListener {
 public:
  explicit FollowHub(const Telemetry& telemetry);

  // On the driver's thread, so that no change falls between the first snapshot and the
  // subscription. NotFound.
  absl::Status Add(const Scheduler& scheduler, const JobId& job, const Access& access,
                   const std::shared_ptr<Follower>& follower);
  void OnNews(const JobId& job);
  Turns& turns() { return turns_; }

  void OnChanged(const Scheduler& scheduler, const std::vector<JobId>& jobs) override;
  void OnDeleted(const JobId& job) override;
  void OnTick(const Scheduler& scheduler) override;
  void OnServing(const absl::Status& status) override;

 private:
  std::vector<std::shared_ptr<Follower>> FollowersOf(const JobId& job);

  const Telemetry& telemetry_;
  Turns turns_;
  absl::Mutex mu_;
  absl::flat_hash_map<JobId, std::vector<std::weak_ptr<Follower>>> followers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
