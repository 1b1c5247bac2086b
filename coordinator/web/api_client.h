// What the web pages know: they ask the services as any other client does, with the token of the
// person who looks, so that a page shows what its reader may see and nothing else.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "proto/admin.grpc.pb.h"
#include "proto/jobs.grpc.pb.h"
#include "proto/schedules.grpc.pb.h"
#include "rpc/status.h"

namespace ll {

// Thread-safe. Every call has a deadline.
class ApiClient {
 public:
  explicit ApiClient(const std::shared_ptr<grpc::Channel>& channel)
      : jobs_(v1::Jobs::NewStub(channel)),
        admin_(v1::Admin::NewStub(channel)),
        schedules_(v1::Schedules::NewStub(channel)) {}

  // The calls of one person.
  class As {
   public:
    As(ApiClient& client, std::string token) : client_(&client), token_(std::move(token)) {}

    absl::StatusOr<v1::ListResponse> List(const v1::ListRequest& request) const;
    absl::StatusOr<v1::Job> Get(const std::string& job, bool steps) const;
    absl::StatusOr<v1::WhyResponse> Why(const std::string& job) const;
    absl::StatusOr<v1::CheckpointsResponse> Checkpoints(const std::string& job) const;
    struct Log {
      int64_t offset = 0;
      std::string text;
    };
    // At most about `max_bytes` of a rank's log from `offset`; negative: that many before the end.
    absl::StatusOr<Log> ReadLog(const v1::LogsRequest& request, size_t max_bytes) const;
    absl::StatusOr<v1::ListWorkersResponse> Workers() const;
    absl::StatusOr<v1::ListQueuesResponse> Queues() const;
    absl::StatusOr<v1::ListSchedulesResponse> Schedules() const;
    absl::StatusOr<v1::Schedule> Schedule(const std::string& name) const;
    absl::StatusOr<v1::VersionResponse> Version() const;

   private:
    template <typename Response, typename Stub, typename Request>
    absl::StatusOr<Response> Call(Stub& stub,
                                  grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                               Response*),
                                  const Request& request) const;
    void Prepare(grpc::ClientContext& context) const;

    ApiClient* client_;
    std::string token_;
  };

 private:
  std::unique_ptr<v1::Jobs::StubInterface> jobs_;
  std::unique_ptr<v1::Admin::StubInterface> admin_;
  std::unique_ptr<v1::Schedules::StubInterface> schedules_;
};

}  // namespace ll
