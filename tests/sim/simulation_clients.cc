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
    while (i + 1 < requests_.size() && requests_[i + 1].first == requests_[i].first) ++i;
  }
  const int wishes = static_cast<int>(world_.random.Below(40));
  for (int i = 0; i < wishes; ++i) {
    world_.After(world_.Between(absl::Seconds(20), kFaultsLast), [this] { RandomWish(); });
  }
  limits_change_ = world_.Chance(0.5);
  const int changes = limits_change_ ? 1 + static_cast<int>(world_.random.Below(12)) : 0;
  for (int i = 0; i < changes; ++i)
    world_.After(world_.Between(absl::Minutes(1), kFaultsLast), [this] { ChangeLimits(); });
}

// An operator gives a queue another weight, quota and number of jobs; who lent may be who borrows
// from then on. What a queue may hold at most stays, so that no job becomes impossible.
void Simulation::ChangeLimits() {
  QueueRecord queue = queues_[world_.random.Below(queues_.size())];
  queue.weight = 1 + static_cast<double>(world_.random.Below(3));
  queue.quota_gpus.reset();
  if (world_.Chance(0.8)) {
    const int most = std::min(16, queue.max_gpus.value_or(16));
    queue.quota_gpus = static_cast<int>(world_.random.Below(static_cast<uint64_t>(most) + 1));
  }
  queue.max_jobs.reset();
  if (world_.Chance(0.2)) queue.max_jobs = 1 + static_cast<int>(world_.random.Below(6));
  SetLimits(queue);
}

// Who lent now borrows, and whose job gave way may take back: only that the two jobs have met
// before keeps them from stopping each other in turn. Looks until `until` for the moment when one
// runs and the other still waits.
void Simulation::TurnLimitsWhenItRuns(const JobId& victim, const JobId& by, absl::Duration until) {
  if (!faults_ || world_.now() > until) return;
  const Job* waits = scheduler() == nullptr ? nullptr : scheduler()->Find(victim);
  const Job* runs = scheduler() == nullptr ? nullptr : scheduler()->Find(by);
  if (waits != nullptr && runs != nullptr) {
    if (waits->state == JobState::kQueued && runs->state == JobState::kRunning)
      return TurnLimits(*waits, *runs);
    if (waits->state != JobState::kQueued && waits->state != JobState::kPreempting) return;
  }
  world_.After(absl::Seconds(4), [=, this] { TurnLimitsWhenItRuns(victim, by, until); });
}

// For a while only the workers of the one that runs take gangs, and who stands before the one that
// waits is paused, so that there is nothing but to take back or to wait.
void Simulation::TurnLimits(const Job& waits, const Job& runs) {
  ++result_.wishes["limits of a victim's and its preemptor's queue turned around"];
  for (QueueRecord queue : queues_) {
    if (queue.name != waits.spec.queue && queue.name != runs.spec.queue) continue;
    queue.max_jobs.reset();
    queue.quota_gpus = queue.name == runs.spec.queue ? 0 : queue.max_gpus.value_or(64);
    SetLimits(queue);
  }
  std::set<WorkerId> its;
  for (const Rank& rank : runs.attempt->ranks) its.insert(rank.worker);
  std::vector<Event> later;
  for (const auto& [name, worker] : scheduler()->workers()) {
    if (worker.cordoned || its.count(name) > 0) continue;
    Give(CordonWorkerEvent{name, Cordon::kCordon, "op", ""});
    later.push_back(CordonWorkerEvent{name, Cordon::kUncordon, "op", ""});
  }
  for (const Job* job : scheduler()->List({SIZE_MAX, INT64_MAX, {JobState::kQueued}})) {
    const bool before = std::pair(-job->spec.priority, job->sequence) <
                        std::pair(-waits.spec.priority, waits.sequence);
    if (job->spec.queue != waits.spec.queue || !before) continue;
    Give(PauseEvent{job->id, "ann"});
    later.push_back(ResumeEvent{job->id, "ann"});
  }
  world_.After(world_.Between(absl::Seconds(40), absl::Minutes(2)), [this, later] {
    for (const Event& event : later) Give(event);
  });
}

