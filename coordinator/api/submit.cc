// Jobs.Submit and Jobs.SubmitAll: plan, admit, ask the scheduler, answer.
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/format.h"
#include "base/ids.h"
#include "base/status_macros.h"
#include "coordinator/api/jobs_service.h"
#include "coordinator/api/request_checks.h"

namespace ll {
namespace {

absl::Status CheckDisk(const JobsOptions& options, const SubmitPlan& plan) {
  const int64_t free = FreeBytes(options.data_dir);
  if (plan.dry_run || free >= options.min_free_bytes) return absl::OkStatus();
  return MakeFieldError(
      {"data_dir", absl::StrCat("at least ", HumanBytes(options.min_free_bytes), " free"),
       absl::StrCat(HumanBytes(free), " on the coordinator's disk"),
       "try again once its operator has freed some"},
      absl::StatusCode::kResourceExhausted);
}

std::map<JobId, SourceJob> FindSources(const std::vector<JobId>& ids, const Scheduler& view,
                                       const Access& access) {
  std::map<JobId, SourceJob> sources;
  for (const JobId& id : ids) {
    const Job* job = view.Find(id, access);
    if (job != nullptr) sources[id] = SourceOf(*job);
  }
  return sources;
}

// The queue of a job that names none, where its tenant has queues of its own.
std::shared_ptr<const SubmitPlan> WithQueues(const TenantLimits& limits,
                                             std::shared_ptr<const SubmitPlan> plan) {
  if (limits.queues.empty()) return plan;
  auto changed = std::make_shared<SubmitPlan>(*plan);
  for (Member& member : changed->members) {
    if (!member.spec.has_queue()) member.spec.set_queue(limits.queues.front());
  }
  return changed;
}

// Of a dry run: what would be, without an id.
v1::Job Planned(const AdmittedMember& member) {
  v1::Job job;
  *job.mutable_spec() = member.spec;
  *job.mutable_resolved_spec() = member.admitted.resolved;
  *job.mutable_forecast() = member.admitted.forecast;
  return job;
}

}  // namespace

grpc::ServerUnaryReactor* JobsService::Submit(grpc::CallbackServerContext* context,
                                              const v1::SubmitRequest* request,
                                              v1::SubmitResponse* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/Submit", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  absl::StatusOr<SubmitPlan> plan = PlanOf(*request, SystemRandom());
  if (!plan.ok()) return call.Finish(plan.status());
  const bool graph = plan->graph;
  call.SetRequestId(plan->request_id);
  if (plan->dry_run) call.SetObject("dry run");
  SubmitJobs(call, std::make_shared<const SubmitPlan>(*std::move(plan)),
             [call, response, graph](absl::StatusOr<Submitted> submitted) {
               if (!submitted.ok()) return (void)call.Finish(submitted.status());
               response->set_existed(submitted->existed);
               if (graph) {
                 for (const v1::Job& job : submitted->jobs) *response->add_members() = job;
               }
               *response->mutable_job() = std::move(submitted->jobs.back());
               if (!response->job().job_id().empty()) call.SetObject(response->job().job_id());
               call.Finish(absl::OkStatus());
             });
  return call.reactor();
}

grpc::ServerUnaryReactor* JobsService::SubmitAll(grpc::CallbackServerContext* context,
                                                 const v1::SubmitAllRequest* request,
                                                 v1::SubmitAllResponse* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/SubmitAll", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  absl::StatusOr<SubmitPlan> plan = PlanOf(*request);
  if (!plan.ok()) return call.Finish(plan.status());
  call.SetRequestId(plan->request_id);
  if (plan->dry_run) call.SetObject("dry run");
  SubmitJobs(call, std::make_shared<const SubmitPlan>(*std::move(plan)),
             [call, response](absl::StatusOr<Submitted> submitted) {
               if (!submitted.ok()) return (void)call.Finish(submitted.status());
               response->set_existed(submitted->existed);
               const std::string& first = submitted->jobs.front().job_id();
               if (!first.empty())
                 call.SetObject(absl::StrCat(first, " of ", submitted->jobs.size()));
               for (v1::Job& job : submitted->jobs) *response->add_jobs() = std::move(job);
               call.Finish(absl::OkStatus());
             });
  return call.reactor();
}

void JobsService::SubmitJobs(const UnaryCall& call, std::shared_ptr<const SubmitPlan> plan,
                             SubmitAnswer answer) {
  if (absl::Status full = CheckDisk(options_, *plan); !full.ok()) return answer(full);
  const TenantLimits limits = call.limits();
  plan = WithQueues(limits, std::move(plan));
  for (const Member& member : plan->members) {
    absl::Status denied = CheckPriority(member.spec, call.caller().admin);
    if (denied.ok()) denied = CheckQueue(member.spec, limits.queues);
    if (!denied.ok()) return answer(denied);
  }
  const auto admit = [this, call, plan, answer](const std::map<JobId, SourceJob>& sources) {
    auto members = AdmitMembers(*plan, sources, *api_.driver->cluster_view(), options_.admission,
                                api_.clock->Now(), SystemRandom(), call.access());
    if (!members.ok()) return AnswerRefused(call, plan, members.status(), answer);
    if (!plan->dry_run) return SubmitAdmitted(call, plan, *std::move(members), answer);
    Submitted planned;
    planned.jobs.resize(members->size());
    for (const AdmittedMember& member : *members) planned.jobs[member.index] = Planned(member);
    answer(std::move(planned));
  };
  const std::vector<JobId> outside = OutsideSources(plan->members);
  if (outside.empty()) return admit({});
  api_.driver->Read([outside, admit, answer, access = call.access()](const absl::Status& status,
                                                                     const Scheduler* view) {
    if (!status.ok()) return answer(status);
    admit(FindSources(outside, *view, access));
  });
}

void JobsService::SubmitAdmitted(const UnaryCall& call, std::shared_ptr<const SubmitPlan> plan,
                                 std::vector<AdmittedMember> members, SubmitAnswer answer) {
  SubmitAllEvent event;
  event.request_id = plan->request_id;
  event.body_sha256 = plan->body_sha256;
  event.user = call.caller().user;
  event.access = call.access();
  event.quota = call.limits().quota;
  std::vector<size_t> places;  // of the event's jobs among the members
  for (AdmittedMember& member : members) {
    event.jobs.push_back(
        {member.id, std::move(member.admitted.core), std::move(member.admitted.payload)});
    places.push_back(member.index);
  }
  api_.driver->Request(
      std::move(event), [this, places, answer](const Reply& reply, const Scheduler* view) {
        if (!reply.status.ok()) return answer(reply.status);
        const JobDetail detail = places.size() == 1 ? JobDetail::kFull : JobDetail::kSummary;
        Submitted submitted;
        submitted.existed = reply.existed;
        submitted.jobs.resize(places.size());
        for (size_t i = 0; i < places.size(); ++i)
          submitted.jobs[places[i]] = ToProto(*view->Find(reply.jobs[i]), detail);
        answer(std::move(submitted));
      });
}

void JobsService::AnswerRefused(const UnaryCall& call, std::shared_ptr<const SubmitPlan> plan,
                                absl::Status why, SubmitAnswer answer) {
  const auto order = MemberOrder(plan->members);
  if (plan->request_id.empty() || plan->dry_run || !order.ok()) return answer(why);
  const std::string owner = RequestOwner(call.access(), call.caller().user);
  api_.driver->Read([this, owner, plan, why, places = *order, answer](const absl::Status& status,
                                                                      const Scheduler* view) {
    if (!status.ok()) return answer(status);
    const RequestRecord* known = view->FindRequest(owner, plan->request_id);
    if (known == nullptr || known->body_sha256 != plan->body_sha256) return answer(why);
    const std::vector<const Job*> jobs = view->JobsOf(*known, places.size());
    if (jobs.size() < places.size()) return answer(why);
    const JobDetail detail = places.size() == 1 ? JobDetail::kFull : JobDetail::kSummary;
    Submitted submitted;
    submitted.existed = true;
    submitted.jobs.resize(places.size());
    for (size_t i = 0; i < places.size(); ++i)
      submitted.jobs[places[i]] = ToProto(*jobs[i], detail);
    answer(std::move(submitted));
  });
}

}  // namespace ll
