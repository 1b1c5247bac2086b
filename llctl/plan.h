// The steps that submit, plan and eval share.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "llctl/session.h"
#include "llctl/spec_flags.h"
#include "proto/jobs.pb.h"

namespace ll {

// The spec of the command line, with notes about left-out keys on stderr.
absl::StatusOr<v1::JobSpec> BuildSpec(const SpecFlags& flags, Session& session);

// Asks the coordinator for validation and forecast, stores nothing, prints them.
absl::StatusOr<int> PlanJob(const v1::JobSpec& spec, Session& session);

// The forecasts of several jobs that would come to be together.
void PrintPlans(const google::protobuf::RepeatedPtrField<v1::Job>& jobs, Session& session);

absl::StatusOr<v1::SubmitResponse> SubmitJob(const v1::JobSpec& spec, const std::string& request_id,
                                             Session& session);

// A random UUID.
std::string NewRequestId(Random& random);

}  // namespace ll
