// What a checkpoint of a running training holds: its files' names and what goes into them.
#pragma once

#include "model/llama.h"
#include "worker/trainer/checkpoint/state.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/checkpoint/writer.h"
#include "worker/trainer/optim/adamw.h"
#include "worker/trainer/setup.h"

namespace ll {

// Tensors are deep copies in `buffers`, so that training may go on; without any they are no copies
// at all: training has ended, nothing changes them any more.

// Of a job whose rank 0 updates everything: it writes everything. The snapshot shares one copy of
// each master between the optimizer's file and the adapter's.
CheckpointContents WholeContents(const Training& training, Llama& model, AdamWOptimizer& optimizer,
                                 const TrainerState& state, SnapshotBuffers* buffers);

// Of a job whose ranks write their parts (sharded_checkpoint.h): what rank 0 adds. The adapter is
// made of the parts.
CheckpointContents ContentsBesidesParts(const Training& training, Llama& model,
                                        const TrainerState& state, SnapshotBuffers* buffers);

}  // namespace ll
