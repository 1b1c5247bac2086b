// The bytes of a file, decompressed on the way.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/data/input_files.h"

namespace ll {

// Not thread-safe. Holds a few hundred kB whatever the file expands to (for zstd, whose window may
// be larger, at most 128 MB).
class ByteSource {
 public:
  // Errors name the path: one that cannot be opened, or that is not of its kind.
  static absl::StatusOr<std::unique_ptr<ByteSource>> Open(const InputFile& file);
  virtual ~ByteSource() = default;

  // Reads up to `size` bytes; 0 only at the end. Errors: an I/O fault, damaged or cut data.
  virtual absl::StatusOr<size_t> Read(char* out, size_t size) = 0;
  // Moves forward by `bytes` of decompressed data; an error where the file is shorter.
  virtual absl::Status Skip(int64_t bytes);
  // Bytes of the file itself that were consumed, for a progress display.
  virtual int64_t file_bytes() const = 0;
};

}  // namespace ll
