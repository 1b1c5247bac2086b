// Schedules between the wire and the core. Pure.
#pragma once

#include "absl/status/statusor.h"
#include "coordinator/core/scheduler.h"
#include "proto/schedules.pb.h"

namespace ll {

// The user's settings, without spec and payload. InvalidArgument with the field for names and words
// that are unknown; numbers are the core's to check.
absl::StatusOr<ScheduleRecord> SettingsFromProto(const v1::Schedule& schedule);

enum class ScheduleDetail { kSummary, kRuns };
// `view` is asked for the states of the runs' jobs.
v1::Schedule ScheduleToProto(const Schedule& schedule, const Scheduler& view,
                             ScheduleDetail detail);

}  // namespace ll
