#include "coordinator/api/watch_stream.h"

#include <google/protobuf/util/json_util.h>

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/crc32c.h"
#include "base/field_error.h"
#include "coordinator/api/convert.h"

namespace ll {
namespace {
constexpr int64_t kPieceBytes = 64 << 10;
// Looked through at once for an event that is wanted.
constexpr int kMostPieces = 4;
// A line that is longer is no event.
constexpr size_t kMostLineBytes = 4 << 20;
constexpr absl::Duration kLastEventGrace = absl::Seconds(2);

constexpr char kTokenForm[] = "w1";

bool IsEnd(v1::JobState state) { return IsTerminal(static_cast<JobState>(state)); }

// Tells another job's token, and one that was cut, from a good one.
std::string TokenSum(const JobId& job, absl::string_view body) {
  return absl::StrFormat("%08x", Crc32c(absl::StrCat(job.value(), "/", body)));
}
}  // namespace

std::string ToResumeToken(const JobId& job, const WatchPlace& place) {
  const std::string body =
      absl::StrCat(kTokenForm, ".", place.transitions, ".", place.epoch, ".", place.offset, ".",
                   place.last_event_epoch, ".", place.from_step, ".",
                   (place.events_wanted ? 1 : 0) + (place.ended ? 2 : 0));
  return absl::StrCat(body, ".", TokenSum(job, body));
}

absl::StatusOr<WatchPlace> FromResumeToken(const JobId& job, const std::string& token) {
  const absl::Status wrong =
      MakeFieldError({"resume_token", "a token of a message of this job's Watch",
                      absl::StrCat("\"", OneLine(token.substr(0, 80)), "\""), "watch without one"});
  const std::vector<std::string> parts = absl::StrSplit(token, '.');
  if (parts.size() != 8 || parts[0] != kTokenForm) return wrong;
  const size_t body = token.rfind('.');
  if (parts[7] != TokenSum(job, absl::string_view(token).substr(0, body))) return wrong;
  WatchPlace place;
  int64_t flags = 0;
  int64_t* const values[] = {&place.transitions,      &place.epoch,     &place.offset,
                             &place.last_event_epoch, &place.from_step, &flags};
  for (size_t i = 0; i < 6; ++i) {
    if (!absl::SimpleAtoi(parts[i + 1], values[i])) return wrong;
  }
  if (place.transitions < 0 || place.epoch < 1 || place.offset < 0 || flags < 0 || flags > 3)
    return wrong;
  place.events_wanted = (flags & 1) != 0;
  place.ended = (flags & 2) != 0;
  return place;
}

WatchStream::WatchStream(const ApiContext& api, std::string method, const v1::WatchRequest& request)
    : FollowStream(api, std::move(method), JobId(request.job_id())) {
  absl::MutexLock lock(&mu_);  // of nobody else yet
  place_.from_step = request.from_step();
  place_.events_wanted = request.from_step() <= 0;
  if (request.resume_token().empty()) return;
  const auto place = FromResumeToken(job_id_, request.resume_token());
  wrong_ = place.status();
  if (!place.ok()) return;
  resumed_ = true;
  place_ = *place;
  epoch_ = place_.epoch;
  offset_ = place_.offset;
}

void WatchStream::TakeJob(JobSnapshot snapshot) {
  if (IsEnd(snapshot.job->state()) && ended_at_ == absl::InfiniteDuration())
    ended_at_ = api_.clock->Steady();
  // A job that had ended before is not waited for, but by a watch that saw it at work: the last
  // events may still be on their way to a coordinator that has just begun.
  if (snapshot_.job == nullptr && !resumed_ && IsEnd(snapshot.job->state()))
    ended_at_ = absl::ZeroDuration();
  snapshot_ = std::move(snapshot);
}

WatchStream::Outcome WatchStream::Next(v1::WatchResponse* out) {
  const Outcome outcome = Find(out);
  if (outcome == Outcome::kMessage) out->set_resume_token(ToResumeToken(job_id_, place_));
  return outcome;
}

WatchStream::Outcome WatchStream::Find(v1::WatchResponse* out) {
  if (place_.ended) return Outcome::kEnd;
  if (snapshot_.job == nullptr) return Outcome::kWait;
  const bool ended = IsEnd(snapshot_.job->state());
  if (NextTransition(ended, out)) return Outcome::kMessage;
  if (const Outcome event = NextEvent(out); event != Outcome::kWait) return event;
  place_.events_wanted = true;  // what comes from here on is new
  if (!ended) return Outcome::kWait;
  const bool all_told =
      snapshot_.job->epoch() == 0 || place_.last_event_epoch == snapshot_.job->epoch();
  if (!all_told && api_.clock->Steady() - ended_at_ < kLastEventGrace) return Outcome::kWait;
  *out->mutable_job() = *snapshot_.job;
  place_.ended = true;
  return Outcome::kMessage;
}

// One message a transition. The state that ends the job is left to Next().
bool WatchStream::NextTransition(bool ended, v1::WatchResponse* out) {
  const v1::Job& job = *snapshot_.job;
  if (place_.transitions < 0) {
    place_.transitions = snapshot_.transitions;
    if (ended) return false;  // the first message is the last one as well, after the events
    *out->mutable_job() = job;
    return true;
  }
  const int64_t known = job.history_size();
  const int64_t first_known = snapshot_.transitions - known;
  place_.transitions = std::max(place_.transitions, first_known);
  if (place_.transitions >= snapshot_.transitions) return false;
  const v1::Transition& t = job.history(static_cast<int>(place_.transitions - first_known));
  if (IsEnd(t.state())) return false;
  ++place_.transitions;
  *out->mutable_job() = job;
  out->mutable_job()->set_state(t.state());
  out->mutable_job()->set_reason(t.reason());
  out->mutable_job()->set_epoch(t.epoch());
  return true;
}

WatchStream::Outcome WatchStream::NextEvent(v1::WatchResponse* out) {
  for (int pieces = 0;; ++pieces) {
    while (!lines_.empty()) {
      const Line line = std::move(lines_.front());
      lines_.pop_front();
      place_.epoch = epoch_;
      place_.offset = line.end;
      if (FillFromLine(line.text, out)) return Outcome::kMessage;
    }
    if (pieces == kMostPieces) return Outcome::kTurn;
    if (!ReadMore()) return Outcome::kWait;
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
      int64_t end = offset_ - static_cast<int64_t>(partial_.size());
      const size_t used = ForEachLine(partial_, [&](absl::string_view line) {
        end += static_cast<int64_t>(line.size()) + 1;
        lines_.push_back({std::string(line), end});
      });
      partial_.erase(0, used);
      if (partial_.size() > kMostLineBytes) partial_.clear();
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
    if (step->step < place_.from_step) return false;
    place_.events_wanted = true;
    *out->mutable_step() = StepToProto(*step);
    return true;
  }
  auto kind = event->find("event");
  if (kind != event->end() && (*kind == "done" || *kind == "error"))
    place_.last_event_epoch = epoch_;
  if (!place_.events_wanted) return false;
  return google::protobuf::util::JsonStringToMessage(line, out->mutable_event()).ok();
}

}  // namespace ll
