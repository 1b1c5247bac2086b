#include "coordinator/api/schedules_service.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/ids.h"
#include "base/sha256.h"
#include "base/status_macros.h"
#include "coordinator/api/convert.h"
#include "coordinator/api/request_checks.h"
#include "coordinator/api/schedules_convert.h"
#include "coordinator/api/submission.h"

namespace ll {
namespace {

constexpr size_t kMaxRequestIdBytes = 64;
constexpr char kScheduleLabel[] = "schedule";

// What can be refused without looking at anything.
absl::StatusOr<ScheduleRecord> CheckCreate(const v1::Schedule& schedule) {
  LL_RETURN_IF_ERROR(CheckPlainName("name", schedule.name()));
  LL_ASSIGN_OR_RETURN(ScheduleRecord record, SettingsFromProto(schedule));
  LL_RETURN_IF_ERROR(Cron::Parse(record.cron).status());
  LL_RETURN_IF_ERROR(LoadZone(record.time_zone).status());
  LL_RETURN_IF_ERROR(CheckSpecSize(schedule.spec()));
  return record;
}

// The scheduler's name for the schedule that a caller means. Administrators reach every tenant's as
// "TENANT/NAME", those of no tenant as "/NAME"; for others no schedule has such a name.
std::string KeyOf(const Caller& caller, const std::string& name) {
  if (name.find('/') == std::string::npos) return QualifiedName(caller.tenant, name);
  if (!caller.admin) return absl::StrCat("/", name);
  return name.front() == '/' ? name.substr(1) : name;
}

// With the name that the caller knows it by.
v1::Schedule ShownTo(const Caller& caller, v1::Schedule schedule) {
  const std::string tenant = TenantOfName(schedule.name());
  if (tenant == caller.tenant) {
    schedule.set_name(PlainNameOf(schedule.name()));
  } else if (tenant.empty()) {
    schedule.set_name(absl::StrCat("/", schedule.name()));
  }
  return schedule;
}

// Time between two fires, the shortest of the next ones.
absl::Duration ShortestInterval(const Cron& cron, const absl::TimeZone& zone, absl::Time now) {
  absl::Duration shortest = absl::InfiniteDuration();
  absl::Time at = cron.Next(now, zone);
  for (int i = 0; i < 100 && at != absl::InfiniteFuture(); ++i) {
    const absl::Time next = cron.Next(at, zone);
    if (next != absl::InfiniteFuture()) shortest = std::min(shortest, next - at);
    at = next;
  }
  return shortest;
}

absl::Status CheckInterval(const ScheduleRecord& record, absl::Duration least, absl::Time now) {
  if (least <= absl::ZeroDuration()) return absl::OkStatus();
  LL_ASSIGN_OR_RETURN(const Cron cron, Cron::Parse(record.cron));
  LL_ASSIGN_OR_RETURN(const absl::TimeZone zone, LoadZone(record.time_zone));
  const absl::Duration shortest = ShortestInterval(cron, zone, now);
  if (shortest >= least) return absl::OkStatus();
  return FieldStatus(
      absl::StatusCode::kPermissionDenied, "cron",
      absl::StrCat("it fires after ", absl::FormatDuration(shortest),
                   "; your tenant's schedules fire at most every ", absl::FormatDuration(least)),
      "give a rule that fires more seldom");
}

absl::Status NoSuchSchedule(const std::string& name) {
  return FieldStatus(absl::StatusCode::kNotFound, "schedule",
                     absl::StrCat("there is no schedule ", OneLine(name.substr(0, 80))),
                     "llctl schedule list shows the schedules");
}

}  // namespace

grpc::ServerUnaryReactor* SchedulesService::Create(grpc::CallbackServerContext* context,
                                                   const v1::CreateScheduleRequest* request,
                                                   v1::Schedule* response) {
  UnaryCall call(api_, "/ll.v1.Schedules/Create", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  absl::StatusOr<ScheduleRecord> record = CheckCreate(request->schedule());
  if (absl::Status denied = CheckPriority(request->schedule().spec(), call.caller().admin);
      !denied.ok())
    return call.Finish(denied);
  if (!record.ok()) return call.Finish(record.status());
  const TenantLimits limits = call.limits();
  if (absl::Status bad = CheckInterval(*record, limits.schedule_interval, api_.clock->Now());
      !bad.ok())
    return call.Finish(bad);
  record->user = call.caller().user;
  record->tenant = call.caller().tenant;
  const std::string plain_name = record->name;
  record->name = QualifiedName(record->tenant, plain_name);
  call.SetObject(record->name);
  record->body_sha256 = Sha256Hex(SerializeDeterministic(request->schedule()));
  v1::SubmitRequest submit;
  *submit.mutable_spec() = request->schedule().spec();
  if (submit.spec().stages_size() > 0 && !submit.spec().has_name())
    submit.mutable_spec()->set_name(plain_name);
  absl::StatusOr<SubmitPlan> plan = PlanOf(submit, SystemRandom());
  if (!plan.ok()) return call.Finish(plan.status());
  for (Member& member : plan->members) {
    (*member.spec.mutable_labels())[kScheduleLabel] = plain_name;
    if (!limits.queues.empty() && !member.spec.has_queue())
      member.spec.set_queue(limits.queues.front());
    if (absl::Status bad = CheckQueue(member.spec, limits.queues); !bad.ok())
      return call.Finish(bad);
  }
  if (plan->graph) record->graph = SerializeDeterministic(request->schedule().spec());
  const std::vector<JobId> outside = OutsideSources(plan->members);
  if (outside.empty()) {
    CreatePlanned(call, *request, *std::move(record), *plan, {}, response);
    return call.reactor();
  }
  // The job that an evaluation or a merge takes its weights from is the driver's to tell.
  api_.driver->Read(
      [this, call, request, response, outside, plan = *std::move(plan),
       record = *std::move(record)](const absl::Status& status, const Scheduler* view) mutable {
        if (!status.ok()) return (void)call.Finish(status);
        std::map<JobId, SourceJob> sources;
        for (const JobId& id : outside) {
          if (const Job* job = view->Find(id, call.access()); job != nullptr)
            sources[id] = SourceOf(*job);
        }
        CreatePlanned(call, *request, std::move(record), plan, sources, response);
      });
  return call.reactor();
}

// The times of the specs are as of now; the core makes them relative to each fire.
void SchedulesService::CreatePlanned(UnaryCall call, const v1::CreateScheduleRequest& request,
                                     ScheduleRecord record, const SubmitPlan& plan,
                                     const std::map<JobId, SourceJob>& sources,
                                     v1::Schedule* response) {
  auto members = AdmitMembers(plan, sources, *api_.driver->cluster_view(), admission_,
                              api_.clock->Now(), SystemRandom(), call.access());
  if (!members.ok()) return (void)call.Finish(members.status());
  for (AdmittedMember& member : *members) {
    record.before.push_back(
        {member.id, std::move(member.admitted.core), std::move(member.admitted.payload)});
  }
  record.spec = std::move(record.before.back().spec);
  record.payload = std::move(record.before.back().payload);
  record.before.pop_back();
  const std::string name = record.name;
  SetScheduleEvent event{std::move(record), request.replace(), call.access(), call.limits().quota};
  RequestAndAnswer(call, std::move(event), name, response);
}

void SchedulesService::RequestAndAnswer(UnaryCall call, Event event, const std::string& name,
                                        v1::Schedule* response) {
  api_.driver->Request(
      std::move(event), [call, name, response](const Reply& reply, const Scheduler* view) {
        if (reply.status.ok())
          *response = ShownTo(call.caller(), ScheduleToProto(view->schedules().at(name), *view,
                                                             ScheduleDetail::kSummary));
        call.Finish(reply.status);
      });
}

grpc::ServerUnaryReactor* SchedulesService::List(grpc::CallbackServerContext* context,
                                                 const v1::ListSchedulesRequest* request,
                                                 v1::ListSchedulesResponse* response) {
  UnaryCall call(api_, "/ll.v1.Schedules/List", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  if (const absl::Status mask = CheckReadMask(request->read_mask(), *v1::Schedule::descriptor());
      !mask.ok())
    return call.Finish(mask);
  api_.driver->Read([call, request, response](const absl::Status& status, const Scheduler* view) {
    if (!status.ok()) return (void)call.Finish(status);
    for (const auto& [name, schedule] : view->schedules()) {
      if (!call.access().Sees(schedule.record.tenant)) continue;
      *response->add_schedules() =
          ShownTo(call.caller(), ScheduleToProto(schedule, *view, ScheduleDetail::kSummary));
      ApplyReadMask(request->read_mask(), *response->mutable_schedules()->rbegin());
    }
    call.Finish(absl::OkStatus());
  });
  return call.reactor();
}

grpc::ServerUnaryReactor* SchedulesService::Get(grpc::CallbackServerContext* context,
                                                const v1::GetScheduleRequest* request,
                                                v1::Schedule* response) {
  UnaryCall call(api_, "/ll.v1.Schedules/Get", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  if (const absl::Status mask = CheckReadMask(request->read_mask(), *v1::Schedule::descriptor());
      !mask.ok())
    return call.Finish(mask);
  api_.driver->Read([call, request, response](const absl::Status& status, const Scheduler* view) {
    if (!status.ok()) return (void)call.Finish(status);
    const auto found = view->schedules().find(KeyOf(call.caller(), request->name()));
    if (found == view->schedules().end()) return (void)call.Finish(NoSuchSchedule(request->name()));
    *response =
        ShownTo(call.caller(), ScheduleToProto(found->second, *view, ScheduleDetail::kRuns));
    ApplyReadMask(request->read_mask(), *response);
    call.Finish(absl::OkStatus());
  });
  return call.reactor();
}

grpc::ServerUnaryReactor* SchedulesService::Delete(grpc::CallbackServerContext* context,
                                                   const v1::DeleteScheduleRequest* request,
                                                   v1::Schedule* response) {
  UnaryCall call(api_, "/ll.v1.Schedules/Delete", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  response->set_name(request->name());
  const std::string key = KeyOf(call.caller(), request->name());
  call.SetObject(key);
  api_.driver->Request(DeleteScheduleEvent{key, call.caller().user},
                       [call](const Reply& reply, const Scheduler*) { call.Finish(reply.status); });
  return call.reactor();
}

grpc::ServerUnaryReactor* SchedulesService::Run(grpc::CallbackServerContext* context,
                                                const v1::RunScheduleRequest* request,
                                                v1::Job* response) {
  UnaryCall call(api_, "/ll.v1.Schedules/Run", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  if (request->request_id().empty())
    return call.Finish(
        MakeFieldError({"request_id", "one, so that a repeat runs nothing", "none"}));
  if (absl::Status bad = CheckRequestId(request->request_id(), kMaxRequestIdBytes); !bad.ok())
    return call.Finish(bad);
  const std::string key = KeyOf(call.caller(), request->name());
  call.SetObject(key);
  call.SetRequestId(request->request_id());
  RunScheduleEvent event{key, NewJobId(SystemRandom()), request->request_id(), call.caller().user,
                         api_.tenants->Of(TenantOfName(key)).quota};
  api_.driver->Request(
      std::move(event), [this, call, response](const Reply& reply, const Scheduler* view) {
        if (reply.status.ok()) {
          const Job& job = *view->Find(reply.job);
          const auto newest = job.epoch > 0 ? api_.telemetry->Newest(job.id) : std::nullopt;
          *response = JobToProto(job, newest, JobDetail::kFull);
        }
        call.Finish(reply.status);
      });
  return call.reactor();
}

grpc::ServerUnaryReactor* SchedulesService::Pause(grpc::CallbackServerContext* context,
                                                  const v1::PauseScheduleRequest* request,
                                                  v1::Schedule* response) {
  UnaryCall call(api_, "/ll.v1.Schedules/Pause", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  const std::string key = KeyOf(call.caller(), request->name());
  call.SetObject(key);
  RequestAndAnswer(call, PauseScheduleEvent{key, true, call.caller().user}, key, response);
  return call.reactor();
}

grpc::ServerUnaryReactor* SchedulesService::Resume(grpc::CallbackServerContext* context,
                                                   const v1::ResumeScheduleRequest* request,
                                                   v1::Schedule* response) {
  UnaryCall call(api_, "/ll.v1.Schedules/Resume", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  const std::string key = KeyOf(call.caller(), request->name());
  call.SetObject(key);
  RequestAndAnswer(call, PauseScheduleEvent{key, false, call.caller().user}, key, response);
  return call.reactor();
}

}  // namespace ll
