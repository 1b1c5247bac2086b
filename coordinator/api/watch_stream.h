// Jobs.Watch: the job, every change of its state, every step and every other event of rank 0, until
// it has ended.
//
// States come from the driver, events from the telemetry files. Between the two there is one rule:
// the last state waits until the trainer's last event (`done` or `error`) is out, or two seconds
// have passed.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "coordinator/api/stream.h"
#include "proto/jobs.pb.h"

namespace ll {

class WatchStream : public FollowStream<v1::WatchResponse> {
 public:
  WatchStream(const ApiContext& api, std::string method, JobId job, int64_t from_step)
      : FollowStream(api, std::move(method), std::move(job)),
        from_step_(from_step),
        events_wanted_(from_step <= 0) {}

 private:
  Outcome Next(v1::WatchResponse* out) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeJob(JobSnapshot snapshot) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool NextTransition(bool ended, v1::WatchResponse* out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool NextEvent(v1::WatchResponse* out) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool FillFromLine(const std::string& line, v1::WatchResponse* out)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool ReadMore() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int64_t from_step_;
  JobSnapshot snapshot_ ABSL_GUARDED_BY(mu_);
  int64_t sent_transitions_ ABSL_GUARDED_BY(mu_) = -1;  // -1: nothing sent yet
  bool last_sent_ ABSL_GUARDED_BY(mu_) = false;
  absl::Duration ended_at_ ABSL_GUARDED_BY(mu_) = absl::InfiniteDuration();

  // Cursor in the events of rank 0.
  int64_t epoch_ ABSL_GUARDED_BY(mu_) = 1;
  int64_t offset_ ABSL_GUARDED_BY(mu_) = 0;
  std::string partial_ ABSL_GUARDED_BY(mu_);  // a line whose end has not come yet
  std::deque<std::string> lines_ ABSL_GUARDED_BY(mu_);
  int64_t last_event_epoch_ ABSL_GUARDED_BY(mu_) = 0;  // whose `done` or `error` was sent
  bool events_wanted_ ABSL_GUARDED_BY(mu_);            // events before from_step are not
};

}  // namespace ll
