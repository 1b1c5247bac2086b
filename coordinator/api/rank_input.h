// Giving a message to a rank that listens: the worker that runs it passes it on.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "base/ids.h"

namespace ll {

class RankInput {
 public:
  virtual ~RankInput() = default;
  // Sends `line` (one JSON object) to rank 0 of the attempt over the worker's session. Unavailable
  // where that session has ended. Thread-safe; does not block.
  virtual absl::Status Say(uint64_t session, const JobId& job, int64_t epoch, std::string line) = 0;
};

}  // namespace ll