void Simulation::SetLimits(const QueueRecord& queue) {
  world_.Trace(absl::StrCat("operator changes queue ", queue.name, ", quota ",
                            queue.quota_gpus.value_or(-1)));
  Give(SetQueueEvent{queue, "op"}, [this, name = queue.name](const Reply& reply) {
    ++result_.wishes["limits of a queue changed"];
    if (!reply.status.ok())
      world_.Violation(absl::StrCat("queue ", name, ": ", reply.status.ToString()));
  });
}

// The queues have the limits that they began with, or are given them.
bool Simulation::LimitsRestored() {
  bool restored = true;
  for (const QueueRecord& queue : queues_) {
    const Queue* now = scheduler()->fair_share().Find(queue.name);
    const bool same = now != nullptr && now->record.quota_gpus == queue.quota_gpus &&
                      now->record.max_jobs == queue.max_jobs;
    if (!same) Give(SetQueueEvent{queue, "op"});
    restored = restored && same;
  }
  return restored;
}

// The requests from `first` on that are submitted together, mostly one; ids and references are new
// with each try, and the request id decides.
SubmitAllEvent Simulation::EventOf(size_t first) {
  SubmitAllEvent event;
  event.request_id = event.body_sha256 = requests_[first].id;
  event.user = "ann";
  std::vector<JobId> ids;
  for (size_t i = first; i < requests_.size() && requests_[i].first == first; ++i) {
    Request& request = requests_[i];
    if (request.deadline == absl::InfiniteFuture()) request.deadline = Now() + request.may_take;
    const JobId id(absl::StrFormat("job-%06d", next_job_++));
    CoreSpec spec = request.spec;
    spec.deadline = request.deadline;
    if (request.waits_for.has_value()) {
      const size_t other = *request.waits_for;
      const JobId waits_for = other >= first ? ids[other - first] : *requests_[other].acked;
      (request.any ? spec.after_any : spec.after) = {waits_for};
      if (request.starts_from_it) spec.source = waits_for;
    }
    training_.Define(id, request.steps, request.checkpoint_every);
    event.jobs.push_back({id, std::move(spec), payload_});
    ids.push_back(id);
  }
  if (ids.size() > 1) together_.push_back(std::move(ids));
  return event;
}

void Simulation::SubmitUntilAcked(size_t first) {
  const Request& request = requests_[first];
  if (request.waits_for.has_value() && !requests_[*request.waits_for].acked.has_value()) {
    world_.After(absl::Seconds(3), [this, first] { SubmitUntilAcked(first); });
    return;
  }
  SubmitAllEvent event = EventOf(first);
  const auto answer = [this, first](const Reply& reply) { OnSubmitAnswer(first, reply); };
  if (event.jobs.size() > 1) {
    Give(std::move(event), answer);
  } else {
    Submission& job = event.jobs.front();
    Give(SubmitEvent{job.job, event.request_id, event.body_sha256, event.user, job.spec,
                     job.payload},
         answer);
  }
  world_.After(world_.Between(absl::Seconds(1), absl::Seconds(4)), [this, first] {
    // Some clients ask again although they know.
    if (!requests_[first].acked.has_value() || world_.Chance(0.1)) {
      Struck("submit repeated");
      SubmitUntilAcked(first);
    }
  });
}

void Simulation::OnSubmitAnswer(size_t first, const Reply& reply) {
  if (world_.Chance(0.1)) return Struck("answer to a submit lost");
  Request& request = requests_[first];
  const absl::string_view why = reply.status.message();
  const bool behind = absl::StrContains(why, "will never succeed");
  // Two tries may be under way, so the wish may be given up already.
  if (behind || absl::StrContains(why, "left no checkpoint")) {
    Struck("submit behind a job that did not succeed refused");
    request.waits_for.reset();
    return;
  }
  if (!reply.status.ok()) {
    world_.Violation(absl::StrCat("submit of ", request.id, " refused: ", std::string(why)));
    return;
  }
  const std::vector<JobId> jobs = reply.jobs.empty() ? std::vector<JobId>{reply.job} : reply.jobs;
  for (size_t i = 0; i < jobs.size(); ++i) {
    Request& member = requests_[first + i];
    if (member.first != first)
      return world_.Violation(absl::StrCat(request.id, " made too many jobs"));
    if (member.acked.has_value() && *member.acked != jobs[i]) {
      world_.Violation(
          absl::StrCat(member.id, " made ", member.acked->value(), " and ", jobs[i].value()));
    }
    if (!member.acked.has_value() && jobs.size() > 1) ++result_.wishes["job of several together"];
    member.acked = jobs[i];
  }
}

