// Clusters as drawings: one word a worker, "NAME@HOST:SLOTS", a slot is f (free), u (in use); a
// capital kind letter before the slots: C cpu (8 GB), A A100 (80 GB); "!" after the slots: out of
// contact.
#include "coordinator/core/placement.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/ids.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

using Answer = Placement::Answer;
constexpr int64_t kGb = 1'000'000'000;

std::vector<HostView> Cluster(const std::string& drawing) {
  std::vector<HostView> hosts;
  for (const std::string& word :
       std::vector<std::string>(absl::StrSplit(drawing, ' ', absl::SkipEmpty()))) {
    const std::vector<std::string> parts = absl::StrSplit(word, absl::ByAnyChar("@:"));
    HostView host{WorkerId(parts[0]), parts[1]};
    std::string kind;
    for (char c : parts[2]) {
      if (c == '!') {
        host.available = false;
      } else if (c == 'C' || c == 'A') {
        kind = c == 'C' ? "cpu" : "A100";
      } else {
        host.slots.push_back(
            {static_cast<int>(host.slots.size()), kind, (kind == "cpu" ? 8 : 80) * kGb, c == 'f'});
      }
    }
    hosts.push_back(std::move(host));
  }
  return hosts;
}

// "w1/0 w1/1", "wait", "wait!" (for workers) or "infeasible".
std::string Try(const std::string& drawing, PlacementRequest request) {
  const SlotPool pool(Cluster(drawing));
  const Placement placement = Place(request, pool);
  if (placement.answer == Answer::kWait) return placement.needs_workers ? "wait!" : "wait";
  if (placement.answer == Answer::kInfeasible) return "infeasible";
  return absl::StrJoin(placement.ranks, " ", [&pool](std::string* out, SlotId rank) {
    absl::StrAppend(out, pool.slot(rank).worker.value(), "/", pool.slot(rank).index);
  });
}

PlacementRequest Ranks(int ranks, int64_t gb = 0) {
  PlacementRequest request;
  request.ranks = ranks;
  request.required_slot_bytes = gb * kGb;
  return request;
}

TEST(Place, PacksOneHostAsTightlyAsPossible) {
  EXPECT_EQ(Try("a@h1:Cffff b@h2:Cff", Ranks(2)), "b/0 b/1");
  EXPECT_EQ(Try("a@h1:Cffff b@h2:Cff", Ranks(3)), "a/0 a/1 a/2");
  EXPECT_EQ(Try("a@h1:Cufuf b@h2:Cfff", Ranks(2)), "a/1 a/3");
}

TEST(LargestFit, IsTheMostThatFits) {
  const SlotPool pool(Cluster("a@h1:Cffff b@h2:Cfu c@h3:Afff"));
  EXPECT_EQ(LargestFit(Ranks(0), pool, 1, 100), 5);  // of one kind
  EXPECT_EQ(LargestFit(Ranks(0), pool, 2, 3), 3);
  EXPECT_EQ(LargestFit(Ranks(0), pool, 6, 8), 0);
  EXPECT_EQ(LargestFit(Ranks(0), pool, 3, 2), 0);
  EXPECT_EQ(LargestFit(Ranks(0, 40), pool, 1, 100), 3);
  PlacementRequest one_host = Ranks(0);
  one_host.one_host = true;
  EXPECT_EQ(LargestFit(one_host, pool, 1, 100), 4);
}

TEST(Place, AgentsOfOneHostAreOneHost) {
  EXPECT_EQ(Try("a@h1:Cf b@h1:Cf c@h2:Cfff", Ranks(2)), "a/0 b/0");
}

TEST(Place, TakesFewestHostsWhenItMustSpan) {
  EXPECT_EQ(Try("a@h1:Cff b@h2:Cffff c@h3:Cf", Ranks(5)), "b/0 b/1 b/2 b/3 c/0");
  EXPECT_EQ(Try("a@h1:Cff b@h2:Cffff c@h3:Cf", Ranks(6)), "b/0 b/1 b/2 b/3 a/0 a/1");
}

TEST(Place, NeverMixesKinds) {
  EXPECT_EQ(Try("a@h1:Cff b@h2:Aff", Ranks(3)), "infeasible");
  EXPECT_EQ(Try("a@h1:CfAf", Ranks(2)), "infeasible");
}

