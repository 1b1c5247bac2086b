// The types of GPUs that a user names for a job (spec key gpu_types), and the kinds of slots that
// they stand for. Pure, thread-safe.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "coordinator/runtime/cluster_view.h"
#include "model/spec/job_spec.h"

namespace ll {

// Replaces what the user wrote ("a100") by the kinds meant (A100-40, A100-80), of those that the
// workers have and those that plans are made for. Errors: InvalidArgument, of no such kind;
// FailedPrecondition, jobs run on none of them, or no worker has slots of any of them, though there
// are workers.
absl::Status ResolveGpuTypes(const ClusterView& view, JobSpec& spec);

// Of a resolved spec: names none, or this one.
bool MayRunOn(const JobSpec& spec, absl::string_view kind);

// The workers' kinds that a resolved spec's types leave out and whose slots hold `bytes` a rank (0:
// not known): never CPU slots for a job that asked for GPUs, nor the other way.
std::vector<std::string> KindsLeftOut(const ClusterView& view, const JobSpec& spec, int64_t bytes);

}  // namespace ll
