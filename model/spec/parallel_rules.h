// Which ways to divide a training go together: one set of rules for Validate, which says what is
// wrong with a given spec, and for the planner (model/plan/planner.h), which tries many.
#pragma once

#include "absl/status/status.h"
#include "model/spec/job_spec.h"

namespace ll {

// The keys gpus, context_parallel, zero_stage, shard_base and activation_offload against each other
// and against the method. The error names the key. Cheap: no other key is looked at. Thread-safe.
absl::Status CheckParallelRules(const JobSpec& spec);

}  // namespace ll
