// A job's stored forecast brought up to now: what its measured steps say of its end, what it has
// used, and how far off the forecast was. Pure, thread-safe.
#pragma once

#include <optional>
#include <utility>

#include "absl/time/time.h"
#include "coordinator/core/types.h"
#include "coordinator/runtime/step_event.h"
#include "model/plan/pace.h"
#include "proto/job.pb.h"

namespace ll {

struct Measured {
  std::optional<StepFacts> newest;
  StepPace pace;  // of the newest attempt
  // Between which a queued job is expected to start, from now on (Scheduler::PredictedWait).
  std::optional<std::pair<absl::Duration, absl::Duration>> wait;
};

// Fills the fields of `forecast` that follow from running; those of admission stay as they are.
void ReviseForecast(const Job& job, const Measured& measured, absl::Time now,
                    v1::Forecast& forecast);

}  // namespace ll
