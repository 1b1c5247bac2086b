// What can be said of a file by its name alone.
#pragma once

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace ll {

// Whether `name` is that of a file in a folder and reaches nowhere else: not empty, without '/' and
// zero bytes, and not hidden.
inline bool IsPlainFileName(absl::string_view name) {
  return !name.empty() && name[0] != '.' && name.find('/') == absl::string_view::npos &&
         name.find('\0') == absl::string_view::npos;
}

// Whether training data of this name are text (.txt, .jsonl, .ndjson, .json, anything compressed)
// and no token file.
inline bool IsTextFileName(absl::string_view name) {
  for (const char* ending : {".txt", ".jsonl", ".ndjson", ".json", ".gz", ".zst"}) {
    if (absl::EndsWith(name, ending)) return true;
  }
  return false;
}

}  // namespace ll
