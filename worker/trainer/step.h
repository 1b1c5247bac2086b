// One optimizer step over the global batch.
#pragma once

#include "absl/status/statusor.h"
#include "model/llama.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/optim/schedule.h"
#include "worker/trainer/setup.h"

namespace ll {

struct StepWishes {
  bool stop = false;        // checkpoint and exit
  bool checkpoint = false;  // checkpoint and go on
};

struct StepReport {
  double loss = 0;       // sum over the step's valid targets, of all ranks, divided by their number
  double grad_norm = 0;  // before clipping
  double learning_rate = 0;
  int64_t tokens = 0;  // of all rows of all ranks
  StepWishes wishes;   // what any rank wished
  PhaseSeconds model;  // this rank's
  double data_seconds = 0, reduce_seconds = 0, optimizer_seconds = 0, step_seconds = 0;
};

// The ranks of a job as a step needs them.
struct Gang {
  Comm& world;
  RankLayout layout;
  Comm& context;  // the ranks that share this rank's rows
};

// Runs 0-based step `step`: rows [step * B, (step + 1) * B) of the data, row i on the context ranks
// of data rank i mod D, each with its shard of the tokens.
// Collective. A non-finite loss or gradient norm is an error of class nan and leaves the parameters
// as they were.
absl::StatusOr<StepReport> RunStep(int64_t step, const StepWishes& wishes, Training& training,
                                   Llama& model, AdamWOptimizer& optimizer,
                                   const Schedule& schedule, const Gang& gang);

}  // namespace ll
