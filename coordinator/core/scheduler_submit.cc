// New jobs: one, or several that are accepted together.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/check.h"
#include "base/field_error.h"
#include "coordinator/core/scheduler.h"

namespace ll {
namespace {

constexpr char kWaitForOne[] = "submit again when some have ended, or cancel some";

absl::Status NoSuchJob(absl::string_view field, const JobId& id) {
  return FieldStatus(absl::StatusCode::kNotFound, field,
                     absl::StrCat("there is no job ", id.value()));
}

// Of several jobs the error names the one that it is about.
absl::Status About(const Submission& submission, const SubmitAllEvent& event,
                   const absl::Status& status) {
  if (status.ok() || event.jobs.size() == 1) return status;
  const std::string& name = submission.spec.name;
  return Annotate(status, name.empty() ? submission.job.value() : name);
}

}  // namespace

// A request's jobs have consecutive sequence numbers, so that the first one and their number tell
// which they were.
std::vector<const Job*> Scheduler::JobsOf(const RequestRecord& request, size_t count) const {
  std::vector<const Job*> jobs;
  const Job* first = Find(request.job);
  if (first == nullptr) return jobs;
  for (size_t i = 0; i < count; ++i) {
    const auto it = by_sequence_.find(first->sequence + static_cast<int64_t>(i));
    if (it != by_sequence_.end()) jobs.push_back(it->second);
  }
  return jobs;
}

bool Scheduler::AnswerRepeat(const SubmitAllEvent& event) {
  if (event.request_id.empty()) return false;
  auto it = requests_.find({RequestOwner(event.access, event.user), event.request_id});
  if (it == requests_.end()) return false;
  const RequestRecord& earlier = it->second;
  effects_.reply.job = earlier.job;
  effects_.reply.existed = true;
  if (earlier.body_sha256 != event.body_sha256) {
    effects_.reply.status =
        FieldStatus(absl::StatusCode::kAlreadyExists, "request_id",
                    absl::StrCat("\"", event.request_id, "\" was used for another request, ",
                                 earlier.job.value()),
                    "use a new request id for a new job");
    return true;
  }
  const std::vector<const Job*> jobs = JobsOf(earlier, event.jobs.size());
  for (const Job* job : jobs) effects_.reply.jobs.push_back(job->id);
  if (jobs.size() < event.jobs.size()) {
    effects_.reply.status =
        FieldStatus(absl::StatusCode::kAlreadyExists, "request_id",
                    absl::StrCat("\"", event.request_id, "\" made ", earlier.job.value(),
                                 jobs.empty() ? ", whose record has been deleted"
                                              : " and others, whose records have been deleted"),
                    "use a new request id for a new job");
  }
  return true;
}

absl::Status Scheduler::CheckDependencies(const CoreSpec& spec, const std::set<JobId>& earlier,
                                          const Access& access) const {
  for (const JobId& id : spec.after_any) {
    if (earlier.count(id) == 0 && Find(id, access) == nullptr) return NoSuchJob("after_any", id);
  }
  for (const JobId& id : spec.after) {
    if (earlier.count(id) > 0) continue;
    const Job* job = Find(id, access);
    if (job == nullptr) return NoSuchJob("after", id);
    if (job->state == JobState::kFailed || job->state == JobState::kCancelled) {
      return FieldStatus(absl::StatusCode::kFailedPrecondition, "after",
                         absl::StrCat(id.value(), " is ", std::string(JobStateName(job->state)),
                                      " and will never succeed"));
    }
  }
  if (spec.source.empty()) return absl::OkStatus();
  if (std::find(spec.after.begin(), spec.after.end(), spec.source) == spec.after.end()) {
    return MakeFieldError({"job", "one of after", spec.source.value()});
  }
  const Job* source = Find(spec.source);
  if (source != nullptr && source->state == JobState::kSucceeded &&
      !source->newest_checkpoint.has_value()) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "job",
                       absl::StrCat(spec.source.value(), " left no checkpoint"));
  }
  return absl::OkStatus();
}

