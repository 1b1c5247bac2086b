// The parts of one run (simulation.h says what a run is): the coordinator's process, the network,
// clients and faults, and what is checked.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "coordinator/runtime/driver_loop.h"
#include "tests/sim/fake_agent.h"
#include "tests/sim/simulation.h"
#include "tests/sim/storage.h"
#include "tests/sim/training.h"

namespace ll::sim {

inline constexpr absl::Duration kFaultsLast = absl::Minutes(15);
inline constexpr absl::Duration kMustEndWithin = absl::Hours(3);

// A client's wish for one job, kept until it is acknowledged.
struct Request {
  std::string id;
  CoreSpec spec;
  int steps = 0;
  int checkpoint_every = 1;
  std::optional<size_t> waits_for;                     // another request, submitted before
  bool any = false;                                    // however that one ends
  absl::Duration may_take = absl::InfiniteDuration();  // its deadline, from the first submit
  absl::Time deadline = absl::InfiniteFuture();
  std::optional<JobId> acked;
  bool cancel_acked = false;
};

enum class FaultKind {
  kCoordinator,
  kAgent,
  kRank,
  kShortCut,
  kLongCut,
  kRepeat,
  kOperator,
  kStall,  // the coordinator's process stands still
  kClock,  // its wall clock is set
  kLie,    // an agent reports what it was never ordered
  kDisk,   // the coordinator's: full, failing, slow
};
inline constexpr FaultKind kAllFaults[] = {
    FaultKind::kCoordinator, FaultKind::kAgent,  FaultKind::kRank,     FaultKind::kShortCut,
    FaultKind::kLongCut,     FaultKind::kRepeat, FaultKind::kOperator, FaultKind::kStall,
    FaultKind::kClock,       FaultKind::kLie,    FaultKind::kDisk};

class Simulation : public Link, public AgentGateway, public DriverListener, public Clock {
 public:
  explicit Simulation(const SimOptions& options);
  SimResult Run();

  uint64_t Dial(const WorkerId& worker) override;
  void Send(uint64_t session, Event event) override;
  void HangUp(uint64_t session) override;

 private:
  struct Session {
    FakeAgent* agent = nullptr;
    bool agent_side = true;        // the agent believes in it
    bool coordinator_side = true;  // and so does the coordinator
    absl::Duration last_up = absl::ZeroDuration(), last_down = absl::ZeroDuration();
  };

  // The coordinator's process: the shipped loop under simulated time.
  void StartCoordinator();
  void CrashCoordinator(const char* where);
  // Here and now, within a batch: nothing it does from now on has an effect.
  bool DiesHere(const char* where, double rate);
  void BuryCoordinator();
  void PlanTick(uint64_t life);
  void Give(Event event, std::function<void(const Reply&)> reply = nullptr);
  void RunBatch();
  // Null while the coordinator is down or without a store.
  const Scheduler* scheduler() const { return loop_ == nullptr ? nullptr : loop_->scheduler(); }
  // AgentGateway
  void Deliver(const ll::Send& send, int64_t term) override;
  void EndAllSessions(const absl::Status& why) override;
  // DriverListener
  void OnStep(const Scheduler& scheduler, const Effects& effects, absl::Duration took) override;
  void OnServing(bool serving) override;
  // Clock: the coordinator's
  absl::Time Now() override { return absl::UnixEpoch() + world_.now() + wall_offset_; }
  absl::Duration Steady() override { return world_.now(); }
  void Sleep(absl::Duration) override {}

  void DeliverNow(const ll::Send& send);
  void CheckSend(const ll::Send& send);
  void CheckTransition(const PutTransition& put);
  void CheckLimitsOf(const JobId& started);
  void NoteDurable(absl::Span<const Record> records);

  // The network.
  void EndSession(uint64_t id, absl::Duration agent_notices, absl::Duration coordinator_notices);
  void Struck(const char* fault) { world_.Struck(fault); }
  bool Partitioned(const FakeAgent& agent) const { return partitioned_.count(agent.name()) > 0; }

  // Clients and faults.
  void PlanQueues();
  void PlanClients();
  void Operator(const WorkerId& worker);
  void BreakDisk();
  void Lie(FakeAgent& agent);
  void SubmitUntilAcked(size_t index);
  void RandomWish();
  void Fault();
  void Partition(FakeAgent& agent, absl::Duration length);
  void Heal();
  bool Done();
  void CheckEnd();

  const SimOptions options_;
  World world_;
  bool shared_job_store_;
  // Each seed has its own mixture of faults: all of them at once would hide what only a few bring
  // about.
  std::vector<FaultKind> fault_kinds_;
  absl::Duration fault_every_;
  double crash_rate_ = 0;  // of the coordinator, at each transaction
  Storage storage_;
  Training training_;
  std::vector<std::unique_ptr<FakeAgent>> agents_;
  std::unique_ptr<DriverLoop> loop_;  // null: the coordinator is down
  uint64_t life_ = 0;
  bool planned_batch_ = false;
  std::vector<DriverLoop::Item> inbox_;
  absl::Duration batch_delay_;  // until what the batch under way says is out
  std::map<uint64_t, Session> sessions_;
  uint64_t next_session_ = 1;
  std::set<WorkerId> partitioned_;
  std::vector<Request> requests_;
  int next_job_ = 1;
  absl::Duration wall_offset_, stalled_until_;
  std::map<JobId, JobState> states_;  // as decided; a crash takes back what was not durable
  std::map<JobId, int64_t> durable_checkpoint_, durable_epoch_;
  std::set<JobId> refused_;  // by a full disk: must not be there
  std::vector<QueueRecord> queues_;
  std::map<JobId, JobId> preempted_by_;  // newest preemptor
  bool faults_ = true;
  SimResult result_;
};

}  // namespace ll::sim
