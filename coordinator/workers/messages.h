// Between proto/workers.proto and the core's events and orders. Pure functions, thread-safe.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/core/events.h"
#include "coordinator/core/scheduler.h"
#include "proto/workers.pb.h"

namespace ll {

// Errors: protocol version (FailedPrecondition), name, slots or held gangs that make no sense
// (InvalidArgument).
absl::StatusOr<AgentHelloEvent> HelloFromProto(const v1::Hello& hello, uint64_t session);
// InvalidArgument: no fact in it, or a job id that is none.
absl::StatusOr<ReportEvent> ReportFromProto(const v1::Report& report, const WorkerId& worker,
                                            uint64_t session);
// Of as many slots as an agent may have.
std::vector<v1::SlotLoad> LoadsFromProto(const v1::Heartbeat& heartbeat);

// Everything but the term and, in a Welcome, the telemetry offsets. Not for RejectHelloOrder.
v1::CoordinatorMessage OrderToProto(const Send& send, const SchedulerOptions& options);

}  // namespace ll
