// What every call has in common: who calls, how long it took, how it ended, and what of it is
// written into the audit log.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "base/clock.h"
#include "coordinator/api/audit.h"
#include "coordinator/api/auth.h"
#include "coordinator/api/tenants.h"
#include "coordinator/api/worker_loads.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/runtime/metrics.h"
#include "coordinator/runtime/telemetry.h"
#include "rpc/status.h"

namespace ll {

class JobReader;
class MeasuredRates;

// What the services work with; everything outlives the gRPC server.
struct ApiContext {
  Driver* driver;
  Telemetry* telemetry;
  Authenticator* authenticator;
  Metrics* metrics;
  Clock* clock;
  AuditLog* audit;
  Tenants* tenants;
  MeasuredRates* measured = nullptr;
  WorkerLoads* loads = nullptr;
  JobReader* reader = nullptr;  // of the services that users call
};

// Whether an ended call belongs into the audit log: every change, and every refusal.
bool IsAudited(const std::string& method, bool caller_known, const absl::Status& status);

absl::string_view StatusCodeName(absl::StatusCode code);

// Checks the caller of "/ll.v1.SERVICE/METHOD". Unavailable also where the method changes something
// and the audit log cannot be written.
absl::StatusOr<Caller> CheckCaller(const ApiContext& api, const std::string& method,
                                   const grpc::CallbackServerContext& context);

// Writes such a call down; others are left out. `caller` null: not known.
void Audit(const ApiContext& api, const std::string& method, const Caller* caller,
           const std::string& object, const std::string& request_id, const std::string& peer,
           const absl::Status& status);

// One unary call, to be finished exactly once, on any thread. Copies stand for the same call.
class UnaryCall {
 public:
  UnaryCall(const ApiContext& api, std::string method, grpc::CallbackServerContext* context)
      : api_(&api),
        method_(std::move(method)),
        context_(context),
        reactor_(context->DefaultReactor()),
        caller_(CheckCaller(api, method_, *context)),
        began_(api.clock->Steady()),
        about_(std::make_shared<About>()) {}

  // When not OK the call is to be finished with it.
  const absl::Status& refused() const { return caller_.status(); }
  const Caller& caller() const { return *caller_; }
  Access access() const { return caller_->access(); }
  // Of the caller's tenant: the same throughout the call, although the file may change meanwhile.
  // What is checked by one table and counted by another would be within neither.
  const TenantLimits& limits() const {
    if (!about_->limits) about_->limits = api_->tenants->Of(caller_->tenant);
    return *about_->limits;
  }
  grpc::ServerUnaryReactor* reactor() const { return reactor_; }
  // Whether nobody waits for the answer any more.
  bool given_up() const { return context_->IsCancelled(); }
  // What the call changes, for the audit log: an id or a name.
  void SetObject(std::string object) const { about_->object = std::move(object); }
  void SetRequestId(std::string id) const { about_->request_id = std::move(id); }

  // Returns the reactor, for handlers that end at once.
  grpc::ServerUnaryReactor* Finish(const absl::Status& status) const {
    api_->metrics->OnRpc(method_, std::string(StatusCodeName(status.code())),
                         api_->clock->Steady() - began_);
    if (IsAudited(method_, caller_.ok(), status)) {
      Audit(*api_, method_, caller_.ok() ? &*caller_ : nullptr, about_->object, about_->request_id,
            context_->peer(), status);
    }
    grpc::ServerUnaryReactor* reactor = reactor_;
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

 private:
  struct About {
    std::string object, request_id;
    std::optional<TenantLimits> limits;  // once asked for
  };
  const ApiContext* api_;
  std::string method_;
  grpc::CallbackServerContext* context_;
  grpc::ServerUnaryReactor* reactor_;
  absl::StatusOr<Caller> caller_;
  absl::Duration began_;
  std::shared_ptr<About> about_;
};

}  // namespace ll
