// Between the wire (proto ll.v1) and the values the core and the planner work with. Pure functions,
// thread-safe.
#pragma once

#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/core/fair_share.h"
#include "coordinator/core/types.h"
#include "coordinator/runtime/checkpoint_history.h"
#include "coordinator/runtime/step_event.h"
#include "model/spec/job_spec.h"
#include "proto/admin.pb.h"
#include "proto/job.pb.h"
#include "proto/jobs.pb.h"

namespace ll {

// Keys have the same names and types on both sides (a test checks the table against the proto), so
// neither can fail.
JobSpec SpecFromProto(const v1::JobSpec& wire);
v1::JobSpec SpecToProto(const JobSpec& spec);

// Same bytes for the same content: for hashing and for storing.
std::string SerializeDeterministic(const google::protobuf::MessageLite& message);

google::protobuf::Timestamp ToTimestamp(absl::Time time);

// How much of a job goes onto the wire.
enum class JobDetail {
  kSummary,  // for lists: of the spec only what the scheduler reads; no resolved spec, result or
             // history
  kFull,
  kHistory,  // full, with transitions
};
// `newest` is the job's newest step, if any, with tokens counted from the first step.
v1::Job JobToProto(const Job& job, const std::optional<StepFacts>& newest, JobDetail detail);
v1::StepRecord StepToProto(const StepFacts& step);
v1::CheckpointRecord CheckpointToProto(const CheckpointFacts& facts, const std::string& kept);
v1::Worker WorkerToProto(const Worker& worker, absl::Duration lease);
v1::Queue QueueToProto(const Queue& queue, double share);

}  // namespace ll
