// Jobs.Logs: a rank's log by byte offset; with `follow` until the job has ended, going on to the
// next attempt's log.
#pragma once

#include <string>

#include "coordinator/api/stream.h"
#include "proto/jobs.pb.h"

namespace ll {

class LogsStream : public FollowStream<v1::LogsResponse> {
 public:
  LogsStream(const ApiContext& api, std::string method, const v1::LogsRequest& request)
      : FollowStream(api, std::move(method), JobId(request.job_id())),
        rank_(request.rank()),
        follow_(request.follow()),
        fixed_epoch_(request.epoch() > 0),
        wrong_(CheckTelemetryRange(request.epoch() == 0 ? 1 : request.epoch(), request.rank())),
        epoch_(request.epoch()),
        offset_(request.offset()) {}

 private:
  Outcome Next(v1::LogsResponse* out) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void TakeJob(JobSnapshot snapshot) override ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status CheckRequest() const override { return wrong_; }
  TelemetryKey Key() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return {job_id_, epoch_, rank_, TelemetryStream::kLog};
  }

  const int rank_;
  const bool follow_;
  const bool fixed_epoch_;
  const absl::Status wrong_;             // with the request
  int64_t epoch_ ABSL_GUARDED_BY(mu_);   // 0: not known yet
  int64_t offset_ ABSL_GUARDED_BY(mu_);  // negative: from the end, until the first read
  JobSnapshot snapshot_ ABSL_GUARDED_BY(mu_);
  absl::Duration quiet_since_ ABSL_GUARDED_BY(mu_) =
      absl::InfiniteDuration();  // nothing came since, after the end
};

}  // namespace ll
