// Step, what users ask of jobs and registries, and the one way a job changes its state.
#include "coordinator/core/scheduler.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"

namespace ll {

Effects Scheduler::Step(const Event& event, StepTime now) {
  return Decide(event, now, /*pass=*/true);
}

Effects Scheduler::StepWithoutPass(const Event& event, StepTime now) {
  return Decide(event, now, /*pass=*/false);
}

Effects Scheduler::Decide(const Event& event, StepTime now, bool pass) {
  now_ = now;
  effects_ = Effects();
  changed_.clear();
  std::visit([this](const auto& e) { On(e); }, event);
  // A job's end may end others, whose dependents wait in turn: the list grows while it is read.
  for (size_t i = 0; i < ended_.size(); ++i) ResolveDependents(*ended_[i]);
  if (schedule_ && pass) SchedulePass();
  RefreshPool();
  Flush();
  return std::move(effects_);
}

void Scheduler::Flush() {
  ended_.clear();
  causes_.clear();
  for (auto& [sequence, job] : touched_) {
    job->saved_run_time = job->run_time;
    // The history has rows of its own; keep it out of the copy.
    std::vector<Transition> history;
    history.swap(job->history);
    effects_.records.push_back(PutJob{*job});
    history.swap(job->history);
    std::get<PutJob>(effects_.records.back()).job.payload = nullptr;
    Changed(job->id);
  }
  touched_.clear();
}

void Scheduler::Changed(const JobId& id) {
  if (changed_.insert(id).second) effects_.changed_jobs.push_back(id);
}

// ---- cancel, pause, resume

Job* Scheduler::FindOrReply(const JobId& id, const Access& access) {
  effects_.reply.job = id;
  auto it = jobs_.find(id);
  if (it != jobs_.end() && access.Sees(it->second->tenant)) return it->second.get();
  effects_.reply.status =
      FieldStatus(absl::StatusCode::kNotFound, "job_id",
                  absl::StrCat("there is no job ", id.value()), "llctl list shows the jobs");
  return nullptr;
}

namespace {
std::string By(absl::string_view what, const std::string& user, const std::string& why = {}) {
  std::string text(what);
  if (!user.empty()) absl::StrAppend(&text, " by ", user);
  if (!why.empty()) absl::StrAppend(&text, ": ", why);
  return text;
}

absl::Status Impossible(const Job& job, absl::string_view what) {
  return FieldStatus(absl::StatusCode::kFailedPrecondition, "job_id",
                     absl::StrCat(job.id.value(), " is ", std::string(JobStateName(job.state)),
                                  " and cannot be ", std::string(what)));
}
}  // namespace

void Scheduler::On(const CancelEvent& event) {
  Job* job = FindOrReply(event.job, event.access);
  if (job == nullptr) return;
  if (job->state == JobState::kCancelled || job->state == JobState::kCancelling)
    return;  // a repeat
  if (IsTerminal(job->state)) {
    effects_.reply.status = Impossible(*job, "cancelled");
    return;
  }
  const std::string reason = By("cancelled", event.user, event.reason);
  if (!HoldsSlots(job->state)) {
    Finish(*job, JobState::kCancelled, reason);
    return;
  }
  SetState(*job, JobState::kCancelling, reason);
  BeginStop(*job, StopKind::kKill, reason);
}

void Scheduler::On(const PauseEvent& event) {
  Job* job = FindOrReply(event.job, event.access);
  if (job == nullptr) return;
  const std::string reason = By("paused", event.user);
  switch (job->state) {
    case JobState::kPaused:
    case JobState::kPausing:
      return;  // a repeat
    case JobState::kBlocked:
    case JobState::kQueued:
    case JobState::kRetrying:
      SetState(*job, JobState::kPaused, reason);
      return;
    case JobState::kStarting:
    case JobState::kRunning:
    case JobState::kPreempting:
      SetState(*job, JobState::kPausing, reason);
      BeginStop(*job, StopKind::kCheckpoint, reason);
      return;
    default:
      effects_.reply.status = Impossible(*job, "paused");
  }
}

void Scheduler::On(const ResumeEvent& event) {
  Job* job = FindOrReply(event.job, event.access);
  if (job == nullptr) return;
  if (job->state != JobState::kPaused) {
    effects_.reply.status = Impossible(
        *job, job->state == JobState::kPausing ? "resumed before it is PAUSED" : "resumed");
    return;
  }
  SetState(*job, job->waiting_for.empty() ? JobState::kQueued : JobState::kBlocked,
           By("resumed", event.user));
}

// ---- registries

void Scheduler::On(const AddModelEvent& event) {
  models_[event.model.name] = event.model;
  effects_.records.push_back(PutModel{event.model});
}

void Scheduler::On(const AddDataEvent& event) {
  if (event.data.is_default) {
    for (auto& [name, record] : data_) {
      if (!record.is_default || name == event.data.name) continue;
      record.is_default = false;
      effects_.records.push_back(PutData{record});
    }
  }
  data_[event.data.name] = event.data;
  effects_.records.push_back(PutData{event.data});
}

void Scheduler::On(const SetQueueEvent& event) {
  const QueueRecord& queue = event.queue;
  const auto refuse = [this](absl::string_view field, absl::string_view expected,
                             absl::string_view found) {
    effects_.reply.status = MakeFieldError({field, expected, found});
  };
  if (!(queue.weight > 0 && queue.weight <= 1e6))
    return refuse("weight", "a number above 0, at most 1e6", absl::StrCat(queue.weight));
  if (queue.quota_gpus.value_or(0) < 0)
    return refuse("quota_gpus", "0 or more", absl::StrCat(*queue.quota_gpus));
  if (queue.max_jobs.value_or(0) < 0)
    return refuse("max_jobs", "0 or more", absl::StrCat(*queue.max_jobs));
  if (queue.max_gpus.has_value() && *queue.max_gpus < queue.quota_gpus.value_or(0)) {
    return refuse("max_gpus", absl::StrCat("at least quota_gpus, ", queue.quota_gpus.value_or(0)),
                  absl::StrCat(*queue.max_gpus));
  }
  effects_.records.push_back(PutQueue{fair_.Declare(queue).record});
  schedule_ = true;
}

// ---- changes of a job

void Scheduler::SetState(Job& job, JobState state, std::string reason) {
  LL_CHECK_MSG(MayTransition(job.state, state),
               absl::StrCat(job.id.value(), ": ", std::string(JobStateName(job.state)), " to ",
                            std::string(JobStateName(state)))
                   .c_str());
  if (job.state == JobState::kQueued) {
    fair_.Of(job.spec).waiting.Erase(&job);
    schedule_ = schedule_ || state != JobState::kStarting;  // it may have held a reservation
    claimants_.erase(job.id);
    job.claims = false;
  }
  if (HoldsSlots(job.state) && !HoldsSlots(state)) {
    fair_.OnEnd(job.spec, job.attempt->slot_kind, RanksOf(job));
    schedule_ = true;
  }
  EnterState(job, state, std::move(reason));
}

void Scheduler::EnterState(Job& job, JobState state, std::string reason) {
  job.state = state;
  job.reason = std::move(reason);
  job.wait_reason.clear();
  job.needs_workers = false;
  job.deadline = absl::InfiniteDuration();
  if (state == JobState::kQueued) {
    fair_.Of(job.spec).waiting.Insert(&job);
    schedule_ = true;
  }
  if (HoldsSlots(state) || state == JobState::kRetrying) {
    active_[job.sequence] = &job;
  } else {
    active_.erase(job.sequence);
  }
  if (HoldsSlots(state) && IsElastic(job.spec)) {
    elastic_[job.sequence] = &job;
  } else {
    elastic_.erase(job.sequence);
  }
  if (state != JobState::kPreempting && state != JobState::kQueued) job.resize_to = 0;
  job.could_grow_since = absl::InfiniteDuration();
  if (state == JobState::kPreempting) {
    preempting_[job.sequence] = &job;
  } else {
    preempting_.erase(job.sequence);
  }
  if (!HoldsSlots(state)) {
    job.headless = false;
    headless_.erase(job.sequence);
  }
  job.trains_since = state == JobState::kRunning ? time_.now() : absl::InfiniteDuration();
  UpdateExpectedEnd(job);
  Transition transition{now_.wall, state, job.reason, job.epoch};
  effects_.records.push_back(PutTransition{job.id, job.sequence, job.transitions++, transition});
  job.history.push_back(std::move(transition));
  if (job.history.size() > kMaxHistory) job.history.erase(job.history.begin());
  Touch(job);
}

void Scheduler::Finish(Job& job, JobState end, std::string reason, FailureClass failure_class) {
  LL_CHECK(IsTerminal(end));
  job.failure_class = failure_class;
  job.finished = now_.wall;
  for (const JobId& id : job.waiting_for) {
    auto it = dependents_.find(id);
    if (it != dependents_.end()) it->second.erase(job.id);
  }
  job.waiting_for.clear();
  SetState(job, end, std::move(reason));
  --unfinished_;
  if (auto of = unfinished_of_.find(job.tenant); --of->second == 0) unfinished_of_.erase(of);
  deadlines_.erase({job.spec.deadline, job.sequence});
  ended_.push_back(&job);
  NoteRunEnded(job.id);
  if (job.spec.ttl_after_finished != absl::InfiniteDuration()) {
    expiry_.insert({now_.steady + job.spec.ttl_after_finished, job.sequence});
  }
}

// In a chain of dependents the one that is to blame is the first.
std::string Scheduler::CauseOf(const Job& ended) {
  std::string& cause = causes_[ended.id];
  if (cause.empty()) {
    cause = absl::StrCat(ended.id.value(), ended.spec.name.empty() ? "" : " (", ended.spec.name,
                         ended.spec.name.empty() ? "" : ")", ", which it waits for, ended as ",
                         std::string(JobStateName(ended.state)));
    if (ended.state == JobState::kFailed) absl::StrAppend(&cause, ": ", ended.reason);
  }
  return cause;
}

void Scheduler::ResolveDependents(const Job& ended) {
  auto it = dependents_.find(ended.id);
  if (it == dependents_.end()) return;
  const std::set<JobId> waiting = std::move(it->second);
  dependents_.erase(it);
  for (const JobId& id : waiting) {
    Job& job = *jobs_.at(id);
    auto& list = job.waiting_for;
    list.erase(std::remove(list.begin(), list.end(), ended.id), list.end());
    const auto& after = job.spec.after;
    const bool needed = std::find(after.begin(), after.end(), ended.id) != after.end();
    if (ended.state != JobState::kSucceeded && needed) {
      causes_[job.id] = CauseOf(ended);
      Finish(job, JobState::kFailed, causes_[job.id]);
      continue;
    }
    if (job.spec.source == ended.id) {
      job.source_checkpoint = ended.newest_checkpoint;
      if (!job.source_checkpoint.has_value()) {
        Finish(job, JobState::kFailed,
               absl::StrCat(ended.id.value(), ", which it starts from, left no checkpoint"));
        continue;
      }
    }
    if (job.state == JobState::kBlocked && list.empty()) {
      SetState(job, JobState::kQueued,
               absl::StrCat(ended.id.value(),
                            ended.state == JobState::kSucceeded ? " succeeded" : " has ended"));
    } else {
      Touch(job);
    }
  }
}

const Job* Scheduler::Find(const JobId& id, const Access& access) const {
  const Job* job = Find(id);
  return job != nullptr && access.Sees(job->tenant) ? job : nullptr;
}

std::string Scheduler::NameFor(const Job& reader, const Job& other) {
  return reader.tenant == other.tenant ? other.id.value() : "a job of another tenant";
}

const Job* Scheduler::Find(const JobId& id) const {
  auto it = jobs_.find(id);
  return it == jobs_.end() ? nullptr : it->second.get();
}

void Scheduler::SaveWorker(const Worker& worker) {
  effects_.records.push_back(PutWorker{worker});
  effects_.workers_changed = true;
}

}  // namespace ll
