// What agents say: sessions begin and end, ranks' facts arrive.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "coordinator/core/scheduler.h"

namespace ll {
namespace {

// Workers that came, or came back, since the last tick and had a pass of their own.
constexpr int kHellosPerTick = 32;

const HeldGang* FindHeld(const AgentHelloEvent& event, const Job& job) {
  for (const HeldGang& gang : event.gangs) {
    if (gang.job == job.id && gang.epoch == job.epoch) return &gang;
  }
  return nullptr;
}

const HeldRank* FindRank(const HeldGang* gang, int rank) {
  if (gang == nullptr) return nullptr;
  for (const HeldRank& held : gang->ranks) {
    if (held.rank == rank) return &held;
  }
  return nullptr;
}

bool AllExited(const HeldGang& gang) {
  return std::all_of(gang.ranks.begin(), gang.ranks.end(),
                     [](const HeldRank& rank) { return rank.exited; });
}

// The attempt is over and the ends of these ranks were reported, so no report of the agent is still
// to come.
bool AllReported(const Job& job, const HeldGang& gang) {
  const Attempt& attempt = *job.attempt;
  return attempt.over() &&
         std::all_of(gang.ranks.begin(), gang.ranks.end(), [&](const HeldRank& held) {
           return held.rank < 0 || held.rank >= static_cast<int>(attempt.ranks.size()) ||
                  attempt.ranks[held.rank].exit.reported;
         });
}

// An earlier attempt; or a later one that a restored store does not know and that must not count.
bool IsSuperseded(const Job& job, int64_t epoch) {
  return epoch < job.epoch || (epoch > job.epoch && epoch <= job.epoch_floor);
}

bool HasStray(const Worker& worker, const JobId& job, int64_t epoch) {
  for (const auto& [slot, use] : worker.uses) {
    if (use.stray && use.job == job && use.epoch == epoch) return true;
  }
  return false;
}

}  // namespace

Worker* Scheduler::CurrentWorker(const WorkerId& name, uint64_t session) {
  auto it = workers_.find(name);
  if (it == workers_.end() || !it->second.connected || it->second.session != session)
    return nullptr;
  return &it->second;
}

Worker& Scheduler::WorkerOf(const Rank& rank) { return workers_.at(rank.worker); }

void Scheduler::Heard(Worker& worker) {
  const bool was_silent = time_.LeaseExpired(worker.silence);
  worker.silence = absl::ZeroDuration();
  worker.last_seen = now_.wall;
  if (!was_silent) return;
  ScheduleForWorker();
  RefreshSlots(worker);
  effects_.workers_changed = true;
  for (auto& [sequence, job] : JobsOn(worker)) UpdateHeadless(*job);
}

// A worker came, or is back. A pass for each of thousands that do so at once would hold up
// everything else: the next tick's serves all.
void Scheduler::ScheduleForWorker() {
  (++hellos_ <= kHellosPerTick ? schedule_ : hellos_wait_) = true;
}

void Scheduler::On(const AgentHeardEvent& event) {
  if (Worker* worker = CurrentWorker(event.worker, event.session)) Heard(*worker);
}

void Scheduler::On(const AgentGoneEvent& event) {
  Worker* worker = CurrentWorker(event.worker, event.session);
  if (worker == nullptr) return;
  worker->connected = false;
  worker->session = 0;
  RefreshSlots(*worker);
  SaveWorker(*worker);  // keeps last_seen
}

void Scheduler::On(const WorkerDeclaredDeadEvent& event) {
  auto it = workers_.find(event.worker);
  if (it == workers_.end()) {
    effects_.reply.status = FieldStatus(absl::StatusCode::kNotFound, "worker",
                                        absl::StrCat("there is no worker ", event.worker.value()));
    return;
  }
  Worker& worker = it->second;
  if (worker.connected) {
    effects_.reply.status = FieldStatus(
        absl::StatusCode::kFailedPrecondition, "worker",
        absl::StrCat(event.worker.value(), " is in contact and cannot be declared dead"));
    return;
  }
  worker.declared_dead = true;
  SaveWorker(worker);
  const std::string why = event.user.empty()
                              ? "its host was declared dead"
                              : absl::StrCat("its host was declared dead by ", event.user);
  const std::map<int, SlotUse> uses = worker.uses;
  std::set<Job*> affected;
  for (const auto& [slot, use] : uses) {
    if (use.stray) continue;
    Job& job = *jobs_.at(use.job);
    LoseRank(job, use.rank, why, /*stray=*/false);
    affected.insert(&job);
  }
  worker.uses.clear();
  for (auto& [sequence, job] : JobIndex(active_)) {
    if (affected.count(job) > 0) AfterRankChange(*job);
  }
  schedule_ = true;
  pool_stale_ = true;
}

// ---- a session begins

absl::Status Scheduler::CheckHello(const AgentHelloEvent& event) const {
  if (event.worker.empty() || event.incarnation.empty()) {
    return MakeFieldError({"worker", "a name and an incarnation", "none"});
  }
  std::set<int> indices;
  for (const Slot& slot : event.slots) {
    if (!indices.insert(slot.index).second) {
      return MakeFieldError(
          {"slots", "different indices", absl::StrCat("slot ", slot.index, " twice")});
    }
  }
  auto it = workers_.find(event.worker);
  if (it == workers_.end() || it->second.incarnation == event.incarnation) return absl::OkStatus();
  const Worker& known = it->second;
  const std::string hint = "give each agent its own --name";
  if (known.connected && !time_.LeaseExpired(known.silence)) {
    return FieldStatus(
        absl::StatusCode::kAlreadyExists, "name",
        absl::StrCat("a live worker on host ", known.host, " is named ", event.worker.value()),
        hint);
  }
  // A new process on the same host has replaced the old one and its ranks; on another host it has
  // not.
  const bool holds_ranks = std::any_of(known.uses.begin(), known.uses.end(),
                                       [](const auto& use) { return !use.second.stray; });
  if (holds_ranks && known.host != (event.host.empty() ? event.worker.value() : event.host)) {
    return FieldStatus(absl::StatusCode::kAlreadyExists, "name",
                       absl::StrCat("worker ", event.worker.value(), " of host ", known.host,
                                    " is out of contact but may still run ranks"),
                       hint);
  }
  return absl::OkStatus();
}

Worker& Scheduler::RegisterWorker(const AgentHelloEvent& event) {
  Worker& worker = workers_[event.worker];
  worker.name = event.worker;
  worker.incarnation = event.incarnation;
  worker.host = event.host.empty() ? event.worker.value() : event.host;
  worker.fabric_host = event.fabric_host;
  worker.version = event.version;
  worker.http_address = event.http_address;
  worker.slots = event.slots;
  worker.nvlink_domain = event.nvlink_domain;
  worker.rack = event.rack;
  worker.declared_dead = false;
  worker.connected = true;
  worker.session = event.session;
  Heard(worker);
  // What it holds beyond current attempts is known afresh.
  for (auto it = worker.uses.begin(); it != worker.uses.end();) {
    it = it->second.stray ? worker.uses.erase(it) : std::next(it);
  }
  maybe_strays_.insert(worker.name);
  for (const HeldGang& gang : event.gangs) {
    const Job* job = Find(gang.job);
    for (const HeldRank& held : gang.ranks) {
      if (held.exited) continue;
      const bool current = job != nullptr && job->attempt.has_value() &&
                           job->attempt->epoch == gang.epoch && held.rank >= 0 &&
                           held.rank < static_cast<int>(job->attempt->ranks.size()) &&
                           job->attempt->ranks[held.rank].phase != RankPhase::kExited;
      if (!current)
        worker.uses.insert({held.slot, SlotUse{gang.job, gang.epoch, held.rank, /*stray=*/true}});
    }
  }
  SaveWorker(worker);
  RefreshSlots(worker);
  ScheduleForWorker();
  return worker;
}

// Compares a current attempt with what the agent holds of it.
void Scheduler::Reconcile(Job& job, const AgentHelloEvent& event) {
  const HeldGang* gang = FindHeld(event, job);
  Attempt& attempt = *job.attempt;
  for (size_t i = 0; i < attempt.ranks.size(); ++i) {
    Rank& rank = attempt.ranks[i];
    if (rank.worker != event.worker || rank.phase == RankPhase::kExited) continue;
    const int index = static_cast<int>(i);
    const HeldRank* held = FindRank(gang, index);
    const bool same_agent = rank.incarnation == event.incarnation;
    if (held != nullptr && held->exited) {
      // Its report follows the Welcome, behind those of the checkpoints before it. To believe the
      // end at once would start the next attempt, or a job that waits for this one, from an older
      // checkpoint.
    } else if (held != nullptr) {
      rank.incarnation = event.incarnation;  // adopted
    } else if (!same_agent) {
      LoseRank(job, index, "its agent was restarted", /*stray=*/false);
    } else if (rank.phase != RankPhase::kOrdered) {
      LoseRank(job, index, "its agent no longer has it", /*stray=*/false);
    } else if (attempt.stop != StopKind::kNone) {
      LoseRank(job, index, "it was stopped before it was started", /*stray=*/false);
    }
    // else: the start order never arrived; SendAfterWelcome repeats it.
  }
  Touch(job);
  AfterRankChange(job);
}

WelcomeOrder Scheduler::WelcomeFor(const AgentHelloEvent& event) const {
  WelcomeOrder welcome;
  for (const HeldGang& gang : event.gangs) {
    Verdict verdict{gang.job, gang.epoch};
    const Job* job = Find(gang.job);
    if (job != nullptr && job->attempt.has_value() && job->epoch == gang.epoch) {
      const Attempt& attempt = *job->attempt;
      verdict.keep = !attempt.over() && attempt.stop != StopKind::kKill;
      auto it = attempt.report_sequence.find(event.worker);
      if (it != attempt.report_sequence.end()) verdict.report_sequence = it->second;
      for (size_t i = 0; i < attempt.ranks.size(); ++i) {
        if (attempt.ranks[i].worker == event.worker) verdict.ranks.push_back(static_cast<int>(i));
      }
    }
    welcome.verdicts.push_back(std::move(verdict));
  }
  return welcome;
}

// Everything this agent may have missed while it was out of contact.
void Scheduler::SendAfterWelcome(const Worker& worker, const AgentHelloEvent& event) {
  std::set<std::pair<int64_t, Job*>> current;
  for (const auto& [slot, use] : worker.uses) {
    if (use.stray) continue;
    Job* job = jobs_.at(use.job).get();
    current.insert({job->sequence, job});
  }
  for (const auto& [sequence, job] : current) {
    const Attempt& attempt = *job->attempt;
    if (attempt.stop != StopKind::kNone) {
      SendStop(*job, worker);
      continue;
    }
    if (FindHeld(event, *job) == nullptr) SendStart(*job, worker);
    if (!attempt.rendezvous.empty())
      SendTo(worker, RendezvousOrder{job->id, attempt.epoch, attempt.rendezvous});
  }
  for (const HeldGang& gang : event.gangs) {
    const Job* job = Find(gang.job);
    const bool superseded =
        job == nullptr || !job->attempt.has_value() || IsSuperseded(*job, gang.epoch);
    if (AllExited(gang) && (superseded || AllReported(*job, gang))) {
      SendTo(worker, ReleaseGangOrder{gang.job, gang.epoch});
    }
  }
}

void Scheduler::On(const AgentHelloEvent& event) {
  const absl::Status status = CheckHello(event);
  if (!status.ok()) {
    effects_.sends.push_back({event.worker, event.session, RejectHelloOrder{status}});
    Note(
        absl::StrCat("worker ", event.worker.value(), " refused: ", std::string(status.message())));
    return;
  }
  LearnEpochs(event);
  Worker& worker = RegisterWorker(event);
  std::set<std::pair<int64_t, Job*>> affected;
  for (const auto& [slot, use] : worker.uses) {
    if (use.stray) continue;
    Job* job = jobs_.at(use.job).get();
    affected.insert({job->sequence, job});
  }
  // Reconciling may stop or release other agents' ranks; this one hears its Welcome first.
  const size_t mark = effects_.sends.size();
  for (const auto& [sequence, job] : affected) Reconcile(*job, event);
  effects_.sends.insert(effects_.sends.begin() + mark,
                        Send{worker.name, worker.session, WelcomeFor(event)});
  SendAfterWelcome(worker, event);
}

// ---- reports

void Scheduler::On(const ReportEvent& event) {
  Worker* worker = CurrentWorker(event.worker, event.session);
  if (worker == nullptr) {
    Note(absl::StrCat("report of ", event.worker.value(), " outside its session ignored"));
    return;
  }
  Heard(*worker);
  auto it = jobs_.find(event.job);
  if (it == jobs_.end() || IsSuperseded(*it->second, event.epoch)) {
    OnStaleReport(*worker, event);
    return;
  }
  Job& job = *it->second;
  const bool mine = event.epoch == job.epoch && job.attempt.has_value() && event.rank >= 0 &&
                    event.rank < static_cast<int>(job.attempt->ranks.size()) &&
                    job.attempt->ranks[event.rank].worker == event.worker;
  if (!mine) {
    // Never acknowledged: what was ordered is durable, so no honest agent can say this.
    Note(absl::StrCat("report of ", event.worker.value(), " about ", event.job.value(), " epoch ",
                      event.epoch, " rank ", event.rank, " ignored: it was never ordered"));
    return;
  }
  int64_t& sequence = job.attempt->report_sequence[event.worker];
  if (event.sequence > sequence) {
    sequence = event.sequence;
    Touch(job);
    // First the acknowledgement: a release that follows from the report must come after it.
    SendTo(*worker, ReportAckOrder{event.job, event.epoch, sequence});
    ApplyReport(job, event);
  } else {
    SendTo(*worker, ReportAckOrder{event.job, event.epoch, sequence});
  }
}

// A fact about an attempt that was given up: of no consequence but for the slot the rank held.
void Scheduler::OnStaleReport(Worker& worker, const ReportEvent& event) {
  const Job* job = Find(event.job);
  Note(absl::StrCat("report of ", event.worker.value(), " about ", event.job.value(), " epoch ",
                    event.epoch,
                    job == nullptr ? " refused: no such job"
                                   : absl::StrCat(" refused: the job is at epoch ", job->epoch)));
  SendTo(worker, ReportAckOrder{event.job, event.epoch, event.sequence});
  const bool ends = std::holds_alternative<ExitFact>(event.fact) ||
                    std::holds_alternative<RefusedFact>(event.fact);
  if (!ends) return;
  for (auto it = worker.uses.begin(); it != worker.uses.end();) {
    const SlotUse& use = it->second;
    const bool gone =
        use.stray && use.job == event.job && use.epoch == event.epoch && use.rank == event.rank;
    it = gone ? worker.uses.erase(it) : std::next(it);
  }
  schedule_ = true;
  RefreshSlots(worker);
  if (!HasStray(worker, event.job, event.epoch))
    SendTo(worker, ReleaseGangOrder{event.job, event.epoch});
}

void Scheduler::ApplyReport(Job& job, const ReportEvent& event) {
  Attempt& attempt = *job.attempt;
  Rank& rank = attempt.ranks[event.rank];
  const auto reach = [&rank](RankPhase phase) {
    if (rank.phase < phase) rank.phase = phase;
  };
  if (std::holds_alternative<StartedFact>(event.fact)) {
    reach(RankPhase::kStarted);
  } else if (const auto* fact = std::get_if<RendezvousFact>(&event.fact)) {
    attempt.rendezvous = fact->address;
    for (const Worker* worker : WorkersOf(attempt, [](const Rank&) { return true; })) {
      SendTo(*worker, RendezvousOrder{job.id, attempt.epoch, fact->address});
    }
  } else if (std::holds_alternative<TrainingFact>(event.fact)) {
    reach(RankPhase::kTraining);
    AfterRankChange(job);
  } else if (const auto* fact = std::get_if<CheckpointFact>(&event.fact)) {
    const int64_t before = job.newest_checkpoint.has_value() ? job.newest_checkpoint->step : -1;
    const bool newer = !job.newest_checkpoint.has_value() ||
                       event.epoch > job.newest_checkpoint->epoch || fact->step > before;
    if (!newer) return;
    if (fact->step > before) job.stuck_attempts = 0;
    job.newest_checkpoint =
        Checkpoint{fact->step,           event.epoch,        fact->path, fact->manifest_sha256,
                   event.worker.value(), WorkerOf(rank).host};
  } else if (const auto* fact = std::get_if<ExitFact>(&event.fact)) {
    ApplyExit(job, event.rank, fact->exit, fact->result);
    rank.exit.reported = true;
    OnRanksReported(job, event.worker);
  } else if (const auto* fact = std::get_if<RefusedFact>(&event.fact)) {
    for (size_t i = 0; i < attempt.ranks.size(); ++i) {
      if (attempt.ranks[i].worker != event.worker) continue;
      RankExit exit;
      exit.code = kExitNotStarted;
      exit.failure_class =
          fact->leaving ? FailureClass::kInfrastructure : fact->failure.failure_class;
      exit.message = fact->failure.message;
      // It may have waited for its slot when the order came. One that shuts down is as innocent of
      // it as where it stops what runs: nothing is charged.
      exit.ordered = fact->leaving || attempt.stop != StopKind::kNone;
      ApplyExit(job, static_cast<int>(i), exit, {});
      attempt.ranks[i].exit.reported = true;
    }
    OnRanksReported(job, event.worker);
  }
}

void Scheduler::OnRanksReported(Job& job, const WorkerId& worker) {
  Touch(job);
  if (HoldsSlots(job.state)) {
    AfterRankChange(job);
  } else {
    ReleaseIfReported(job, workers_.at(worker));  // late news of an attempt that is over
  }
}

// An agent may forget the attempt when it is over and nothing more is to come from it: reports are
// in order, and a rank's exit is its last.
void Scheduler::ReleaseIfReported(const Job& job, const Worker& worker) {
  for (const Rank& rank : job.attempt->ranks) {
    if (rank.worker == worker.name && !rank.exit.reported && !rank.exit.lost) return;
  }
  if (!HasStray(worker, job.id, job.epoch)) SendTo(worker, ReleaseGangOrder{job.id, job.epoch});
}

// A rank's end by its agent's word. For one whose end is known or was concluded it only frees the
// slot.
void Scheduler::ApplyExit(Job& job, int rank, const RankExit& exit, const std::string& result) {
  Rank& r = job.attempt->ranks[rank];
  FreeSlot(job, rank);
  if (r.phase == RankPhase::kExited) return;
  r.phase = RankPhase::kExited;
  r.exit = exit;
  r.exit.reported = false;
  if (rank == 0 && !result.empty()) job.result = result;
  Touch(job);
}

}  // namespace ll
