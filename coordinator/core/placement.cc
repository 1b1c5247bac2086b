#include "coordinator/core/placement.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/format.h"

namespace ll {
namespace {

template <typename T>
bool Allowed(const std::vector<T>& list, const T& value) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

// Of a kind that is allowed.
bool GroupAllowed(const PlacementRequest& request, const SlotPool::Group& group) {
  return group.max_memory_bytes >= request.required_slot_bytes &&
         Allowed(request.hosts, group.host);
}

bool KindAllowed(const PlacementRequest& request, const SlotPool& pool, int kind) {
  return pool.kind(kind).max_memory_bytes >= request.required_slot_bytes &&
         Allowed(request.slot_kinds, pool.kinds()[kind]);
}

// Every slot of the kind will do, so that what the pool knows of all of them together holds.
bool WholeKind(const PlacementRequest& request, const SlotPool::Kind& kind) {
  return request.hosts.empty() && kind.min_memory_bytes >= request.required_slot_bytes;
}

// How many slots of the group a rank may have now. Usually all have the same memory.
int UsableIn(const PlacementRequest& request, const SlotPool& pool, int index) {
  const SlotPool::Group& group = pool.groups()[index];
  if (group.min_memory_bytes >= request.required_slot_bytes) return pool.usable_in(index);
  int count = 0;
  for (SlotId id = group.begin; id < group.end; ++id) {
    count += pool.usable(id) && pool.slot(id).memory_bytes >= request.required_slot_bytes;
  }
  return count;
}

struct HostChoice {
  int group = 0;
  int usable = 0;
};

// How far apart the ranks are; smaller is faster.
enum class Spread { kHost, kDomain, kRack, kAnywhere };

struct Candidate {
  std::vector<HostChoice> hosts;  // `usable`: taken of the group
  Spread spread = Spread::kHost;
  int left_over = 0;  // usable slots that stay on the hosts taken
  int64_t memory_bytes = 0;
  std::tuple<Spread, size_t, int, int64_t> Cost() const {
    return {spread, hosts.size(), left_over, memory_bytes};
  }
};

void Take(const SlotPool& pool, const HostChoice& host, int wanted, Candidate& candidate) {
  const int count = std::min(wanted, host.usable);
  candidate.hosts.push_back({host.group, count});
  candidate.left_over += host.usable - count;
  candidate.memory_bytes =
      std::max(candidate.memory_bytes, pool.groups()[host.group].max_memory_bytes);
}

// The tightest host that holds `wanted` ranks by itself, or the end.
std::vector<HostChoice>::iterator Tightest(std::vector<HostChoice>& hosts, int wanted) {
  auto best = hosts.end();
  for (auto it = hosts.begin(); it != hosts.end(); ++it) {
    if (it->usable < wanted) continue;
    if (best == hosts.end() || it->usable < best->usable) best = it;
  }
  return best;
}

// Fewest hosts: whole big ones first, and for what remains the tightest that holds it. The hosts
// together have enough.
Candidate Pack(const SlotPool& pool, std::vector<HostChoice> hosts, int wanted, Spread spread) {
  std::stable_sort(hosts.begin(), hosts.end(),
                   [](const HostChoice& a, const HostChoice& b) { return a.usable > b.usable; });
  Candidate candidate;
  candidate.spread = spread;
  size_t next = 0;
  while (wanted > 0) {
    std::vector<HostChoice> rest(hosts.begin() + next, hosts.end());
    const auto last = Tightest(rest, wanted);
    if (last != rest.end()) {
      Take(pool, *last, wanted, candidate);
      return candidate;
    }
    Take(pool, hosts[next], wanted, candidate);
    wanted -= hosts[next++].usable;
  }
  return candidate;
}

// The hosts of the tightest domain (or rack) that holds the gang; empty: none does.
std::vector<HostChoice> TightestArea(const SlotPool& pool, const std::vector<HostChoice>& hosts,
                                     int wanted, int areas, int SlotPool::Group::*area) {
  std::vector<int> sums(areas, 0);
  for (const HostChoice& host : hosts) {
    const int number = pool.groups()[host.group].*area;
    if (number >= 0) sums[number] += host.usable;
  }
  int best = -1;
  for (int i = 0; i < areas; ++i) {
    if (sums[i] >= wanted && (best < 0 || sums[i] < sums[best])) best = i;
  }
  std::vector<HostChoice> inside;
  if (best < 0) return inside;
  for (const HostChoice& host : hosts) {
    if (pool.groups()[host.group].*area == best) inside.push_back(host);
  }
  return inside;
}

// False: the slots of this kind do not hold the gang now. Looks at every group.
bool FitByScan(const PlacementRequest& request, const SlotPool& pool, int kind,
               Candidate& candidate) {
  const int wanted = request.ranks;
  std::vector<HostChoice> hosts;
  int sum = 0;
  for (int i = pool.kind(kind).begin; i < pool.kind(kind).end; ++i) {
    if (pool.usable_in(i) == 0 || !GroupAllowed(request, pool.groups()[i])) continue;
    const int usable = UsableIn(request, pool, i);
    if (usable == 0) continue;
    hosts.push_back({i, usable});
    sum += usable;
  }
  const auto single = Tightest(hosts, wanted);
  if (single != hosts.end()) {
    Take(pool, *single, wanted, candidate);
    return true;
  }
  if (request.one_host || sum < wanted) return false;
  Spread spread = Spread::kDomain;
  std::vector<HostChoice> area =
      TightestArea(pool, hosts, wanted, pool.domains(), &SlotPool::Group::nvlink_domain);
  if (area.empty()) {
    spread = Spread::kRack;
    area = TightestArea(pool, hosts, wanted, pool.racks(), &SlotPool::Group::rack);
  }
  if (area.empty()) {
    spread = Spread::kAnywhere;
    area = std::move(hosts);
  }
  candidate = Pack(pool, std::move(area), wanted, spread);
  return true;
}

// As Pack, over all groups of the kind.
Candidate PackKind(const SlotPool& pool, int kind, int wanted) {
  Candidate candidate;
  candidate.spread = Spread::kAnywhere;
  int usable = pool.kind(kind).largest, taken = -1;  // with more, and up to `taken`: none is left
  while (wanted > 0) {
    for (int tight = wanted; tight <= usable; ++tight) {
      const int group = pool.NextWith(kind, tight, tight == usable ? taken : -1);
      if (group < 0) continue;
      Take(pool, {group, tight}, wanted, candidate);
      return candidate;
    }
    while ((taken = pool.NextWith(kind, usable, taken)) < 0) --usable;
    Take(pool, {taken, usable}, wanted, candidate);
    wanted -= usable;
  }
  return candidate;
}

// The tightest of the areas that hold the gang, -1: none does.
template <typename UsableIn>
int TightestOf(int areas, int wanted, UsableIn usable_in) {
  int best = -1;
  for (int i = 0; i < areas; ++i) {
    if (usable_in(i) >= wanted && (best < 0 || usable_in(i) < usable_in(best))) best = i;
  }
  return best;
}

std::vector<HostChoice> UsableOf(const SlotPool& pool, const std::vector<int>& groups) {
  std::vector<HostChoice> hosts;
  for (int group : groups) {
    if (pool.usable_in(group) > 0) hosts.push_back({group, pool.usable_in(group)});
  }
  return hosts;
}

// The same answer as FitByScan for a WholeKind that is indexed.
bool FitByIndex(const PlacementRequest& request, const SlotPool& pool, int kind,
                Candidate& candidate) {
  const int wanted = request.ranks;
  const SlotPool::Kind& info = pool.kind(kind);
  for (int usable = wanted; usable <= info.largest; ++usable) {
    const int group = pool.NextWith(kind, usable, -1);
    if (group < 0) continue;
    Take(pool, {group, usable}, wanted, candidate);
    return true;
  }
  if (request.one_host) return false;
  const int domain =
      TightestOf(pool.domains(), wanted, [&](int i) { return pool.usable_in_domain(kind, i); });
  if (domain >= 0) {
    candidate = Pack(pool, UsableOf(pool, info.in_domain[domain]), wanted, Spread::kDomain);
    return true;
  }
  const int rack =
      TightestOf(pool.racks(), wanted, [&](int i) { return pool.usable_in_rack(kind, i); });
  candidate = rack >= 0 ? Pack(pool, UsableOf(pool, info.in_rack[rack]), wanted, Spread::kRack)
                        : PackKind(pool, kind, wanted);
  return true;
}

// Slots that could serve the gang if all were free: of one kind, on the best host or in all.
struct Capacity {
  int known = 0;      // on any registered worker
  int available = 0;  // on workers that may be given a gang now
};
Capacity CapacityFor(const PlacementRequest& request, const SlotPool& pool) {
  Capacity best;
  const auto consider = [&best](const Capacity& sum) {
    best.known = std::max(best.known, sum.known);
    best.available = std::max(best.available, sum.available);
  };
  for (int number = 0; number < static_cast<int>(pool.kinds().size()); ++number) {
    if (!KindAllowed(request, pool, number)) continue;
    const SlotPool::Kind& kind = pool.kind(number);
    if (WholeKind(request, kind)) {
      consider(request.one_host ? Capacity{kind.largest, kind.largest_available()}
                                : Capacity{kind.slots, kind.available});
      continue;
    }
    Capacity sum;
    for (int i = kind.begin; i < kind.end; ++i) {
      const SlotPool::Group& group = pool.groups()[i];
      if (!GroupAllowed(request, group)) continue;
      if (request.one_host) sum = {};
      const bool whole = group.min_memory_bytes >= request.required_slot_bytes;
      if (whole) {
        sum.known += group.end - group.begin;
        sum.available += group.available;
      }
      for (SlotId id = group.begin; !whole && id < group.end; ++id) {
        if (pool.slot(id).memory_bytes < request.required_slot_bytes) continue;
        ++sum.known;
        sum.available += pool.slot(id).available;
      }
      consider(sum);
    }
  }
  return best;
}

bool HostKnown(const PlacementRequest& request, const SlotPool& pool) {
  if (request.hosts.empty()) return !pool.groups().empty();
  return std::any_of(pool.groups().begin(), pool.groups().end(), [&](const SlotPool::Group& group) {
    return Allowed(request.hosts, group.host);
  });
}

std::string Needs(const PlacementRequest& request) {
  std::string text = absl::StrCat("needs ", request.ranks, request.ranks == 1 ? " slot" : " slots");
  if (!request.slot_kinds.empty())
    absl::StrAppend(&text, " of kind ", absl::StrJoin(request.slot_kinds, " or "),
                    request.kinds_named ? " (gpu_types)" : "");
  if (request.required_slot_bytes > 0) {
    absl::StrAppend(&text, " with at least ", HumanBytes(request.required_slot_bytes),
                    request.ranks > 1 ? " each" : "");
  }
  if (!request.hosts.empty()) {
    absl::StrAppend(&text, " on host ", absl::StrJoin(request.hosts, " or "));
  } else if (request.one_host && request.ranks > 1) {
    absl::StrAppend(&text, " on one host");
  }
  if (!request.host_reason.empty() &&
      (!request.hosts.empty() || (request.ranks > 1 && request.one_host))) {
    absl::StrAppend(&text, " (", request.host_reason, ")");
  }
  return text;
}

}  // namespace

std::vector<SlotId> UsableFor(const PlacementRequest& request, const SlotPool& pool) {
  std::vector<SlotId> slots;
  for (int number = 0; number < static_cast<int>(pool.kinds().size()); ++number) {
    if (pool.usable_of(number) == 0 || !KindAllowed(request, pool, number)) continue;
    for (int i = pool.kind(number).begin; i < pool.kind(number).end; ++i) {
      if (pool.usable_in(i) == 0 || !GroupAllowed(request, pool.groups()[i])) continue;
      for (SlotId id = pool.groups()[i].begin; id < pool.groups()[i].end; ++id) {
        if (pool.usable(id) && pool.slot(id).memory_bytes >= request.required_slot_bytes)
          slots.push_back(id);
      }
    }
  }
  return slots;
}

namespace {

Placement PlaceWith(const PlacementRequest& request, const SlotPool& pool, bool use_index) {
  const auto& groups = pool.groups();
  Candidate best;
  const int kinds = static_cast<int>(pool.kinds().size());
  for (int kind = 0; kind < kinds; ++kind) {
    if (pool.usable_of(kind) < request.ranks || !KindAllowed(request, pool, kind)) continue;
    const bool indexed = use_index && WholeKind(request, pool.kind(kind)) &&
                         pool.kind(kind).largest <= SlotPool::kMostIndexed;
    Candidate candidate;
    if (!(indexed ? FitByIndex : FitByScan)(request, pool, kind, candidate)) continue;
    if (best.hosts.empty() || candidate.Cost() < best.Cost()) best = std::move(candidate);
  }
  Placement placement;
  if (best.hosts.empty()) {
    const Capacity capacity = CapacityFor(request, pool);
    const bool known = pool.size() > 0 && HostKnown(request, pool);
    if (known && capacity.known < request.ranks) placement.answer = Placement::Answer::kInfeasible;
    placement.needs_workers = capacity.available < request.ranks;
    return placement;
  }
  placement.answer = Placement::Answer::kFit;
  for (const HostChoice& host : best.hosts) {
    int left = host.usable;
    for (SlotId id = groups[host.group].begin; left > 0; ++id) {
      if (!pool.usable(id) || pool.slot(id).memory_bytes < request.required_slot_bytes) continue;
      placement.ranks.push_back(id);
      --left;
    }
  }
  return placement;
}

}  // namespace

KindSet KindsFor(const PlacementRequest& request, const SlotPool& pool) {
  KindSet kinds = 0;
  for (int number = 0; number < static_cast<int>(pool.kinds().size()); ++number) {
    if (KindAllowed(request, pool, number)) kinds |= KindBit(number);
  }
  return kinds != 0 ? kinds : ~KindSet{0};
}

Placement Place(const PlacementRequest& request, const SlotPool& pool) {
  return PlaceWith(request, pool, /*use_index=*/true);
}

Placement PlaceByScan(const PlacementRequest& request, const SlotPool& pool) {
  return PlaceWith(request, pool, /*use_index=*/false);
}

int LargestFit(PlacementRequest request, const SlotPool& pool, int least, int most) {
  const auto fits = [&](int ranks) {
    request.ranks = ranks;
    return Place(request, pool).answer == Placement::Answer::kFit;
  };
  if (most < least || !fits(least)) return 0;
  int enough = least, too_many = std::min(most, std::max(least, pool.usable_total())) + 1;
  while (too_many - enough > 1) {
    const int middle = enough + (too_many - enough) / 2;
    (fits(middle) ? enough : too_many) = middle;
  }
  return enough;
}

std::string ExplainPlacement(const PlacementRequest& request, const SlotPool& pool) {
  const std::string needs = Needs(request);
  if (pool.size() == 0) return absl::StrCat(needs, "; no worker has registered yet");
  if (!HostKnown(request, pool))
    return absl::StrCat(needs, "; no worker of that host has registered");
  const Capacity capacity = CapacityFor(request, pool);
  if (capacity.known < request.ranks)
    return absl::StrCat(needs, "; the cluster has ", capacity.known, " that would do");
  int total = 0, silent = 0, cordoned = 0, usable = 0;
  for (int number = 0; number < static_cast<int>(pool.kinds().size()); ++number) {
    if (!KindAllowed(request, pool, number)) continue;
    const SlotPool::Kind& kind = pool.kind(number);
    if (WholeKind(request, kind)) {
      total += kind.slots;
      cordoned += kind.cordoned;
      silent += kind.slots - kind.available - kind.cordoned;
      usable += pool.usable_of(number);
      continue;
    }
    for (int i = kind.begin; i < kind.end; ++i) {
      const SlotPool::Group& group = pool.groups()[i];
      if (!GroupAllowed(request, group)) continue;
      for (SlotId id = group.begin; id < group.end; ++id) {
        const SlotPool::SlotInfo& slot = pool.slot(id);
        if (slot.memory_bytes < request.required_slot_bytes) continue;
        ++total;
        cordoned += slot.cordoned;
        silent += !slot.available && !slot.cordoned;
        usable += pool.usable(id);
      }
    }
  }
  std::string text = absl::StrCat(needs, "; ", usable, " of ", total, " are free");
  const auto are = [](int slots) { return slots == 1 ? " is" : " are"; };
  if (silent > 0) absl::StrAppend(&text, ", ", silent, are(silent), " on workers out of contact");
  if (cordoned > 0) absl::StrAppend(&text, ", ", cordoned, are(cordoned), " on cordoned workers");
  return text;
}

}  // namespace ll
