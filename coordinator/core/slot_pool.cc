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

// Slots by kind; of a kind by host, worker and index.
std::map<std::string, std::vector<Entry>> Sorted(absl::Span<const HostView> workers) {
  std::vector<const HostView*> order;
  order.reserve(workers.size());
  for (const HostView& worker : workers) order.push_back(&worker);
  std::sort(order.begin(), order.end(), [](const HostView* a, const HostView* b) {
    return std::tie(a->host, a->worker) < std::tie(b->host, b->worker);
  });
  std::map<std::string, std::vector<Entry>> of_kind;
  std::vector<const SlotView*> slots;
  for (const HostView* worker : order) {
    slots.clear();
    for (const SlotView& slot : worker->slots) slots.push_back(&slot);
    std::sort(slots.begin(), slots.end(),
              [](const SlotView* a, const SlotView* b) { return a->index < b->index; });
    for (const SlotView* slot : slots) of_kind[slot->kind].push_back({worker, slot});
  }
  return of_kind;
}

}  // namespace

SlotPool::SlotPool(absl::Span<const HostView> workers) {
  layout_ = std::make_shared<Layout>();
  Layout& layout = *layout_;
  Numbers domains, racks;
  for (const HostView& worker : workers) {
    domains.Add(worker.nvlink_domain);
    racks.Add(worker.rack);
  }
  domains.Count();
  racks.Count();
  layout.domains = domains.size();
  layout.racks = racks.size();
  layout.workers.reserve(workers.size());
  const auto of_kind = Sorted(workers);
  for (const auto& [name, entries] : of_kind) {
    const int number = static_cast<int>(layout.kinds.size());
    layout.kinds.push_back(name);
    Kind& kind = layout.of_kind.emplace_back();
    kind.begin = static_cast<int>(layout.groups.size());
    kind.in_domain.resize(layout.domains);
    kind.in_rack.resize(layout.racks);
    for (const Entry& e : entries) {
      const auto id = static_cast<SlotId>(layout.slots.size());
      auto& groups = layout.groups;
      const bool first = static_cast<int>(groups.size()) == kind.begin;
      if (first || groups.back().host != e.worker->host) {
        groups.push_back({number, e.worker->host, domains.Of(e.worker->nvlink_domain),
                          racks.Of(e.worker->rack), id, id, 0, 0, e.slot->memory_bytes,
                          e.slot->memory_bytes});
      }
      Group& group = groups.back();
      group.end = id + 1;
      group.min_memory_bytes = std::min(group.min_memory_bytes, e.slot->memory_bytes);
      group.max_memory_bytes = std::max(group.max_memory_bytes, e.slot->memory_bytes);
      const bool available = e.worker->available && !e.worker->cordoned;
      group.available += available;
      group.cordoned += e.worker->cordoned;
      layout.slots.push_back({e.worker->worker, e.slot->index, e.slot->memory_bytes,
                              static_cast<int>(groups.size()) - 1, available, e.worker->cordoned});
      WorkerInfo& info = layout.workers[e.worker->worker];
      if (info.slots.empty()) {
        info.host = e.worker->host;
        info.nvlink_domain = e.worker->nvlink_domain;
        info.rack = e.worker->rack;
      }
      info.slots.push_back({e.slot->index, id});
      free_.push_back(e.slot->free ? 1 : 0);
    }
    kind.end = static_cast<int>(layout.groups.size());
  }
  MakeIndex(layout);
}

// What is known of the groups together, and the index of what is usable in them.
void SlotPool::MakeIndex(Layout& layout) {
  usable_.assign(layout.groups.size(), 0);
  usable_of_.assign(layout.kinds.size(), 0);
  usable_in_domain_.assign(layout.kinds.size() * layout.domains, 0);
  usable_in_rack_.assign(layout.kinds.size() * layout.racks, 0);
  size_t bits = 0, counts = 0;
  for (Kind& kind : layout.of_kind) {
    kind.min_memory_bytes = layout.groups[kind.begin].min_memory_bytes;
    for (int i = kind.begin; i < kind.end; ++i) {
      const Group& group = layout.groups[i];
      kind.slots += group.end - group.begin;
      kind.available += group.available;
      kind.cordoned += group.cordoned;
      kind.largest = std::max(kind.largest, group.end - group.begin);
      kind.min_memory_bytes = std::min(kind.min_memory_bytes, group.min_memory_bytes);
      kind.max_memory_bytes = std::max(kind.max_memory_bytes, group.max_memory_bytes);
      if (group.nvlink_domain >= 0) kind.in_domain[group.nvlink_domain].push_back(i);
      if (group.rack >= 0) kind.in_rack[group.rack].push_back(i);
    }
    kind.groups_of_available.assign(kind.largest + 1, 0);
    for (int i = kind.begin; i < kind.end; ++i)
      ++kind.groups_of_available[layout.groups[i].available];
    kind.words = (kind.end - kind.begin + 63) / 64;
    kind.bits = bits;
    kind.counts = counts;
    if (kind.largest > kMostIndexed) continue;
    bits += kind.words * kind.largest;
    counts += kind.largest;
  }
  bits_.assign(bits, 0);
  counts_.assign(counts, 0);
  for (SlotId id = 0; id < static_cast<SlotId>(layout.slots.size()); ++id) {
    if (usable(id)) CountUsable(layout.slots[id].group, 1);
  }
}

