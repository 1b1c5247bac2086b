// gRPC's reflection service comes with the library and knows nothing of tokens; this closes it to
// strangers.
#pragma once

#include <grpcpp/server_context.h>
#include <grpcpp/support/server_interceptor.h>

#include <string>

#include "absl/strings/match.h"
#include "coordinator/api/auth.h"

namespace ll {

// Cancels a call whose caller may not read.
class ReflectionGuard : public grpc::experimental::Interceptor {
 public:
  ReflectionGuard(Authenticator& authenticator, grpc::experimental::ServerRpcInfo* info)
      : authenticator_(authenticator), info_(info) {}

  void Intercept(grpc::experimental::InterceptorBatchMethods* methods) override {
    using grpc::experimental::InterceptionHookPoints;
    if (methods->QueryInterceptionHookPoint(InterceptionHookPoints::POST_RECV_INITIAL_METADATA) &&
        !authenticator_.Check(info_->method(), *methods->GetRecvInitialMetadata(), nullptr).ok()) {
      info_->server_context()->TryCancel();
    }
    methods->Proceed();
  }

 private:
  Authenticator& authenticator_;
  grpc::experimental::ServerRpcInfo* info_;
};

class ReflectionGuardFactory : public grpc::experimental::ServerInterceptorFactoryInterface {
 public:
  explicit ReflectionGuardFactory(Authenticator& authenticator) : authenticator_(authenticator) {}
  grpc::experimental::Interceptor* CreateServerInterceptor(
      grpc::experimental::ServerRpcInfo* info) override {
    if (!absl::StartsWith(info->method(), "/grpc.reflection.")) return nullptr;
    return new ReflectionGuard(authenticator_, info);
  }

 private:
  Authenticator& authenticator_;
};

}  // namespace ll
