// What agents measured of their hosts' slots, for admission's plans.
#pragma once

#include <map>
#include <optional>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "model/plan/devices.h"

namespace ll {

// Thread-safe. Not stored: agents tell it again whenever they connect.
class MeasuredRates {
 public:
  // What `worker` said when it connected: the text of a probe, or nothing, which forgets what it
  // said before. One that cannot be read is nothing, and logged.
  void Heard(const std::string& worker, absl::string_view calibration) ABSL_LOCKS_EXCLUDED(mutex_);

  // Of the slowest host with such devices, by its products: a gang goes at the pace of its slowest
  // rank. nullopt: none was measured.
  std::optional<Calibration> Of(const std::string& kind) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  mutable absl::Mutex mutex_;
  std::map<std::string, Calibration> by_worker_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace ll
