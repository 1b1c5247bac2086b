// One optimizer step over the global batch.
#pragma once

#include <vector>

#include "absl/status/statusor.h"
#include "model/llama.h"
#include "worker/trainer/checkpoint/sharded_checkpoint.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/guard/loss_guard.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/schedule.h"
#include "worker/trainer/optim/sharded_parameters.h"
#include "worker/trainer/setup.h"

namespace ll {

struct StepWishes {
  bool stop = false;        // checkpoint and exit
  bool checkpoint = false;  // checkpoint and go on
  PartsWritten parts;       // of the checkpoint under way
};

// Whether the ranks had the memory for what they tried.
struct MemoryCheck {
  absl::Status mine;  // ResourceExhausted with what the allocator said, or OK
  int64_t ranks = 0;  // of all, that had not
};

struct StepReport {
  // With ranks > 0 the step did not take place: nothing but this, the wishes and the times is set,
  // parameters, moments and `guard` are as they were, and rows hold no memory.
  MemoryCheck memory;
  double loss = 0;       // sum over the step's valid targets, of all ranks, divided by their number
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  GuardVerdict verdict;  // whether the step counts
  int64_t tokens = 0;    // of all rows of all ranks
  StepWishes wishes;     // what any rank wished
  PhaseSeconds model;    // this rank's, what it waited for in exchanges included
  // This rank's. Exchanges of keys and values, and of sums that start
  // early, are part of forward and backward; of the sums over
  // the ranks, `wait` is until the slowest rank had come to them and `reduce` the rest.
  double data_seconds = 0, exchange_seconds = 0, wait_seconds = 0, reduce_seconds = 0,
         optimizer_seconds = 0, step_seconds = 0;
  // By rank: seconds of data, forward and backward without waiting for others, and the tokens that
  // took them.
  std::vector<double> compute_seconds, compute_tokens;
};

// The ranks of a job as a step needs them.
struct Gang {
  Comm& world;
  RankLayout layout;
  Comm& context;                  // the ranks that share this rank's rows
  ShardedParameters& parameters;  // divided between all ranks
  const Comm* base = nullptr;     // of the ranks that divide the base
};

// Where a step stands.
struct StepPlace {
  int64_t step = 0;       // 0-based
  int64_t first_row = 0;  // of the data
};

// Runs a step on rows [first_row, first_row + B) of the data, row i of them on the context ranks of
// data rank i mod D, each with its shard of the tokens. Loss and norm are judged before the update
// (`guard` as JudgeStep): unless the verdict allows it, parameters and moments stay as they were.
// Lack of memory for a rank's own rows is told, not an error; where ranks exchange parts of rows or
// of the base while they compute, it is ResourceExhausted, because the others wait for this one.
// Collective.
absl::StatusOr<StepReport> RunStep(const StepPlace& place, const StepWishes& wishes,
                                   const GuardPolicy& policy, GuardState& guard, Training& training,
                                   Llama& model, AdamWOptimizer& optimizer,
                                   const Schedule& schedule, const Gang& gang);

// Tries the memory of a row before a step: allocates what is kept of it and, with `compute`, runs
// it forward and backward. Leaves nothing but gradients, which the next step begins by clearing.
// Errors: as RunStep's; lack of memory that shows before anything is exchanged is told in any gang.
// Collective.
absl::StatusOr<MemoryCheck> TryRow(int64_t row_index, int64_t step, bool compute,
                                   Training& training, Llama& model, const Gang& gang);

// The first pass's longest row; the first of several.
int64_t LongestRow(RowSource& rows);

}  // namespace ll
