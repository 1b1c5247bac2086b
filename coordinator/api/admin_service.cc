#include "coordinator/api/admin_service.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "coordinator/api/convert.h"
#include "coordinator/api/request_checks.h"
#include "model/plan/models.h"

#ifndef LL_VERSION
#define LL_VERSION "unknown"
#endif

namespace ll {
namespace {

constexpr size_t kMaxReasonBytes = 500;

absl::Status CheckName(const std::string& name) {
  constexpr char kAllowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
  if (!name.empty() && name.size() <= 64 && name.find_first_not_of(kAllowed) == std::string::npos) {
    return absl::OkStatus();
  }
  return MakeFieldError({"name", "1 to 64 letters, digits, '.', '_' or '-'",
                         absl::StrCat("\"", name.substr(0, 80), "\"")});
}

// A registered name and whose it is.
template <typename Request>
absl::StatusOr<std::string> KeyOf(const Request& request) {
  LL_RETURN_IF_ERROR(CheckName(request.name()));
  if (!request.tenant().empty() && !IsTenantName(request.tenant())) {
    return MakeFieldError({"tenant", "1 to 64 letters, digits, '.', '_' or '-'",
                           OneLine(request.tenant().substr(0, 80))});
  }
  return QualifiedName(request.tenant(), request.name());
}

bool MayUse(const Access& access, const std::string& key) {
  const std::string tenant = TenantOfName(key);
  return tenant.empty() || access.Sees(tenant);
}

v1::Model ModelToProto(const ModelRecord& record) {
  v1::Model out;
  out.set_name(PlainNameOf(record.name));
  out.set_tenant(TenantOfName(record.name));
  out.set_path(record.path);
  out.set_verified(record.verified);
  out.set_config_json(record.config_json);
  return out;
}

v1::Data DataToProto(const DataRecord& record) {
  v1::Data out;
  out.set_name(PlainNameOf(record.name));
  out.set_tenant(TenantOfName(record.name));
  out.set_path(record.path);
  out.set_is_default(record.is_default);
  return out;
}

// A slot's use by a job of another tenant. Administrators see also jobs whose record is gone.
void HideJob(const UnaryCall& call, v1::SlotUse& use) {
  if (!call.access().all) use.clear_job_id();
}

// Why a worker is out of service, an operator's words or the scheduler's, may name jobs.
void HideJobs(const UnaryCall& call, const Scheduler& view, std::string& reason) {
  if (call.access().all) return;
  std::string shown;
  absl::string_view rest = reason;
  for (size_t at; (at = rest.find("job-")) != rest.npos;) {
    size_t end = at + 4;
    while (end < rest.size() && absl::ascii_isxdigit(static_cast<unsigned char>(rest[end]))) ++end;
    const absl::string_view id = rest.substr(at, end - at);
    const bool sees =
        !LooksLikeJobId(id) || view.Find(JobId(std::string(id)), call.access()) != nullptr;
    absl::StrAppend(&shown, rest.substr(0, at), sees ? id : "another job");
    rest.remove_prefix(end);
  }
  reason = absl::StrCat(shown, rest);
}

// What can be said before a worker has looked.
absl::StatusOr<ModelRecord> NewRecord(const v1::AddModelRequest& request,
                                      const AdmissionOptions& options) {
  LL_ASSIGN_OR_RETURN(const std::string key, KeyOf(request));
  LL_RETURN_IF_ERROR(CheckPath("path", request.path(), options));
  ModelRecord record{key, request.path(), /*verified=*/false, request.config_json()};
  LL_ASSIGN_OR_RETURN(const std::string seen, ConfigOfFolder(request.path(), options));
  if (!seen.empty()) record.config_json = seen;
  return record;
}

// A built-in name keeps its shape: other weights under that name are refused.
absl::Status CheckShape(const v1::AddModelRequest& request, ModelRecord& record) {
  const auto known = BuiltInModel(request.name());
  if (!record.config_json.empty()) {
    auto config = ParseLlamaConfig(record.config_json);
    if (!config.ok())
      return Annotate(config.status(), absl::StrCat("config.json of ", request.path()));
    if (known && (config->hidden_size != known->hidden_size ||
                  config->num_hidden_layers != known->num_hidden_layers)) {
      return MakeFieldError(
          {"path",
           absl::StrCat("the weights of ", request.name(), " (", known->num_hidden_layers,
                        " layers of ", known->hidden_size, ")"),
           absl::StrCat(config->num_hidden_layers, " layers of ", config->hidden_size),
           "choose another name for another model"});
    }
  } else if (known) {
    record.config_json = LlamaConfigToJson(*known).dump();
  }
  return absl::OkStatus();
}

}  // namespace

grpc::ServerUnaryReactor* AdminService::ListWorkers(grpc::CallbackServerContext* context,
                                                    const v1::ListWorkersRequest* request,
                                                    v1::ListWorkersResponse* response) {
  UnaryCall call(api_, "/ll.v1.Admin/ListWorkers", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  if (const absl::Status mask = CheckReadMask(request->read_mask(), *v1::Worker::descriptor());
      !mask.ok())
    return call.Finish(mask);
  api_.driver->Read(
      [this, call, request, response](const absl::Status& status, const Scheduler* view) {
        if (!status.ok()) return (void)call.Finish(status);
        for (const auto& [name, worker] : view->workers()) {
          v1::Worker& shown = *response->add_workers();
          shown = WorkerToProto(worker, view->options().lease);
          if (shown.connected() && api_.loads != nullptr) {
            for (v1::SlotLoad& load : api_.loads->Of(shown.worker()))
              *shown.add_loads() = std::move(load);
          }
          for (v1::SlotUse& use : *shown.mutable_uses()) {  // that a slot is taken is no secret
            if (view->Find(JobId(use.job_id()), call.access()) == nullptr) HideJob(call, use);
          }
          HideJobs(call, *view, *shown.mutable_cordon_reason());
          ApplyReadMask(request->read_mask(), shown);
        }
        call.Finish(absl::OkStatus());
      });
  return call.reactor();
}

grpc::ServerUnaryReactor* AdminService::CordonWorker(grpc::CallbackServerContext* context,
                                                     const v1::CordonWorkerRequest* request,
                                                     v1::Worker* response) {
  UnaryCall call(api_, "/ll.v1.Admin/CordonWorker", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  CordonWorkerEvent event{WorkerId(request->worker()), Cordon::kCordon, call.caller().user,
                          std::string(CutText(request->reason(), kMaxReasonBytes))};
  if (request->action() == v1::CordonWorkerRequest::UNCORDON) event.cordon = Cordon::kUncordon;
  if (request->action() == v1::CordonWorkerRequest::DRAIN) event.cordon = Cordon::kDrain;
  const WorkerId worker = event.worker;
  call.SetObject(absl::StrCat(v1::CordonWorkerRequest::Action_Name(request->action()), " ",
                              request->worker()));
  api_.driver->Request(
      std::move(event), [call, response, worker](const Reply& reply, const Scheduler* view) {
        if (reply.status.ok())
          *response = WorkerToProto(view->workers().at(worker), view->options().lease);
        call.Finish(reply.status);
      });
  return call.reactor();
}

grpc::ServerUnaryReactor* AdminService::SetQueue(grpc::CallbackServerContext* context,
                                                 const v1::SetQueueRequest* request,
                                                 v1::Queue* response) {
  UnaryCall call(api_, "/ll.v1.Admin/SetQueue", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  const v1::Queue& queue = request->queue();
  if (absl::Status bad = CheckName(queue.name()); !bad.ok()) return call.Finish(bad);
  call.SetObject(queue.name());
  SetQueueEvent event;
  event.user = call.caller().user;
  event.queue.name = queue.name();
  event.queue.weight = queue.weight();
  if (queue.has_quota_gpus()) event.queue.quota_gpus = queue.quota_gpus();
  if (queue.has_max_gpus()) event.queue.max_gpus = queue.max_gpus();
  if (queue.has_max_jobs()) event.queue.max_jobs = queue.max_jobs();
  api_.driver->Request(std::move(event), [call, response, name = queue.name()](
                                             const Reply& reply, const Scheduler* view) {
    if (reply.status.ok()) {
      const Queue& made = *view->fair_share().Find(name);
      *response = QueueToProto(made, view->fair_share().Share(made));
    }
    call.Finish(reply.status);
  });
  return call.reactor();
}

grpc::ServerUnaryReactor* AdminService::ListQueues(grpc::CallbackServerContext* context,
                                                   const v1::ListQueuesRequest*,
                                                   v1::ListQueuesResponse* response) {
  UnaryCall call(api_, "/ll.v1.Admin/ListQueues", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  api_.driver->Read([call, response](const absl::Status& status, const Scheduler* view) {
    if (!status.ok()) return (void)call.Finish(status);
    for (const auto& [name, queue] : view->fair_share().queues())
      *response->add_queues() = QueueToProto(queue, view->fair_share().Share(queue));
    call.Finish(absl::OkStatus());
  });
  return call.reactor();
}

grpc::ServerUnaryReactor* AdminService::AddModel(grpc::CallbackServerContext* context,
                                                 const v1::AddModelRequest* request,
                                                 v1::Model* response) {
  UnaryCall call(api_, "/ll.v1.Admin/AddModel", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  auto record = NewRecord(*request, options_);
  if (!record.ok()) return call.Finish(record.status());
  call.SetObject(record->name);
  workers_.Check(
      v1::CheckPath::MODEL, request->path(),
      [this, call, request, response, record = *std::move(record)](PathFindings findings) mutable {
        if (!findings.config_json.empty()) record.config_json = findings.config_json;
        record.verified = findings.workers > 0;
        absl::Status status = findings.status;
        if (status.ok()) status = CheckShape(*request, record);
        if (!status.ok()) return (void)call.Finish(status);
        *response = ModelToProto(record);
        api_.driver->Request(
            AddModelEvent{std::move(record)},
            [call](const Reply& reply, const Scheduler*) { call.Finish(reply.status); });
      });
  return call.reactor();
}

grpc::ServerUnaryReactor* AdminService::ListModels(grpc::CallbackServerContext* context,
                                                   const v1::ListModelsRequest*,
                                                   v1::ListModelsResponse* response) {
  UnaryCall call(api_, "/ll.v1.Admin/ListModels", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  const ClusterViewPtr view = api_.driver->cluster_view();
  for (const std::string& name : BuiltInModelNames()) {
    if (view->models.count(name) > 0) continue;
    *response->add_models() =
        ModelToProto({name, "", false, LlamaConfigToJson(*BuiltInModel(name)).dump()});
  }
  for (const auto& [name, record] : view->models) {
    if (MayUse(call.access(), name)) *response->add_models() = ModelToProto(record);
  }
  return call.Finish(absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::AddData(grpc::CallbackServerContext* context,
                                                const v1::AddDataRequest* request,
                                                v1::Data* response) {
  UnaryCall call(api_, "/ll.v1.Admin/AddData", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  const absl::StatusOr<std::string> key = KeyOf(*request);
  if (!key.ok()) return call.Finish(key.status());
  if (request->is_default() && !request->tenant().empty()) {
    return call.Finish(MakeFieldError(
        {"is_default", "data that everybody may use", absl::StrCat("a tenant's, ", *key)}));
  }
  call.SetObject(*key);
  if (absl::Status bad = CheckPath("path", request->path(), options_); !bad.ok())
    return call.Finish(bad);
  workers_.Check(v1::CheckPath::DATA, request->path(),
                 [this, call, request, response, key = *key](PathFindings findings) {
                   if (!findings.status.ok()) return (void)call.Finish(findings.status);
                   DataRecord record{key, request->path(), request->is_default()};
                   *response = DataToProto(record);
                   api_.driver->Request(
                       AddDataEvent{std::move(record)},
                       [call](const Reply& reply, const Scheduler*) { call.Finish(reply.status); });
                 });
  return call.reactor();
}

grpc::ServerUnaryReactor* AdminService::ListData(grpc::CallbackServerContext* context,
                                                 const v1::ListDataRequest*,
                                                 v1::ListDataResponse* response) {
  UnaryCall call(api_, "/ll.v1.Admin/ListData", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  for (const auto& [name, record] : api_.driver->cluster_view()->data) {
    if (MayUse(call.access(), name)) *response->add_data() = DataToProto(record);
  }
  return call.Finish(absl::OkStatus());
}

grpc::ServerUnaryReactor* AdminService::Version(grpc::CallbackServerContext* context,
                                                const v1::VersionRequest*,
                                                v1::VersionResponse* response) {
  context->AddTrailingMetadata("ll-time-ms", absl::StrCat(absl::ToUnixMillis(api_.clock->Now())));
  UnaryCall call(api_, "/ll.v1.Admin/Version", context);
  if (!call.refused().ok()) return call.Finish(call.refused());
  response->set_version(LL_VERSION);
  response->set_store(api_.driver->store_description());
  response->set_term(api_.driver->term());
  *response->mutable_started() = ToTimestamp(api_.driver->started());
  return call.Finish(absl::OkStatus());
}

}  // namespace ll
