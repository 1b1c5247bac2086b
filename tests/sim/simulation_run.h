// The parts of one run (simulation.h says what a run is): the coordinator's process, the network,
// clients and faults, and what is checked.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "coordinator/runtime/driver_loop.h"
#include "tests/sim/sim_host.h"
#include "tests/sim/simulation.h"
#include "tests/sim/storage.h"
#include "tests/sim/training.h"

namespace ll::sim {

inline constexpr absl::Duration kFaultsLast = absl::Minutes(15);
inline constexpr absl::Duration kMustEndWithin = absl::Hours(3);
inline constexpr absl::Duration kResizeInterval = absl::Minutes(2);  // of elastic gangs

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
  bool starts_from_it = false;  // from its newest checkpoint
  size_t first = 0;             // of the requests submitted together
  std::optional<JobId> acked;
  bool cancel_acked = false;
};

// A schedule that a client wishes for, and what is known of its runs.
struct ScheduleWish {
  ScheduleRecord record;
  absl::Duration every;
  bool made = false;  // acknowledged
  std::map<int64_t, ScheduleRun> runs;
  std::set<absl::Time> decided;
};

enum class FaultKind {
  kCoordinator,
  kAgent,
  kAgentDisk,
  kRank,
  kShortCut,
  kLongCut,
  kRepeat,
  kOperator,
  kStall,     // the coordinator's process stands still
  kClock,     // its wall clock is set
  kLie,       // an agent reports what it was never ordered
  kHang,      // an agent's main loop stands still, its connection lives on
  kLostStop,  // an agent does nothing on a stop order
  kDisk,      // the coordinator's: full, failing, slow
};
inline constexpr FaultKind kAllFaults[] = {
    FaultKind::kCoordinator, FaultKind::kAgent,   FaultKind::kAgentDisk, FaultKind::kRank,
    FaultKind::kShortCut,    FaultKind::kLongCut, FaultKind::kRepeat,    FaultKind::kOperator,
    FaultKind::kStall,       FaultKind::kClock,   FaultKind::kLie,       FaultKind::kHang,
    FaultKind::kLostStop,    FaultKind::kDisk};

class Simulation : public Network, public AgentGateway, public DriverListener, public Clock {
 public:
  explicit Simulation(const SimOptions& options);
  SimResult Run();

  uint64_t Dial(const WorkerId& worker) override;
  void Send(uint64_t session, v1::AgentMessage message) override;
  void HangUp(uint64_t session) override;

 private:
  using HeldGangKey = std::tuple<std::string, int64_t, int>;  // job, epoch, rank
  struct Session {
    SimHost* host = nullptr;
    bool agent_side = true;        // the agent believes in it
    bool coordinator_side = true;  // and so does the coordinator
    bool cut = false;              // something was lost, so nothing more arrives
    absl::Duration last_up = absl::ZeroDuration(), last_down = absl::ZeroDuration();
    std::vector<HeldGangKey> held;         // by its Hello
    std::deque<v1::AgentMessage> reports;  // the newest
    std::optional<v1::CoordinatorMessage> last_start;
  };

  // The coordinator's process: the shipped loop under simulated time.
  void StartCoordinator();
  void CrashCoordinator(const char* where);
  // Here and now, within a batch: nothing it does from now on has an effect.
  bool DiesHere(const char* where, double rate);
  void BuryCoordinator();
  void PlanTick(uint64_t life);
  void Give(Event event, std::function<void(const Reply&)> reply = nullptr);
  void GiveOfAgent(Event event, std::function<void()> done = nullptr);
  void Put(DriverLoop::Item item);
  void RunBatch();
  // Null while the coordinator is down or without a store.
  const Scheduler* scheduler() const { return loop_ == nullptr ? nullptr : loop_->scheduler(); }
  // AgentGateway
  void Deliver(const ll::Send& send, int64_t term) override;
  void EndAllSessions(const absl::Status& why) override;
  // DriverListener
  void OnStep(const Scheduler& scheduler, const Effects& effects, absl::Duration took) override;
  void OnServing(const absl::Status& status) override;
  void OnTick(const Scheduler& scheduler) override;
  // Clock: the coordinator's
  absl::Time Now() override { return absl::UnixEpoch() + world_.now() + wall_offset_; }
  absl::Duration Steady() override { return world_.now(); }
  void Sleep(absl::Duration) override {}

  void CheckSend(const ll::Send& send);
  void NoteAcknowledged(const WorkerId& worker, const ReportAckOrder& ack);
  void CheckTransition(const PutTransition& put);
  void CheckStart(const Job& job);
  void CheckHeld(const Scheduler& scheduler);
  void CheckTypes(const Job& job);
  void CheckLimitsOf(const Job& started);
  void CheckStops(const Scheduler& scheduler);
  bool InContact(const WorkerId& worker) const;
  void CheckPromise(const Job& started);
  void NoteResize(const Job& durable);
  void NoteDurable(absl::Span<const Record> records);

