// What a fuzz target is: one function that takes any bytes, and aborts where a reader breaks its
// promise. libFuzzer finds the inputs (fuzz_main.cc, preset `fuzz`); every other build replays the
// seeds and the inputs that once failed (replay_main.cc).
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace ll {

// The target: reads `input` as its kind of file. Each target's file defines it.
void FuzzOne(absl::string_view input);

// Aborts unless the error is what a user can be shown: one line, not empty, not endless, and about
// the input (never Internal).
void CheckRefusal(const absl::Status& status);

// A file that exists in memory only and holds `bytes`; it goes with this object.
class MemoryFile {
 public:
  explicit MemoryFile(absl::string_view bytes);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

}  // namespace ll
