// A folder that comes into being whole, or not at all.
//
// It is filled under the name `PATH.partial-PID`, beside where it goes, and then renamed. So `PATH`
// is at every moment the old folder or the new one, whatever happens: a full disk, a signal,
// kill -9, a power cut. What a killed process left is removed by the next one that writes to the
// same path.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace ll {

// Not thread-safe; processes that write to the same path exclude each other.
class NewFolder {
 public:
  // Makes the partial folder, after removing leftovers. With `overwrite` an existing `path` is
  // replaced at Commit; without, it is refused here and there (AlreadyExists). Errors carry
  // `field`, the flag that `path` came from: FailedPrecondition where another process is writing
  // to it.
  static absl::StatusOr<NewFolder> Create(const std::string& field, const std::string& path,
                                          bool overwrite);
  NewFolder(NewFolder&& other) noexcept;
  NewFolder& operator=(NewFolder&&) = delete;
  ~NewFolder();  // without Commit nothing is left

  // Where to put the files, each synced by whoever writes it.
  const std::string& partial() const { return partial_; }
  const std::string& path() const { return path_; }

  // Syncs the folder and gives it its name; an old one goes away.
  absl::Status Commit();

 private:
  NewFolder(std::string field, std::string path, bool overwrite)
      : field_(std::move(field)), path_(std::move(path)), overwrite_(overwrite) {}
  absl::Status Open();

  std::string field_, path_, partial_;
  bool overwrite_ = false;
  int lock_fd_ = -1;  // the partial folder, locked while this object lives
};

// Copies one file and syncs the copy. Errors name the path that failed.
absl::Status CopyFileDurably(const std::string& from, const std::string& to);

}  // namespace ll
