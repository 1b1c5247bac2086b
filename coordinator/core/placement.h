// Where a gang goes: a pure function of the request and the slots. All ranks or none.
//
// Rules, in order:
//  1. Slots of one kind only, with at least the required memory, on allowed hosts in contact.
//  2. Where `one_host` is set the gang stays on one host (several agents may share it).
//  3. As few hosts as possible; then the tightest fit, so that big holes stay whole; then the
//     smallest memory; then the name, so that the answer is always the same.
//  4. Ranks are contiguous on a host, in the order of worker name and slot.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/core/types.h"

namespace ll {

struct SlotView {
  int index = 0;
  std::string kind;
  int64_t memory_bytes = 0;
  bool free = true;  // no rank holds it and nobody has reserved it
};

// The slots of one worker.
struct HostView {
  WorkerId worker;
  std::string host;
  bool available = true;  // in contact: may be given a gang now
  std::vector<SlotView> slots;
};

struct PlacementRequest {
  int ranks = 1;
  int64_t required_slot_bytes = 0;
  std::vector<std::string> slot_kinds;  // empty: any
  std::vector<std::string> hosts;       // empty: any
  bool one_host = false;
  std::string host_reason;  // why `hosts` or `one_host` is so; for the sentence, may be empty
};

struct RankSlot {
  WorkerId worker;
  int slot = 0;
};

struct Placement {
  enum class Answer {
    kFit,
    kWait,        // would fit if slots were free or hosts in contact
    kInfeasible,  // not even with every known slot free
  };
  Answer answer = Answer::kWait;
  std::vector<RankSlot> ranks;  // kFit: index = rank
  std::string reason;           // a sentence's end, for kWait and kInfeasible
};

Placement Place(const PlacementRequest& request, absl::Span<const HostView> hosts);

// Whether a rank of the request may ever run on the slot.
bool Eligible(const PlacementRequest& request, const HostView& host, const SlotView& slot);

}  // namespace ll
