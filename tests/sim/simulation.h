// One seeded run: a coordinator (the real scheduler over a store in memory) that may die at any
// step, stall, or have its clock set, at least 20 agents of which some lie, at least 50 jobs,
// clients and a network that misbehaves; then everything heals and every job must come to its end.
//
// Checked all the time (safety): the scheduler's invariants; no slot runs two ranks; no rank is
// started twice in one epoch; a new epoch starts only when no old rank lives on an agent in
// contact; nothing is written by an epoch after the next has begun; an attempt resumes from the
// newest durable checkpoint, on a host that can read it; no queue holds more than its limits; of
// two jobs only one ever stops the other. Checked in the end (nothing lost, liveness): every
// acknowledged job exists, under one id for its request, an acknowledged cancel led to an end, and
// every job ended within a bound.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/core/job_state.h"
#include "tests/sim/world.h"

namespace ll::sim {

// Every so many seeds the store is SQLite on the simulated disk, otherwise the one in memory.
inline constexpr uint64_t kSeedsPerSqliteSeed = 4;

struct SimOptions {
  uint64_t seed = 1;
  Bug bug = Bug::kNone;
  bool print = false;  // every event on stdout
};

struct SimResult {
  std::vector<std::string> violations;
  std::string digest;   // equal for equal runs
  std::string options;  // what the seed expanded to
  // What happened, to see that the run was not idle.
  int jobs_acked = 0;
  int succeeded = 0;
  int failed = 0;
  int cancelled = 0;
  int attempts = 0;
  int coordinator_crashes = 0;
  int agent_crashes = 0;
  int partitions = 0;
  int preemptions = 0;  // and moves off drained workers
  int agents = 0;
  bool sqlite = false;
  int64_t checkpoints = 0;
  int64_t steps = 0;                      // events that the scheduler decided
  int64_t actions = 0;                    // of the whole simulated world
  std::map<std::string, int64_t> faults;  // kind → how often it struck
  std::map<std::string, int64_t> wishes;  // kind → how often it came true
  std::map<std::pair<JobState, JobState>, int64_t> transitions;  // how often a job took the way
};

SimResult Simulate(const SimOptions& options);

}  // namespace ll::sim
