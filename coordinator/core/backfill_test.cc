#include "coordinator/core/backfill.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/ids.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

// Hosts of `slots` slots each, none free.
SlotPool FullCluster(int hosts, int slots) {
  std::vector<HostView> views;
  for (int i = 0; i < hosts; ++i) {
    HostView host{WorkerId(absl::StrCat("w", i)), absl::StrCat("h", i)};
    for (int s = 0; s < slots; ++s) host.slots.push_back({s, "cpu", 8, false});
    views.push_back(std::move(host));
  }
  return SlotPool(views);
}

PlacementRequest Ranks(int ranks, bool one_host = false) {
  PlacementRequest request;
  request.ranks = ranks;
  request.one_host = one_host;
  return request;
}

TEST(Reserve, TakesTheEarliestMomentAndTheSlotsOfThen) {
  const SlotPool pool = FullCluster(2, 2);  // slots 0, 1 on h0; 2, 3 on h1
  Job a, b, c;
  const std::vector<ExpectedEnd> ends = {
      {absl::Seconds(10), &a, {0}}, {absl::Seconds(20), &b, {2, 3}}, {absl::Seconds(30), &c, {1}}};
  const Reservation one = Reserve(Ranks(1), pool, ends);
  EXPECT_EQ(one.start, absl::Seconds(10));
  EXPECT_EQ(one.slots, std::vector<SlotId>{0});
  EXPECT_EQ(one.last, &a);
  const Reservation two = Reserve(Ranks(2, /*one_host=*/true), pool, ends);
  EXPECT_EQ(two.start, absl::Seconds(20));
  EXPECT_EQ(two.slots, (std::vector<SlotId>{2, 3}));
  EXPECT_EQ(Reserve(Ranks(4), pool, ends).start, absl::Seconds(30));
}

TEST(Reserve, WithoutAKnownMomentKeepsEveryFreeSlotThatWouldDo) {
  SlotPool pool = FullCluster(2, 2);
  pool.Give(1);
  pool.Give(2);
  Job a;
  const std::vector<ExpectedEnd> ends = {{absl::Seconds(10), &a, {0}}};
  const Reservation reservation = Reserve(Ranks(4), pool, ends);
  EXPECT_EQ(reservation.start, absl::InfiniteDuration());
  EXPECT_EQ(reservation.slots, (std::vector<SlotId>{1, 2}));
  EXPECT_EQ(reservation.last, nullptr);
}

// Galloping and halving find what a plain walk finds.
TEST(Reserve, AgreesWithAPlainWalk) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    SeededRandom random(seed);
    const int hosts = 1 + static_cast<int>(random.Below(6));
    const int slots = 1 + static_cast<int>(random.Below(4));
    SlotPool pool = FullCluster(hosts, slots);
    std::vector<ExpectedEnd> ends;
    for (SlotId id = 0; id < static_cast<SlotId>(pool.size()); ++id) {
      const uint64_t kind = random.Below(5);
      if (kind == 0) {
        pool.Give(id);
      } else if (kind < 4) {  // 4: its end is unknown
        ends.push_back({absl::Seconds(static_cast<int64_t>(random.Below(100))), nullptr, {id}});
      }
    }
    std::sort(ends.begin(), ends.end(),
              [](const ExpectedEnd& a, const ExpectedEnd& b) { return a.end < b.end; });
    const PlacementRequest request =
        Ranks(1 + static_cast<int>(random.Below(6)), random.Below(2) == 0);
    if (Place(request, pool).answer == Placement::Answer::kFit) continue;
    absl::Duration expected = absl::InfiniteDuration();
    SlotPool freed = pool;
    for (const ExpectedEnd& end : ends) {
      freed.Give(end.slots.front());
      if (Place(request, freed).answer != Placement::Answer::kFit) continue;
      expected = end.end;
      break;
    }
    const Reservation reservation = Reserve(request, pool, ends);
    EXPECT_EQ(reservation.start, expected) << "seed " << seed;
    if (expected != absl::InfiniteDuration()) {
      EXPECT_EQ(static_cast<int>(reservation.slots.size()), request.ranks) << "seed " << seed;
    }
  }
}

}  // namespace
}  // namespace ll
