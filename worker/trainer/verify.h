// Running a past window of a training again, from one of its checkpoints to a later one, and
// comparing every bit: the only way to find a device that computes wrongly without saying so.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "model/llama.h"
#include "model/spec/job_spec.h"
#include "nlohmann/json.hpp"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/optim/adamw.h"

namespace ll {

struct VerifyWindow {
  std::string from;  // the checkpoint to go on from; empty: from the training's beginning
  std::string to;    // the one to arrive at
  int64_t from_step = 0, to_step = 0;
  TrainerState to_state;
  // What differs between the two ends' specs and plans; empty: nothing that matters. The window ran
  // as its end says, if what changed did so at its beginning.
  std::string changed;
};

// The window that ends with the checkpoint `to`: it begins at the checkpoint beside it that is
// oldest among those at most `steps` before (0: the newest one before it), or, where `steps`
// reaches that far, at the beginning. Both ends' hashes are checked. Errors: one is damaged; there
// is none to begin at, with what `steps` would have to be; plan or recipe changed at a checkpoint
// within the window, so that no one run can repeat it.
absl::StatusOr<VerifyWindow> FindVerifyWindow(const std::string& to, int64_t steps);

// The training that ran the window, without what only reports or writes.
JobSpec SpecToVerify(const VerifyWindow& window);

// FailedPrecondition naming what differs between the plan of the window and `plan`, with which bits
// could not be equal.
absl::Status CheckSamePlan(const VerifyWindow& window, const nlohmann::json& plan);

struct VerifyCounts {
  int64_t tensors = 0, bytes = 0;
};
// Compares masters, moments and adapter (or model) with the checkpoint's files, bit for bit.
// DataLoss names the first tensor that differs, where, and by how much.
absl::StatusOr<VerifyCounts> CompareWithCheckpoint(const std::string& checkpoint, bool tied_head,
                                                   bool full, Llama& model,
                                                   AdamWOptimizer& optimizer);

}  // namespace ll
