// The coordinator's HTTP pages: /metrics for Prometheus, /healthz for probes.
#pragma once

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/runtime/metrics.h"
#include "rpc/http_server.h"

namespace ll {

// Serves at "HOST:PORT" (port 0: any). Driver and metrics must outlive the server. Errors as
// HttpServer::Start.
absl::StatusOr<std::unique_ptr<HttpServer>> StartHttp(const std::string& address,
                                                      const Driver& driver, const Metrics& metrics);

}  // namespace ll
