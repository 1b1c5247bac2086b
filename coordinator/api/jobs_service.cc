#include "coordinator/api/jobs_service.h"

#include <google/protobuf/util/json_util.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/ids.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "coordinator/api/job_reader.h"
#include "coordinator/api/live_forecast.h"
#include "coordinator/api/logs_stream.h"
#include "coordinator/api/request_checks.h"
#include "coordinator/api/watch_stream.h"

namespace ll {
namespace {

constexpr int kMaxPageSize = 1000;
constexpr int kDefaultPageSize = 100;
constexpr size_t kMaxReasonBytes = 1000;
constexpr size_t kMaxSayBytes = 1 << 20;
constexpr size_t kMaxSayIdBytes = 128;

absl::Status NoSuchJob(const std::string& id) {
  return FieldStatus(absl::StatusCode::kNotFound, "job_id",
                     absl::StrCat("there is no job ", id.substr(0, 80)),
                     "llctl list shows the jobs");
}

std::string WithNotes(const std::string& reason, const std::string& notes) {
  return notes.empty() ? reason : absl::StrCat(reason, "; ", notes);
}

}  // namespace

v1::Job JobsService::ToProto(const Job& job, JobDetail detail, const Scheduler* view) const {
  Measured measured;
  if (job.epoch > 0) measured.newest = api_.telemetry->Newest(job.id);
  v1::Job out = JobToProto(job, measured.newest, detail);
  if (detail != JobDetail::kSummary && out.has_forecast()) {
    if (job.epoch > 0) measured.pace = api_.telemetry->Pace(job.id);
    if (view != nullptr) measured.wait = view->PredictedWait(job);
    ReviseForecast(job, measured, api_.clock->Now(), *out.mutable_forecast());
  }
  if (job.state == JobState::kRunning && detail != JobDetail::kSummary)
    out.set_reason(WithNotes(out.reason(), api_.telemetry->Notes(job.id)));
  return out;
}

// ---- reads

void JobsService::ReadFiles(const UnaryCall& call, std::function<void()> read) {
  const bool taken = api_.reader->Do([call, read = std::move(read)] {
    if (call.given_up()) return (void)call.Finish(absl::CancelledError("the caller left"));
    read();
    call.Finish(absl::OkStatus());
  });
  if (!taken)
    call.Finish(absl::ResourceExhaustedError("too many histories are being read; try again"));
}

void JobsService::ReadJob(const UnaryCall& call, const std::string& id,
                          std::function<void(const Job& job, const Scheduler& view)> read) {
  api_.reader->Read(
      JobId(id), call.access(),
      [call, id, read = std::move(read)](const absl::Status& status, const Scheduler* view) {
        if (!status.ok()) return (void)call.Finish(status);
        const Job* job = view->Find(JobId(id), call.access());
        if (job == nullptr) return (void)call.Finish(NoSuchJob(id));
        read(*job, *view);
      });
}

grpc::ServerUnaryReactor* JobsService::Get(grpc::CallbackServerContext* context,
                                           const v1::GetRequest* request, v1::Job* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/Get", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  if (const absl::Status mask = CheckReadMask(request->read_mask(), *v1::Job::descriptor());
      !mask.ok())
    return call.Finish(mask);
  ReadJob(call, request->job_id(),
          [this, call, request, response](const Job& job, const Scheduler& view) {
            *response = ToProto(job, JobDetail::kHistory, &view);
            if (!request->history()) {
              ApplyReadMask(request->read_mask(), *response);
              return (void)call.Finish(absl::OkStatus());
            }
            // Reading a long history's file is not for the driver's thread.
            ReadFiles(call, [this, id = job.id, request, response] {
              for (const StepFacts& step : api_.telemetry->Steps(id))
                *response->add_steps() = StepToProto(step);
              ApplyReadMask(request->read_mask(), *response);
            });
          });
  return call.reactor();
}

