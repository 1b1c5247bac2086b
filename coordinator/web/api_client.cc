#include "coordinator/web/api_client.h"

#include <grpcpp/client_context.h>

#include <chrono>

#include "absl/strings/str_cat.h"

namespace ll {
namespace {

constexpr std::chrono::seconds kPatience{5};

}  // namespace

void ApiClient::As::Prepare(grpc::ClientContext& context) const {
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
  if (!token_.empty()) context.AddMetadata("authorization", absl::StrCat("Bearer ", token_));
}

template <typename Response, typename Stub, typename Request>
absl::StatusOr<Response> ApiClient::As::Call(
    Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
    const Request& request) const {
  grpc::ClientContext context;
  Prepare(context);
  Response response;
  const grpc::Status status = (stub.*method)(&context, request, &response);
  if (!status.ok()) return FromGrpcStatus(status);
  return response;
}

using Jobs = v1::Jobs::StubInterface;
using Admin = v1::Admin::StubInterface;
using SchedulesStub = v1::Schedules::StubInterface;

absl::StatusOr<v1::ListResponse> ApiClient::As::List(const v1::ListRequest& request) const {
  return Call(*client_->jobs_, &Jobs::List, request);
}

absl::StatusOr<v1::Job> ApiClient::As::Get(const std::string& job, bool steps) const {
  v1::GetRequest request;
  request.set_job_id(job);
  request.set_history(steps);
  return Call(*client_->jobs_, &Jobs::Get, request);
}

absl::StatusOr<v1::WhyResponse> ApiClient::As::Why(const std::string& job) const {
  v1::WhyRequest request;
  request.set_job_id(job);
  return Call(*client_->jobs_, &Jobs::Why, request);
}

absl::StatusOr<v1::CheckpointsResponse> ApiClient::As::Checkpoints(const std::string& job) const {
  v1::CheckpointsRequest request;
  request.set_job_id(job);
  return Call(*client_->jobs_, &Jobs::Checkpoints, request);
}

absl::StatusOr<ApiClient::As::Log> ApiClient::As::ReadLog(const v1::LogsRequest& request,
                                                          size_t max_bytes) const {
  grpc::ClientContext context;
  Prepare(context);
  const auto reader = client_->jobs_->Logs(&context, request);
  Log log;
  v1::LogsResponse piece;
  bool first = true;
  while (log.text.size() < max_bytes && reader->Read(&piece)) {
    if (first) log.offset = piece.offset();
    first = false;
    log.text += piece.data();
  }
  if (log.text.size() >= max_bytes) {
    log.text.resize(max_bytes);
    context.TryCancel();
    reader->Finish();
    return log;
  }
  const grpc::Status status = reader->Finish();
  if (!status.ok()) return FromGrpcStatus(status);
  return log;
}

absl::StatusOr<v1::ListWorkersResponse> ApiClient::As::Workers() const {
  return Call(*client_->admin_, &Admin::ListWorkers, v1::ListWorkersRequest());
}

absl::StatusOr<v1::ListQueuesResponse> ApiClient::As::Queues() const {
  return Call(*client_->admin_, &Admin::ListQueues, v1::ListQueuesRequest());
}

absl::StatusOr<v1::ListSchedulesResponse> ApiClient::As::Schedules() const {
  return Call(*client_->schedules_, &SchedulesStub::List, v1::ListSchedulesRequest());
}

absl::StatusOr<v1::Schedule> ApiClient::As::Schedule(const std::string& name) const {
  v1::GetScheduleRequest request;
  request.set_name(name);
  return Call(*client_->schedules_, &SchedulesStub::Get, request);
}

absl::StatusOr<v1::VersionResponse> ApiClient::As::Version() const {
  return Call(*client_->admin_, &Admin::Version, v1::VersionRequest());
}

}  // namespace ll
