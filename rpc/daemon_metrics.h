// What every daemon tells of its own process and host: process_* under the names that Prometheus's
// client libraries share, the disks it writes to, and when its certificates end.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/metric_family.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "rpc/http_server.h"

namespace ll {

// Which disks and certificates. Empty paths are left out.
struct DaemonSubjects {
  std::map<std::string, std::string> disks;         // label → a path on it
  std::map<std::string, std::string> certificates;  // label → PEM file; of several in it the first
};

// Reads everything anew at each Collect; what cannot be read has no series. Thread-safe.
class DaemonMetrics : public prometheus::Collectable {
 public:
  explicit DaemonMetrics(DaemonSubjects subjects) : subjects_(std::move(subjects)) {}
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const DaemonSubjects subjects_;
};

// The page /metrics: everything that `sources` collect, in Prometheus's text format.
HttpServer::Page MetricsPage(std::vector<std::shared_ptr<const prometheus::Collectable>> sources);

}  // namespace ll
