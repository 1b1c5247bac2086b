// How busy the workers' devices are, as their newest heartbeats told. For people: no decision
// depends on it, so it goes neither through the core nor into the store.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "proto/workers.pb.h"

namespace ll {

// Thread-safe.
class WorkerLoads {
 public:
  void Set(const std::string& worker, std::vector<v1::SlotLoad> loads) {
    absl::MutexLock lock(&mu_);
    if (loads.empty()) {
      loads_.erase(worker);
    } else {
      loads_[worker] = std::move(loads);
    }
  }
  std::vector<v1::SlotLoad> Of(const std::string& worker) const {
    absl::MutexLock lock(&mu_);
    const auto found = loads_.find(worker);
    return found == loads_.end() ? std::vector<v1::SlotLoad>() : found->second;
  }

 private:
  mutable absl::Mutex mu_;
  std::map<std::string, std::vector<v1::SlotLoad>> loads_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
