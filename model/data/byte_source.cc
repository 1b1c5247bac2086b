#include "model/data/byte_source.h"

#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/field_error.h"
#include "base/file.h"
#include "base/status_macros.h"

namespace ll {
namespace {

class PlainSource : public ByteSource {
 public:
  PlainSource(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PlainSource() override { close(fd_); }
  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    ssize_t n;
    do {
      n = read(fd_, out, size);
    } while (n < 0 && errno == EINTR);
    if (n < 0) return ErrnoStatus(errno, "cannot read", path_);
    done_ += n;
    return static_cast<size_t>(n);
  }
  absl::Status Skip(int64_t bytes) override {
    if (lseek(fd_, bytes, SEEK_CUR) < 0) return ErrnoStatus(errno, "cannot seek in", path_);
    done_ += bytes;
    return absl::OkStatus();
  }
  int64_t file_bytes() const override { return done_; }

 private:
  const int fd_;
  const std::string path_;
  int64_t done_ = 0;
};

class GzipSource : public ByteSource {
 public:
  GzipSource(gzFile file, std::string path) : file_(file), path_(std::move(path)) {
    gzbuffer(file_, 128 << 10);
  }
  ~GzipSource() override { gzclose(file_); }
  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    const int n = gzread(file_, out, static_cast<unsigned>(std::min<size_t>(size, 1 << 30)));
    // zlib passes a file without gzip's magic through as it is, and tells of a cut one only here.
    if (n > 0 && gzdirect(file_)) return Fault("something else");
    int error = Z_OK;
    const char* message = gzerror(file_, &error);
    if (n < 0 || (n == 0 && error != Z_OK)) {
      if (error == Z_ERRNO) return ErrnoStatus(errno, "cannot read", path_);
      return Fault(error == Z_BUF_ERROR ? "a file that ends too early" : message);
    }
    return static_cast<size_t>(n);
  }
  int64_t file_bytes() const override { return gzoffset(file_); }

 private:
  absl::Status Fault(absl::string_view found) const {
    return MakeFieldError({path_, "whole gzip data", found});
  }
  const gzFile file_;
  const std::string path_;
};

class ZstdSource : public ByteSource {
 public:
  ZstdSource(std::unique_ptr<PlainSource> file, std::string path)
      : file_(std::move(file)),
        path_(std::move(path)),
        stream_(ZSTD_createDStream()),
        in_(ZSTD_DStreamInSize()) {}
  ~ZstdSource() override { ZSTD_freeDStream(stream_); }
  absl::StatusOr<size_t> Read(char* out, size_t size) override {
    ZSTD_outBuffer target = {out, size, 0};
    while (target.pos == 0) {
      if (source_.pos == source_.size && !pending_) {
        LL_ASSIGN_OR_RETURN(const size_t n, file_->Read(in_.data(), in_.size()));
        if (n == 0) {
          if (wanted_ != 0) return Fault("a file that ends too early");
          return size_t{0};
        }
        source_ = {in_.data(), n, 0};
      }
      wanted_ = ZSTD_decompressStream(stream_, &target, &source_);
      if (ZSTD_isError(wanted_)) return Fault(ZSTD_getErrorName(wanted_));
      pending_ = target.pos == target.size;
    }
    return target.pos;
  }
  int64_t file_bytes() const override { return file_->file_bytes(); }

 private:
  absl::Status Fault(absl::string_view found) const {
    return MakeFieldError({path_, "whole zstd data", found});
  }
  const std::unique_ptr<PlainSource> file_;
  const std::string path_;
  ZSTD_DStream* const stream_;
  std::vector<char> in_;
  ZSTD_inBuffer source_ = {nullptr, 0, 0};
  size_t wanted_ = 0;     // 0: between frames
  bool pending_ = false;  // the last output was full: more may come without more input
};

}  // namespace

absl::Status ByteSource::Skip(int64_t bytes) {
  std::vector<char> scratch(static_cast<size_t>(std::min<int64_t>(bytes, 256 << 10)));
  while (bytes > 0) {
    LL_ASSIGN_OR_RETURN(const size_t n,
                        Read(scratch.data(), static_cast<size_t>(std::min<int64_t>(
                                                 bytes, static_cast<int64_t>(scratch.size())))));
    if (n == 0) return absl::DataLossError("the file is shorter than it was");
    bytes -= static_cast<int64_t>(n);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ByteSource>> ByteSource::Open(const InputFile& file) {
  const int fd = open(file.path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot open", file.path);
  if (file.compression == Compression::kGzip) {
    gzFile gz = gzdopen(fd, "rb");
    if (gz == nullptr) {
      close(fd);
      return FieldStatus(absl::StatusCode::kResourceExhausted, file.path, "no memory for zlib");
    }
    return std::unique_ptr<ByteSource>(new GzipSource(gz, file.path));
  }
  auto plain = std::make_unique<PlainSource>(fd, file.path);
  if (file.compression == Compression::kNone) return std::unique_ptr<ByteSource>(std::move(plain));
  return std::unique_ptr<ByteSource>(new ZstdSource(std::move(plain), file.path));
}

}  // namespace ll
