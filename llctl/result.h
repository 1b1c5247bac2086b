// The result of a finished job that was waited for: eval and merge.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "llctl/session.h"
#include "proto/job.pb.h"

namespace ll {

// On stdout in the session's format: the job's id and its result (model/report/eval_report.h).
void PrintJobResult(const v1::Job& job, Session& session);

// Waits for the job's end; `on_success` is called where it has SUCCEEDED, else stderr tells what
// became of the `what` ("merge"). Returns the exit code. Errors: FollowJob's and on_success's.
absl::StatusOr<int> AwaitResult(const std::string& job_id, const std::string& what,
                                Session& session,
                                const std::function<absl::Status(const v1::Job&)>& on_success);

}  // namespace ll
