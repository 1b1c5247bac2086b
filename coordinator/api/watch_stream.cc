#include "coordinator/api/watch_stream.h"

#include <google/protobuf/util/json_util.h>

#include "coordinator/api/convert.h"

namespace ll {
namespace {
constexpr int64_t kPieceBytes = 64 << 10;
constexpr absl::Duration kLastEventGrace = absl::Seconds(2);

bool IsEnd(v1::JobState state) { return IsTerminal(static_cast<JobState>(state)); }
}  // namespace

void WatchStream::TakeJob(JobSnapshot snapshot) {
  if (IsEnd(snapshot.job->state()) && ended_at_ == absl::InfiniteDuration())
    ended_at_ = api_.clock->Steady();
  // A job that had ended before is not waited for.
  if (snapshot_.job == nullptr && IsEnd(snapshot.job->state())) ended_at_ = absl::ZeroDuration();
  snapshot_ = std::move(snapshot);
}

WatchStream::Outcome WatchStream::Next(v1::WatchResponse* out) {
  if (last_sent_) return Outcome::kEnd;
  if (snapshot_.job == nullptr) return Outcome::kWait;
  const bool ended = IsEnd(snapshot_.job->state());
  if (NextTransition(ended, out)) return Outcome::kMessage;
  if (NextEvent(out)) return Outcome::kMessage;
  events_wanted_ = true;  // what comes from here on is new
  if (!ended) return Outcome::kWait;
  const bool all_told = snapshot_.job->epoch() == 0 || last_event_epoch_ == snapshot_.job->epoch();
  if (!all_told && api_.clock->Steady() - ended_at_ < kLastEventGrace) return Outcome::kWait;
  *out->mutable_job() = *snapshot_.job;
  last_sent_ = true;
  return Outcome::kMessage;
}

// One message a transition. The state that ends the job is left to Next().
bool WatchStream::NextTransition(bool ended, v1::WatchResponse* out) {
  const v1::Job& job = *snapshot_.job;
  if (sent_transitions_ < 0) {
    sent_transitions_ = snapshot_.transitions;
    if (ended) return false;  // the first message is the last one as well, after the events
    *out->mutable_job() = job;
    return true;
  }
  const int64_t known = job.history_size();
  const int64_t first_known = snapshot_.transitions - known;
  sent_transitions_ = std::max(sent_transitions_, first_known);
  if (sent_transitions_ >= snapshot_.transitions) return false;
  const v1::Transition& t = job.history(static_cast<int>(sent_transitions_ - first_known));
  if (IsEnd(t.state())) return false;
  ++sent_transitions_;
  *out->mutable_job() = job;
  out->mutable_job()->set_state(t.state());
  out->mutable_job()->set_reason(t.reason());
  out->mutable_job()->set_epoch(t.epoch());
  return true;
}

bool WatchStream::NextEvent(v1::WatchResponse* out) {
  for (;;) {
    while (!lines_.empty()) {
      const std::string line = std::move(lines_.front());
      lines_.pop_front();
      if (FillFromLine(line, out)) return true;
    }
    if (!ReadMore()) return false;
  }
}

// Reads the next piece of the current epoch or goes on to the next; false: nothing new.
bool WatchStream::ReadMore() {
  for (;;) {
    const auto piece =
        api_.telemetry->Read({job_id_, epoch_, 0, TelemetryStream::kEvents}, offset_, kPieceBytes);
    if (piece.ok() && !piece->data.empty()) {
      if (piece->offset > offset_) partial_.clear();
      partial_ += piece->data;
      offset_ = piece->offset + static_cast<int64_t>(piece->data.size());
      const size_t used =
          ForEachLine(partial_, [this](absl::string_view line) { lines_.emplace_back(line); });
      partial_.erase(0, used);
      return true;
    }
    if (epoch_ >= snapshot_.job->epoch()) return false;
    ++epoch_;
    offset_ = 0;
    partial_.clear();
  }
}

bool WatchStream::FillFromLine(const std::string& line, v1::WatchResponse* out) {
  const auto event = ParseEvent(line);
  if (!event.has_value()) return false;
  if (const auto step = ParseStep(*event, epoch_)) {
    if (step->step < from_step_) return false;
    events_wanted_ = true;
    *out->mutable_step() = StepToProto(*step);
    return true;
  }
  auto kind = event->find("event");
  if (kind != event->end() && (*kind == "done" || *kind == "error")) last_event_epoch_ = epoch_;
  if (!events_wanted_) return false;
  return google::protobuf::util::JsonStringToMessage(line, out->mutable_event()).ok();
}

}  // namespace ll
