// Forecast beside actual of trainings that have succeeded.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "llctl/session.h"
#include "proto/job.pb.h"

namespace ll {

// The newest `limit` of them, with forecasts, newest first.
absl::StatusOr<std::vector<v1::Job>> FetchForecastJobs(int limit, Session& session);
// As a table with the medians below it, or as an array of {job_id, device, …_error_ratio}.
void PrintResiduals(const std::vector<v1::Job>& jobs, Session& session);

}  // namespace ll
