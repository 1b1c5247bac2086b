// Where torch's exceptions become absl::Status: no exception leaves this project's libraries.
#pragma once

#include <functional>

#include "absl/status/status.h"

namespace ll {

// Runs `work` and turns what torch throws into a Status: lack of memory is ResourceExhausted, the
// rest Internal with torch's first line (its backtrace is of no use to the reader).
absl::Status TorchTry(const std::function<absl::Status()>& work);

}  // namespace ll
