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

// Runs 0-based step `step`: rows [step * B, (step + 1) * B) of the data, row i on rank i mod D.
// Collective. A non-finite loss or gradient norm is an error of class nan and leaves the parameters
// as they were.
absl::StatusOr<StepReport> RunStep(int64_t step, const StepWishes& wishes, Training& training,
                                   Llama& model, AdamWOptimizer& optimizer,
                                   const Schedule& schedule, Comm& comm);

}  // namespace ll
