// Where a gang goes: a pure function of the request and the slots. All ranks or none.
//
// Rules, in order:
//  1. Slots of one kind only, with at least the required memory, on allowed hosts in contact.
//  2. Where `one_host` is set the gang stays on one host (several agents may share it).
//  3. As close together as possible: one host, then one NVLink domain, then one rack, then
//     anywhere. S²-Attn and gradients cross every link between ranks at every step.
//  4. As few hosts as possible; then the tightest fit, so that big holes stay whole; then the
//     smallest memory; then the name, so that the answer is always the same.
//  5. Ranks are contiguous on a host, in the order of worker name and slot.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/core/slot_pool.h"
#include "coordinator/core/types.h"

namespace ll {

struct PlacementRequest {
  int ranks = 1;
  int64_t required_slot_bytes = 0;
  std::vector<std::string> slot_kinds;  // empty: any
  bool kinds_named = false;             // by the user; for the sentence
  std::vector<std::string> hosts;       // empty: any
  bool one_host = false;
  std::string host_reason;  // why `hosts` or `one_host` is so; for the sentence, may be empty
  bool operator==(const PlacementRequest&) const = default;
};

struct Placement {
  enum class Answer {
    kFit,
    kWait,        // would fit if slots were free or hosts in contact
    kInfeasible,  // not even with every known slot free
  };
  Answer answer = Answer::kWait;
  // kWait: not even with every slot free of the workers that may be given a gang now. No end of a
  // job helps, only the return of a worker.
  bool needs_workers = false;
  std::vector<SlotId> ranks;  // kFit: index = rank
};

// Kinds of slots, a bit each, numbered as the pool's kinds(); all beyond 63 share the last bit.
using KindSet = uint64_t;
inline KindSet KindBit(int kind) { return KindSet{1} << (kind < 63 ? kind : 63); }
// Those that ranks of the request may be on. Of none that the pool has: all, so that the request is
// taken to stand in everybody's way rather than in nobody's.
KindSet KindsFor(const PlacementRequest& request, const SlotPool& pool);

Placement Place(const PlacementRequest& request, const SlotPool& pool);
// The same answer without the pool's index, from a look at every host: what Place falls back on
// for requests that name hosts or need more memory than every slot of a kind has. For tests.
Placement PlaceByScan(const PlacementRequest& request, const SlotPool& pool);

// The most ranks, from `least` to `most`, with which the request fits now; 0: not even with
// `least`.
int LargestFit(PlacementRequest request, const SlotPool& pool, int least, int most);

// Why the answer is not kFit: the end of a sentence that begins with "it". Counts slots, so for
// people and not for every pass over the queue.
std::string ExplainPlacement(const PlacementRequest& request, const SlotPool& pool);

// The slots that a rank of the request may have now.
std::vector<SlotId> UsableFor(const PlacementRequest& request, const SlotPool& pool);

}  // namespace ll
