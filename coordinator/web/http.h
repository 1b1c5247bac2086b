// The coordinator's HTTP pages: /metrics for Prometheus, /sd/workers that tells it where the
// agents' are, /healthz for probes, and for people the site (site.h).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/runtime/driver.h"
#include "coordinator/runtime/metrics.h"
#include "coordinator/web/site.h"
#include "rpc/daemon_metrics.h"
#include "rpc/http_server.h"

namespace ll {

using MetricsSources = std::vector<std::shared_ptr<const prometheus::Collectable>>;

// Serves at "HOST:PORT" (port 0: any). A standby's /metrics shows `own` and the process alone:
// everything else is the leader's to tell. Driver, metrics and site must outlive the server. Errors
// as HttpServer::Start.
absl::StatusOr<std::unique_ptr<HttpServer>> StartHttp(const std::string& address,
                                                      const Driver& driver, const Metrics& metrics,
                                                      MetricsSources own, DaemonSubjects subjects,
                                                      Site& site);

// Prometheus's HTTP service discovery: one target a worker of the last seven days that tells an
// HTTP address, with the label `worker`. Agents on their host's loopback are left out unless that
// host is `this_host`: nobody else reaches them.
std::string WorkersDiscoveryJson(const ClusterView& view, const std::string& this_host);

}  // namespace ll
