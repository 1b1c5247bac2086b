// What to say to somebody whose training fits nowhere: what is missing, what takes it, and the
// nearest trainings that would fit, ready to paste. Pure functions, thread-safe.
#pragma once

#include <string>
#include <vector>

#include "model/plan/planner.h"

namespace ll {

// A training that fits: the one that was wanted, with a few keys changed.
struct Alternative {
  std::string what;    // "4-bit base on 2 GPUs"
  JobSpec given;       // as to be submitted
  std::string device;  // kind; empty: the one that was planned for
  PlannedRun run;
};

struct Refusal {
  PlannedRun leanest;                // what comes nearest with the spec as it is
  int64_t missing_bytes = 0;         // a rank, > 0 where memory is what is missing
  double missing_seconds = 0;        // > 0 where it is time (deadline, max_runtime)
  std::vector<Alternative> nearest;  // at most 3, the least changed first

  // "a rank needs 187 GB, 110 GB more than …; most of it is weights (138 GB)".
  std::string Sentence(const Cluster& cluster) const;
  // "these fit: llctl submit … (what); …"; empty where none was found.
  std::string Hint() const;
};

// For a problem whose `plans` have nothing to choose. Tried in this order, each with everything
// else left open chosen anew: keys that pin the plan taken away, more GPUs (to twice the cluster's
// slots, at least 64), a 4-bit base, both, fewer tokens (the most, in steps of 1024, not below the
// model's own context), fewer tokens of a 4-bit base, a larger device of the catalogue. For time:
// more GPUs, fewer steps.
Refusal Refuse(const PlanProblem& problem, const std::vector<PlannedRun>& plans);

// The line that submits a spec: the usual flags, then --set for the rest, quoted for a shell.
std::string SubmitLine(const JobSpec& given);

}  // namespace ll
