#include "coordinator/web/http.h"

#include <unistd.h>

#include "nlohmann/json.hpp"
#include "rpc/channel.h"

namespace ll {
namespace {

std::string ThisHost() {
  char buffer[256] = {};
  return gethostname(buffer, sizeof buffer - 1) == 0 ? buffer : "";
}

bool Reachable(const Worker& worker, const std::string& from_host) {
  const auto address = ParseHostPort(worker.http_address, "http");
  return address.ok() && (!IsLoopbackHost(address->host) || worker.host == from_host);
}

}  // namespace

std::string WorkersDiscoveryJson(const ClusterView& view, const std::string& this_host) {
  nlohmann::ordered_json groups = nlohmann::ordered_json::array();
  for (const Worker& worker : view.workers) {
    if (!Reachable(worker, this_host)) continue;
    nlohmann::ordered_json group;
    group["targets"] = nlohmann::ordered_json::array({worker.http_address});
    group["labels"]["worker"] = worker.name.value();
    groups.push_back(std::move(group));
  }
  return groups.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

absl::StatusOr<std::unique_ptr<HttpServer>> StartHttp(const std::string& address,
                                                      const Driver& driver, const Metrics& metrics,
                                                      DaemonSubjects subjects, Site& site) {
  std::map<std::string, HttpServer::Page> pages;
  pages["/healthz"] = [&driver] {
    if (driver.serving()) return HttpAnswer{.body = "ok\n"};
    return HttpAnswer{.status = 503, .body = "the store cannot be used\n"};
  };
  pages["/metrics"] =
      MetricsPage({metrics.registry(), std::make_shared<DaemonMetrics>(std::move(subjects))});
  pages["/sd/workers"] = [&driver, host = ThisHost()] {
    return HttpAnswer{.type = "application/json",
                      .body = WorkersDiscoveryJson(*driver.cluster_view(), host)};
  };
  return HttpServer::Start(address, std::move(pages),
                           [&site](const HttpRequest& request) { return site.Serve(request); });
}

}  // namespace ll
