#include "coordinator/api/call.h"

#include "base/status_macros.h"

namespace ll {

absl::string_view StatusCodeName(absl::StatusCode code) {
  static const auto* names = new std::map<absl::StatusCode, std::string>([] {
    std::map<absl::StatusCode, std::string> out;
    for (int i = 0; i <= 16; ++i) {
      const auto c = static_cast<absl::StatusCode>(i);
      out[c] = absl::StatusCodeToString(c);
    }
    return out;
  }());
  auto it = names->find(code);
  return it == names->end() ? "UNKNOWN" : absl::string_view(it->second);
}

absl::StatusOr<Caller> CheckCaller(const ApiContext& api, const std::string& method,
                                   const grpc::CallbackServerContext& context) {
  absl::StatusOr<Caller> caller =
      api.authenticator->Check(method, context.client_metadata(), context.auth_context().get());
  if (caller.ok() && ChangesSomething(method)) LL_RETURN_IF_ERROR(api.audit->Writable());
  return caller;
}

void Audit(const ApiContext& api, const std::string& method, const Caller* caller,
           const std::string& object, const std::string& request_id, const std::string& peer,
           const absl::Status& status) {
  const bool refused =
      caller == nullptr || absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status);
  if (!refused && !ChangesSomething(method)) return;
  AuditEntry entry{.method = method,
                   .object = object,
                   .result = std::string(StatusCodeName(status.code())),
                   .peer = peer,
                   .request_id = request_id};
  if (caller != nullptr) {
    entry.user = caller->user;
    entry.tenant = caller->tenant;
  }
  if (refused) {
    api.audit->Refusal(entry);
  } else {
    api.audit->Change(entry);
  }
}

}  // namespace ll
