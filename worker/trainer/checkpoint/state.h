// Between a checkpoint's files and the running training: model parameters and optimizer moments.
#pragma once

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "model/llama.h"
#include "worker/trainer/checkpoint/writer.h"
#include "worker/trainer/optim/adamw.h"

namespace ll {

// Masters and moments under "master.NAME", "exp_avg.NAME", "exp_avg_sq.NAME", in the parameters'
// order: deep copies, or with `copy` false the tensors themselves, for a training that has ended.
NamedTensors OptimizerTensors(const std::vector<Parameter>& parameters, AdamWOptimizer& optimizer,
                              bool copy);

// Copies a checkpoint's masters and moments into the model and the optimizer and refreshes the
// compute copies. The checkpoint must have been verified. Errors name the tensor that is missing or
// has another shape.
absl::Status RestoreTensors(const std::string& checkpoint, Llama& model, AdamWOptimizer& optimizer);

}  // namespace ll
