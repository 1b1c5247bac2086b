// Cheap identity of data and of weights.
#pragma once

#include <string>

#include "absl/status/statusor.h"

namespace ll {

// SHA-256 of a file's length and of its first and last MiB.
absl::StatusOr<std::string> FileFingerprint(const std::string& path);

// Of a token file and, where `with_sidecar`, of its sidecar, which says what is trained.
absl::StatusOr<std::string> TokenFileFingerprint(const std::string& path, bool with_sidecar);

// Of the weights of a model folder, model*.safetensors; "nf4:" before it says that they are in NF4.
absl::StatusOr<std::string> ModelFingerprint(const std::string& folder, bool quantized);

}  // namespace ll
