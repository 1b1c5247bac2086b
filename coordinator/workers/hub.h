// The engine of our own agents: all their sessions. Delivers the scheduler's orders to them.
// Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "coordinator/api/path_check.h"
#include "coordinator/api/rank_input.h"
#include "coordinator/engine/engine.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/workers/path_checks.h"

namespace ll {

class Session;

class WorkerHub : public Engine, public DriverListener, public PathChecker, public RankInput {
 public:
  // `number` as Engines::Add counts.
  WorkerHub(SchedulerOptions options, Clock& clock, int number = 0)
      : options_(std::move(options)), clock_(clock), numbers_(number) {}

  // A number for a new stream; never reused within this process.
  uint64_t Register(const std::shared_ptr<Session>& session);
  void Forget(uint64_t session);

  const SchedulerOptions& options() const { return options_; }

  // Engine
  void Deliver(const Send& send, int64_t term) override;
  void EndAllSessions(const absl::Status& why) override;
  // DriverListener: drops streams that never said Hello and ends questions that nobody answers.
  void OnTick(const Scheduler& scheduler) override;
  // PathChecker
  void Check(v1::CheckPath::Kind kind, const std::string& path,
             std::function<void(PathFindings)> done) override;
  PathChecks& path_checks() { return path_checks_; }
  // RankInput
  absl::Status Say(uint64_t session, const JobId& job, int64_t epoch, std::string line) override;

 private:
  std::shared_ptr<Session> Find(uint64_t session);
  std::vector<std::shared_ptr<Session>> All();

  const SchedulerOptions options_;
  Clock& clock_;
  PathChecks path_checks_;
  absl::Mutex mu_;
  SessionNumbers numbers_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, std::weak_ptr<Session>> sessions_ ABSL_GUARDED_BY(mu_);
  // The session each worker's newest Welcome went to.
  absl::flat_hash_map<WorkerId, uint64_t> current_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
