// Jobs, workers, queues and schedules as the JSON documents that lie in the database. A key that is
// missing takes its default, an unknown one is ignored, so that a document outlives small changes
// of the program; others are a schema migration. Times are unix nanoseconds, durations nanoseconds;
// infinite ones are left out.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "coordinator/core/schedule.h"
#include "coordinator/core/types.h"

namespace ll {

// Without payload, history and result, which have columns or rows of their own.
std::string EncodeJob(const Job& job);
absl::StatusOr<Job> DecodeJob(absl::string_view json);

std::string EncodeWorker(const Worker& worker);
absl::StatusOr<Worker> DecodeWorker(absl::string_view json);

std::string EncodeQueue(const QueueRecord& queue);
absl::StatusOr<QueueRecord> DecodeQueue(absl::string_view json);

// Without the payload, which has columns of its own.
std::string EncodeSchedule(const ScheduleRecord& schedule);
absl::StatusOr<ScheduleRecord> DecodeSchedule(absl::string_view json);
std::string EncodeScheduleRun(const ScheduleRun& run);
absl::StatusOr<ScheduleRun> DecodeScheduleRun(absl::string_view json);

}  // namespace ll
