// A job's curves. Drawing them reads every step of the job, so what was drawn is kept for a while:
// at least twenty times as long as the drawing took, so that no reader's refreshing costs more than
// a twentieth of a core.
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "base/clock.h"
#include "coordinator/web/api_client.h"
#include "coordinator/web/html.h"

namespace ll {

// Thread-safe.
class JobCharts {
 public:
  explicit JobCharts(Clock& clock) : clock_(clock) {}

  // Loss, speed, gradient norm and learning rate of `job`, which `api`'s person may read.
  absl::StatusOr<Html> Of(const v1::Job& job, const ApiClient::As& api);

 private:
  struct Drawn {
    int64_t epoch = -1, step = -1;  // of the job's newest step when it was asked for
    absl::Duration good_until;      // steady time
    Html html;
  };
  static constexpr size_t kMost = 64;  // jobs

  Clock& clock_;
  absl::Mutex mu_;
  std::map<std::string, Drawn> drawn_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
