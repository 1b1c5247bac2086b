// What the ranks of a training do together when a step does not fit into memory: the next rung of
// guard/memory_ladder.h, told in a `policy` event, for the same step and the same data.
#pragma once

#include "absl/status/status.h"
#include "worker/trainer/checkpoint/trainer_state.h"
#include "worker/trainer/comm/comm.h"
#include "worker/trainer/event_sink.h"
#include "worker/trainer/guard/memory_ladder.h"
#include "worker/trainer/setup.h"
#include "worker/trainer/step.h"

namespace ll {

// Puts a policy into spec and model options.
void TakePolicy(const MemoryPolicy& policy, Training& training);

// Every rank takes the leanest that one of them chose: each has looked at its own host's memory,
// and ranks that share a row must compute the same things again. Collective.
absl::Status AgreeOnPolicy(Training& training, Comm& comm);

// A step, or the try of the longest row before it, that one rank or several had no memory for.
struct OutOfMemory {
  int64_t step = 0;  // 0-based
  MemoryCheck memory;
  double lost_seconds = 0;  // what the try took
};

// Takes the next rung on this rank; every rank does, from the same `what.memory.ranks`. The rank
// that failed warns with what its allocator said, rank 0 tells of the change. ResourceExhausted
// (class oom) with what was tried where the spec's on_oom is `fail` or there is no rung left.
absl::Status StepDown(const OutOfMemory& what, MemoryLadder& ladder, Training& training,
                      Llama& model, TrainerState& state, const Comm& comm, EventSink& events);

}  // namespace ll
