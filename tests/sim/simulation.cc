#include "tests/sim/simulation.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/store/mem_store.h"
#include "tests/sim/fake_agent.h"
#include "tests/sim/training.h"

namespace ll::sim {
namespace {

constexpr absl::Duration kFaultsLast = absl::Minutes(15);
constexpr absl::Duration kMustEndWithin = absl::Hours(3);

// A client's wish for one job, kept until it is acknowledged.
struct Request {
  std::string id;
  CoreSpec spec;
  int steps = 0;
  int checkpoint_every = 1;
  std::optional<JobId> acked;
  bool cancel_acked = false;
};

enum class FaultKind { kCoordinator, kAgent, kRank, kShortCut, kLongCut, kRepeat, kOperator };
constexpr FaultKind kAllFaults[] = {
    FaultKind::kCoordinator, FaultKind::kAgent,  FaultKind::kRank,    FaultKind::kShortCut,
    FaultKind::kLongCut,     FaultKind::kRepeat, FaultKind::kOperator};

class Simulation : public Link {
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
  // An event at the coordinator, with what to do when its reply is out.
  struct Input {
    Event event;
    std::function<void(const Reply&)> reply;
  };

  // The coordinator's process.
  void StartCoordinator();
  void CrashCoordinator(const char* where);
  void Tick(uint64_t life);
  void Give(Event event, std::function<void(const Reply&)> reply = nullptr);
  void ProcessBatch();
  void Deliver(const ll::Send& send);
  void CheckSend(const ll::Send& send);
  void CheckTransition(const PutTransition& put);
  void CheckLimitsOf(const JobId& started);
  void NoteDurable(const Effects& effects);

  // The network.
  void EndSession(uint64_t id, absl::Duration agent_notices, absl::Duration coordinator_notices);
  bool Partitioned(const FakeAgent& agent) const { return partitioned_.count(agent.name()) > 0; }

