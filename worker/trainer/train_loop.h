// The training loop of one rank. Reading order: train_loop.cc top to bottom, step.h,
// checkpoint/format.h.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/setup.h"

namespace ll {

struct TrainOptions {
  std::string out;                     // checkpoints go to out/checkpoints
  std::string resume_from;             // a checkpoint folder; empty: the newest good one below out
  std::string resume_manifest_sha256;  // what its manifest must be; empty: not checked
  double peak_flops = 0;               // of this rank's device, for mfu; 0: not known, mfu is null
  // Whether somebody wants this rank to stop, or to write a checkpoint; any rank's wish becomes all
  // ranks'.
  std::function<bool()> stop_requested = [] { return false; };
  std::function<bool()> take_checkpoint_request = [] { return false; };
};

enum class TrainOutcome { kDone, kStopped };

// Trains until max_steps or until told to stop, after writing a checkpoint in both cases.
// Collective: every rank of `comm` calls it with the same spec. Rank 0 writes checkpoints and
// reports steps. Errors carry a class (error_class.h): a non-finite loss is nan, a final checkpoint
// that cannot be written is infrastructure.
absl::StatusOr<TrainOutcome> Train(Training& training, Comm& comm, EventSink& events,
                                   const TrainOptions& options);

}  // namespace ll
