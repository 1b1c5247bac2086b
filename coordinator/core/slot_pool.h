// The slots of the cluster as placement sees them: which exist, which are free. The part that
// changes with every start and end is two flat arrays, so a pass may copy a pool and try things on
// the copy; the part that describes the slots is shared between copies.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "coordinator/core/types.h"

namespace ll {

struct SlotView {
  int index = 0;
  std::string kind;
  int64_t memory_bytes = 0;
  bool free = true;  // no rank holds it
};

// The slots of one worker.
struct HostView {
  WorkerId worker;
  std::string host;
  bool available = true;  // in contact and not cordoned: may be given a gang now
  std::vector<SlotView> slots;
  bool cordoned = false;      // an operator or its failures took it out of service
  std::string nvlink_domain;  // hosts of one domain share a fast fabric; empty: the host alone
  std::string rack;           // empty: unknown
};

// Position of a slot in a pool; good for that pool and its copies.
using SlotId = int32_t;

class SlotPool {
 public:
  // Of one host and one kind, of all its agents, in the order of worker name and index.
  struct Group {
    int kind = 0;  // index into kinds()
    std::string host;
    int nvlink_domain = -1, rack = -1;  // equal numbers: the same; -1: none
    SlotId begin = 0, end = 0;
    int available = 0;  // slots on workers that may be given a gang, free or not
    int cordoned = 0;
    int64_t min_memory_bytes = 0, max_memory_bytes = 0;
  };
  struct SlotInfo {
    WorkerId worker;
    int index = 0;
    int64_t memory_bytes = 0;
    int group = 0;
    bool available = true;
    bool cordoned = false;
  };

  SlotPool() : SlotPool(absl::Span<const HostView>()) {}
  explicit SlotPool(absl::Span<const HostView> workers);

  const std::vector<std::string>& kinds() const { return layout_->kinds; }  // sorted
  const std::vector<Group>& groups() const { return layout_->groups; }      // by kind, host
  const SlotInfo& slot(SlotId id) const { return layout_->slots[id]; }
  int domains() const { return layout_->domains; }  // NVLink domains are 0 … domains() - 1
  int racks() const { return layout_->racks; }
  size_t size() const { return layout_->slots.size(); }
  // -1: the worker has registered no such slot.
  SlotId Find(const WorkerId& worker, int index) const;

  bool free(SlotId id) const { return free_[id] != 0; }
  // Free, on a worker that may be given a gang.
  bool usable(SlotId id) const { return free_[id] != 0 && layout_->slots[id].available; }
  int usable_in(int group) const { return usable_[group]; }
  int usable_total() const { return usable_total_; }

  // No effect where it is so already, and for id -1.
  void Take(SlotId id) { Set(id, 0); }
  void Give(SlotId id) { Set(id, 1); }

 private:
  struct Layout {
    std::vector<std::string> kinds;
    std::vector<Group> groups;
    std::vector<SlotInfo> slots;
    absl::flat_hash_map<std::pair<WorkerId, int>, SlotId> by_name;  // never iterated
    int domains = 0, racks = 0;
  };

  void Set(SlotId id, uint8_t free);

  std::shared_ptr<const Layout> layout_;
  std::vector<uint8_t> free_;
  std::vector<int> usable_;  // by group
  int usable_total_ = 0;
};

}  // namespace ll