  // Clients and faults.
  void PlanQueues();
  void PlanClients();
  void Operator(const WorkerId& worker);
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
  Training training_;
  std::vector<std::unique_ptr<FakeAgent>> agents_;
  MemStore store_;
  std::unique_ptr<Scheduler> scheduler_;  // null: the coordinator is down
  uint64_t life_ = 0;
  bool planned_batch_ = false;
  std::vector<Input> inbox_;
  std::map<uint64_t, Session> sessions_;
  uint64_t next_session_ = 1;
  std::set<WorkerId> partitioned_;
  std::vector<Request> requests_;
  int next_job_ = 1;
  std::map<JobId, int64_t> durable_checkpoint_;
  std::vector<QueueRecord> queues_;
  std::map<JobId, JobId> preempted_by_;  // newest preemptor
  bool faults_ = true;
  bool bug_done_ = false;
  SimResult result_;
};

Simulation::Simulation(const SimOptions& options)
    : options_(options),
      world_(options.seed, options.print),
      shared_job_store_(world_.Chance(0.6)),
      training_(world_, shared_job_store_) {
  for (FaultKind kind : kAllFaults) {
    if (world_.Chance(0.5)) fault_kinds_.push_back(kind);
  }
  if (fault_kinds_.empty()) fault_kinds_.push_back(FaultKind::kRepeat);
  if (fault_kinds_.front() == FaultKind::kCoordinator) crash_rate_ = 0.004;
  fault_every_ = absl::Seconds(10 + static_cast<int64_t>(world_.random.Below(60)));
  const int agents = 2 + static_cast<int>(world_.random.Below(6));
  std::vector<std::string> slots;
  for (int i = 0; i < agents; ++i) {
    const int count = 1 + static_cast<int>(world_.random.Below(3));
    agents_.push_back(std::make_unique<FakeAgent>(world_, training_, *this,
                                                  absl::StrCat("w", i + 1), count, options.bug));
    slots.push_back(absl::StrCat(count));
  }
  PlanQueues();
  const int jobs = 5 + static_cast<int>(world_.random.Below(15));
  for (int i = 0; i < jobs; ++i) {
    Request request;
    request.id = absl::StrCat("request-", i);
    request.spec.gpus = 1 + static_cast<int>(world_.random.Below(shared_job_store_ ? 5 : 3));
    request.spec.priority = static_cast<int>(world_.random.Below(3));
    const QueueRecord& queue = queues_[world_.random.Below(queues_.size())];
    request.spec.queue = queue.name;
    request.spec.gpus = std::min(request.spec.gpus, queue.max_gpus.value_or(request.spec.gpus));
    request.spec.max_retries = 5;
    request.spec.max_headless = absl::Seconds(120);
    // Some longer than max_headless and what the coordinator adds to it.
    request.steps = 10 + static_cast<int>(world_.random.Below(world_.Chance(0.4) ? 600 : 100));
    request.checkpoint_every = 3 + static_cast<int>(world_.random.Below(20));
    // Forecasts from a fifth to twice the truth; some jobs have none.
    if (world_.Chance(0.7)) {
      request.spec.forecast_duration = absl::Seconds(
          request.steps * (20 + static_cast<int64_t>(world_.random.Below(180))) / 100 + 1);
    }
    requests_.push_back(std::move(request));
  }
  result_.options = absl::StrCat("seed ", options.seed, ": slots ", absl::StrJoin(slots, "+"), ", ",
                                 jobs, " jobs", shared_job_store_ ? ", shared job store" : "", ", ",
                                 fault_kinds_.size(), " kinds of faults");
}

// ---- the coordinator's process

void Simulation::StartCoordinator() {
  SchedulerOptions options;
  options.nonce_seed = absl::StrCat("life ", ++life_);
  options.shared_job_store = shared_job_store_;
  options.start_deadline = absl::Seconds(90);
  options.finish_deadline = absl::Seconds(60);
  options.stop_grace = absl::Seconds(20);
  options.min_runtime = absl::Seconds(20);
  options.half_life = absl::Minutes(5);
  auto stored = store_.LoadAll();
  absl::StatusOr<Scheduler> scheduler = stored.ok() ? absl::UnknownError("") : stored.status();
  if (stored.ok()) {
    scheduler = Scheduler::Recover(std::move(stored).value(), options,
                                   {world_.now(), absl::UnixEpoch() + world_.now()});
  }
  if (!scheduler.ok()) {
    world_.Violation(
        absl::StrCat("the coordinator cannot start: ", std::string(scheduler.status().message())));
    store_ = MemStore();  // so that the run can end
    StartCoordinator();
    return;
  }
  world_.Trace(absl::StrCat("coordinator starts, life ", life_));
  scheduler_ = std::make_unique<Scheduler>(std::move(scheduler).value());
  scheduler_->CheckInvariants();
  Tick(life_);
}

void Simulation::CrashCoordinator(const char* where) {
  if (scheduler_ == nullptr) return;
  ++result_.coordinator_crashes;
  world_.Trace(absl::StrCat("fault: coordinator dies ", where));
  scheduler_ = nullptr;
  inbox_.clear();
  ++life_;
  std::vector<uint64_t> open;
  for (const auto& [id, session] : sessions_) open.push_back(id);
  for (uint64_t id : open) {
    sessions_[id].coordinator_side = false;
    EndSession(id, world_.Between(absl::ZeroDuration(), absl::Seconds(2)), absl::ZeroDuration());
  }
  world_.After(world_.Between(absl::Milliseconds(300), absl::Seconds(20)),
               [this] { StartCoordinator(); });
}

void Simulation::Tick(uint64_t life) {
  if (scheduler_ == nullptr || life != life_) return;
  Give(TickEvent{});
  world_.After(absl::Seconds(1), [this, life] { Tick(life); });
}

// Events that arrive within a moment share a transaction, as in the driver.
void Simulation::Give(Event event, std::function<void(const Reply&)> reply) {
  if (scheduler_ == nullptr) return;
  inbox_.push_back({std::move(event), std::move(reply)});
  if (std::exchange(planned_batch_, true)) return;
  world_.After(world_.Between(absl::ZeroDuration(), absl::Milliseconds(5)), [this] {
    planned_batch_ = false;
    if (scheduler_ != nullptr) ProcessBatch();
  });
}

void Simulation::ProcessBatch() {
  std::vector<Input> batch = std::move(inbox_);
  inbox_.clear();
  std::vector<Record> records;
  std::vector<Effects> all;
  for (const Input& input : batch) {
    all.push_back(scheduler_->Step(input.event, world_.now(), absl::UnixEpoch() + world_.now()));
    ++result_.steps;
    for (Record& record : all.back().records) {
      const auto* put = std::get_if<PutTransition>(&record);
      if (put != nullptr) CheckTransition(*put);
      records.push_back(std::move(record));
    }
    scheduler_->CheckInvariants();
  }
  const auto send_all = [&] {
    for (const Effects& effects : all) {
      for (const ll::Send& send : effects.sends) {
        CheckSend(send);
        Deliver(send);
      }
    }
  };
  if (options_.bug == Bug::kSendBeforePersist) send_all();
  if (faults_ && !records.empty() && world_.Chance(crash_rate_))
    return CrashCoordinator("before its commit");
  if (options_.bug == Bug::kStoreDropsACommit && !bug_done_ && !records.empty() &&
      world_.now() > absl::Seconds(30)) {
    bug_done_ = true;
    store_.DropNext();
  }
  if (faults_ && world_.Chance(crash_rate_ / 8))
    store_.FailNext(absl::ResourceExhaustedError("disk full"));
  if (!store_.Commit(records).ok()) return CrashCoordinator("since its commit failed");
  for (const Effects& effects : all) NoteDurable(effects);
  if (faults_ && !records.empty() && world_.Chance(crash_rate_))
    return CrashCoordinator("after its commit, before sending");
  if (options_.bug != Bug::kSendBeforePersist) send_all();
  for (size_t i = 0; i < batch.size(); ++i) {
    if (batch[i].reply) batch[i].reply(all[i].reply);
  }
}

void Simulation::NoteDurable(const Effects& effects) {
  for (const JobId& id : effects.changed_jobs) {
    const Job* job = scheduler_->Find(id);
    if (job == nullptr) continue;
    world_.Trace(absl::StrCat(id.value(), " ", std::string(JobStateName(job->state)), " epoch ",
                              job->epoch, ": ", job->reason, " | ", job->wait_reason));
    if (job->newest_checkpoint.has_value()) durable_checkpoint_[id] = job->newest_checkpoint->step;
  }
}

// Limits of queues, and that two jobs do not stop each other in turn.
void Simulation::CheckTransition(const PutTransition& put) {
  const JobState state = put.transition.state;
  if (state == JobState::kStarting) {
    ++result_.attempts;
    CheckLimitsOf(put.job);
  }
  if (state != JobState::kPreempting) return;
  ++result_.preemptions;
  const Job* victim = scheduler_->Find(put.job);
  if (victim->preempted_by.empty()) return;  // a drain
  const Job* by = scheduler_->Find(victim->preempted_by);
  auto before = preempted_by_.find(by->id);
  if (before != preempted_by_.end() && before->second == victim->id) {
    world_.Violation(
        absl::StrCat(by->id.value(), " preempts ", victim->id.value(), ", which preempted it"));
  }
  if (by->spec.queue == victim->spec.queue && by->spec.priority <= victim->spec.priority) {
    world_.Violation(absl::StrCat(by->id.value(), " preempts ", victim->id.value(),
                                  " of its queue without a higher priority"));
  }
  preempted_by_[victim->id] = by->id;
}

void Simulation::CheckLimitsOf(const JobId& started) {
  const std::string name = scheduler_->Find(started)->spec.queue;
  int gpus = 0, jobs = 0;
  for (const Job* job : scheduler_->List({SIZE_MAX})) {
    if (job->spec.queue != name || !HoldsSlots(job->state)) continue;
    gpus += job->spec.gpus;
    ++jobs;
  }
  for (const QueueRecord& queue : queues_) {
    if (queue.name != name) continue;
    if (gpus > queue.max_gpus.value_or(gpus) || jobs > queue.max_jobs.value_or(jobs)) {
      world_.Violation(absl::StrCat("queue ", name, " holds ", gpus, " GPUs with ", jobs,
                                    " jobs, beyond its limits"));
    }
  }
}

// What an order promises, checked when it leaves.
void Simulation::CheckSend(const ll::Send& send) {
  const auto* start = std::get_if<StartGangOrder>(&send.order);
  if (start == nullptr) return;
  world_.Trace(
      absl::StrCat("start ", start->job.value(), "/", start->epoch, " at ", send.worker.value()));
  for (const auto& [epoch, host] : training_.Living(start->job)) {
    const auto worker = scheduler_->workers().find(WorkerId(host));
    if (epoch < start->epoch && worker != scheduler_->workers().end() && worker->second.connected &&
        !Partitioned(**std::find_if(agents_.begin(), agents_.end(), [&h = host](const auto& agent) {
          return agent->name().value() == h;
        }))) {
      world_.Violation(absl::StrCat(start->job.value(), " epoch ", start->epoch,
                                    " starts while epoch ", epoch, " lives on ", host,
                                    ", which is in contact"));
    }
  }
  auto durable = durable_checkpoint_.find(start->job);
  const int64_t from = start->resume_from.has_value() ? start->resume_from->step : 0;
  if (durable != durable_checkpoint_.end() && from < durable->second &&
      options_.bug == Bug::kNone) {
    const Job* job = scheduler_->Find(start->job);
    // A repeated order may be older than the newest checkpoint of its own attempt.
    if (!job->newest_checkpoint.has_value() || job->newest_checkpoint->epoch < start->epoch) {
      world_.Violation(absl::StrCat(start->job.value(), " resumes from step ", from,
                                    ", durable was ", durable->second));
    }
  }
}

// ---- the network

uint64_t Simulation::Dial(const WorkerId& worker) {
  if (scheduler_ == nullptr || partitioned_.count(worker) > 0) return 0;
  const uint64_t id = next_session_++;
  for (const auto& agent : agents_) {
    if (agent->name() == worker) sessions_[id].agent = agent.get();
  }
  return id;
}

// Agent to coordinator.
void Simulation::Send(uint64_t id, Event event) {
  auto it = sessions_.find(id);
  if (it == sessions_.end() || Partitioned(*it->second.agent)) return;
  Session& session = it->second;
  const absl::Duration delay = world_.Chance(0.01)
                                   ? world_.Between(absl::ZeroDuration(), absl::Seconds(4))
                                   : world_.Between(absl::Milliseconds(1), absl::Milliseconds(40));
  session.last_up = std::max(session.last_up, world_.now() + delay);
  const uint64_t life = life_;
  world_.After(session.last_up - world_.now(), [this, id, life, event = std::move(event)] {
    auto session = sessions_.find(id);
    if (life != life_ || session == sessions_.end() || !session->second.coordinator_side) return;
    if (Partitioned(*session->second.agent)) return;
    Give(event);
    if (std::holds_alternative<AgentHeardEvent>(event)) {
      FakeAgent* agent = session->second.agent;
      world_.After(absl::Milliseconds(10), [this, agent, id] {
        if (!Partitioned(*agent)) agent->Receive(id, HeartbeatAck{});
      });
    }
  });
}

// Coordinator to agent.
void Simulation::Deliver(const ll::Send& send) {
  auto it = sessions_.find(send.session);
  if (it == sessions_.end()) return;
  Session& session = it->second;
  if (std::holds_alternative<WelcomeOrder>(send.order)) {
    // The driver ends an older stream of the same worker.
    for (auto& [id, other] : sessions_) {
      if (other.agent == session.agent && id < send.session) other.coordinator_side = false;
    }
  }
  const ToAgent message = std::visit([](const auto& order) { return ToAgent(order); }, send.order);
  session.last_down =
      std::max(session.last_down,
               world_.now() + world_.Between(absl::Milliseconds(1), absl::Milliseconds(40)));
  FakeAgent* agent = session.agent;
  world_.After(session.last_down - world_.now(), [this, agent, id = send.session, message] {
    auto session = sessions_.find(id);
    if (session == sessions_.end() || !session->second.agent_side || Partitioned(*agent)) return;
    agent->Receive(id, message);
  });
}

void Simulation::HangUp(uint64_t id) {
  if (sessions_.count(id) == 0) return;
  sessions_[id].agent_side = false;
  // What was on its way may still arrive before the end is noticed.
  EndSession(id, absl::ZeroDuration(), world_.Between(absl::Milliseconds(1), absl::Seconds(1)));
}

void Simulation::EndSession(uint64_t id, absl::Duration agent_notices,
                            absl::Duration coordinator_notices) {
  FakeAgent* agent = sessions_[id].agent;
  world_.After(agent_notices, [this, id, agent] {
    auto it = sessions_.find(id);
    if (it != sessions_.end()) it->second.agent_side = false;
    agent->StreamEnded(id);
  });
  const uint64_t life = life_;
  world_.After(coordinator_notices, [this, id, agent, life] {
    if (life == life_) Give(AgentGoneEvent{agent->name(), id});
    auto it = sessions_.find(id);
    if (it != sessions_.end()) it->second.coordinator_side = false;
  });
  world_.After(absl::Minutes(5), [this, id] { sessions_.erase(id); });
}

// ---- clients

void Simulation::PlanQueues() {
  QueueRecord all;
  all.name = kDefaultQueue;
  queues_.push_back(all);
  for (const char* name : {"research", "nightly"}) {
    if (world_.Chance(0.5)) continue;
    QueueRecord queue;
    queue.name = name;
    queue.weight = 1 + static_cast<double>(world_.random.Below(3));
    if (world_.Chance(0.7)) queue.quota_gpus = 1 + static_cast<int>(world_.random.Below(4));
    if (world_.Chance(0.5))
      queue.max_gpus = queue.quota_gpus.value_or(1) + static_cast<int>(world_.random.Below(4));
    if (world_.Chance(0.3)) queue.max_jobs = 1 + static_cast<int>(world_.random.Below(3));
    queues_.push_back(queue);
  }
  std::vector<Record> records;
  for (const QueueRecord& queue : queues_) records.push_back(PutQueue{queue});
  if (!store_.Commit(records).ok()) world_.Violation("the queues cannot be stored");
}

void Simulation::PlanClients() {
  for (size_t i = 0; i < requests_.size(); ++i) {
    world_.After(world_.Between(absl::ZeroDuration(), kFaultsLast / 2),
                 [this, i] { SubmitUntilAcked(i); });
  }
  const int wishes = static_cast<int>(world_.random.Below(8));
  for (int i = 0; i < wishes; ++i) {
    world_.After(world_.Between(absl::Seconds(20), kFaultsLast), [this] { RandomWish(); });
  }
}

void Simulation::SubmitUntilAcked(size_t index) {
  Request& request = requests_[index];
  SubmitEvent event;
  event.job =
      JobId(absl::StrCat("job-", next_job_++));  // each try brings a new id; the request id decides
  event.request_id = request.id;
  event.body_sha256 = request.id;
  event.user = "ann";
  event.spec = request.spec;
  event.payload = std::make_shared<JobPayload>();
  training_.Define(event.job, request.steps, request.checkpoint_every);
  Give(event, [this, index](const Reply& reply) {
    if (world_.Chance(0.1)) return;  // the answer is lost
    Request& request = requests_[index];
    if (!reply.status.ok()) {
      world_.Violation(absl::StrCat("submit of ", request.id,
                                    " refused: ", std::string(reply.status.message())));
      return;
    }
    if (request.acked.has_value() && *request.acked != reply.job) {
      world_.Violation(
          absl::StrCat(request.id, " made ", request.acked->value(), " and ", reply.job.value()));
    }
    request.acked = reply.job;
  });
  world_.After(world_.Between(absl::Seconds(1), absl::Seconds(4)), [this, index] {
    // Some clients ask again although they know.
    if (!requests_[index].acked.has_value() || world_.Chance(0.1)) SubmitUntilAcked(index);
  });
}

void Simulation::RandomWish() {
  const size_t index = world_.random.Below(requests_.size());
  if (!requests_[index].acked.has_value()) return;
  const JobId job = *requests_[index].acked;
  if (world_.Chance(0.4)) {
    world_.Trace(absl::StrCat("client cancels ", job.value()));
    Give(CancelEvent{job, "ann", "changed her mind"}, [this, index](const Reply& reply) {
      if (reply.status.ok()) requests_[index].cancel_acked = true;
    });
    return;
  }
  world_.Trace(absl::StrCat("client pauses ", job.value()));
  Give(PauseEvent{job, "ann"});
  world_.After(world_.Between(absl::Seconds(5), absl::Seconds(60)), [this, job] {
    Give(ResumeEvent{job, "ann"});
  });
}

// ---- faults

void Simulation::Fault() {
  if (!faults_) return;
  world_.After(world_.Between(absl::Seconds(1), 2 * fault_every_), [this] { Fault(); });
  FakeAgent& agent = *agents_[world_.random.Below(agents_.size())];
  const FaultKind kind = fault_kinds_[world_.random.Below(fault_kinds_.size())];
  switch (kind) {
    case FaultKind::kCoordinator:
      CrashCoordinator("at rest");
      break;
    case FaultKind::kAgent:
      ++result_.agent_crashes;
      agent.Crash();
      world_.After(world_.Between(absl::Milliseconds(200), absl::Seconds(90)),
                   [&agent] { agent.Start(); });
      break;
    case FaultKind::kRank:
      training_.CrashRandomRank();
      break;
    case FaultKind::kShortCut:
      Partition(agent, world_.Between(absl::Seconds(1), absl::Seconds(100)));
      break;
    case FaultKind::kLongCut:
      Partition(agent, world_.Between(absl::Seconds(100), absl::Seconds(500)));
      break;
    case FaultKind::kRepeat:
      agent.ResendReports();
      break;
    case FaultKind::kOperator:
      Operator(agent.name());
      break;
  }
}

void Simulation::Operator(const WorkerId& worker) {
  const Cordon cordon = world_.Chance(0.7) ? Cordon::kDrain : Cordon::kCordon;
  world_.Trace(
      absl::StrCat("operator ", cordon == Cordon::kDrain ? "drains " : "cordons ", worker.value()));
  Give(CordonWorkerEvent{worker, cordon, "op", ""});
  world_.After(world_.Between(absl::Seconds(20), absl::Minutes(4)), [this, worker] {
    Give(CordonWorkerEvent{worker, Cordon::kUncordon, "op", ""});
  });
}

void Simulation::Partition(FakeAgent& agent, absl::Duration length) {
  if (!partitioned_.insert(agent.name()).second) return;
  ++result_.partitions;
  world_.Trace(absl::StrCat("fault: ", agent.name().value(), " is cut off for ",
                            absl::FormatDuration(length)));
  // Keepalive ends the stream after a while, on each side for itself; a short cut may pass
  // unnoticed only if nothing was lost, so the stream always ends.
  if (agent.session() != 0) {
    EndSession(agent.session(), world_.Between(absl::Seconds(1), absl::Seconds(25)),
               world_.Between(absl::Seconds(1), absl::Seconds(25)));
  }
  world_.After(length, [this, name = agent.name()] { partitioned_.erase(name); });
}

void Simulation::Heal() {
  world_.Trace("faults end");
  faults_ = false;
  for (const auto& agent : agents_) agent->Start();
}

// ---- the end

bool Simulation::Done() {
  if (faults_ || scheduler_ == nullptr) return false;
  for (const auto& [name, worker] : scheduler_->workers()) {
    if (worker.cordoned) Give(CordonWorkerEvent{name, Cordon::kUncordon, "op", ""});
  }
  for (const Request& request : requests_) {
    if (!request.acked.has_value()) return false;
    const Job* job = scheduler_->Find(*request.acked);
    if (job != nullptr && job->state == JobState::kPaused) Give(ResumeEvent{job->id, "ann"});
    if (job != nullptr && !IsTerminal(job->state)) {
      // What no agent can hold never ends by itself.
      if (job->state != JobState::kQueued ||
          job->wait_reason.find("that would do") == std::string::npos)
        return false;
    }
  }
  return true;
}

void Simulation::CheckEnd() {
  std::set<JobId> ids;
  for (const Request& request : requests_) {
    if (!request.acked.has_value()) {
      world_.Violation(absl::StrCat(request.id, " was never acknowledged"));
      continue;
    }
    ++result_.jobs_acked;
    if (!ids.insert(*request.acked).second) world_.Violation("two requests share a job");
    const Job* job = scheduler_ == nullptr ? nullptr : scheduler_->Find(*request.acked);
    if (job == nullptr) {
      world_.Violation(absl::StrCat("acknowledged ", request.acked->value(), " was lost"));
      continue;
    }
    result_.succeeded += job->state == JobState::kSucceeded;
    result_.failed += job->state == JobState::kFailed;
    result_.cancelled += job->state == JobState::kCancelled;
    if (request.cancel_acked && job->state != JobState::kCancelled) {
      world_.Violation(absl::StrCat("the cancel of ", job->id.value(),
                                    " was acknowledged but it is ",
                                    std::string(JobStateName(job->state))));
    }
    if (!training_.Living(job->id).empty() && IsTerminal(job->state)) {
      world_.Violation(absl::StrCat(job->id.value(), " has ended but still runs"));
    }
  }
}

SimResult Simulation::Run() {
  StartCoordinator();
  for (const auto& agent : agents_) {
    world_.After(world_.Between(absl::ZeroDuration(), absl::Seconds(10)),
                 [&agent] { agent->Start(); });
  }
  PlanClients();
  world_.After(absl::Seconds(15), [this] { Fault(); });
  world_.RunUntil(kFaultsLast, [] { return false; });
  Heal();
  const bool ended = world_.RunUntil(kFaultsLast + kMustEndWithin, [this] { return Done(); });
  if (!ended) {
    for (const Request& request : requests_) {
      if (!request.acked.has_value() || scheduler_ == nullptr) continue;
      const auto why = scheduler_->Why(*request.acked);
      const Job* job = scheduler_->Find(*request.acked);
      if (job != nullptr && !IsTerminal(job->state)) {
        world_.Violation(absl::StrCat(job->id.value(), " did not end: ", why.ok() ? *why : ""));
      }
    }
  }
  // Give strays a moment to be killed.
  world_.RunUntil(world_.now() + absl::Minutes(6), [] { return false; });
  CheckEnd();
  result_.checkpoints = training_.checkpoints_written();
  result_.violations = world_.violations;
  result_.digest = world_.digest();
  return result_;
}

}  // namespace

SimResult Simulate(const SimOptions& options) { return Simulation(options).Run(); }

}  // namespace ll::sim
