// Whose gang gives way. A victim checkpoints, stops and goes back to the queue: it loses no step,
// but the time of a checkpoint, a stop and a start.
//
// A job may preempt
//  - jobs of its own queue with a lower priority;
//  - jobs of other queues that borrow, while its own queue stays within its quota (reclaim).
// An elastic gang above its minimum first gives back only what is beyond it: it stops in the same
// way and starts again at what is left.
//
// A job borrows when its queue would be beyond its quota with it and all jobs of the queue that
// come before it (priority, then arrival).
//
// No ping-pong: the first relation is an order; the second needs that the preemptor does not borrow
// and the victim does, which turns around only when a job ends. On top of that a job never preempts
// the one that preempted it, nobody is preempted before its minimum runtime, and a job whose newest
// attempt came to nothing preempts nobody.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/core/fair_share.h"
#include "coordinator/core/placement.h"

namespace ll {

// Of the running gangs of a queue those that borrow, given all that hold slots.
std::vector<const Job*> Borrowers(const Queue& queue, std::vector<const Job*> holding);

struct VictimCandidate {
  Job* job = nullptr;
  bool same_queue = false;
  int gpus = 0;  // that it gives back
  // It only shrinks: what must fit beside the preemptor.
  std::optional<PlacementRequest> keeps;
};

// The order in which gangs give way: low priority first; among equals the one that has trained for
// the shortest time, then the newest.
void SortVictims(std::vector<VictimCandidate>& candidates);

struct Preemption {
  std::vector<VictimCandidate> victims;  // empty: no set of candidates makes room
  std::vector<SlotId> slots;             // where the preemptor fits when they are gone
};

// The fewest of the front of `candidates` whose end makes the request fit and `within_limits` true
// (given the GPUs and jobs that the own queue then gets back). Each is needed; who `keeps`
// something still fits.
Preemption ChooseVictims(const PlacementRequest& request, const SlotPool& pool,
                         absl::Span<const VictimCandidate> candidates,
                         const std::function<bool(int gpus, int jobs)>& within_limits);

}  // namespace ll
