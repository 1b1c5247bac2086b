#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace ll {
namespace {

class RealGrowingFile : public GrowingFile {
 public:
  RealGrowingFile(int fd, std::string path, int64_t size)
      : fd_(fd), path_(std::move(path)), size_bytes_(size) {}
  ~RealGrowingFile() override { close(fd_); }

  absl::Status Append(absl::string_view bytes) override {
    ssize_t n;
    do {
      n = write(fd_, bytes.data(), bytes.size());
    } while (n < 0 && errno == EINTR);
    if (n == static_cast<ssize_t>(bytes.size())) {
      size_bytes_ += n;
      return absl::OkStatus();
    }
    const int error = n < 0 ? errno : ENOSPC;  // a short write to a file: the disk is full
    if (n > 0 && ftruncate(fd_, size_bytes_) != 0)
      return ErrnoStatus(errno, "cannot cut back", path_);
    return ErrnoStatus(error, "cannot write", path_);
  }
  absl::Status Sync() override {
    return fdatasync(fd_) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "cannot sync", path_);
  }

 private:
  const int fd_;
  const std::string path_;
  int64_t size_bytes_;
};

// Errors: it is there and no plain file. A link or a FIFO in a folder that others write is theirs.
absl::StatusOr<int> OpenPlain(const std::string& path, int flags) {
  const int fd = open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
  struct stat info;
  if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) return fd;
  close(fd);
  return MakeFieldError({path, "a plain file", "something else"});
}

class HostFiles : public Files {
 public:
  absl::StatusOr<std::string> Read(const std::string& path) override { return ReadFile(path); }
  absl::StatusOr<std::string> ReadAt(const std::string& path, int64_t offset,
                                     int64_t count) override {
    LL_ASSIGN_OR_RETURN(const int fd, OpenPlain(path, O_RDONLY));
    std::string bytes(static_cast<size_t>(count), '\0');
    const ssize_t n = pread(fd, bytes.data(), bytes.size(), offset);
    const int error = errno;
    close(fd);
    if (n < 0) return ErrnoStatus(error, "cannot read", path);
    bytes.resize(static_cast<size_t>(n));
    return bytes;
  }
  absl::Status WriteAtomic(const std::string& path, absl::string_view bytes) override {
    return WriteFileAtomic(path, bytes);
  }
  absl::StatusOr<std::unique_ptr<GrowingFile>> OpenAppend(const std::string& path) override {
    LL_ASSIGN_OR_RETURN(const int fd, OpenPlain(path, O_WRONLY | O_CREAT | O_APPEND));
    struct stat info;
    if (fstat(fd, &info) == 0) return std::make_unique<RealGrowingFile>(fd, path, info.st_size);
    const int error = errno;
    close(fd);
    return ErrnoStatus(error, "cannot read", path);
  }
  absl::Status Truncate(const std::string& path, int64_t size) override {
    LL_ASSIGN_OR_RETURN(const int fd, OpenPlain(path, O_WRONLY));
    const int error = ftruncate(fd, size) == 0 ? 0 : errno;
    close(fd);
    return error == 0 ? absl::OkStatus() : ErrnoStatus(error, "cannot cut off", path);
  }
  int64_t Size(const std::string& path) override { return FileSize(path).value_or(0); }
  bool Exists(const std::string& path) override { return FileExists(path); }
  bool IsDirectory(const std::string& path) override { return ll::IsDirectory(path); }
  absl::Status MakeDirs(const std::string& path) override { return ll::MakeDirs(path); }
  absl::Status RemoveTree(const std::string& path) override { return ll::RemoveTree(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return ListDir(path);
  }
};

}  // namespace

Files& RealFiles() {
  static Files& files = *new HostFiles;
  return files;
}

}  // namespace ll
