// Going back to a checkpoint within the running gang, past the data that spoilt a step.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "worker/trainer/checkpoint/state.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/event_sink.h"

namespace ll {

// Restores model and optimizer from the newest checkpoint below `roots` that is no later than
// `now`, the state before the spoilt step, and returns the state to go on from: the checkpoint's,
// with the rows of every step since and of the spoilt one left out, as PaLM's training did
// (Chowdhery et al. 2022, section 5.1: replaying the same rows from the same weights would bring
// the same spike).
//
// A checkpoint at a multiple of save_steps is preferred to one between two of them: those were
// written because of a signal, and where training goes back to must not depend on signals.
// Collective: rank 0 chooses, all restore. Errors: FailedPrecondition where there is no good
// checkpoint (class nan), or one that this rank cannot read (class infrastructure: its host's).
absl::StatusOr<TrainerState> RollBack(const TrainerState& now,
                                      const std::vector<std::string>& roots, Comm& comm,
                                      EventSink& events, Llama& model, AdamWOptimizer& optimizer);

}  // namespace ll