TEST(Place, HonoursMemoryKindAndHost) {
  EXPECT_EQ(Try("a@h1:Cff b@h2:Aff", Ranks(1, 40)), "b/0");
  PlacementRequest cpu = Ranks(1);
  cpu.slot_kinds = {"cpu"};
  EXPECT_EQ(Try("a@h1:Af b@h2:Cf", cpu), "b/0");
  PlacementRequest pinned = Ranks(1);
  pinned.hosts = {"h2"};
  EXPECT_EQ(Try("a@h1:Cf b@h2:Cf", pinned), "b/0");
  EXPECT_EQ(Try("a@h1:Cf b@h2:Cu", pinned), "wait");
  EXPECT_EQ(Try("a@h1:Cf", pinned), "wait!");  // its worker may come back
}

TEST(Place, PrefersTheSmallerSlotsWhenBothDo) {
  EXPECT_EQ(Try("a@h1:Aff b@h2:Cff", Ranks(2)), "b/0 b/1");
}

TEST(Place, WaitsForWhatIsBusyOrSilentButNotForTheImpossible) {
  EXPECT_EQ(Try("a@h1:Cfu", Ranks(2)), "wait");
  EXPECT_EQ(Try("a@h1:Cff!", Ranks(2)), "wait!");
  EXPECT_EQ(Try("a@h1:Cuu b@h2:Cff!", Ranks(3)), "wait!");
  EXPECT_EQ(Try("a@h1:Cff", Ranks(3)), "infeasible");
  EXPECT_EQ(Try("a@h1:Cff", Ranks(1, 40)), "infeasible");
  EXPECT_EQ(Try("", Ranks(1)), "wait!");
}

TEST(Place, OneHostMeansOneHost) {
  PlacementRequest request = Ranks(3);
  request.one_host = true;
  EXPECT_EQ(Try("a@h1:Cff b@h2:Cff", request), "infeasible");
  EXPECT_EQ(Try("a@h1:Cff b@h2:Cfuf", request), "wait");
  EXPECT_EQ(Try("a@h1:Cff b@h2:Cfff", request), "b/0 b/1 b/2");
}

TEST(Place, SaysWhatIsMissing) {
  std::vector<HostView> hosts = Cluster("a@h1:Cfu b@h2:Cf! c@h3:Cf");
  hosts[2].cordoned = true;
  const SlotPool pool(hosts);
  EXPECT_EQ(ExplainPlacement(Ranks(3), pool),
            "needs 3 slots; 1 of 4 are free, 1 is on workers out of contact, 1 is on cordoned "
            "workers");
  EXPECT_EQ(ExplainPlacement(Ranks(1, 40), pool),
            "needs 1 slot with at least 40 GB; the cluster has 0 that would do");
}

std::vector<HostView> Labelled(const std::string& drawing) {  // host "d1r2…": domain 1, rack 2
  std::vector<HostView> hosts = Cluster(drawing);
  for (HostView& host : hosts) {
    host.nvlink_domain = host.host.substr(0, 2) == "d0" ? "" : host.host.substr(0, 2);
    host.rack = host.host.substr(2, 2);
  }
  return hosts;
}

TEST(Place, KeepsAGangWithinANvlinkDomainThenARack) {
  const auto hosts_of = [](const std::string& drawing, int ranks) {
    const SlotPool pool(Labelled(drawing));
    std::set<std::string> hosts;
    for (SlotId rank : Place(Ranks(ranks), pool).ranks)
      hosts.insert(pool.groups()[pool.slot(rank).group].host);
    return absl::StrJoin(hosts, " ");
  };
  // Four slots: two hosts of one domain, though two bigger hosts of different domains would do.
  EXPECT_EQ(hosts_of("a@d1r1a:Cff b@d1r1b:Cff c@d2r1a:Cfff d@d3r2a:Cfff", 4), "d1r1a d1r1b");
  // The tightest domain.
  EXPECT_EQ(hosts_of("a@d1r1a:Cff b@d1r1b:Cfff c@d2r1a:Cff d@d2r1b:Cff", 4), "d2r1a d2r1b");
  // No domain holds it: one rack.
  EXPECT_EQ(hosts_of("a@d1r1a:Cff b@d2r2a:Cff c@d3r1a:Cff d@d4r3a:Cff", 4), "d1r1a d3r1a");
  // No rack does: anywhere.
  EXPECT_EQ(hosts_of("a@d1r1a:Cff b@d2r2a:Cf", 3), "d1r1a d2r2a");
  // One host beats all.
  EXPECT_EQ(hosts_of("a@d1r1a:Cff b@d1r1b:Cff c@d2r2a:Cffff", 4), "d2r2a");
}

