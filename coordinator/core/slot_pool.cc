#include "coordinator/core/slot_pool.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <utility>

namespace ll {
namespace {

// 0, 1, … in the order of the names; the empty name is -1.
class Numbers {
 public:
  void Add(const std::string& name) {
    if (!name.empty()) names_.insert({name, 0});
  }
  void Count() {
    int next = 0;
    for (auto& [name, number] : names_) number = next++;
  }
  int Of(const std::string& name) const { return name.empty() ? -1 : names_.at(name); }
  int size() const { return static_cast<int>(names_.size()); }

 private:
  std::map<std::string, int> names_;
};

struct Entry {
  const HostView* worker;
  const SlotView* slot;
};

}  // namespace

SlotPool::SlotPool(absl::Span<const HostView> workers) {
  auto layout = std::make_shared<Layout>();
  std::vector<Entry> entries;
  std::set<std::string> kinds;
  Numbers domains, racks;
  for (const HostView& worker : workers) {
    domains.Add(worker.nvlink_domain);
    racks.Add(worker.rack);
    for (const SlotView& slot : worker.slots) {
      entries.push_back({&worker, &slot});
      kinds.insert(slot.kind);
    }
  }
  domains.Count();
  racks.Count();
  layout->domains = domains.size();
  layout->racks = racks.size();
  layout->kinds.assign(kinds.begin(), kinds.end());
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.slot->kind, a.worker->host, a.worker->worker, a.slot->index) <
           std::tie(b.slot->kind, b.worker->host, b.worker->worker, b.slot->index);
  });
  layout->slots.reserve(entries.size());
  layout->by_name.reserve(entries.size());
  int kind = 0;
  for (const Entry& e : entries) {
    while (layout->kinds[kind] != e.slot->kind) ++kind;
    const auto id = static_cast<SlotId>(layout->slots.size());
    auto& groups = layout->groups;
    if (groups.empty() || groups.back().kind != kind || groups.back().host != e.worker->host) {
      groups.push_back({kind, e.worker->host, domains.Of(e.worker->nvlink_domain),
                        racks.Of(e.worker->rack), id, id, 0, 0, e.slot->memory_bytes,
                        e.slot->memory_bytes});
      usable_.push_back(0);
    }
    Group& group = groups.back();
    group.end = id + 1;
    group.min_memory_bytes = std::min(group.min_memory_bytes, e.slot->memory_bytes);
    group.max_memory_bytes = std::max(group.max_memory_bytes, e.slot->memory_bytes);
    const int index = static_cast<int>(groups.size()) - 1;
    const bool available = e.worker->available && !e.worker->cordoned;
    group.available += available;
    group.cordoned += e.worker->cordoned;
    layout->slots.push_back({e.worker->worker, e.slot->index, e.slot->memory_bytes, index,
                             available, e.worker->cordoned});
    layout->by_name[{e.worker->worker, e.slot->index}] = id;
    free_.push_back(e.slot->free ? 1 : 0);
    if (e.slot->free && available) {
      ++usable_.back();
      ++usable_total_;
    }
  }
  layout_ = std::move(layout);
}

SlotId SlotPool::Find(const WorkerId& worker, int index) const {
  auto it = layout_->by_name.find(std::make_pair(worker, index));
  return it == layout_->by_name.end() ? -1 : it->second;
}

void SlotPool::Set(SlotId id, uint8_t free) {
  if (id < 0 || free_[id] == free) return;
  free_[id] = free;
  const SlotInfo& info = layout_->slots[id];
  if (!info.available) return;
  const int change = free != 0 ? 1 : -1;
  usable_[info.group] += change;
  usable_total_ += change;
}

}  // namespace ll
