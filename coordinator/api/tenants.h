// What each tenant may have and do, from a YAML file that is read again when it changes:
//
//   default: {unfinished_jobs: 1000}        # of tenants that are not named, and of users without
//   one tenants:
//     red: {unfinished_jobs: 100, calls_per_second: 50, schedules: 10, schedule_interval: 300,
//     queues: [red]}
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "coordinator/api/watched_file.h"
#include "coordinator/core/access.h"

namespace ll {

struct TenantLimits {
  TenantQuota quota;                                        // 0: none
  double calls_per_second = 0;                              // of all its users; 0: no limit
  absl::Duration schedule_interval = absl::ZeroDuration();  // the least time between two fires
  std::vector<std::string> queues;  // that its jobs may name; the first is its default; none: all
};

struct TenantTable {
  TenantLimits others;
  std::map<std::string, TenantLimits> named;
  const TenantLimits& Of(const std::string& tenant) const;
};
// InvalidArgument (field "tenants") with the key that is wrong.
absl::StatusOr<TenantTable> ParseTenants(const std::string& yaml);

// Thread-safe.
class Tenants {
 public:
  // An empty path: no limits. A file that becomes wrong later leaves the former limits.
  static absl::StatusOr<std::unique_ptr<Tenants>> Open(const std::string& path, Clock& clock);
  TenantLimits Of(const std::string& tenant);

 private:
  Tenants(const std::string& path, Clock& clock) : file_(path, clock) {}
  absl::Mutex mu_;
  WatchedFile file_ ABSL_GUARDED_BY(mu_);
  TenantTable table_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
