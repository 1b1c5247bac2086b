#include "coordinator/api/logs_stream.h"

#include <algorithm>

namespace ll {
namespace {
constexpr int64_t kPieceBytes = 64 << 10;
// The last lines of a rank may arrive after the word of its end.
constexpr absl::Duration kLastLinesGrace = absl::Seconds(2);
}  // namespace

void LogsStream::TakeJob(JobSnapshot snapshot) {
  snapshot_ = std::move(snapshot);
  if (epoch_ == 0) epoch_ = snapshot_.job->epoch();
}

LogsStream::Outcome LogsStream::Next(v1::LogsResponse* out) {
  if (snapshot_.job == nullptr) return Outcome::kWait;
  const bool job_ended = IsTerminal(static_cast<JobState>(snapshot_.job->state()));
  if (epoch_ == 0) return follow_ && !job_ended ? Outcome::kWait : Outcome::kEnd;
  if (offset_ < 0) offset_ = std::max<int64_t>(0, api_.telemetry->Size(Key()) + offset_);

  const auto piece = api_.telemetry->Read(Key(), offset_, kPieceBytes);
  if (piece.ok() && !piece->data.empty()) {
    out->set_offset(piece->offset);
    out->set_data(piece->data);
    offset_ = piece->offset + static_cast<int64_t>(piece->data.size());
    quiet_since_ = absl::InfiniteDuration();
    return Outcome::kMessage;
  }
  if (!follow_) return Outcome::kEnd;
  const bool attempt_over = job_ended || snapshot_.job->epoch() > epoch_;
  if (!attempt_over) return Outcome::kWait;
  const absl::Duration now = api_.clock->Steady();
  quiet_since_ = std::min(quiet_since_, now);
  if (now - quiet_since_ < kLastLinesGrace) return Outcome::kWait;
  if (fixed_epoch_ || snapshot_.job->epoch() <= epoch_) return Outcome::kEnd;
  ++epoch_;
  offset_ = 0;
  quiet_since_ = absl::InfiniteDuration();
  return Next(out);
}

}  // namespace ll
