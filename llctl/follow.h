// Follows a job to its end over the Watch stream, across restarts of the coordinator.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "google/protobuf/struct.pb.h"
#include "llctl/session.h"
#include "proto/job.pb.h"

namespace ll {

// What comes in while a job is followed; called by the thread that follows.
class JobEvents {
 public:
  virtual ~JobEvents() = default;
  // First, and then whenever state or reason changed.
  virtual void OnJob(const v1::Job& job) = 0;
  virtual void OnStep(const v1::StepRecord& step) = 0;
  // Any other trainer event: eval, checkpoint, warning, error.
  virtual void OnEvent(const google::protobuf::Struct& event) = 0;
  // The coordinator is out of reach, and (an OK status) it is back.
  virtual void OnContact(const absl::Status& status) = 0;
};

struct Followed {
  v1::Job job;            // as last seen
  bool detached = false;  // Ctrl-C came before the end
};

// Returns when the job has ended or Ctrl-C came. Errors: those of Watch; UNAVAILABLE when the
// coordinator was never reached, or not for five minutes.
absl::StatusOr<Followed> FollowJob(Session& session, const std::string& job_id, int64_t from_step,
                                   JobEvents& events);

}  // namespace ll
