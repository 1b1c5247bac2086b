// Gangs that take any size between a minimum and a maximum: which sizes are worth having, and when
// a running gang should stop and start again at a larger one. Pure functions.
//
// The rows of an optimizer step are fixed for the job's life and rank r of n takes rows r, r + n,
// …, so a step takes as long as the busiest rank's ⌈rows / n⌉ rows; where ranks share a row, groups
// of them take rows so, and there is no part of a group.
#pragma once

#include "absl/time/time.h"
#include "coordinator/core/types.h"

namespace ll {

struct ElasticOptions {
  // How long a running gang could have grown, without a break, before it does.
  absl::Duration grow_after_idle = absl::Minutes(1);
  // From a change of a gang's size to its next growth.
  absl::Duration resize_interval = absl::Minutes(30);
  // What a growth must save: about what a stop, a checkpoint and a start take.
  absl::Duration restart_cost = absl::Minutes(2);
};

inline bool IsElastic(const CoreSpec& spec) { return spec.max_gpus > spec.gpus; }
// The most ranks that an attempt may have.
inline int MaxGpus(const CoreSpec& spec) { return IsElastic(spec) ? spec.max_gpus : spec.gpus; }
// Ranks of the newest attempt; the minimum before the first.
int RanksOf(const Job& job);
// "6 of 4-8".
std::string DescribeSize(const Job& job);

// How many times as fast as with spec.gpus a gang of `ranks` trains.
double Speedup(const CoreSpec& spec, int ranks);
// `ranks` ≥ spec.gpus less those that are no whole group.
int WholeGroups(const CoreSpec& spec, int ranks);
// The smallest size of at least spec.gpus that is as fast as `ranks` ≥ spec.gpus.
int UsefulSize(const CoreSpec& spec, int ranks);

// Whether a gang should restart at `to` instead of `from` ranks when it would train for `remaining`
// at `from` (infinite: not known, and then as long as it has run): at least a quarter faster, and
// more time saved than a restart costs.
bool WorthGrowing(const CoreSpec& spec, int from, int to, absl::Duration remaining,
                  absl::Duration has_run, const ElasticOptions& options);

}  // namespace ll
