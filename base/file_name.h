// Names of files that come out of other files.
#pragma once

#include "absl/strings/string_view.h"

namespace ll {

// Whether `name` is that of a file in a folder and reaches nowhere else: not empty, without '/' and
// zero bytes, and not hidden.
inline bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name[0] != '.' && name.find('/') == absl::string_view::npos &&
         name.find('\0') == absl::string_view::npos;
}

}  // namespace ll