absl::Status Scheduler::CheckSubmit(const SubmitAllEvent& event) const {
  if (unfinished_ + event.jobs.size() > options_.max_unfinished_jobs) {
    return FieldStatus(absl::StatusCode::kResourceExhausted, "unfinished_jobs",
                       absl::StrCat("there are ", unfinished_, " unfinished jobs, the limit is ",
                                    options_.max_unfinished_jobs),
                       kWaitForOne);
  }
  const auto of_tenant = unfinished_of_.find(event.access.tenant);
  const size_t has = of_tenant == unfinished_of_.end() ? 0 : of_tenant->second;
  if (event.quota.unfinished_jobs > 0 && has + event.jobs.size() > event.quota.unfinished_jobs) {
    return FieldStatus(absl::StatusCode::kResourceExhausted, "unfinished_jobs",
                       absl::StrCat("your tenant has ", has, " unfinished jobs, its limit is ",
                                    event.quota.unfinished_jobs),
                       kWaitForOne);
  }
  std::set<JobId> earlier;
  for (const Submission& submission : event.jobs) {
    const CoreSpec& spec = submission.spec;
    if (jobs_.contains(submission.job) || !earlier.insert(submission.job).second)
      return absl::AbortedError("job id is taken; try again");
    if (spec.gpus <= 0) {
      return About(submission, event,
                   MakeFieldError({"gpus", "a positive number of ranks", absl::StrCat(spec.gpus)}));
    }
    if (spec.max_gpus != 0 && spec.max_gpus < spec.gpus) {
      return About(submission, event,
                   MakeFieldError({"max_gpus", absl::StrCat("at least gpus, ", spec.gpus),
                                   absl::StrCat(spec.max_gpus)}));
    }
    if (spec.row_ranks < 1 || spec.gpus % spec.row_ranks != 0 ||
        spec.max_gpus % spec.row_ranks != 0) {
      return About(
          submission, event,
          MakeFieldError({"gpus",
                          absl::StrCat("multiples of context_parallel (", spec.row_ranks, ")"),
                          absl::StrCat(spec.gpus, "-", spec.max_gpus)}));
    }
    const Queue* queue = fair_.Find(QueueNameOf(spec));
    if (queue == nullptr) {
      return About(submission, event,
                   FieldStatus(absl::StatusCode::kNotFound, "queue",
                               absl::StrCat("there is no queue ", spec.queue),
                               "llctl queues list shows the queues"));
    }
    const LimitAnswer limits = CheckLimits(*queue, spec.gpus);
    if (limits.kind == LimitAnswer::Kind::kNever) {
      return About(submission, event,
                   FieldStatus(absl::StatusCode::kFailedPrecondition, "queue",
                               absl::StrCat("the job ", limits.reason)));
    }
    earlier.erase(submission.job);  // not its own
    const absl::Status dependencies = CheckDependencies(spec, earlier, event.access);
    if (!dependencies.ok()) return About(submission, event, dependencies);
    earlier.insert(submission.job);
  }
  return absl::OkStatus();
}

void Scheduler::On(const SubmitEvent& event) { On(ToSubmitAll(event)); }

void Scheduler::On(const SubmitAllEvent& event) {
  LL_CHECK(!event.jobs.empty());
  if (AnswerRepeat(event)) return;
  effects_.reply.status = CheckSubmit(event);
  if (!effects_.reply.status.ok()) return;
  effects_.reply.job = event.jobs.front().job;
  for (const Submission& submission : event.jobs) {
    Accept(submission, event);
    effects_.reply.jobs.push_back(submission.job);
  }
}

void Scheduler::Accept(const Submission& submission, const SubmitAllEvent& event) {
  auto owned = std::make_unique<Job>();
  Job& job = *owned;
  job.id = submission.job;
  job.sequence = next_sequence_++;
  job.request_id = event.request_id;
  job.user = event.user;
  job.tenant = event.access.tenant;
  job.spec = submission.spec;
  job.payload = submission.payload;
  job.submitted = now_.wall;
  for (const JobId& id : job.spec.after) {
    if (Find(id)->state == JobState::kSucceeded) continue;
    if (dependents_[id].insert(job.id).second) job.waiting_for.push_back(id);
  }
  for (const JobId& id : job.spec.after_any) {
    if (IsTerminal(Find(id)->state)) continue;
    if (dependents_[id].insert(job.id).second) job.waiting_for.push_back(id);
  }
  if (!job.spec.source.empty() && Find(job.spec.source)->state == JobState::kSucceeded)
    job.source_checkpoint = Find(job.spec.source)->newest_checkpoint;
  by_sequence_[job.sequence] = &job;
  jobs_[job.id] = std::move(owned);
  ++unfinished_;
  ++unfinished_of_[job.tenant];
  if (job.spec.deadline != absl::InfiniteFuture())
    deadlines_.insert({job.spec.deadline, job.sequence});
  effects_.records.push_back(PutSubmission{job.id, job.sequence, job.payload});
  if (!event.request_id.empty() && job.id == event.jobs.front().job) {
    const std::string owner = RequestOwner(event.access, event.user);
    RequestRecord request{owner, event.request_id, event.body_sha256, job.id, now_.wall};
    effects_.records.push_back(PutRequest{request});
    requests_[{owner, event.request_id}] = std::move(request);
  }
  if (job.waiting_for.empty()) {
    EnterState(job, JobState::kQueued, "submitted");
  } else {
    EnterState(job, JobState::kBlocked,
               absl::StrCat("submitted; waits for ", job.waiting_for.front().value(),
                            job.waiting_for.size() > 1 ? " and others" : ""));
  }
}

}  // namespace ll
