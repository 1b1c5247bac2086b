// The slots of the cluster as placement sees them: which exist, which are free. The part that
// changes with every start and end is a few flat arrays, so a pass may copy a pool and try things
// on the copy; the part that describes the slots is shared between copies.
//
// Beside the slots themselves a pool keeps what placement asks for at every job: the free slots of
// each host, NVLink domain and rack, and for each number of free slots the hosts that have just so
// many. So an answer costs about the size of the gang, not that of the cluster.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
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
  // All groups of one kind together.
  struct Kind {
    int begin = 0, end = 0;                      // its groups
    int slots = 0, available = 0, cordoned = 0;  // of all groups
    int largest = 0;                             // slots of the largest group
    int64_t min_memory_bytes = 0, max_memory_bytes = 0;
    std::vector<int> groups_of_available;              // available slots of a group → such groups
    std::vector<std::vector<int>> in_domain, in_rack;  // groups, by number of the domain, rack
    size_t words = 0, bits = 0, counts = 0;            // where its part of the index begins

    int largest_available() const {  // of one group
      int most = largest;
      while (most > 0 && groups_of_available[most] == 0) --most;
      return most;
    }
  };
  // With more slots than that on one host NextWith does not serve a kind.
  static constexpr int kMostIndexed = 64;

  SlotPool() : SlotPool(absl::Span<const HostView>()) {}
  explicit SlotPool(absl::Span<const HostView> workers);

  // Takes in which slots of a worker are free and whether it may be given a gang. False, and no
  // effect, where it is not known with just these slots, host, domain and rack: then a pool must be
  // made anew.
  bool Update(const HostView& worker);

  const std::vector<std::string>& kinds() const { return layout_->kinds; }  // sorted
  const Kind& kind(int number) const { return layout_->of_kind[number]; }   // as kinds()
  const std::vector<Group>& groups() const { return layout_->groups; }      // by kind, host
  const SlotInfo& slot(SlotId id) const { return layout_->slots[id]; }
  int domains() const { return layout_->domains; }  // NVLink domains are 0 … domains() - 1
  int racks() const { return layout_->racks; }
  size_t size() const { return layout_->slots.size(); }
  // -1: the worker has registered no such slot.
  SlotId Find(const WorkerId& worker, int index) const { return Pick(SlotsOn(worker), index); }
  // (index, slot) of all slots of a worker, by kind and index; empty where it is not known.
  using WorkerSlots = absl::Span<const std::pair<int, SlotId>>;
  WorkerSlots SlotsOn(const WorkerId& worker) const;
  // -1: the worker has no such slot.
  static SlotId Pick(WorkerSlots slots, int index);

  bool free(SlotId id) const { return free_[id] != 0; }
  // Free, on a worker that may be given a gang.
  bool usable(SlotId id) const { return free_[id] != 0 && layout_->slots[id].available; }
  int usable_in(int group) const { return usable_[group]; }
  int usable_total() const { return usable_total_; }
  int usable_of(int kind) const { return usable_of_[kind]; }
  int usable_in_domain(int kind, int domain) const {
    return usable_in_domain_[kind * layout_->domains + domain];
  }
  int usable_in_rack(int kind, int rack) const {
    return usable_in_rack_[kind * layout_->racks + rack];
  }
  // The first group of the kind behind group `after` (-1: of all) with exactly so many usable
  // slots, from 1 to the kind's `largest` and kMostIndexed; -1: none.
  int NextWith(int kind, int usable, int after) const;

  // No effect where it is so already, and for id -1. Whether it was not.
  bool Take(SlotId id) { return Set(id, 0); }
  bool Give(SlotId id) { return Set(id, 1); }

 private:
  struct WorkerInfo {
    std::string host, nvlink_domain, rack;
    std::vector<std::pair<int, SlotId>> slots;
  };
  struct Layout {
    std::vector<std::string> kinds;
    std::vector<Kind> of_kind;
    std::vector<Group> groups;
    std::vector<SlotInfo> slots;
    absl::flat_hash_map<WorkerId, WorkerInfo> workers;  // never iterated
    int domains = 0, racks = 0;
  };

  bool Set(SlotId id, uint8_t free);
  void CountUsable(int group, int change);
  void Index(const Kind& kind, int group, int usable, bool set);
  void MakeIndex(Layout& layout);

  std::shared_ptr<Layout> layout_;  // changed only while no copy shares it
  std::vector<uint8_t> free_;
  std::vector<int> usable_;  // by group
  int usable_total_ = 0;
  std::vector<int> usable_of_, usable_in_domain_, usable_in_rack_;  // by kind, then area
  // Of each kind, for each number of usable slots from 1: how many groups have just so many, and
  // which, a bit a group.
  std::vector<int> counts_;
  std::vector<uint64_t> bits_;
};

}  // namespace ll
