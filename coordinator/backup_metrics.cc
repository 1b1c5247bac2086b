#include "coordinator/backup_metrics.h"

#include "absl/time/time.h"
#include "base/file.h"
#include "base/json.h"

namespace ll {

std::vector<prometheus::MetricFamily> BackupMetrics::Collect() const {
  absl::MutexLock lock(&mu_);
  const auto text = ReadFile(path_);
  const auto note = text.ok() ? ParseJsonObject(*text, {.max_values = 100}) : text.status();
  absl::Time time;
  std::string error;
  if (note.ok() && note->contains("time") && (*note)["time"].is_string() &&
      absl::ParseTime(absl::RFC3339_full, (*note)["time"].get<std::string>(), &time, &error)) {
    time_.Set({}, static_cast<double>(absl::ToUnixSeconds(time)));
    if (note->contains("bytes") && (*note)["bytes"].is_number())
      bytes_.Set({}, (*note)["bytes"].get<double>());
  }
  time_.Sweep();
  bytes_.Sweep();
  return registry_.Collect();
}

}  // namespace ll
