// The life of an attempt: start, stop, and what its ranks' ends mean for the job.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/check.h"
#include "base/format.h"
#include "base/sha256.h"
#include "coordinator/core/scheduler.h"

namespace ll {
namespace {

constexpr absl::Duration kStopMargin =
    absl::Seconds(30);  // for the agent's own kill after the grace

// Whether the attempt got further than where it began.
bool MadeProgress(const std::optional<Checkpoint>& newest, const Attempt& attempt) {
  if (!newest.has_value() || newest->epoch != attempt.epoch) return false;
  return !attempt.resume_from.has_value() || newest->step > attempt.resume_from->step;
}

}  // namespace

std::vector<const Worker*> Scheduler::WorkersOf(const Attempt& attempt,
                                                bool (*which)(const Rank&)) const {
  std::set<WorkerId> names;
  for (const Rank& rank : attempt.ranks) {
    if (which(rank)) names.insert(rank.worker);
  }
  std::vector<const Worker*> workers;
  for (const WorkerId& name : names) {
    auto it = workers_.find(name);  // one that holds nothing any more may have been forgotten
    if (it != workers_.end()) workers.push_back(&it->second);
  }
  return workers;
}

// ---- start

void Scheduler::StartAttempt(Job& job, const std::vector<SlotId>& slots, const std::string& note) {
  Attempt attempt;
  job.epoch = std::max(job.epoch, job.epoch_floor) + 1;
  attempt.epoch = job.epoch;
  attempt.nonce = Sha256Hex(absl::StrCat(options_.nonce_seed, "/", job.id.value(), "/", job.epoch))
                      .substr(0, 32);
  attempt.resume_from = job.newest_checkpoint;
  attempt.slot_kind = KindOf(slots);
  std::vector<std::string> places;
  for (size_t i = 0; i < slots.size(); ++i) {
    const SlotPool::SlotInfo& info = pool_.slot(slots[i]);
    Worker& worker = workers_.at(info.worker);
    const bool taken =
        worker.uses.insert({info.index, SlotUse{job.id, job.epoch, static_cast<int>(i)}}).second;
    LL_CHECK_MSG(taken, "placement gave out a slot that is in use");
    attempt.ranks.push_back({worker.name, info.index, worker.incarnation});
    places.push_back(absl::StrCat(worker.name.value(), "/", info.index));
    pool_.Take(slots[i]);
  }
  job.attempt = std::move(attempt);
  if (job.started == absl::InfinitePast()) job.started = now_.wall;
  std::string reason = absl::StrCat("attempt ", job.epoch, " on ", absl::StrJoin(places, ", "));
  if (IsElastic(job.spec)) absl::StrAppend(&reason, ", ", DescribeSize(job), " ranks");
  if (job.attempt->resume_from.has_value()) {
    absl::StrAppend(&reason, ", from the checkpoint of step ", job.attempt->resume_from->step);
  }
  if (!note.empty()) absl::StrAppend(&reason, "; ", note);
  job.promised_start = absl::InfiniteDuration();
  fair_.OnStart(job.spec, job.attempt->slot_kind, RanksOf(job));
  SetState(job, JobState::kStarting, std::move(reason));
  job.deadline = time_.now() + options_.start_deadline;
  for (const Worker* worker : WorkersOf(*job.attempt, [](const Rank&) { return true; }))
    SendStart(job, *worker);
}

void Scheduler::SendStart(const Job& job, const Worker& worker) {
  const Attempt& attempt = *job.attempt;
  StartGangOrder order;
  order.job = job.id;
  order.epoch = attempt.epoch;
  order.payload = job.payload;
  order.world_size = static_cast<int>(attempt.ranks.size());
  order.nonce = attempt.nonce;
  order.resume_from = attempt.resume_from;
  order.source = job.source_checkpoint;
  for (size_t i = 0; i < attempt.ranks.size(); ++i) {
    if (attempt.ranks[i].worker == worker.name)
      order.ranks.push_back({static_cast<int>(i), attempt.ranks[i].slot});
  }
  SendTo(worker, std::move(order));
}

// ---- stop

// Tells every agent with running ranks; repeats are harmless. A kill is never taken back to a
// checkpoint.
void Scheduler::BeginStop(Job& job, StopKind kind, const std::string& reason) {
  Attempt& attempt = *job.attempt;
  if (attempt.stop != StopKind::kKill && attempt.stop != kind) {
    attempt.stop = kind;
    attempt.stop_reason = reason;
    Touch(job);
  }
  job.deadline =
      time_.now() +
      (attempt.stop == StopKind::kKill ? options_.kill_repeat : options_.stop_grace + kStopMargin);
  SendStops(job);
}

void Scheduler::SendStops(const Job& job) {
  const auto runs = [](const Rank& rank) { return rank.phase != RankPhase::kExited; };
  for (const Worker* worker : WorkersOf(*job.attempt, runs)) SendStop(job, *worker);
}

void Scheduler::SendStop(const Job& job, const Worker& worker) {
  const Attempt& attempt = *job.attempt;
  const bool checkpoint = attempt.stop == StopKind::kCheckpoint;
  SendTo(worker, StopGangOrder{job.id, attempt.epoch, checkpoint,
                               checkpoint ? options_.stop_grace : absl::ZeroDuration(),
                               attempt.stop_reason});
}

void Scheduler::ForceEnd(Job& job, Failure failure, StopKind kind) {
  const std::string reason = failure.message;
  if (!job.attempt->forced.has_value()) job.attempt->forced = std::move(failure);
  if (job.state != JobState::kFinishing) SetState(job, JobState::kFinishing, reason);
  BeginStop(job, kind, reason);
}

// ---- ends

void Scheduler::FreeSlot(const Job& job, int rank) {
  const Rank& r = job.attempt->ranks[rank];
  auto worker = workers_.find(r.worker);
  if (worker == workers_.end()) return;
  auto use = worker->second.uses.find(r.slot);
  if (use == worker->second.uses.end() || use->second.job != job.id ||
      use->second.epoch != job.attempt->epoch)
    return;
  worker->second.uses.erase(use);
  pool_.Give(pool_.Find(r.worker, r.slot));
  // While a gang is ending a pass for each of its ranks would find the slots one by one: the last
  // rank's end brings one, and the regular pass comes soon enough where that takes long.
  schedule_ = schedule_ || job.attempt->over();
}

// Concludes that a rank is gone without its agent's word. `stray`: its process may still run, so
// its slot stays taken until the agent says otherwise.
void Scheduler::LoseRank(Job& job, int rank, std::string why, bool stray) {
  Rank& r = job.attempt->ranks[rank];
  LL_CHECK(r.phase != RankPhase::kExited);
  r.phase = RankPhase::kExited;
  r.exit = RankExit();
  r.exit.lost = true;
  r.exit.failure_class = FailureClass::kInfrastructure;
  r.exit.message = std::move(why);
  if (stray) {
    WorkerOf(r).uses.at(r.slot).stray = true;
    maybe_strays_.insert(r.worker);
  } else {
    FreeSlot(job, rank);
  }
  Touch(job);
}

void Scheduler::AfterRankChange(Job& job) {
  if (!HoldsSlots(job.state)) return;  // late news of an attempt that is over
  Attempt& attempt = *job.attempt;
  if (job.state == JobState::kStarting &&
      std::all_of(attempt.ranks.begin(), attempt.ranks.end(),
                  [](const Rank& rank) { return rank.phase == RankPhase::kTraining; })) {
    SetState(job, JobState::kRunning,
             absl::StrCat("attempt ", attempt.epoch, ": every rank trains"));
  }
  for (size_t i = 0; i < attempt.ranks.size(); ++i) {
    const Rank& rank = attempt.ranks[i];
    if (rank.phase != RankPhase::kExited) continue;
    if (job.state == JobState::kStarting || job.state == JobState::kRunning)
      OnFirstEnd(job, static_cast<int>(i));
    // Peers of a failed rank cannot finish or checkpoint together any more.
    if (!EndedWell(rank.exit) && !EndedCheckpointed(rank.exit) && attempt.stop != StopKind::kKill) {
      BeginStop(job, StopKind::kKill, DescribeEnd(static_cast<int>(i), rank));
    }
  }
  if (attempt.over()) EndAttempt(job);
}

void Scheduler::OnFirstEnd(Job& job, int rank) {
  const Rank& r = job.attempt->ranks[rank];
  if (EndedWell(r.exit)) {
    SetState(job, JobState::kFinishing, absl::StrCat("rank ", rank, " has finished"));
    job.deadline = time_.now() + options_.finish_deadline;
  } else if (EndedCheckpointed(r.exit)) {
    const std::string reason =
        absl::StrCat("rank ", rank, " on ", r.worker.value(), " stopped after a checkpoint");
    SetState(job, JobState::kFinishing, reason);
    BeginStop(job, StopKind::kCheckpoint, reason);
  } else {
    SetState(job, JobState::kFinishing, DescribeEnd(rank, r));
  }
}

void Scheduler::EndAttempt(Job& job) {
  const Attempt& attempt = *job.attempt;
  for (const Worker* worker :
       WorkersOf(attempt, [](const Rank& rank) { return rank.exit.reported; })) {
    ReleaseIfReported(job, *worker);
  }
  const AttemptOutcome outcome = Judge(attempt);
  const bool succeeded = outcome.kind == AttemptOutcome::Kind::kSucceeded;
  if (job.state == JobState::kCancelling) {
    Finish(job, JobState::kCancelled, job.reason);
  } else if (job.state == JobState::kPausing && !succeeded) {
    const FailureClass failure = outcome.failure.failure_class;
    if (outcome.kind == AttemptOutcome::Kind::kFailed && failure != FailureClass::kInfrastructure &&
        failure != FailureClass::kCapacity) {
      Finish(job, JobState::kFailed, outcome.failure.message, failure);
      return;
    }
    SetState(
        job, JobState::kPaused,
        job.newest_checkpoint.has_value()
            ? absl::StrCat(job.reason, "; holds the checkpoint of step ",
                           job.newest_checkpoint->step)
            : absl::StrCat(job.reason, "; no checkpoint yet, a resume starts from the beginning"));
  } else if (succeeded) {
    Finish(job, JobState::kSucceeded, "every rank has finished");
  } else if (job.state == JobState::kPreempting && outcome.kind != AttemptOutcome::Kind::kFailed) {
    SetState(job, JobState::kQueued,
             job.newest_checkpoint.has_value()
                 ? absl::StrCat(job.reason, "; goes on from the checkpoint of step ",
                                job.newest_checkpoint->step)
                 : absl::StrCat(job.reason, "; starts again from the beginning"));
    if (job.resize_to > 0) {
      job.claims = true;  // its slots are its own
      claimants_.insert(job.id);
    }
  } else {
    EndFinishing(job, outcome);
  }
}

void Scheduler::EndFinishing(Job& job, const AttemptOutcome& outcome) {
  job.stuck_attempts =
      MadeProgress(job.newest_checkpoint, *job.attempt) ? 0 : job.stuck_attempts + 1;
  if (outcome.failure.failure_class == FailureClass::kInfrastructure) NoteFault(job);
  const RetryDecision decision =
      DecideRetry(outcome, job.retries, job.spec.max_retries, job.stuck_attempts, options_.retry);
  if (!decision.retry) {
    Finish(job, JobState::kFailed, decision.reason, outcome.failure.failure_class);
    return;
  }
  if (decision.charge) ++job.retries;
  SetState(job, JobState::kRetrying, decision.reason);
  if (decision.backoff == absl::ZeroDuration()) {
    SetState(job, JobState::kQueued, "its last attempt made progress: no back-off");
  } else {
    job.deadline = time_.now() + decision.backoff;
  }
}

}  // namespace ll