  // The network.
  void Arrived(uint64_t id, const v1::AgentMessage& message);
  void TakeTelemetry(uint64_t id, const v1::Telemetry& telemetry);
  void Post(uint64_t id, v1::CoordinatorMessage message);
  void RepeatReports(SimHost& host);
  void EndSession(uint64_t id, absl::Duration agent_notices, absl::Duration coordinator_notices);
  void Struck(const char* fault) { world_.Struck(fault); }
  bool Partitioned(const SimHost& host) const { return partitioned_.count(host.name()) > 0; }

  // Clients and faults.
  void NameTypes(CoreSpec& spec);
  void PlanQueues();
  void ChangeLimits();
  void SetLimits(const QueueRecord& queue);
  void TurnLimitsWhenItRuns(const JobId& victim, const JobId& by, absl::Duration until);
  void TurnLimits(const Job& waits, const Job& runs);
  bool LimitsRestored();
  void PlanClients();
  void Operator(const WorkerId& worker);
  void BreakDisk();
  void Lie(SimHost& host);
  void SubmitUntilAcked(size_t index);
  SubmitAllEvent EventOf(size_t first);
  void OnSubmitAnswer(size_t first, const Reply& reply);
  // Of jobs given together all are known, or none.
  void CheckTogether(const std::function<bool(const JobId&)>& known, const char* where);
  void CheckSource(const ll::Send& send, const StartGangOrder& order);
  void PlanSchedules();
  void PlanGraph(ScheduleRecord& record);
  void MakeSchedule(const std::string& name);
  void RunByHand(const std::string& name, const JobId& before);
  void NoteRun(const std::string& name, const ScheduleRun& run);
  void NoteRunsOf(const Scheduler& recovered);
  bool SchedulesDone();
  void CheckSchedules();
  void RandomWish();
  void Fault();
  void Partition(SimHost& host, absl::Duration length);
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
  MemFiles job_store_;
  std::vector<std::unique_ptr<SimHost>> hosts_;
  std::vector<const SimHost*> by_name_;  // as the scheduler orders its workers
  std::map<std::string, int> room_;      // by kind of slot: ranks of the largest gang it holds
  std::unique_ptr<DriverLoop> loop_;     // null: the coordinator is down
  uint64_t life_ = 0;
  bool planned_batch_ = false;
  std::vector<DriverLoop::Item> inbox_;
  absl::Duration batch_delay_;  // until what the batch under way says is out
  std::map<uint64_t, Session> sessions_;
  uint64_t next_session_ = 1;
  std::set<WorkerId> partitioned_;
  // What the coordinator's telemetry files hold: job, epoch, rank, stream → bytes.
  std::map<std::tuple<std::string, int64_t, int, int>, int64_t> telemetry_;
  std::vector<Request> requests_;
  std::vector<std::vector<JobId>> together_;  // of each submit of several, in order
  std::map<std::string, ScheduleWish> schedules_;
  std::set<JobId> scheduled_jobs_;
  std::set<RunKey> being_judged_;
  std::shared_ptr<const JobPayload> payload_;  // of every job
  int next_job_ = 1;
  absl::Duration wall_offset_, stalled_until_;
  std::map<JobId, JobState> states_;  // as decided; a crash takes back what was not durable
  std::map<JobId, int64_t> durable_checkpoint_, durable_epoch_, ordered_epoch_;
  std::set<JobId> refused_;  // by a full disk: must not be there
  // Checkpoints by what agents said: of worker, job and epoch by the report's number, until it is
  // acknowledged; then the newest of each job and epoch.
  std::map<std::tuple<WorkerId, std::string, int64_t>, std::map<int64_t, int64_t>> reported_;
  std::map<JobId, std::map<int64_t, int64_t>> acknowledged_;
  std::vector<QueueRecord> queues_;
  bool limits_change_ = false;  // operators change limits while jobs run
  std::map<JobId, std::pair<int64_t, absl::Duration>>
      stops_;                            // epoch, since when with all in contact
  std::map<JobId, JobId> preempted_by_;  // newest preemptor
  std::map<JobId, std::pair<int, absl::Duration>> resizes_;  // durable: how many, the newest's time
  std::map<JobId, int> ranks_;                               // of the newest attempt
  int64_t ticks_ = 0;                                        // of the coordinator
  bool faults_ = true;
  SimResult result_;
  int64_t done_looked_at_ = -1;  // steps when Done was last asked
};

}  // namespace ll::sim
