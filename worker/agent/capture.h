// The output of a short-lived program. Thread-safe function.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace ll {

struct Captured {
  std::string output;  // of its descriptor 1, at most 1 MiB
  int exit_code = 0;   // 128 + N where signal N ended it
};

// Runs `argv` (argv[0] is a path; PATH is not searched) and reads what it prints. Errors: it cannot
// be started (as Subprocess::Start); DeadlineExceeded: it has not ended within `timeout`, and was
// killed.
absl::StatusOr<Captured> CaptureOutput(const std::vector<std::string>& argv,
                                       absl::Duration timeout);

}  // namespace ll
