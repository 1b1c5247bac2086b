// Between a checkpoint's files and the running training: model parameters, optimizer moments,
// position.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/llama.h"
#include "model/spec/job_spec.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/checkpoint/writer.h"
#include "worker/trainer/optim/adamw.h"

namespace ll {

// trainer_state.json. Dropout, row order and initial weights follow from the seed and the step, so
// there is no generator state to keep.
struct TrainerState {
  int64_t step = 0;           // optimizer steps done
  int64_t rows_consumed = 0;  // rows of the data visited, over all passes
  int64_t tokens_consumed = 0;
  double last_loss = 0;
  JobSpec spec;                  // resolved
  std::string data_fingerprint;  // of the token file
  nlohmann::json plan;   // {"data_parallel", "recompute", "threads", "isa", "precision", …}
  nlohmann::json build;  // {"version", "torch"}
};

std::string TrainerStateToText(const TrainerState& state);
// Errors name the file and what is missing.
absl::StatusOr<TrainerState> ParseTrainerState(const std::string& text);
absl::StatusOr<TrainerState> ReadTrainerState(const std::string& checkpoint);

// Masters and moments under "master.NAME", "exp_avg.NAME", "exp_avg_sq.NAME", in the parameters'
// order: deep copies, or with `copy` false the tensors themselves, for a training that has ended.
NamedTensors OptimizerTensors(const std::vector<Parameter>& parameters, AdamWOptimizer& optimizer,
                              bool copy);

// Copies a checkpoint's masters and moments into the model and the optimizer and refreshes the
// compute copies. The checkpoint must have been verified. Errors name the tensor that is missing or
// has another shape.
absl::Status RestoreTensors(const std::string& checkpoint, Llama& model, AdamWOptimizer& optimizer);

}  // namespace ll
