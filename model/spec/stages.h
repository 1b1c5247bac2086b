// Context extension in stages: one training job with `stages` becomes jobs that train, evaluate and
// merge one after the other (docs/stages.md). Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/spec/job_spec.h"

namespace ll {

// A job of the graph. Its `after` and `job` name other members by `name`, or jobs by their id.
struct StageJob {
  std::string name;  // within the graph: "8192-train", "8192-passkey", …, "merge"
  JobSpec spec;
};

// For every stage a training, which continues from the adapter (method full: from the weights) of
// the one before, and an evaluation for each task that `gate` names, which the next stage waits
// for; at the end a merge. In that order, so that a member only refers to earlier ones. Positions
// of every stage are scaled from the model's original context: a checkpoint's config.json keeps it.
//
// `spec` passes Validate and has stages. Its name prefixes those of the members ("stages" where it
// has none); each gets the labels graph (that name) and stage. max_steps is split evenly, the
// remainder to the last stages, unless stage_steps says otherwise. `job` and `adapter` are what
// the first stage starts from. Errors name the key.
absl::StatusOr<std::vector<StageJob>> ExpandStages(const JobSpec& spec);

// The rules between `stages`, `stage_steps`, `gate` and the other keys; part of Validate.
absl::Status CheckStages(const JobSpec& spec);

inline constexpr char kGraphLabel[] = "graph";
inline constexpr char kStageLabel[] = "stage";

}  // namespace ll
