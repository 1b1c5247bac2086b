#include "worker/agent/spool.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/file.h"

namespace ll {
namespace {

// The offset after the last newline of the first `size` bytes of `fd`; 0 when there is none.
int64_t EndOfLastLine(int fd, int64_t size) {
  char buffer[4096];
  while (size > 0) {
    const int64_t begin = std::max<int64_t>(0, size - static_cast<int64_t>(sizeof buffer));
    const ssize_t n = pread(fd, buffer, size - begin, begin);
    if (n <= 0) return 0;
    for (ssize_t i = n; i > 0; --i) {
      if (buffer[i - 1] == '\n') return begin + i;
    }
    size = begin;
  }
  return 0;
}

}  // namespace

LineFile::~LineFile() { Close(); }

void LineFile::Close() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

absl::Status LineFile::Open(const std::string& path) {
  Close();
  path_ = path;
  fd_ = open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  struct stat info;
  if (fd_ < 0 || fstat(fd_, &info) != 0) return ErrnoStatus(errno, "cannot open", path);
  size_bytes_ = EndOfLastLine(fd_, info.st_size);
  if (size_bytes_ != info.st_size && ftruncate(fd_, size_bytes_) != 0) {
    return ErrnoStatus(errno, "cannot cut off a half line of", path);
  }
  return absl::OkStatus();
}

absl::Status LineFile::Append(absl::string_view line) {
  if (fd_ < 0) return absl::FailedPreconditionError("the spool file is not open");
  ssize_t n;
  do {
    n = write(fd_, line.data(), line.size());
  } while (n < 0 && errno == EINTR);
  if (n == static_cast<ssize_t>(line.size())) {
    size_bytes_ += n;
    return absl::OkStatus();
  }
  const int error = n < 0 ? errno : ENOSPC;  // a short write to a file means that the disk is full
  if (n > 0 && ftruncate(fd_, size_bytes_) != 0)
    return ErrnoStatus(errno, "cannot cut back", path_);
  return ErrnoStatus(error, "cannot write", path_);
}

int64_t TelemetryCursor::SizeBytes() const {
  struct stat info;
  return stat(path_.c_str(), &info) == 0 ? info.st_size : 0;
}

bool TelemetryCursor::Next(v1::Telemetry& message) {
  if (sent_ - acknowledged_ >= kWindowBytes || SizeBytes() <= sent_) return false;
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  std::string data(kPieceBytes, '\0');
  ssize_t n = pread(fd, data.data(), data.size(), sent_);
  if (stream_ == v1::Telemetry::EVENTS && n == kPieceBytes &&
      data.find('\n') == std::string::npos) {
    data.resize(kMaxLineBytes + 1);
    n = pread(fd, data.data(), data.size(), sent_);
  }
  close(fd);
  if (n <= 0) return false;
  data.resize(n);
  if (stream_ == v1::Telemetry::EVENTS) data.resize(data.rfind('\n') + 1);  // npos + 1 is 0
  if (data.empty()) return false;
  message.set_stream(stream_);
  message.set_offset(sent_);
  sent_ += static_cast<int64_t>(data.size());
  message.set_data(std::move(data));
  return true;
}

void TelemetryCursor::Acknowledge(int64_t offset) {
  acknowledged_ = std::max(acknowledged_, std::min(offset, sent_));
}

void TelemetryCursor::Rewind(int64_t offset) {
  sent_ = acknowledged_ = std::clamp<int64_t>(offset, 0, SizeBytes());
}

bool TelemetryCursor::AllSent() const {
  const int64_t size = SizeBytes();
  if (size <= sent_) return true;
  if (stream_ == v1::Telemetry::LOG) return false;
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return true;
  const int64_t end = EndOfLastLine(fd, size);
  close(fd);
  return end <= sent_;
}

bool TelemetryCursor::AllAcknowledged() const { return acknowledged_ >= sent_ && AllSent(); }

}  // namespace ll
