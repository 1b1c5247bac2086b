// The checkpoints of a training that runs: written beside its steps, by rank 0 alone or by every
// rank its part, copied to the spec's checkpoint_uri, and there to go back to.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "model/llama.h"
#include "worker/trainer/checkpoint/copier.h"
#include "worker/trainer/checkpoint/sharded_checkpoint.h"
#include "worker/trainer/checkpoint/state.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/checkpoint/writer.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/setup.h"
#include "worker/trainer/train_loop.h"

namespace ll {

// Not thread-safe. Every rank has one and calls the same functions at the same steps.
class Checkpoints {
 public:
  // All must outlive this.
  Checkpoints(const Training& training, Llama& model, AdamWOptimizer& optimizer, Comm& comm,
              EventSink& events, const TrainOptions& options);

  // For a training that starts at `step`. `divided`: ranks hold parts of the optimizer's state.
  // Collective. Errors: the folder cannot be made, or a rank that is to write a part does not see
  // it; no credentials for copies.
  absl::Status Open(int64_t step, bool divided);
  // Ends what writes and copies, as the destructor does.
  void Close();

  // Starts writing one; `final`: no step follows, which spares copies of the tensors. Collective.
  absl::Status Take(const TrainerState& state, bool final);
  // What ranks say about their parts with every step's sums; nothing where rank 0 writes all.
  PartsWritten MyParts() const;
  void HeardOfParts(const PartsWritten& all);
  // Waits until the newest is on disk or given up. Collective.
  void Settle();
  // The same at the end, and for copies up to `copy_timeout`; every rank learns whether it is on
  // disk (class infrastructure where not). Collective.
  absl::Status Finish(absl::Duration copy_timeout);

  // The step of the newest one here that was taken or gone on from; -1: none.
  int64_t newest_step() const { return newest_step_; }
  // Training went back to that step's.
  void WentBackTo(int64_t step) { newest_step_ = step; }
  // The folder of a step's.
  std::string PathOf(int64_t step) const;
  // Where checkpoints of this training lie, of the attempt it was resumed from too.
  std::vector<std::string> Roots() const;

 private:
  absl::Status OpenWriter(int64_t step);

  const Training& training_;
  Llama& model_;
  AdamWOptimizer& optimizer_;
  Comm& comm_;
  EventSink& events_;
  const TrainOptions& options_;
  const std::string root_;

  std::unique_ptr<CheckpointCopier> copier_;  // rank 0 only, with a checkpoint_uri
  std::unique_ptr<CheckpointWriter> writer_;  // rank 0 only; hands what it wrote to the copier
  std::unique_ptr<ShardedCheckpoint> parts_;  // where ranks hold parts of the optimizer's state
  SnapshotBuffers buffers_;
  int64_t newest_step_ = -1;
};

}  // namespace ll
