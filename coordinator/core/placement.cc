#include "coordinator/core/placement.h"

#include <algorithm>
#include <map>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/format.h"

namespace ll {
namespace {

// The eligible slots of one host, of one kind.
struct HostSlots {
  std::vector<RankSlot> usable;  // free now, on an agent in contact
  int total = 0;
  int silent = 0;            // on agents out of contact
  int64_t memory_bytes = 0;  // of the largest
};
using ByHost = std::map<std::string, HostSlots>;

template <typename T>
bool Allowed(const std::vector<T>& list, const T& value) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

std::map<std::string, ByHost> GroupByKind(const PlacementRequest& request,
                                          absl::Span<const HostView> hosts) {
  std::vector<const HostView*> sorted;
  for (const HostView& host : hosts) sorted.push_back(&host);
  std::sort(sorted.begin(), sorted.end(),
            [](const HostView* a, const HostView* b) { return a->worker < b->worker; });
  std::map<std::string, ByHost> kinds;
  for (const HostView* host : sorted) {
    for (const SlotView& slot : host->slots) {
      if (!Eligible(request, *host, slot)) continue;
      HostSlots& group = kinds[slot.kind][host->host];
      ++group.total;
      group.memory_bytes = std::max(group.memory_bytes, slot.memory_bytes);
      if (!host->available) {
        ++group.silent;
      } else if (slot.free) {
        group.usable.push_back({host->worker, slot.index});
      }
    }
  }
  return kinds;
}

struct Candidate {
  std::vector<RankSlot> ranks;
  int hosts = 0;
  size_t left_over = 0;  // usable slots that stay on the hosts taken
  int64_t memory_bytes = 0;
  std::tuple<int, size_t, int64_t> Cost() const { return {hosts, left_over, memory_bytes}; }
};

void Take(const HostSlots& host, size_t wanted, Candidate& candidate) {
  const size_t count = std::min(wanted, host.usable.size());
  candidate.ranks.insert(candidate.ranks.end(), host.usable.begin(), host.usable.begin() + count);
  candidate.left_over += host.usable.size() - count;
  candidate.memory_bytes = std::max(candidate.memory_bytes, host.memory_bytes);
  ++candidate.hosts;
}

// The tightest host that holds `wanted` ranks by itself, or null.
const HostSlots* Tightest(const std::vector<const HostSlots*>& hosts, size_t wanted) {
  const HostSlots* best = nullptr;
  for (const HostSlots* host : hosts) {
    if (host->usable.size() < wanted) continue;
    if (best == nullptr || host->usable.size() < best->usable.size()) best = host;
  }
  return best;
}

// Fewest hosts: whole big ones first, and for what remains the tightest that holds it. Empty ranks:
// does not fit.
Candidate FitKind(const ByHost& by_host, size_t wanted, bool one_host) {
  std::vector<const HostSlots*> hosts;
  for (const auto& [name, slots] : by_host) hosts.push_back(&slots);
  std::stable_sort(hosts.begin(), hosts.end(), [](const HostSlots* a, const HostSlots* b) {
    return a->usable.size() > b->usable.size();
  });
  Candidate candidate;
  while (candidate.ranks.size() < wanted) {
    const size_t rest = wanted - candidate.ranks.size();
    if (const HostSlots* last = Tightest(hosts, rest)) {
      Take(*last, rest, candidate);
      return candidate;
    }
    if (one_host || hosts.empty() || hosts.front()->usable.empty()) return {};
    Take(*hosts.front(), rest, candidate);
    hosts.erase(hosts.begin());
  }
  return candidate;
}

// Slots that could serve the gang if all were free: on the best host or in all.
int Capacity(const ByHost& by_host, bool one_host) {
  int sum = 0, best = 0;
  for (const auto& [name, slots] : by_host) {
    sum += slots.total;
    best = std::max(best, slots.total);
  }
  return one_host ? best : sum;
}

std::string Needs(const PlacementRequest& request) {
  std::string text = absl::StrCat("needs ", request.ranks, request.ranks == 1 ? " slot" : " slots");
  if (!request.slot_kinds.empty())
    absl::StrAppend(&text, " of kind ", absl::StrJoin(request.slot_kinds, " or "));
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

Placement NoFit(const PlacementRequest& request, absl::Span<const HostView> hosts,
                const std::map<std::string, ByHost>& kinds) {
  Placement placement;
  if (hosts.empty()) {
    placement.reason = absl::StrCat(Needs(request), "; no worker has registered yet");
    return placement;
  }
  int total = 0, silent = 0, usable = 0, capacity = 0;
  for (const auto& [kind, by_host] : kinds) {
    capacity = std::max(capacity, Capacity(by_host, request.one_host));
    for (const auto& [name, slots] : by_host) {
      total += slots.total;
      silent += slots.silent;
      usable += static_cast<int>(slots.usable.size());
    }
  }
  const bool host_known = std::any_of(hosts.begin(), hosts.end(), [&](const HostView& host) {
    return Allowed(request.hosts, host.host);
  });
  if (!host_known) {
    placement.reason = absl::StrCat(Needs(request), "; no worker of that host has registered");
    return placement;
  }
  if (capacity < request.ranks) {
    placement.answer = Placement::Answer::kInfeasible;
    placement.reason =
        absl::StrCat(Needs(request), "; the cluster has ", capacity, " that would do");
    return placement;
  }
  placement.reason = absl::StrCat(Needs(request), "; ", usable, " of ", total, " are free");
  if (silent > 0)
    absl::StrAppend(&placement.reason, ", ", silent, " are on workers out of contact");
  return placement;
}

}  // namespace

bool Eligible(const PlacementRequest& request, const HostView& host, const SlotView& slot) {
  return slot.memory_bytes >= request.required_slot_bytes &&
         Allowed(request.slot_kinds, slot.kind) && Allowed(request.hosts, host.host);
}

Placement Place(const PlacementRequest& request, absl::Span<const HostView> hosts) {
  const std::map<std::string, ByHost> kinds = GroupByKind(request, hosts);
  Candidate best;
  for (const auto& [kind, by_host] : kinds) {
    Candidate candidate = FitKind(by_host, request.ranks, request.one_host);
    if (candidate.ranks.empty()) continue;
    if (best.ranks.empty() || candidate.Cost() < best.Cost()) best = std::move(candidate);
  }
  if (best.ranks.empty()) return NoFit(request, hosts, kinds);
  Placement placement;
  placement.answer = Placement::Answer::kFit;
  placement.ranks = std::move(best.ranks);
  return placement;
}

}  // namespace ll
