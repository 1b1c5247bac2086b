// Which files a list of paths, folders and patterns means, and what each of them holds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

// kText: .txt and every name that is not known. kJsonLines: .jsonl, .ndjson. kJson: .json, a list
// of objects (or objects one after the other).
enum class DataFormat { kText, kJsonLines, kJson };
enum class Compression { kNone, kGzip, kZstd };  // .gz, .zst

struct InputFile {
  std::string path;
  DataFormat format = DataFormat::kText;
  Compression compression = Compression::kNone;
  // A file that is the same in these is taken to be unchanged.
  int64_t size_bytes = 0, modified_ns = 0;
};

// A path is a file (of any name), a folder (every file below it with a known ending and no leading
// dot, in order of path) or a pattern with * ? [] (matches in order of path). Errors name the
// input: nothing there, no match, not a regular file.
absl::StatusOr<std::vector<InputFile>> FindInputFiles(const std::vector<std::string>& inputs);

}  // namespace ll
