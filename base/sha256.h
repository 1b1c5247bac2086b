// SHA-256 as lower-case hex, for manifests and token files.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {
std::string Sha256Hex(absl::string_view bytes);
// Reads the file in pieces; memory use does not depend on its size.
absl::StatusOr<std::string> Sha256HexOfFile(const std::string& path);
}  // namespace ll
