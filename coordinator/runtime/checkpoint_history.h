// A job's checkpoints, out of rank 0's events. Pure; not thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"

namespace ll {

struct CheckpointFacts {
  int64_t epoch = 0, step = 0;
  absl::Time written;
  int64_t size_bytes = 0;
  std::string path, manifest_sha256;
  std::optional<double> loss;  // of the step
  std::string copy_uri;        // of its copy in the store; empty: there is none
  bool removed = false;        // the local one, by retention
};

// Of a job's spec, as far as it decides what stays.
struct KeepRules {
  int64_t total_limit = 0, keep_every = 0;
};

class CheckpointHistory {
 public:
  // Events of an epoch in their order, epochs rising. Others than those of steps, checkpoints and
  // copies are passed over.
  void Take(const nlohmann::json& event, int64_t epoch);
  // Newest first. Those without a local folder and without a copy are left out.
  std::vector<CheckpointFacts> List() const;

 private:
  std::map<std::pair<int64_t, int64_t>, CheckpointFacts> by_place_;  // epoch, step
  std::map<int64_t, double> losses_;  // of the newest steps, until their checkpoint is told
};

// Why the `index`-th newest is there: "newest", "1 of the 3 newest", "multiple of 1000", "not
// removed yet".
std::string WhyKept(const KeepRules& rules, const CheckpointFacts& facts, size_t index);

}  // namespace ll
