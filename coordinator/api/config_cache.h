// Models' config.json that were read before: parsing one takes longer than admitting the rest of a
// submit. Known by their whole text, so that a file that has changed is read anew.
#pragma once

#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "model/plan/config.h"

namespace ll {

// Thread-safe.
class ConfigCache {
 public:
  // As ParseLlamaConfig, whose errors it gives; they are not remembered. Holds at most 4 MiB of
  // text.
  absl::StatusOr<std::shared_ptr<const LlamaConfig>> Parse(const std::string& text);

 private:
  absl::Mutex mu_;
  absl::flat_hash_map<std::string, std::shared_ptr<const LlamaConfig>> known_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