grpc::ServerUnaryReactor* JobsService::List(grpc::CallbackServerContext* context,
                                            const v1::ListRequest* request,
                                            v1::ListResponse* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/List", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  if (const absl::Status mask = CheckReadMask(request->read_mask(), *v1::Job::descriptor());
      !mask.ok())
    return call.Finish(mask);
  const int size = request->page_size() == 0 ? kDefaultPageSize : request->page_size();
  if (size < 1 || size > kMaxPageSize) {
    return call.Finish(MakeFieldError({"page_size", "1 to 1000", absl::StrCat(size)}));
  }
  ListQuery query;
  query.limit = static_cast<size_t>(size);
  // A token is the sequence number of the last job shown: jobs that come or go do not shift the
  // pages.
  if (!request->page_token().empty() &&
      (!absl::SimpleAtoi(request->page_token(), &query.before_sequence) ||
       query.before_sequence < 1)) {
    return call.Finish(
        MakeFieldError({"page_token", "a token of the last answer", "something else"}));
  }
  for (int state : request->states()) {
    if (!v1::JobState_IsValid(state) || state == 0) {
      return call.Finish(MakeFieldError({"states", "job states", absl::StrCat(state)}));
    }
    query.states.push_back(static_cast<JobState>(state));
  }
  query.labels.insert(request->labels().begin(), request->labels().end());
  query.access = call.access();
  api_.reader->Read(
      [query](const Scheduler& view) { return view.List(query); },
      [this, call, query, request, response](const absl::Status& status, const Scheduler* view) {
        if (!status.ok()) return (void)call.Finish(status);
        const std::vector<const Job*> jobs = view->List(query);
        for (const Job* job : jobs) {
          *response->add_jobs() = ToProto(*job, JobDetail::kSummary);
          ApplyReadMask(request->read_mask(), *response->mutable_jobs()->rbegin());
        }
        if (jobs.size() == query.limit)
          response->set_next_page_token(absl::StrCat(jobs.back()->sequence));
        call.Finish(absl::OkStatus());
      });
  return call.reactor();
}

grpc::ServerUnaryReactor* JobsService::Why(grpc::CallbackServerContext* context,
                                           const v1::WhyRequest* request,
                                           v1::WhyResponse* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/Why", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  ReadJob(call, request->job_id(), [this, call, response](const Job& job, const Scheduler& view) {
    std::string sentence = view.Why(job.id).value_or(job.reason);
    if (job.state == JobState::kRunning)
      sentence = WithNotes(sentence, api_.telemetry->Notes(job.id));
    response->set_sentence(sentence);
    *response->mutable_job() = ToProto(job, JobDetail::kFull, &view);
    call.Finish(absl::OkStatus());
  });
  return call.reactor();
}

grpc::ServerUnaryReactor* JobsService::Checkpoints(grpc::CallbackServerContext* context,
                                                   const v1::CheckpointsRequest* request,
                                                   v1::CheckpointsResponse* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/Checkpoints", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  api_.driver->Read(
      [this, call, request, response](const absl::Status& status, const Scheduler* view) {
        if (!status.ok()) return (void)call.Finish(status);
        const Job* job = view->Find(JobId(request->job_id()), call.access());
        if (job == nullptr) return (void)call.Finish(NoSuchJob(request->job_id()));
        v1::JobSpec resolved;
        resolved.ParseFromString(job->payload->resolved_spec);
        const KeepRules rules{resolved.save_total_limit(), resolved.save_keep_every()};
        ReadFiles(call, [this, id = job->id, rules, response] {
          const std::vector<CheckpointFacts> all = api_.telemetry->Checkpoints(id);
          for (size_t i = 0; i < all.size(); ++i)
            *response->add_checkpoints() = CheckpointToProto(all[i], WhyKept(rules, all[i], i));
        });
      });
  return call.reactor();
}

grpc::ServerWriteReactor<v1::WatchResponse>* JobsService::Watch(
    grpc::CallbackServerContext* context, const v1::WatchRequest* request) {
  return WatchStream::Start<WatchStream>(api_, hub_, "/ll.v1.Jobs/Watch", context, *request);
}

grpc::ServerWriteReactor<v1::LogsResponse>* JobsService::Logs(grpc::CallbackServerContext* context,
                                                              const v1::LogsRequest* request) {
  return LogsStream::Start<LogsStream>(api_, hub_, "/ll.v1.Jobs/Logs", context, *request);
}

// ---- a word to a running job