SlotPool::WorkerSlots SlotPool::SlotsOn(const WorkerId& worker) const {
  auto it = layout_->workers.find(worker);
  return it == layout_->workers.end() ? WorkerSlots() : WorkerSlots(it->second.slots);
}

SlotId SlotPool::Pick(WorkerSlots slots, int index) {
  // Mostly slot i is the i-th.
  if (index >= 0 && index < static_cast<int>(slots.size()) && slots[index].first == index)
    return slots[index].second;
  for (const auto& [known, id] : slots) {
    if (known == index) return id;
  }
  return -1;
}

bool SlotPool::Update(const HostView& worker) {
  auto it = layout_->workers.find(worker.worker);
  if (it == layout_->workers.end()) return worker.slots.empty();
  const WorkerInfo& known = it->second;
  if (known.host != worker.host || known.nvlink_domain != worker.nvlink_domain ||
      known.rack != worker.rack || known.slots.size() != worker.slots.size())
    return false;
  for (const SlotView& view : worker.slots) {
    const SlotId id = Pick(known.slots, view.index);
    if (id < 0 || slot(id).memory_bytes != view.memory_bytes ||
        kinds()[groups()[slot(id).group].kind] != view.kind)
      return false;
  }
  const bool available = worker.available && !worker.cordoned;
  for (const SlotView& view : worker.slots) {
    const SlotId id = Pick(SlotsOn(worker.worker), view.index);
    if (slot(id).available != available || slot(id).cordoned != worker.cordoned) {
      if (layout_.use_count() > 1) layout_ = std::make_shared<Layout>(*layout_);
      SlotInfo& info = layout_->slots[id];
      Group& group = layout_->groups[info.group];
      Kind& kind = layout_->of_kind[group.kind];
      if (free(id) && info.available != available) CountUsable(info.group, available ? 1 : -1);
      const int more = available - info.available, cordons = worker.cordoned - info.cordoned;
      --kind.groups_of_available[group.available];
      group.available += more;
      ++kind.groups_of_available[group.available];
      kind.available += more;
      group.cordoned += cordons;
      kind.cordoned += cordons;
      info.available = available;
      info.cordoned = worker.cordoned;
    }
    Set(id, view.free ? 1 : 0);
  }
  return true;
}

int SlotPool::NextWith(int kind, int usable, int after) const {
  const Kind& info = layout_->of_kind[kind];
  if (counts_[info.counts + usable - 1] == 0) return -1;
  const uint64_t* bits = &bits_[info.bits + (usable - 1) * info.words];
  const size_t from = after < 0 ? 0 : after + 1 - info.begin;
  for (size_t word = from / 64; word < info.words; ++word) {
    uint64_t left = bits[word];
    if (word == from / 64) left &= ~uint64_t{0} << (from % 64);
    if (left != 0) return info.begin + static_cast<int>(64 * word) + __builtin_ctzll(left);
  }
  return -1;
}

void SlotPool::Index(const Kind& kind, int group, int usable, bool set) {
  if (usable == 0) return;
  const size_t bit = group - kind.begin;
  uint64_t& word = bits_[kind.bits + (usable - 1) * kind.words + bit / 64];
  word ^= uint64_t{1} << (bit % 64);
  counts_[kind.counts + usable - 1] += set ? 1 : -1;
}

void SlotPool::CountUsable(int group, int change) {
  const Group& info = layout_->groups[group];
  const Kind& kind = layout_->of_kind[info.kind];
  const bool indexed = kind.largest <= kMostIndexed;
  if (indexed) Index(kind, group, usable_[group], false);
  usable_[group] += change;
  if (indexed) Index(kind, group, usable_[group], true);
  usable_total_ += change;
  usable_of_[info.kind] += change;
  if (info.nvlink_domain >= 0)
    usable_in_domain_[info.kind * layout_->domains + info.nvlink_domain] += change;
  if (info.rack >= 0) usable_in_rack_[info.kind * layout_->racks + info.rack] += change;
}

bool SlotPool::Set(SlotId id, uint8_t free) {
  if (id < 0 || free_[id] == free) return false;
  free_[id] = free;
  const SlotInfo& info = layout_->slots[id];
  if (info.available) CountUsable(info.group, free != 0 ? 1 : -1);
  return true;
}

}  // namespace ll
