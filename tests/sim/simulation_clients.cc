// What users and operators wish, and the faults.
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "tests/sim/simulation_run.h"

namespace ll::sim {

void Simulation::PlanQueues() {
  QueueRecord all;
  all.name = kDefaultQueue;
  queues_.push_back(all);
  for (const char* name : {"research", "nightly"}) {
    if (world_.Chance(0.5)) continue;
    QueueRecord queue;
    queue.name = name;
    queue.weight = 1 + static_cast<double>(world_.random.Below(3));
    if (world_.Chance(0.7)) queue.quota_gpus = 1 + static_cast<int>(world_.random.Below(12));
    if (world_.Chance(0.5))
      queue.max_gpus = queue.quota_gpus.value_or(1) + static_cast<int>(world_.random.Below(12));
    if (world_.Chance(0.3)) queue.max_jobs = 1 + static_cast<int>(world_.random.Below(6));
    queues_.push_back(queue);
  }
  std::vector<Record> records;
  for (const QueueRecord& queue : queues_) records.push_back(PutQueue{queue});
  const auto store = storage_.Open();
  if (!store.ok() || !(*store)->Commit(records).ok())
    world_.Violation("the queues cannot be stored");
}

void Simulation::PlanClients() {
  for (size_t i = 0; i < requests_.size(); ++i) {
    world_.After(world_.Between(absl::ZeroDuration(), kFaultsLast / 2),
                 [this, i] { SubmitUntilAcked(i); });
  }
  const int wishes = static_cast<int>(world_.random.Below(40));
  for (int i = 0; i < wishes; ++i) {
    world_.After(world_.Between(absl::Seconds(20), kFaultsLast), [this] { RandomWish(); });
  }
}

void Simulation::SubmitUntilAcked(size_t index) {
  Request& request = requests_[index];
  if (request.waits_for.has_value()) {
    const std::optional<JobId>& other = requests_[*request.waits_for].acked;
    if (!other.has_value()) {
      world_.After(absl::Seconds(3), [this, index] { SubmitUntilAcked(index); });
      return;
    }
    (request.any ? request.spec.after_any : request.spec.after) = {*other};
  }
  if (request.deadline == absl::InfiniteFuture()) request.deadline = Now() + request.may_take;
  SubmitEvent event;
  event.job = JobId(absl::StrFormat(
      "job-%06d", next_job_++));  // each try brings a new id; the request id decides
  event.request_id = request.id;
  event.body_sha256 = request.id;
  event.user = "ann";
  event.spec = request.spec;
  event.spec.deadline = request.deadline;
  event.payload = payload_;
  training_.Define(event.job, request.steps, request.checkpoint_every);
  const bool behind = !event.spec.after.empty();
  Give(event, [this, index, behind](const Reply& reply) {
    if (world_.Chance(0.1)) return Struck("answer to a submit lost");
    Request& request = requests_[index];
    if (!reply.status.ok() && behind &&
        absl::StrContains(reply.status.message(), "will never succeed")) {
      Struck("submit behind a job that did not succeed refused");
      request.waits_for.reset();
      request.spec.after.clear();
      return;
    }
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
    if (!requests_[index].acked.has_value() || world_.Chance(0.1)) {
      Struck("submit repeated");
      SubmitUntilAcked(index);
    }
  });
}

void Simulation::RandomWish() {
  size_t index = world_.random.Below(requests_.size());
  // Half of the time a state is drawn first, so that the rare ones get their wishes too.
  if (scheduler() != nullptr && world_.Chance(0.5)) {
    std::map<JobState, std::vector<size_t>> by_state;
    for (size_t i = 0; i < requests_.size(); ++i) {
      const Job* job = requests_[i].acked ? scheduler()->Find(*requests_[i].acked) : nullptr;
      if (job != nullptr && !IsTerminal(job->state)) by_state[job->state].push_back(i);
    }
    if (!by_state.empty()) {
      auto of = by_state.begin();
      std::advance(of, world_.random.Below(by_state.size()));
      index = of->second[world_.random.Below(of->second.size())];
    }
  }
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
  const absl::Duration longest = world_.Chance(0.3) ? absl::Hours(1) : absl::Seconds(60);
  world_.After(world_.Between(absl::Seconds(5), longest), [this, job] {
    Give(ResumeEvent{job, "ann"});
  });
}

// ---- faults

void Simulation::Fault() {
  if (!faults_) return;
  world_.After(world_.Between(absl::Seconds(1), 2 * fault_every_), [this] { Fault(); });
  SimHost& host = *hosts_[world_.random.Below(hosts_.size())];
  const FaultKind kind = fault_kinds_[world_.random.Below(fault_kinds_.size())];
  switch (kind) {
    case FaultKind::kCoordinator:
      Struck("coordinator dies at rest");
      CrashCoordinator("at rest");
      break;
    case FaultKind::kAgent:
      Struck("agent dies");
      ++result_.agent_crashes;
      if (world_.Chance(0.2)) {
        Struck("agent is asked to end");
        host.AskAgentToEnd();
      } else {
        host.KillAgent();
      }
      world_.After(world_.Between(absl::Milliseconds(200), absl::Seconds(90)),
                   [&host] { host.StartAgent(); });
      break;
    case FaultKind::kAgentDisk:
      Struck("agent's disk full");
      host.SetDiskFull(true);
      world_.After(world_.Between(absl::Seconds(1), absl::Seconds(60)),
                   [&host] { host.SetDiskFull(false); });
      break;
    case FaultKind::kRank:
      Struck("rank crashes");
      training_.CrashRandomRank();
      break;
    case FaultKind::kShortCut:
      Struck("network cut, short");
      Partition(host, world_.Between(absl::Seconds(1), absl::Seconds(100)));
      break;
    case FaultKind::kLongCut:
      Struck("network cut, long");
      Partition(host, world_.Between(absl::Seconds(100), absl::Seconds(500)));
      break;
    case FaultKind::kRepeat:
      Struck("reports repeated");
      RepeatReports(host);
      break;
    case FaultKind::kOperator:
      Struck("worker cordoned or drained");
      Operator(host.name());
      break;
    case FaultKind::kStall:
      Struck("coordinator stalls");
      world_.Trace("fault: the coordinator stalls");
      stalled_until_ = world_.now() + world_.Between(absl::Seconds(2), absl::Seconds(60));
      break;
    case FaultKind::kClock:
      Struck("wall clock set");
      wall_offset_ += world_.Between(-absl::Minutes(10), absl::Minutes(20));
      world_.Trace(absl::StrCat("fault: the clock is set by ", absl::FormatDuration(wall_offset_)));
      break;
    case FaultKind::kLie:
      Lie(host);
      break;
    case FaultKind::kDisk:
      return BreakDisk();
  }
}

void Simulation::BreakDisk() {
  const absl::Duration length = world_.Between(absl::Seconds(1), absl::Seconds(8));
  const uint64_t kind = world_.random.Below(3);
  world_.Trace(absl::StrCat("fault: the disk is ", kind == 0   ? "full"
                                                   : kind == 1 ? "failing"
                                                               : "slow"));
  if (kind == 2) return storage_.Slow(length);
  storage_.Break(kind == 0 ? DiskFault::kFull : DiskFault::kError, length);
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

// About a rank that this agent was never given, so that it cannot be the truth.
void Simulation::Lie(SimHost& host) {
  if (scheduler() == nullptr || host.session() == 0) return;
  const std::vector<const Job*> jobs = scheduler()->List({SIZE_MAX});
  if (jobs.empty()) return;
  const Job& job = *jobs[world_.random.Below(jobs.size())];
  ReportEvent event{host.name(),
                    host.session(),
                    job.id,
                    job.epoch + static_cast<int64_t>(world_.random.Below(2)),
                    static_cast<int>(world_.random.Below(6)),
                    1 + static_cast<int64_t>(world_.random.Below(9))};
  if (job.attempt.has_value()) {
    for (const Rank& rank : job.attempt->ranks) {
      if (rank.worker == host.name()) return;
    }
  }
  if (world_.Chance(0.5)) {
    event.fact = ExitFact{};
  } else {
    event.fact = CheckpointFact{1'000'000, "/nowhere", "hash"};
  }
  Struck("agent lies");
  world_.Trace(absl::StrCat("fault: ", host.name().value(), " lies about ", job.id.value()));
  Give(event);
}

void Simulation::Partition(SimHost& host, absl::Duration length) {
  if (!partitioned_.insert(host.name()).second) return;
  ++result_.partitions;
  world_.Trace(absl::StrCat("fault: ", host.name().value(), " is cut off for ",
                            absl::FormatDuration(length)));
  // Keepalive ends the stream after a while, on each side for itself; a short cut may pass
  // unnoticed only if nothing was lost, so the stream always ends.
  if (host.session() != 0) {
    EndSession(host.session(), world_.Between(absl::Seconds(1), absl::Seconds(25)),
               world_.Between(absl::Seconds(1), absl::Seconds(25)));
  }
  world_.After(length, [this, name = host.name()] { partitioned_.erase(name); });
}

void Simulation::Heal() {
  world_.Trace("faults end");
  faults_ = false;
  storage_.SetCrashRate(0);
  storage_.SetUnreliable(false);
  storage_.Break(DiskFault::kNone, absl::ZeroDuration());
  storage_.Slow(absl::ZeroDuration());
  for (const auto& host : hosts_) {
    host->SetDiskFull(false);
    host->StartAgent();
  }
}

}  // namespace ll::sim
