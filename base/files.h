// The file system, injected: for code whose decisions outlive its process and that the simulator
// therefore runs on files of its own. Errors as in base/file.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

// A file that is held open and grows at its end. Not thread-safe.
class GrowingFile {
 public:
  virtual ~GrowingFile() = default;
  // All of `bytes` or nothing: a write that fails is cut off again.
  virtual absl::Status Append(absl::string_view bytes) = 0;
  virtual absl::Status Sync() = 0;
};

class Files {
 public:
  virtual ~Files() = default;
  virtual absl::StatusOr<std::string> Read(const std::string& path) = 0;
  // At most `count` bytes from `offset` on; empty behind the end.
  virtual absl::StatusOr<std::string> ReadAt(const std::string& path, int64_t offset,
                                             int64_t count) = 0;
  // Readers see the old or the new file, whole, also after a power cut.
  virtual absl::Status WriteAtomic(const std::string& path, absl::string_view bytes) = 0;
  // Creates the file where it is missing.
  virtual absl::StatusOr<std::unique_ptr<GrowingFile>> OpenAppend(const std::string& path) = 0;
  virtual absl::Status Truncate(const std::string& path, int64_t size) = 0;
  virtual int64_t Size(const std::string& path) = 0;  // 0: no such file, too
  virtual bool Exists(const std::string& path) = 0;
  virtual bool IsDirectory(const std::string& path) = 0;
  virtual absl::Status MakeDirs(const std::string& path) = 0;
  virtual absl::Status RemoveTree(const std::string& path) = 0;
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
};

// The host's. Thread-safe on different paths. Never deleted.
Files& RealFiles();

}  // namespace ll
