// Files that flags name, looked at before a daemon starts: what is wrong is one line with the flag,
// the file and what to do. Thread-safe.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

// The file's content. Errors are ReadFile's, as "FLAG: FILE: cannot open: REASON; FIX"; without a
// fix: that it takes a file that this user may read.
absl::StatusOr<std::string> ReadNamedFile(const std::string& file, absl::string_view flag,
                                          absl::string_view fix = {});

// Makes the folder where it is not there. Errors are MakeDirs', worded alike.
absl::Status MakeNamedFolder(const std::string& folder, absl::string_view flag);

}  // namespace ll