void Simulation::CheckTogether(const std::function<bool(const JobId&)>& known, const char* where) {
  for (const std::vector<JobId>& ids : together_) {
    const auto there = std::count_if(ids.begin(), ids.end(), known);
    if (there != 0 && there != static_cast<int64_t>(ids.size())) {
      world_.Violation(absl::StrCat("of ", ids.size(), " jobs from ", ids[0].value(), " on, ",
                                    there, " are ", where));
    }
  }
}

// A job that starts from another gets the newest checkpoint of one that has succeeded, where it can
// be read.
void Simulation::CheckSource(const ll::Send& send, const StartGangOrder& order) {
  const Job* job = scheduler()->Find(order.job);
  if (job == nullptr || job->spec.source.empty()) return;
  const Job* source = scheduler()->Find(job->spec.source);
  const std::string what =
      absl::StrCat(order.job.value(), " starts from ", job->spec.source.value());
  if (source == nullptr || source->state != JobState::kSucceeded)
    return world_.Violation(absl::StrCat(what, ", which has not succeeded"));
  if (!order.source.has_value() || !source->newest_checkpoint.has_value() ||
      order.source->path != source->newest_checkpoint->path) {
    return world_.Violation(absl::StrCat(what, " but not from its newest checkpoint"));
  }
  if (!shared_job_store_ && order.source->host != send.worker.value())
    world_.Violation(absl::StrCat(what, " on ", send.worker.value(), ", which cannot read it"));
  ++result_.wishes["start from another job's checkpoint"];
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
    case FaultKind::kHang:
      Struck("agent hangs");
      host.Hang(world_.Between(absl::Seconds(1), absl::Seconds(100)));
      // Its gang fails for another reason: the rank that is out of sight is given up.
      if (world_.Chance(0.4)) {
        world_.After(world_.Between(absl::ZeroDuration(), absl::Seconds(20)),
                     [this, &host] { training_.CrashPeerOf(host.name().value()); });
      }
      break;
    case FaultKind::kLostStop:
      host.LoseNextStop();
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

// What cannot be the truth: about a rank that this agent was never given, or about its own in an
// attempt that is still to come.
void Simulation::Lie(SimHost& host) {
  if (scheduler() == nullptr || host.session() == 0) return;
  // Mostly about one that runs: of others little would follow.
  std::vector<const Job*> jobs = scheduler()->List({SIZE_MAX});
  if (world_.Chance(0.7))
    std::erase_if(jobs, [](const Job* job) { return !HoldsSlots(job->state); });
  if (jobs.empty()) return;
  const Job& job = *jobs[world_.random.Below(jobs.size())];
  ReportEvent event{host.name(),
                    host.session(),
                    job.id,
                    job.epoch + static_cast<int64_t>(world_.random.Below(2)),
                    static_cast<int>(world_.random.Below(6)),
                    1 + static_cast<int64_t>(world_.random.Below(9))};
  const int ranks = job.attempt.has_value() ? static_cast<int>(job.attempt->ranks.size()) : 0;
  for (int rank = 0; rank < ranks; ++rank) {
    if (job.attempt->ranks[rank].worker != host.name()) continue;
    event.rank = rank;
    event.epoch = job.epoch + 1;
    event.sequence = 1'000'000;
  }
  if (world_.Chance(0.5)) {
    event.fact = ExitFact{};
  } else {
    event.fact = CheckpointFact{1'000'000, "/nowhere", "hash"};
  }
  Struck(event.epoch > job.epoch ? "agent lies about an attempt to come" : "agent lies");
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
    sessions_[host.session()].cut = true;
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
    host->Heal();
  }
}

}  // namespace ll::sim
