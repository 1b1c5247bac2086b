// When the last backup was made, as `ll-coordinator backup` noted it in the data folder.
#pragma once

#include <prometheus/collectable.h>
#include <prometheus/registry.h>

#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "rpc/metric_families.h"

namespace ll {

// Reads the note at each Collect; no note, no series. Thread-safe.
class BackupMetrics : public prometheus::Collectable {
 public:
  explicit BackupMetrics(const std::string& data_dir) : path_(data_dir + "/backup.json") {}
  std::vector<prometheus::MetricFamily> Collect() const override;

 private:
  const std::string path_;
  mutable absl::Mutex mu_;
  mutable prometheus::Registry registry_;
  mutable GaugeSet time_ ABSL_GUARDED_BY(mu_){
      GaugeOf(registry_, "ll_backup_timestamp_seconds",
              "Unix time of the last backup that was made with this data folder.")};
  mutable GaugeSet bytes_ ABSL_GUARDED_BY(mu_){
      GaugeOf(registry_, "ll_backup_size_bytes", "Size of that backup.")};
};

}  // namespace ll