// Whatever the cluster, an answer keeps the rules; and it finds a fit whenever the plain count says
// there is one.
TEST(Place, KeepsItsRulesOnRandomClusters) {
  for (uint64_t seed = 1; seed <= 500; ++seed) {
    SeededRandom random(seed);
    std::string drawing;
    for (uint64_t i = 0, n = 1 + random.Below(5); i < n; ++i) {
      absl::StrAppend(&drawing, "w", i, "@h", random.Below(3), ":",
                      random.Below(2) == 0 ? "C" : "A");
      for (uint64_t s = 0, m = 1 + random.Below(4); s < m; ++s)
        drawing += random.Below(2) == 0 ? "f" : "u";
      if (random.Below(4) == 0) drawing += "!";
      drawing += " ";
    }
    PlacementRequest request =
        Ranks(1 + static_cast<int>(random.Below(5)), random.Below(2) == 0 ? 0 : 40);
    request.one_host = random.Below(2) == 0;
    const std::vector<HostView> hosts = Cluster(drawing);
    const SlotPool pool(hosts);
    const Placement placement = Place(request, pool);

    std::map<std::string, std::map<std::string, int>> usable;  // kind → host → slots
    std::map<std::pair<std::string, int>, std::string> kind_of, host_of;
    for (const HostView& host : hosts) {
      for (const SlotView& slot : host.slots) {
        if (!host.available || !slot.free || slot.memory_bytes < request.required_slot_bytes)
          continue;
        ++usable[slot.kind][host.host];
        kind_of[{host.worker.value(), slot.index}] = slot.kind;
        host_of[{host.worker.value(), slot.index}] = host.host;
      }
    }
    bool possible = false;
    for (const auto& [kind, by_host] : usable) {
      int sum = 0, best = 0;
      for (const auto& [host, count] : by_host) {
        sum += count;
        best = std::max(best, count);
      }
      possible = possible || (request.one_host ? best : sum) >= request.ranks;
    }
    ASSERT_EQ(placement.answer == Answer::kFit, possible) << "seed " << seed << ": " << drawing;
    if (!possible) continue;
    ASSERT_EQ(static_cast<int>(placement.ranks.size()), request.ranks);
    std::set<std::pair<std::string, int>> used;
    std::set<std::string> kinds, names;
    for (SlotId rank : placement.ranks) {
      const auto key = std::make_pair(pool.slot(rank).worker.value(), pool.slot(rank).index);
      ASSERT_EQ(kind_of.count(key), 1u) << "seed " << seed << ": slot not usable";
      ASSERT_TRUE(used.insert(key).second) << "seed " << seed << ": slot twice";
      kinds.insert(kind_of[key]);
      names.insert(host_of[key]);
    }
    EXPECT_EQ(kinds.size(), 1u) << "seed " << seed;
    EXPECT_TRUE(!request.one_host || names.size() == 1) << "seed " << seed;
  }
}

// A cluster that changes as the scheduler's does: slots are taken and given back, workers go and
// come, are cordoned, join.
class ChangingCluster {
 public:
  explicit ChangingCluster(uint64_t seed) : random_(seed) {
    const bool large = Below(4) == 0;  // more than one word of the index, hosts beyond it
    for (int i = 0, n = 1 + Below(large ? 150 : 12); i < n; ++i) Join(i, large && Below(40) == 0);
    pool_ = SlotPool(hosts_);
  }

  void Change() {
    HostView& host = hosts_[Below(static_cast<int>(hosts_.size()))];
    switch (Below(6)) {
      case 0:
        host.available = Below(2) == 0;
        break;
      case 1:
        host.cordoned = Below(2) == 0;
        break;
      case 2:
        for (SlotView& slot : host.slots) slot.free = Below(2) == 0;
        break;
      default: {
        SlotView& slot = host.slots[Below(static_cast<int>(host.slots.size()))];
        const SlotId id = pool_.Find(host.worker, slot.index);
        slot.free = !slot.free;
        EXPECT_TRUE(slot.free ? pool_.Give(id) : pool_.Take(id));
        EXPECT_FALSE(slot.free ? pool_.Give(id) : pool_.Take(id));
        return;
      }
    }
    const SlotPool before = pool_;  // a copy must not see what comes now
    const int usable = before.usable_total();
    EXPECT_TRUE(pool_.Update(host));
    EXPECT_EQ(before.usable_total(), usable);
  }

  PlacementRequest Request() {
    PlacementRequest request = Ranks(1 + Below(Below(3) == 0 ? 80 : 6), 10 * Below(10));
    if (Below(2) == 0) request.required_slot_bytes = 0;
    request.one_host = Below(4) == 0;
    if (Below(4) == 0) request.slot_kinds = {Below(2) == 0 ? "A100" : "H100"};
    for (int i = 0; Below(6) == 0 && i < 3; ++i)
      request.hosts.push_back(absl::StrCat("h", Below(static_cast<int>(hosts_.size()))));
    return request;
  }

