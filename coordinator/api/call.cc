#include "coordinator/api/call.h"

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
  auto caller =
      api.authenticator->Check(method, context.client_metadata(), context.auth_context().get());
  // A standby, or a coordinator without its store, sends everybody away before anything is done.
  if (const absl::Status serving = api.driver->Serving(); caller.ok() && !serving.ok())
    return serving;
  return caller;
}

}  // namespace ll
