#include "worker/agent/spool.h"

#include <algorithm>

#include "base/status_macros.h"

namespace ll {
namespace {

// The offset after the last newline of the first `size` bytes of the file; 0 when there is none.
int64_t EndOfLastLine(Files& files, const std::string& path, int64_t size) {
  constexpr int64_t kPiece = 4096;
  while (size > 0) {
    const int64_t begin = std::max<int64_t>(0, size - kPiece);
    const auto piece = files.ReadAt(path, begin, size - begin);
    if (!piece.ok() || piece->empty()) return 0;
    const size_t newline = piece->rfind('\n');
    if (newline != std::string::npos) return begin + static_cast<int64_t>(newline) + 1;
    size = begin;
  }
  return 0;
}

}  // namespace

absl::Status LineFile::Open(const std::string& path) {
  Close();
  const int64_t size = files_.Size(path), end = EndOfLastLine(files_, path, size);
  if (end != size) LL_RETURN_IF_ERROR(files_.Truncate(path, end));
  LL_ASSIGN_OR_RETURN(file_, files_.OpenAppend(path));
  return absl::OkStatus();
}

absl::Status LineFile::Append(absl::string_view line) {
  if (file_ == nullptr) return absl::FailedPreconditionError("the spool file is not open");
  return file_->Append(line);
}

bool TelemetryCursor::Next(v1::Telemetry& message) {
  if (sent_ - acknowledged_ >= kWindowBytes || files_.Size(path_) <= sent_) return false;
  auto read = files_.ReadAt(path_, sent_, kPieceBytes);
  if (stream_ == v1::Telemetry::EVENTS && read.ok() && read->size() == kPieceBytes &&
      read->find('\n') == std::string::npos) {
    read = files_.ReadAt(path_, sent_, kMaxLineBytes + 1);
  }
  if (!read.ok()) return false;
  std::string data = *std::move(read);
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

void TelemetryCursor::SendAgain(absl::Duration now) {
  if (acknowledged_ < sent_ && acknowledged_ == waits_at_) {
    if (now - waits_since_ < kPatience) return;
    Rewind(acknowledged_);
  }
  waits_at_ = acknowledged_;
  waits_since_ = now;
}

void TelemetryCursor::Rewind(int64_t offset) {
  sent_ = acknowledged_ = std::clamp<int64_t>(offset, 0, files_.Size(path_));
}

bool TelemetryCursor::AllSent() const {
  const int64_t size = files_.Size(path_);
  if (size <= sent_) return true;
  if (stream_ == v1::Telemetry::LOG) return false;
  return EndOfLastLine(files_, path_, size) <= sent_;
}

bool TelemetryCursor::AllAcknowledged() const { return acknowledged_ >= sent_ && AllSent(); }

}  // namespace ll
