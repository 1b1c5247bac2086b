// Sweeps: one job for every combination of some keys' values (`submit --sweep KEY=V1,V2`).
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "model/spec/job_spec.h"
#include "proto/jobs.pb.h"

namespace ll {

// The cross product of the sweeps, the last one changing fastest; each is KEY=V1,V2,… (lists are
// separated by ';' instead: target_modules=q_proj,v_proj;q_proj). The jobs are named NAME-0,
// NAME-1, … after `base` ("array-…" with `random_name` where it has none) and labelled array=NAME
// and with the swept keys. Errors (InvalidArgument) name the key: of --sweep itself, a key's own,
// or that of a combination that Validate refuses; more than 1,000 jobs.
absl::StatusOr<std::vector<JobSpec>> ExpandSweep(const JobSpec& base,
                                                 const std::vector<std::string>& sweeps,
                                                 const std::string& random_name);

}  // namespace ll