  // Slots of one kind that would do if all were free, on one host or all: those of workers that may
  // be given a gang, or of all.
  int Capacity(const PlacementRequest& request, bool available) const {
    std::map<std::string, std::map<std::string, int>> counts;  // kind → host → slots
    for (const HostView& host : hosts_) {
      if (available && (!host.available || host.cordoned)) continue;
      if (!request.hosts.empty() &&
          std::count(request.hosts.begin(), request.hosts.end(), host.host) == 0)
        continue;
      for (const SlotView& slot : host.slots)
        counts[slot.kind][host.host] += slot.memory_bytes >= request.required_slot_bytes;
    }
    int best = 0;
    for (const auto& [kind, by_host] : counts) {
      if (!request.slot_kinds.empty() && request.slot_kinds.front() != kind) continue;
      int sum = 0;
      for (const auto& [host, count] : by_host) {
        sum = request.one_host ? count : sum + count;
        best = std::max(best, sum);
      }
    }
    return best;
  }

  const std::vector<HostView>& hosts() const { return hosts_; }
  const SlotPool& pool() const { return pool_; }

 private:
  int Below(int n) { return static_cast<int>(random_.Below(n)); }
  void Join(int number, bool huge) {
    HostView host{WorkerId(absl::StrCat("w", number)), absl::StrCat("h", Below(number + 1))};
    const char* kind = Below(3) == 0 ? "A100" : "H100";
    for (int s = 0, n = huge ? 70 : 1 + Below(8); s < n; ++s)
      host.slots.push_back({s, kind, (Below(20) == 0 ? 40 : 80) * kGb, Below(2) == 0});
    if (Below(2) == 0) host.nvlink_domain = absl::StrCat("d", number / 3);
    if (Below(4) != 0) host.rack = absl::StrCat("r", number / 6);
    hosts_.push_back(std::move(host));
  }

  SeededRandom random_;
  std::vector<HostView> hosts_;
  SlotPool pool_;
};

// The index answers as a look at every host does, and stays what a pool made anew would have.
TEST(Place, ByIndexAgreesWithALookAtEveryHost) {
  int fits = 0;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    ChangingCluster cluster(seed);
    for (int round = 0; round < 10; ++round) {
      for (int i = 0; i < 20; ++i) cluster.Change();
      const SlotPool anew(cluster.hosts());
      const SlotPool& pool = cluster.pool();
      ASSERT_EQ(pool.usable_total(), anew.usable_total()) << "seed " << seed;
      for (int i = 0; i < static_cast<int>(anew.groups().size()); ++i)
        ASSERT_EQ(pool.usable_in(i), anew.usable_in(i)) << "seed " << seed;
      for (int i = 0; i < 20; ++i) {
        const PlacementRequest request = cluster.Request();
        const Placement indexed = Place(request, pool), plain = PlaceByScan(request, anew);
        ASSERT_EQ(indexed.ranks, plain.ranks) << "seed " << seed << ", round " << round;
        ASSERT_EQ(indexed.answer, plain.answer) << "seed " << seed << ", round " << round;
        if (indexed.answer != Answer::kFit) {
          ASSERT_EQ(indexed.needs_workers, cluster.Capacity(request, true) < request.ranks)
              << "seed " << seed << ", round " << round;
          const bool known = cluster.Capacity(request, false) >= request.ranks;
          ASSERT_TRUE(indexed.answer == Answer::kWait || !known) << "seed " << seed;
        }
        ASSERT_EQ(ExplainPlacement(request, pool), ExplainPlacement(request, anew));
        ASSERT_EQ(UsableFor(request, pool), UsableFor(request, anew)) << "seed " << seed;
        fits += indexed.answer == Answer::kFit;
      }
    }
  }
  EXPECT_GT(fits, 10'000);
}

TEST(SlotPool, OtherSlotsNeedANewPool) {
  std::vector<HostView> hosts = Labelled("a@d1r1a:Cff b@d1r1b:Cff");
  SlotPool pool(hosts);
  HostView more = hosts[0], moved = hosts[0], other = hosts[0], unknown = hosts[0];
  more.slots.push_back({2, "cpu", 8 * kGb, true});
  moved.rack = "r9";
  other.slots[1].kind = "A100";
  unknown.worker = WorkerId("c");
  for (const HostView& host : {more, moved, other, unknown}) EXPECT_FALSE(pool.Update(host));
  hosts[0].available = false;
  EXPECT_TRUE(pool.Update(hosts[0]));
  EXPECT_EQ(pool.usable_total(), 2);
  EXPECT_TRUE(Place(Ranks(3), pool).needs_workers);
}

}  // namespace
}  // namespace ll
