#include "base/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/ids.h"
#include "base/status_macros.h"

namespace ll {
namespace fs = std::filesystem;
namespace {

std::string ParentOf(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

absl::Status WriteAll(int fd, absl::string_view bytes, const std::string& path) {
  while (!bytes.empty()) {
    const ssize_t n = write(fd, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "cannot write", path);
    bytes.remove_prefix(n);
  }
  return absl::OkStatus();
}

absl::Status SyncPath(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  const int result = fsync(fd);
  const int error = errno;
  close(fd);
  return result == 0 ? absl::OkStatus() : ErrnoStatus(error, "cannot sync", path);
}

}  // namespace

absl::Status ErrnoStatus(int error, absl::string_view what, absl::string_view path) {
  absl::StatusCode code = absl::StatusCode::kInternal;
  switch (error) {
    case ENOENT:
      code = absl::StatusCode::kNotFound;
      break;
    case EACCES:
    case EPERM:
    case EROFS:
      code = absl::StatusCode::kPermissionDenied;
      break;
    case ENOSPC:
    case EDQUOT:
      code = absl::StatusCode::kResourceExhausted;
      break;
    case ENOTDIR:
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
      code = absl::StatusCode::kInvalidArgument;  // whoever named it meant another path
      break;
    case EEXIST:
      code = absl::StatusCode::kAlreadyExists;
      break;
  }
  return FieldStatus(code, path, absl::StrCat(what, ": ", std::strerror(error)));
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  std::string bytes;
  char buffer[65536];
  ssize_t n;
  while ((n = read(fd, buffer, sizeof buffer)) > 0) bytes.append(buffer, n);
  const int error = errno;
  close(fd);
  if (n < 0) return ErrnoStatus(error, "cannot read", path);
  return bytes;
}

absl::StatusOr<std::string> ReadPlainFile(const std::string& path, int64_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  absl::StatusOr<std::string> out = ReadPlainFd(fd, path, max_bytes);
  close(fd);
  return out;
}

absl::StatusOr<std::string> ReadPlainFd(int fd, const std::string& path, int64_t max_bytes) {
  struct stat s;
  if (fstat(fd, &s) != 0) return ErrnoStatus(errno, "cannot read", path);
  if (!S_ISREG(s.st_mode))
    return MakeFieldError(
        {path, "a plain file", S_ISDIR(s.st_mode) ? "a folder" : "a device or a pipe"});
  if (s.st_size > max_bytes) {
    return MakeFieldError(
        {path, absl::StrCat("at most ", max_bytes, " bytes"), absl::StrCat(s.st_size, " bytes")});
  }
  std::string out(static_cast<size_t>(s.st_size), '\0');
  size_t done = 0;
  while (done < out.size()) {
    const ssize_t n = pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoStatus(errno, "cannot read", path);
    if (n == 0) break;  // it was cut meanwhile
    done += static_cast<size_t>(n);
  }
  out.resize(done);
  return out;
}

absl::Status WriteFileAtomic(const std::string& path, absl::string_view bytes, int mode) {
  // A random name: on a shared file system another host, or another container, may write the same
  // path at the same time with the same process number.
  const std::string temporary = absl::StrCat(path, ".tmp-", RandomHex(SystemRandom(), 8));
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (fd < 0) return ErrnoStatus(errno, "cannot create", temporary);
  absl::Status status = WriteAll(fd, bytes, temporary);
  if (status.ok() && fsync(fd) != 0) status = ErrnoStatus(errno, "cannot sync", temporary);
  if (close(fd) != 0 && status.ok()) status = ErrnoStatus(errno, "cannot close", temporary);
  if (status.ok()) status = RenameDurably(temporary, path);
  if (!status.ok()) unlink(temporary.c_str());
  return status;
}

absl::Status AppendFile(const std::string& path, absl::string_view bytes, bool sync) {
  LL_ASSIGN_OR_RETURN(AppendOnlyFile file, AppendOnlyFile::Open(path));
  LL_RETURN_IF_ERROR(file.Append(bytes));
  return sync ? file.Sync() : absl::OkStatus();
}

absl::Status MakeDirs(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  return error ? ErrnoStatus(error.value(), "cannot create folder", path) : absl::OkStatus();
}

absl::Status SyncDir(const std::string& path) { return SyncPath(path, O_RDONLY | O_DIRECTORY); }
absl::Status SyncFile(const std::string& path) { return SyncPath(path, O_RDONLY); }

absl::Status RenameDurably(const std::string& from, const std::string& to) {
  if (rename(from.c_str(), to.c_str()) != 0)
    return ErrnoStatus(errno, absl::StrCat("cannot rename ", from, " to"), to);
  return SyncDir(ParentOf(to));
}

absl::Status RemoveTree(const std::string& path) {
  std::error_code error;
  fs::remove_all(path, error);
  return error ? ErrnoStatus(error.value(), "cannot remove", path) : absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListDir(const std::string& path) {
  std::error_code error;
  std::vector<std::string> names;
  fs::directory_iterator it(path, error), end;
  for (; !error && it != end; it.increment(error)) names.push_back(it->path().filename().string());
  if (error) return ErrnoStatus(error.value(), "cannot list", path);
  std::sort(names.begin(), names.end());
  return names;
}

bool FileExists(const std::string& path) {
  struct stat s;
  return stat(path.c_str(), &s) == 0;
}

bool IsDirectory(const std::string& path) {
  struct stat s;
  return stat(path.c_str(), &s) == 0 && S_ISDIR(s.st_mode);
}

absl::StatusOr<int64_t> FileSize(const std::string& path) {
  struct stat s;
  if (stat(path.c_str(), &s) != 0) return ErrnoStatus(errno, "cannot read", path);
  return static_cast<int64_t>(s.st_size);
}

absl::StatusOr<AppendOnlyFile> AppendOnlyFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  struct stat s;
  if (fstat(fd, &s) != 0) {
    const int error = errno;
    close(fd);
    return ErrnoStatus(error, "cannot read", path);
  }
  return AppendOnlyFile(fd, path, s.st_size);
}

AppendOnlyFile::AppendOnlyFile(AppendOnlyFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      size_bytes_(other.size_bytes_),
      poisoned_(std::move(other.poisoned_)) {}

AppendOnlyFile& AppendOnlyFile::operator=(AppendOnlyFile&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    path_ = std::move(other.path_);
    size_bytes_ = other.size_bytes_;
    poisoned_ = std::move(other.poisoned_);
  }
  return *this;
}

AppendOnlyFile::~AppendOnlyFile() {
  if (fd_ >= 0) close(fd_);
}

absl::Status AppendOnlyFile::Append(absl::string_view bytes) {
  if (!poisoned_.ok()) return poisoned_;
  poisoned_ = WriteAll(fd_, bytes, path_);
  if (poisoned_.ok()) size_bytes_ += static_cast<int64_t>(bytes.size());
  return poisoned_;
}

absl::Status AppendOnlyFile::Sync() {
  if (!poisoned_.ok()) return poisoned_;
  if (fdatasync(fd_) != 0) poisoned_ = ErrnoStatus(errno, "cannot sync", path_);
  return poisoned_;
}

}  // namespace ll
