// The training loop of one rank. Reading order: train_loop.cc top to bottom, step.h,
// checkpoint/format.h.
#pragma once

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/setup.h"

namespace ll {

struct TrainOptions {
  std::string out;                     // checkpoints go to out/checkpoints
  int64_t epoch = 0;                   // the job's attempt, where its copies are named by it
  std::string resume_from;             // a checkpoint folder; empty: the newest good one below out
  std::string resume_manifest_sha256;  // what its manifest must be; empty: not checked
  // Where set: nothing is written; training ends at step `stop_at` and is compared with this
  // checkpoint (verify.h).
  std::string verify_against;
  int64_t stop_at = 0;
  double peak_flops = 0;  // of this rank's device, for mfu; 0: not known, mfu is null
  // Whether somebody wants this rank to stop, or to write a checkpoint; any rank's wish becomes all
  // ranks'.
  std::function<bool()> stop_requested = [] { return false; };
  std::function<bool()> take_checkpoint_request = [] { return false; };
};

// A copy that is not done by then is given up, with a warning; the checkpoint itself is on disk.
inline constexpr absl::Duration kFinalCopyTimeout = absl::Minutes(10);
inline constexpr absl::Duration kStopCopyTimeout = absl::Minutes(1);  // somebody waits for the slot

enum class TrainOutcome { kDone, kStopped };

// Trains until max_steps or until told to stop, after writing a checkpoint in both cases.
// Collective: every rank of `comm` calls it with the same spec. Rank 0 writes checkpoints and
// reports steps. The newest checkpoint is
// copied to the spec's checkpoint_uri before this returns, if that takes no longer than
// kFinalCopyTimeout (kStopCopyTimeout when told to stop). Errors carry a class (error_class.h): a
// non-finite loss is nan, a final checkpoint that cannot be written is infrastructure.
absl::StatusOr<TrainOutcome> Train(Training& training, Comm& comm, EventSink& events,
                                   const TrainOptions& options);

}  // namespace ll
