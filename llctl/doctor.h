// What went wrong in a job, from what the service keeps of it. Pure functions, thread-safe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "proto/job.pb.h"

namespace ll {

// A step that is not like those before it.
struct BadStep {
  int64_t step = 0;
  int64_t epoch = 0;
  std::string what;  // "loss is nan"; "loss 9.1, 2.3 ± 0.1 over the 50 steps before"
};
// The first whose loss or gradient norm is not finite, or whose loss lies more than six standard
// deviations, and more than a tenth, above the mean of the up to 50 steps before it (of which there
// must be eight). nullopt: none.
std::optional<BadStep> FirstBadStep(const std::vector<v1::StepRecord>& steps);

// Keys of the resolved specs that differ, as "key: before -> now", in the order of the keys. Names
// and labels are left out.
std::vector<std::string> SpecChanges(const v1::JobSpec& before, const v1::JobSpec& now);

// Whether `other` is a job to compare with: of the same schedule and stage, else of the same name,
// else, where neither has a name nor a schedule, of the same kind.
bool IsOfTheSameSeries(const v1::JobSpec& job, const v1::JobSpec& other);

// What to do about a failure; empty where there is none. `has_checkpoint`: one to go on from.
std::string Advice(const v1::Job& job, bool has_checkpoint);

}  // namespace ll
