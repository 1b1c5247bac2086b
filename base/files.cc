#include "base/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.h"

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

class HostFiles : public Files {
 public:
  absl::StatusOr<std::string> Read(const std::string& path) override { return ReadFile(path); }
  absl::StatusOr<std::string> ReadAt(const std::string& path, int64_t offset,
                                     int64_t count) override {
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return ErrnoStatus(errno, "cannot open", path);
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
    const int fd = open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    struct stat info;
    if (fd >= 0 && fstat(fd, &info) == 0)
      return std::make_unique<RealGrowingFile>(fd, path, info.st_size);
    const int error = errno;
    if (fd >= 0) close(fd);
    return ErrnoStatus(error, "cannot open", path);
  }
  absl::Status Truncate(const std::string& path, int64_t size) override {
    return truncate(path.c_str(), size) == 0 ? absl::OkStatus()
                                             : ErrnoStatus(errno, "cannot cut off", path);
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
