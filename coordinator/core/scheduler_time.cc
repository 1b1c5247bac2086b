// What the passing of time brings, and the start from stored records.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/format.h"
#include "coordinator/core/scheduler.h"

namespace ll {
namespace {

// Agents count max_headless by their own clock from their own last contact; the margin keeps the
// conclusion here the later one.
constexpr absl::Duration kHeadlessMargin = absl::Minutes(1);
// A worker silent for longer says nothing about whether the coordinator is cut off.
constexpr absl::Duration kCountSilentFor = absl::Hours(24);
constexpr absl::Duration kSaveRunTimeEvery = absl::Minutes(1);
constexpr absl::Duration kSweepEvery = absl::Hours(1);
constexpr absl::Duration kPassEvery = absl::Seconds(5);

// A deadline alone proves nothing about ranks out of sight; a dead rank proves that its gang has
// stopped.
bool HasFailedRank(const Attempt& attempt) {
  return std::any_of(attempt.ranks.begin(), attempt.ranks.end(), [](const Rank& rank) {
    return rank.phase == RankPhase::kExited && !EndedWell(rank.exit) &&
           !EndedCheckpointed(rank.exit);
  });
}

// To go over them while they change.
template <typename Jobs>
std::vector<Job*> Values(const Jobs& jobs) {
  std::vector<Job*> values;
  values.reserve(jobs.size());
  for (const auto& [sequence, job] : jobs) values.push_back(job);
  return values;
}

}  // namespace

void Scheduler::On(const TickEvent&) {
  DeleteExpired();
  rebuilds_ = hellos_ = 0;
  schedule_ = std::exchange(hellos_wait_, false) || schedule_;
  std::map<int64_t, Job*> may_be_headless;
  const SchedulerTime::Advance advance = time_.Tick(now_.steady);
  for (auto& [name, worker] : workers_) {
    const bool was_expired = time_.LeaseExpired(worker.silence);
    if (advance.paused) {
      worker.silence = absl::ZeroDuration();
    } else {
      worker.silence += advance.elapsed;
    }
    if (was_expired != time_.LeaseExpired(worker.silence)) {
      schedule_ = true;
      RefreshSlots(worker);
      effects_.workers_changed = true;
      may_be_headless.merge(JobsOn(worker));
    }
  }
  if (advance.paused) Note("the coordinator was away; every lease begins anew");
  // Silent ranks of the headless may have been given up since.
  may_be_headless.insert(headless_.begin(), headless_.end());
  for (auto& [sequence, job] : may_be_headless) UpdateHeadless(*job);
  GiveUpSilentRanks();
  CountRunTime(advance.elapsed);
  fair_.Advance(advance.elapsed);
  SaveQueues();
  EndOverdue();
  FireSchedules();
  for (Job* job : Values(active_)) {
    if (job->deadline <= time_.now()) OnDeadline(*job);
  }
  // Minimum runtimes pass and promises are broken without an event.
  if (time_.now() >= next_pass_ && (fair_.waiting() > 0 || !elastic_.empty())) {
    next_pass_ = time_.now() + kPassEvery;
    schedule_ = true;
    may_grow_ = true;
  }
  if (time_.now() >= next_sweep_) {
    next_sweep_ = time_.now() + kSweepEvery;
    ForgetWorkers();
  }
}

// Whose ranks hold slots there, by sequence.
std::map<int64_t, Job*> Scheduler::JobsOn(const Worker& worker) const {
  std::map<int64_t, Job*> jobs;
  for (const auto& [slot, use] : worker.uses) {
    if (use.stray) continue;
    Job* job = jobs_.at(use.job).get();
    jobs[job->sequence] = job;
  }
  return jobs;
}

void Scheduler::UpdateHeadless(Job& job) {
  if (!HoldsSlots(job.state)) return;
  const auto& ranks = job.attempt->ranks;
  const bool headless = std::any_of(ranks.begin(), ranks.end(), [this](const Rank& rank) {
    return rank.phase != RankPhase::kExited && time_.LeaseExpired(workers_.at(rank.worker).silence);
  });
  if (headless == job.headless) return;
  job.headless = headless;
  if (headless) {
    headless_[job.sequence] = &job;
  } else {
    headless_.erase(job.sequence);
  }
  Changed(job.id);
}

// Silence alone never ends a rank, with two exceptions: the agent's own max_headless has surely run
// out, or the gang has lost a rank for certain, so that a silent one has nobody left to train with
// and can write nothing that matters. The second one waits while most agents are silent: then the
// fault is more likely here. A cancel or a pause always waits.
void Scheduler::GiveUpSilentRanks() {
  if (headless_.empty()) return;
  size_t known = 0, silent = 0;
  for (const auto& [name, worker] : workers_) {
    if (worker.declared_dead || worker.retired() || worker.silence > kCountSilentFor) continue;
    ++known;
    if (time_.LeaseExpired(worker.silence)) ++silent;
  }
  for (Job* job : Values(headless_)) {
    if (!job->headless) continue;
    Attempt& attempt = *job->attempt;
    const bool stops = job->state == JobState::kFinishing || job->state == JobState::kPreempting;
    const bool failed = stops && attempt.stop == StopKind::kKill && HasFailedRank(attempt) &&
                        !MajoritySilent(silent, known);
    bool lost = false;
    for (size_t i = 0; i < attempt.ranks.size(); ++i) {
      const Rank& rank = attempt.ranks[i];
      if (rank.phase == RankPhase::kExited) continue;
      const absl::Duration silence = workers_.at(rank.worker).silence;
      if (!time_.LeaseExpired(silence)) continue;
      if (silence > time_.lease() + job->spec.max_headless + kHeadlessMargin) {
        LoseRank(*job, static_cast<int>(i),
                 absl::StrCat("no contact for longer than max_headless (",
                              HumanDuration(job->spec.max_headless), ")"),
                 /*stray=*/true);
        lost = true;
      } else if (failed) {
        LoseRank(*job, static_cast<int>(i), "its agent was out of contact when the gang failed",
                 /*stray=*/true);
        lost = true;
      }
    }
    if (lost) AfterRankChange(*job);
  }
}

void Scheduler::OnDeadline(Job& job) {
  switch (job.state) {
    case JobState::kRetrying:
      SetState(job, JobState::kQueued, "the back-off is over");
      return;
    case JobState::kStarting:
      if (job.headless) {  // the silent ranks may be training already
        job.deadline = time_.now() + options_.start_deadline;
        return;
      }
      ForceEnd(job,
               {FailureClass::kInfrastructure,
                absl::StrCat("not every rank was training ", HumanDuration(options_.start_deadline),
                             " after its start")},
               StopKind::kKill);
      return;
    case JobState::kFinishing:
      if (job.attempt->stop == StopKind::kNone) {
        if (job.headless) {  // the silent ranks have probably ended as well as their peers
          job.deadline = time_.now() + options_.finish_deadline;
          return;
        }
        ForceEnd(job,
                 {FailureClass::kInfrastructure,
                  absl::StrCat("a rank still ran ", HumanDuration(options_.finish_deadline),
                               " after the first ended")},
                 StopKind::kKill);
        return;
      }
      break;
    default:
      break;
  }
  // A stop that was not confirmed in time: kill, again and again.
  BeginStop(job, StopKind::kKill, job.attempt->stop_reason);
}

void Scheduler::CountRunTime(absl::Duration elapsed) {
  for (Job* job : Values(active_)) {
    if (job->state != JobState::kRunning) continue;
    job->run_time += elapsed;
    job->forecast_done += elapsed * Speedup(job->spec, RanksOf(*job));
    if (job->spec.max_runtime == absl::InfiniteDuration()) continue;
    if (job->run_time > job->spec.max_runtime) {
      ForceEnd(*job,
               {FailureClass::kUser, absl::StrCat("ran longer than max_runtime (",
                                                  HumanDuration(job->spec.max_runtime), ")")},
               StopKind::kCheckpoint);
    } else if (job->run_time - job->saved_run_time >= kSaveRunTimeEvery) {
      Touch(*job);
    }
  }
}

// Like run_time: what was used since the last record is lost in a crash, and that is little.
void Scheduler::SaveQueues() {
  if (time_.now() < next_queue_save_) return;
  next_queue_save_ = time_.now() + kSaveRunTimeEvery;
  for (auto& [name, queue] : fair_.queues()) {
    if (!std::exchange(queue.changed, false)) continue;
    effects_.records.push_back(PutQueue{queue.record});
  }
}

void Scheduler::EndOverdue() {
  for (auto it = deadlines_.begin(); it != deadlines_.end() && it->first <= now_.wall;) {
    Job& job = *by_sequence_.at(it->second);
    // It may end well within this moment; if not, it is here again.
    if (job.state == JobState::kFinishing || job.state == JobState::kCancelling) {
      ++it;
      continue;
    }
    it = deadlines_.erase(it);
    const std::string reason =
        absl::StrCat("its deadline, ",
                     absl::FormatTime(absl::RFC3339_sec, job.spec.deadline, absl::UTCTimeZone()),
                     ", has passed");
    if (!HoldsSlots(job.state)) {
      Finish(job, JobState::kFailed, reason, FailureClass::kUser);
    } else if (job.state == JobState::kStarting || job.state == JobState::kRunning) {
      ForceEnd(job, {FailureClass::kUser, reason}, StopKind::kCheckpoint);
    } else if (!job.attempt->forced.has_value()) {  // it is being stopped: that is its end
      job.attempt->forced = Failure{FailureClass::kUser, reason};
      Touch(job);
    }
  }
}

// By steady time: a wall clock that is set forward must not take records away.
void Scheduler::DeleteExpired() {
  while (!expiry_.empty() && expiry_.begin()->first <= now_.steady) {
    Job* job = by_sequence_.at(expiry_.begin()->second);
    expiry_.erase(expiry_.begin());
    by_sequence_.erase(job->sequence);
    dependents_.erase(job->id);
    const JobId id = job->id;
    effects_.records.push_back(DeleteJob{id, job->sequence});
    Changed(id);
    jobs_.erase(id);
  }
}

// Long-silent workers that hold nothing, and request ids whose jobs are gone.
void Scheduler::ForgetWorkers() {
  for (auto it = workers_.begin(); it != workers_.end();) {
    const Worker& worker = it->second;
    if (worker.connected || !worker.uses.empty() || worker.silence < options_.forget_worker_after) {
      ++it;
      continue;
    }
    effects_.records.push_back(DeleteWorker{it->first});
    effects_.workers_changed = true;
    pool_stale_ = true;
    it = workers_.erase(it);
  }
  for (auto it = requests_.begin(); it != requests_.end();) {
    if (jobs_.contains(it->second.job) || it->second.time + options_.request_memory > now_.wall) {
      ++it;
      continue;
    }
    effects_.records.push_back(DeleteRequest{it->first.first, it->first.second, it->second.time});
    it = requests_.erase(it);
  }
}

// ---- recovery

absl::StatusOr<Scheduler> Scheduler::Recover(StoredState stored, SchedulerOptions options,
                                             StepTime now) {
  Scheduler scheduler(std::move(options));
  scheduler.now_ = now;
  scheduler.time_.Start(now.steady);
  absl::Status status = scheduler.Load(std::move(stored));
  if (!status.ok()) return status;
  return scheduler;
}

absl::Status Scheduler::Load(StoredState stored) {
  for (Worker& worker : stored.workers) {
    worker.connected = false;
    worker.session = 0;
    worker.silence = absl::ZeroDuration();
    worker.uses.clear();
    worker.faults.clear();
    workers_[worker.name] = worker;
  }
  for (const QueueRecord& queue : stored.queues) fair_.Restore(queue);
  std::sort(stored.jobs.begin(), stored.jobs.end(),
            [](const Job& a, const Job& b) { return a.sequence < b.sequence; });
  for (Job& job : stored.jobs) {
    absl::Status status = LoadJob(std::move(job));
    if (!status.ok()) return status;
  }
  for (RequestRecord& request : stored.requests) {
    auto key = std::make_pair(request.user, request.request_id);
    requests_[std::move(key)] = std::move(request);
  }
  for (ModelRecord& model : stored.models) models_[model.name] = model;
  for (DataRecord& data : stored.data) data_[data.name] = data;
  LoadSchedules(stored);
  RefreshPool();
  return absl::OkStatus();
}

absl::Status Scheduler::LoadJob(Job stored) {
  const auto broken = [&stored](absl::string_view what) {
    return absl::FailedPreconditionError(
        absl::StrCat("the store contradicts itself: ", stored.id.value(), " ", std::string(what)));
  };
  if (stored.id.empty() || jobs_.contains(stored.id)) return broken("has no id of its own");
  if (by_sequence_.count(stored.sequence) > 0) return broken("shares its sequence number");
  const bool runs = stored.attempt.has_value() && !stored.attempt->over();
  if (runs != HoldsSlots(stored.state)) return broken("has an attempt that does not fit its state");
  if (runs) {
    for (size_t i = 0; i < stored.attempt->ranks.size(); ++i) {
      const Rank& rank = stored.attempt->ranks[i];
      if (rank.phase == RankPhase::kExited) continue;
      auto worker = workers_.find(rank.worker);
      if (worker == workers_.end()) return broken("runs on a worker that is not known");
      SlotUse use{stored.id, stored.epoch, static_cast<int>(i)};
      if (!worker->second.uses.insert({rank.slot, use}).second)
        return broken("runs on a slot that is taken");
    }
  }
  auto owned = std::make_unique<Job>(std::move(stored));
  Job& job = *owned;
  jobs_[job.id] = std::move(owned);
  by_sequence_[job.sequence] = &job;
  next_sequence_ = std::max(next_sequence_, job.sequence + 1);
  job.headless = false;
  job.wait_reason.clear();
  job.needs_workers = false;
  job.saved_run_time = job.run_time;
  job.trains_since = job.state == JobState::kRunning ? time_.now() : absl::InfiniteDuration();
  job.promised_start = absl::InfiniteDuration();
  job.preemption_tried = -absl::InfiniteDuration();
  job.could_grow_since = absl::InfiniteDuration();
  job.resized = job.resizes > 0 ? time_.now() : -absl::InfiniteDuration();
  job.expected_end = absl::InfiniteDuration();
  job.deadline = FreshDeadline(job);
  if (IsTerminal(job.state)) job.waiting_for.clear();  // stores of old kept it
  for (const JobId& id : job.waiting_for) dependents_[id].insert(job.id);
  if (!IsTerminal(job.state)) {
    ++unfinished_;
    ++unfinished_of_[job.tenant];
  }
  if (!IsTerminal(job.state) && job.spec.deadline != absl::InfiniteFuture())
    deadlines_.insert({job.spec.deadline, job.sequence});
  if (job.state == JobState::kQueued) {
    fair_.Of(job.spec).waiting.Insert(&job);
    if (job.claims) claimants_.insert(job.id);
  }
  if (HoldsSlots(job.state)) {
    fair_.OnStart(job.spec, job.attempt->slot_kind, RanksOf(job));
    if (IsElastic(job.spec)) elastic_[job.sequence] = &job;
    if (job.state == JobState::kPreempting) preempting_[job.sequence] = &job;
  }
  UpdateExpectedEnd(job);
  if (HoldsSlots(job.state) || job.state == JobState::kRetrying) active_[job.sequence] = &job;
  if (IsTerminal(job.state) && job.spec.ttl_after_finished != absl::InfiniteDuration()) {
    const absl::Duration ended_for = std::max(absl::ZeroDuration(), now_.wall - job.finished);
    expiry_.insert({now_.steady + job.spec.ttl_after_finished - ended_for, job.sequence});
  }
  return absl::OkStatus();
}

// Own time began anew, so every wait does.
absl::Duration Scheduler::FreshDeadline(const Job& job) const {
  if (job.state == JobState::kStarting) return options_.start_deadline;
  if (job.state == JobState::kRetrying)
    return Backoff(std::max(1, job.stuck_attempts), options_.retry);
  if (!HoldsSlots(job.state)) return absl::InfiniteDuration();
  switch (job.attempt->stop) {
    case StopKind::kKill:
      return options_.kill_repeat;
    case StopKind::kCheckpoint:
      return options_.stop_grace + options_.kill_repeat;
    case StopKind::kNone:
      break;
  }
  return job.state == JobState::kFinishing ? options_.finish_deadline : absl::InfiniteDuration();
}

}  // namespace ll
