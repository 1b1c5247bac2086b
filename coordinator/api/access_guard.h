// Denies what no handler of ours checks: the library's reflection service, which knows nothing of
// tokens, and every method that states no scope. Our own methods check their callers themselves
// (call.h), health answers everybody.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_interceptor.h>

#include <string>

#include "absl/strings/match.h"
#include "coordinator/api/auth.h"

namespace ll {

// Cancels a call whose caller may not make it: it ends without an answer.
class AccessGuard : public grpc::experimental::Interceptor {
 public:
  AccessGuard(Authenticator& authenticator, grpc::experimental::ServerRpcInfo* info)
      : authenticator_(authenticator), info_(info) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA) &&
        !authenticator_
             .Check(info_->method(), *methods->GetRecvInitialMetadata(),
                    info_->server_context()->auth_context().get())
             .ok()) {
      info_->server_context()->TryCancel();
    }
    methods->Proceed();
  }

 private:
  Authenticator& authenticator_;
  grpc::experimental::ServerRpcInfo* info_;
};

class AccessGuardFactory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit AccessGuardFactory(Authenticator& authenticator) : authenticator_(authenticator) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    const std::string method = info->method();
    const bool checked_by_handler =
        absl::StartsWith(method, "/ll.v1.") && RequiredScope(method).ok();
    if (checked_by_handler || IsOpenToAll(method)) return nullptr;
    return new AccessGuard(authenticator_, info);
  }

 private:
  Authenticator& authenticator_;
};

}  // namespace ll
