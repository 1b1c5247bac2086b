// Jobs.Watch: the job, every change of its state, every step and every other event of rank 0, until
// it has ended.
//
// States come from the driver, events from the telemetry files. Between the two there is one rule:
// the last state waits until the trainer's last event (`done` or `error`) is out, or two seconds
// have passed.
//
// Every message carries where the stream is behind it (WatchPlace): how many changes of state were
// told, and where in the files of events the next line begins. Both outlive the coordinator, so
// that a watch that was cut goes on with what was not told, and with nothing else. A change of
// state is lost only where 200 others (kMaxHistory) came after it, an event where its file was cut
// short for its size.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/api/stream.h"
#include "proto/jobs.pb.h"

namespace ll {

// Where a watch is. Plain values.
struct WatchPlace {
  int64_t transitions = -1;      // told; -1: nothing was
  int64_t epoch = 1;             // whose events are read
  int64_t offset = 0;            // of the next line, in bytes
  int64_t last_event_epoch = 0;  // whose `done` or `error` was told
  int64_t from_step = 0;         // as asked at the first watch
  bool events_wanted = false;    // events before from_step are not
  bool ended = false;            // the last message was told

  bool operator==(const WatchPlace&) const = default;
};
// Opaque to its readers, who may keep it over versions; of one job alone.
std::string ToResumeToken(const JobId& job, const WatchPlace& place);
// InvalidArgument: it was not made for this job.
absl::StatusOr<WatchPlace> FromResumeToken(const JobId& job, const std::string& token);

class WatchStream : public FollowStream<v1::WatchResponse> {
 public:
  WatchStream(const ApiContext& api, std::string method, const v1::WatchRequest& request);

 private:
  Outcome Next(v1::WatchResponse* out) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeJob(JobSnapshot snapshot) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool NextTransition(bool ended, v1::WatchResponse* out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // kMessage; kWait: all was looked at; kTurn: much was, and there is more.
  Outcome NextEvent(v1::WatchResponse* out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool FillFromLine(const std::string& line, v1::WatchResponse* out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Without its resume token.
  Outcome Find(v1::WatchResponse* out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckRequest() const override { return wrong_; }
  const char* EarlyMetadata() const override { return resumed_ ? "ll-resumed" : nullptr; }
  bool ReadMore() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Status wrong_;    // with the request's token
  bool resumed_ = false;  // by it
  WatchPlace place_ ABSL_GUARDED_BY(mu_);
  JobSnapshot snapshot_ ABSL_GUARDED_BY(mu_);
  absl::Duration ended_at_ ABSL_GUARDED_BY(mu_) = absl::InfiniteDuration();

  // What was read of rank 0's events and not told yet, all of epoch_.
  struct Line {
    std::string text;
    int64_t end;  // where the next one begins
  };
  int64_t epoch_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t offset_ ABSL_GUARDED_BY(mu_) = 0;
  std::string partial_ ABSL_GUARDED_BY(mu_);  // a line whose end has not come yet
  std::deque<Line> lines_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ll
