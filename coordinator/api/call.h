// What every call has in common: who calls, how long it took, how it ended.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <string>

#include "absl/time/time.h"
#include "base/clock.h"
#include "coordinator/api/auth.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/runtime/metrics.h"
#include "coordinator/runtime/telemetry.h"
#include "rpc/status.h"

namespace ll {

// What the services work with; everything outlives the gRPC server.
struct ApiContext {
  Driver* driver;
  Telemetry* telemetry;
  Authenticator* authenticator;
  Metrics* metrics;
  Clock* clock;
};

absl::string_view StatusCodeName(absl::StatusCode code);

// Checks the caller of "/ll.v1.SERVICE/METHOD".
absl::StatusOr<Caller> CheckCaller(const ApiContext& api, const std::string& method,
                                   const grpc::CallbackServerContext& context);

// One unary call, to be finished exactly once, on any thread. Copies stand for the same call.
class UnaryCall {
 public:
  UnaryCall(const ApiContext& api, std::string method, grpc::CallbackServerContext* context)
      : api_(&api),
        method_(std::move(method)),
        reactor_(context->DefaultReactor()),
        caller_(CheckCaller(api, method_, *context)),
        began_(api.clock->Steady()) {}

  // When not OK the call is to be finished with it.
  const absl::Status& refused() const { return caller_.status(); }
  const Caller& caller() const { return *caller_; }
  grpc::ServerUnaryReactor* reactor() const { return reactor_; }

  // Returns the reactor, for handlers that end at once.
  grpc::ServerUnaryReactor* Finish(const absl::Status& status) const {
    api_->metrics->OnRpc(method_, std::string(StatusCodeName(status.code())),
                         api_->clock->Steady() - began_);
    grpc::ServerUnaryReactor* reactor = reactor_;
    reactor->Finish(ToGrpcStatus(status));
    return reactor;
  }

 private:
  const ApiContext* api_;
  std::string method_;
  grpc::ServerUnaryReactor* reactor_;
  absl::StatusOr<Caller> caller_;
  absl::Duration began_;
};

}  // namespace ll
