// Cheap identity of data.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace ll {

// SHA-256 of a file's length and of its first and last MiB.
absl::StatusOr<std::string> FileFingerprint(const std::string& path);

// Of a token file and, where `with_sidecar`, of its sidecar, which says what is trained.
absl::StatusOr<std::string> TokenFileFingerprint(const std::string& path, bool with_sidecar);

}  // namespace ll
