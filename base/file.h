// Files, with Status instead of errno and with the syncs that make a write survive a power cut.
// All functions are thread-safe on different paths.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace ll {

// "WHAT PATH: strerror"; ENOENT is NotFound, EACCES/EPERM PermissionDenied, ENOSPC/EDQUOT
// ResourceExhausted, EEXIST AlreadyExists, a path that cannot be one (ENOTDIR, EISDIR,
// ENAMETOOLONG, ELOOP) InvalidArgument, everything else Internal. The path is the error's field.
absl::Status ErrnoStatus(int error, absl::string_view what, absl::string_view path);

absl::StatusOr<std::string> ReadFile(const std::string& path);
// Of a plain file of at most `max_bytes`; for paths that others chose: a FIFO or a device is
// refused (InvalidArgument) and never waited for.
absl::StatusOr<std::string> ReadPlainFile(const std::string& path, int64_t max_bytes);
// The same of an open file; `path` is for messages.
absl::StatusOr<std::string> ReadPlainFd(int fd, const std::string& path, int64_t max_bytes);
// Writes beside `path`, syncs, renames over it and syncs the folder: readers see the old or the new
// file, whole.
absl::Status WriteFileAtomic(const std::string& path, absl::string_view bytes, int mode = 0644);
// Appends and, where `sync` is set, waits until the bytes are on the disk.
absl::Status AppendFile(const std::string& path, absl::string_view bytes, bool sync);

absl::Status MakeDirs(const std::string& path);
absl::Status SyncDir(const std::string& path);
absl::Status SyncFile(const std::string& path);
// Renames and syncs the target's folder.
absl::Status RenameDurably(const std::string& from, const std::string& to);
absl::Status RemoveTree(const std::string& path);
// Names in a folder, sorted, without "." and "..".
absl::StatusOr<std::vector<std::string>> ListDir(const std::string& path);
bool FileExists(const std::string& path);
bool IsDirectory(const std::string& path);
absl::StatusOr<int64_t> FileSize(const std::string& path);

// A file held open for appending whole records. Not thread-safe. After a failed write or sync the
// file is poisoned: every later call returns that first error (a failed fsync leaves unknown pages
// behind).
class AppendOnlyFile {
 public:
  static absl::StatusOr<AppendOnlyFile> Open(const std::string& path);
  AppendOnlyFile(AppendOnlyFile&& other) noexcept;
  AppendOnlyFile& operator=(AppendOnlyFile&& other) noexcept;
  ~AppendOnlyFile();
  absl::Status Append(absl::string_view bytes);
  absl::Status Sync();
  int64_t size_bytes() const { return size_bytes_; }

 private:
  AppendOnlyFile(int fd, std::string path, int64_t size)
      : fd_(fd), path_(std::move(path)), size_bytes_(size) {}
  int fd_;
  std::string path_;
  int64_t size_bytes_;
  absl::Status poisoned_;
};

}  // namespace ll
