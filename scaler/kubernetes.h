// The scale of one StatefulSet, through Kubernetes' API server: autoscaling/v1 Scale, read and
// replaced (GET and PUT of .../statefulsets/NAME/scale).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "storage/http.h"

namespace ll {

struct StatefulSetAddress {
  std::string server;  // "https://HOST:PORT"; http:// on loopback (kubectl proxy), without a token
  std::string name_space, name;
  std::string token_file;  // read anew for each call: the kubelet replaces it
  std::string ca_file;     // PEM
};

struct Scale {
  int replicas = 0;
  nlohmann::json
      object;  // as it came: its resourceVersion makes a later change of others a conflict
};

// One call at a time, each with a deadline of 10 s. Errors: Aborted (changed meanwhile: read
// again); Unknown (no answer to Set: it may have been done); Unavailable (too many calls, an error
// of the server, no connection: later); Unauthenticated, PermissionDenied, NotFound, and
// FailedPrecondition for everything else, with what to do.
class StatefulSetScale {
 public:
  StatefulSetScale(StatefulSetAddress address, HttpTransport& http)
      : address_(std::move(address)), http_(http) {}

  absl::StatusOr<Scale> Get();
  absl::Status Set(const Scale& scale, int replicas);
  // How long the last answer asked to wait for; zero: it did not.
  absl::Duration retry_after() const { return retry_after_; }

 private:
  absl::StatusOr<HttpResponse> Send(const std::string& method, absl::string_view body);
  absl::Status Explain(const HttpResponse& response) const;

  const StatefulSetAddress address_;
  HttpTransport& http_;
  absl::Duration retry_after_;
};

}  // namespace ll
