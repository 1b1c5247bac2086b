// How failures leave llctl: one line on stderr (or one JSON object with -o json) and an exit code.
#pragma once

#include <ostream>
#include <string>

#include "absl/status/status.h"
#include "proto/job.pb.h"

namespace ll {

// Part of the interface; scripts depend on the numbers.
enum ExitCode : int {
  kExitSuccess = 0,
  kExitJobFailed = 1,  // also: an internal error of the service
  kExitUsage = 2,
  kExitRefused = 3,
  kExitUnavailable = 4,
  kExitTimeout = 5,
  kExitDenied = 6,
  kExitCancelled = 7,
  kExitNotFound = 8,
  kExitConflict = 9,
  kExitDetached = 130,
};

int ExitCodeOf(const absl::Status& status);
// Of a job that has ended; kExitSuccess for one that has not.
int ExitCodeOf(v1::JobState state);

bool HasEnded(v1::JobState state);

// `status` as a fault of the command line, whatever code the file system or the parser gave it.
absl::Status AsUsageError(const absl::Status& status);

// "llctl: error: MESSAGE\n", or {"code", "field", "message", "hint"} as one line of JSON.
void PrintError(const absl::Status& status, bool json, std::ostream& err);

}  // namespace ll