namespace {

// Where a message for the job goes: the session of rank 0's worker.
absl::StatusOr<uint64_t> ListeningSession(const Job& job, const Scheduler& view) {
  if (job.spec.kind != "generate") {
    return MakeFieldError(
        {"job_id", "a job of kind generate", absl::StrCat("kind ", job.spec.kind)},
        absl::StatusCode::kFailedPrecondition);
  }
  if (job.state != JobState::kRunning || !job.attempt) {
    return FieldStatus(absl::StatusCode::kFailedPrecondition, "job_id",
                       absl::StrCat("the job is ", JobStateName(job.state), ": ", job.reason),
                       "it listens while it is RUNNING");
  }
  const auto worker = view.workers().find(job.attempt->ranks.front().worker);
  if (worker == view.workers().end() || !worker->second.connected) {
    return absl::UnavailableError("the job's worker is out of contact");
  }
  return worker->second.session;
}

}  // namespace

grpc::ServerUnaryReactor* JobsService::Say(grpc::CallbackServerContext* context,
                                           const v1::SayRequest* request,
                                           v1::SayResponse* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/Say", context);
  call.SetObject(request->job_id());
  if (!call.refused().ok()) return call.Finish(call.refused());
  if (const absl::Status id = CheckRequestId(request->request_id(), kMaxSayIdBytes); !id.ok())
    return call.Finish(id);
  std::string line;
  const auto printed = google::protobuf::util::MessageToJsonString(request->message(), &line);
  if (!printed.ok() || line.size() > kMaxSayBytes) {
    return call.Finish(
        MakeFieldError({"message", "at most 1 MiB of JSON", absl::StrCat(line.size(), " bytes")}));
  }
  api_.driver->Read(
      [this, call, request, response, line](const absl::Status& status, const Scheduler* view) {
        if (!status.ok()) return (void)call.Finish(status);
        const Job* job = view->Find(JobId(request->job_id()), call.access());
        if (job == nullptr) return (void)call.Finish(NoSuchJob(request->job_id()));
        const absl::StatusOr<uint64_t> session = ListeningSession(*job, *view);
        if (!session.ok()) return (void)call.Finish(session.status());
        response->set_epoch(job->epoch);
        const std::string& id = request->request_id();
        const std::string key = absl::StrCat(job->id.value(), "/", job->epoch, "/", id);
        if (!id.empty() && said_.Holds(key)) return (void)call.Finish(absl::OkStatus());
        const absl::Status said = ranks_.Say(*session, job->id, job->epoch, line);
        if (said.ok() && !id.empty()) said_.Add(key);
        call.Finish(said);
      });
  return call.reactor();
}

// ---- wishes

void JobsService::RequestAndAnswer(UnaryCall call, Event event, v1::Job* response) {
  api_.driver->Request(
      std::move(event), [this, call, response](const Reply& reply, const Scheduler* view) {
        if (!reply.status.ok()) return (void)call.Finish(reply.status);
        api_.reader->Answer(*view, *view->Find(reply.job),
                            [this, call, id = reply.job, response](const absl::Status& status,
                                                                   const Scheduler* view) {
                              const Job* job = status.ok() ? view->Find(id) : nullptr;
                              // What was asked for is done, whatever can be told of it.
                              if (job != nullptr) *response = ToProto(*job, JobDetail::kFull);
                              response->set_job_id(id.value());
                              call.Finish(absl::OkStatus());
                            });
      });
}

grpc::ServerUnaryReactor* JobsService::Cancel(grpc::CallbackServerContext* context,
                                              const v1::CancelRequest* request, v1::Job* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/Cancel", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  call.SetObject(request->job_id());
  RequestAndAnswer(
      call,
      CancelEvent{JobId(request->job_id()), call.caller().user,
                  std::string(CutText(request->reason(), kMaxReasonBytes)), call.access()},
      response);
  return call.reactor();
}

grpc::ServerUnaryReactor* JobsService::Pause(grpc::CallbackServerContext* context,
                                             const v1::PauseRequest* request, v1::Job* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/Pause", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  call.SetObject(request->job_id());
  RequestAndAnswer(call, PauseEvent{JobId(request->job_id()), call.caller().user, call.access()},
                   response);
  return call.reactor();
}

grpc::ServerUnaryReactor* JobsService::Resume(grpc::CallbackServerContext* context,
                                              const v1::ResumeRequest* request, v1::Job* response) {
  UnaryCall call(api_, "/ll.v1.Jobs/Resume", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  call.SetObject(request->job_id());
  RequestAndAnswer(call, ResumeEvent{JobId(request->job_id()), call.caller().user, call.access()},
                   response);
  return call.reactor();
}

}  // namespace ll
