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
  if (!caller.ok()) return caller;
  // A standby, or a coordinator without its store, sends everybody away before anything is done.
  LL_RETURN_IF_ERROR(api.driver->Serving());
  if (ChangesSomething(method)) LL_RETURN_IF_ERROR(api.audit->Writable());
  return caller;
}

namespace {
bool IsRefusal(bool caller_known, const absl::Status& status) {
  return !caller_known || absl::IsPermissionDenied(status) || absl::IsUnauthenticated(status);
}
}  // namespace

bool IsAudited(const std::string& method, bool caller_known, const absl::Status& status) {
  return IsRefusal(caller_known, status) || ChangesSomething(method);
}

void Audit(const ApiContext& api, const std::string& method, const Caller* caller,
           const std::string& object, const std::string& request_id, const std::string& peer,
           const absl::Status& status) {
  if (!IsAudited(method, caller != nullptr, status)) return;
  AuditEntry entry{.method = method,
                   .object = object,
                   .result = std::string(StatusCodeName(status.code())),
                   .peer = peer,
                   .request_id = request_id};
  if (caller != nullptr) {
    entry.user = caller->user;
    entry.tenant = caller->tenant;
  }
  if (IsRefusal(caller != nullptr, status)) {
    api.audit->Refusal(entry);
  } else {
    api.audit->Change(entry);
  }
}

}  // namespace ll
