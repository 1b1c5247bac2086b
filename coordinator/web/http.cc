#include "coordinator/web/http.h"

#include <unistd.h>

#include "base/leader_error.h"
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

// `inner`, but nothing while another coordinator leads.
class OfLeader : public prometheus::Collectable {
 public:
  OfLeader(const Driver& driver, std::shared_ptr<const prometheus::Collectable> inner)
      : driver_(driver), inner_(std::move(inner)) {}
  std::vector<prometheus::MetricFamily> Collect() const override {
    if (IsStandby(driver_)) return {};
    return inner_->Collect();
  }
  static bool IsStandby(const Driver& driver) { return !ErrorLeader(driver.Serving()).empty(); }

 private:
  const Driver& driver_;
  const std::shared_ptr<const prometheus::Collectable> inner_;
};

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
                                                      MetricsSources own, DaemonSubjects subjects,
                                                      Site& site) {
  std::map<std::string, HttpServer::Page> pages;
  pages["/healthz"] = [&driver] {
    if (driver.serving()) return HttpAnswer{.body = "ok\n"};
    if (OfLeader::IsStandby(driver)) return HttpAnswer{.body = "standby\n"};
    return HttpAnswer{.status = 503, .body = "the store cannot be used\n"};
  };
  own.push_back(std::make_shared<OfLeader>(driver, metrics.registry()));
  own.push_back(std::make_shared<DaemonMetrics>(std::move(subjects)));
  pages["/metrics"] = MetricsPage(std::move(own));
  pages["/sd/workers"] = [&driver, host = ThisHost()] {
    return HttpAnswer{.type = "application/json",
                      .body = WorkersDiscoveryJson(*driver.cluster_view(), host)};
  };
  return HttpServer::Start(address, std::move(pages),
                           [&site](const HttpQuestion& request) { return site.Serve(request); });
}

}  // namespace ll
