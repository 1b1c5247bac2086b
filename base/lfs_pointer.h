// What `git clone` without git-lfs leaves in the place of a large file.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace ll {

// InvalidArgument with the path and the way to the file itself, where `path` is such a pointer: a
// text of some lines. OK for any other file, and for one that cannot be read. Thread-safe.
absl::Status CheckNotLfsPointer(const std::string& path);

}  // namespace ll
