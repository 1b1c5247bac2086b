#include "coordinator/core/due_fires.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

constexpr absl::Duration kEver = absl::InfiniteDuration();

absl::Time At(int day, int hour, int minute, int second = 0) {
  return absl::FromCivil(absl::CivilSecond(2026, 1, day, hour, minute, second),
                         absl::UTCTimeZone());
}
std::string Show(absl::Time time) {
  return absl::FormatTime("%dT%H:%M", time, absl::UTCTimeZone());
}

// "fires 03T02:00; 2 from 01T02:00 to 02T02:00: reason; next 04T02:00"
std::string Decide(const char* cron, absl::Time next_fire, absl::Time now, MissedPolicy missed,
                   absl::Duration start_within = kEver) {
  const DueFires due = DecideDue(Cron::Parse(cron).value(), absl::UTCTimeZone(), next_fire, now,
                                 missed, start_within);
  std::string text;
  for (const LeftOut& out : due.left_out) {
    absl::StrAppend(&text, out.fires, out.more ? "+" : "", " from ", Show(out.first), " to ",
                    Show(out.last), ": ", out.reason, "; ");
  }
  if (!due.fires.empty()) {
    absl::StrAppend(
        &text, "fires ",
        absl::StrJoin(due.fires, " ", [](std::string* out, absl::Time t) { *out += Show(t); }),
        "; ");
  }
  return absl::StrCat(text, "next ", Show(due.next));
}

TEST(DueFiresTest, OnTimeIsTheSameByEveryPolicy) {
  for (MissedPolicy policy : {MissedPolicy::kLast, MissedPolicy::kSkip, MissedPolicy::kAll}) {
    EXPECT_EQ(Decide("0 2 * * *", At(3, 2, 0), At(3, 2, 0), policy),
              "fires 03T02:00; next 04T02:00");
    EXPECT_EQ(Decide("0 2 * * *", At(3, 2, 0), At(3, 2, 0, 59), policy),
              "fires 03T02:00; next 04T02:00");
  }
}

TEST(DueFiresTest, WhatWasMissedFollowsThePolicy) {
  const absl::Time next = At(1, 2, 0), now = At(3, 14, 0);
  EXPECT_EQ(Decide("0 2 * * *", next, now, MissedPolicy::kLast),
            "2 from 01T02:00 to 02T02:00: missed: a newer fire stands for it; fires 03T02:00; next "
            "04T02:00");
  EXPECT_EQ(Decide("0 2 * * *", next, now, MissedPolicy::kSkip),
            "3 from 01T02:00 to 03T02:00: missed: the coordinator was away; next 04T02:00");
  EXPECT_EQ(Decide("0 2 * * *", next, now, MissedPolicy::kAll),
            "fires 01T02:00 02T02:00 03T02:00; next 04T02:00");
}

TEST(DueFiresTest, ALateFireBesideOneOnTime) {
  EXPECT_EQ(Decide("* * * * *", At(1, 0, 0), At(1, 0, 2, 30), MissedPolicy::kSkip),
            "2 from 01T00:00 to 01T00:01: missed: the coordinator was away; fires 01T00:02; next "
            "01T00:03");
}

TEST(DueFiresTest, StartWithinBoundsEveryPolicy) {
  EXPECT_EQ(
      Decide("0 2 * * *", At(1, 2, 0), At(3, 14, 0), MissedPolicy::kLast, absl::Hours(6)),
      "3 from 01T02:00 to 03T02:00: missed by more than start_within (6h 00m); next 04T02:00");
  EXPECT_EQ(
      Decide("0 2 * * *", At(1, 2, 0), At(3, 14, 0), MissedPolicy::kAll, absl::Hours(40)),
      "1 from 01T02:00 to 01T02:00: missed by more than start_within (1d 16h); fires 02T02:00 "
      "03T02:00; next 04T02:00");
  EXPECT_EQ(Decide("0 2 * * *", At(1, 2, 0), At(1, 8, 0), MissedPolicy::kAll, absl::Hours(6)),
            "fires 01T02:00; next 02T02:00");
}

TEST(DueFiresTest, AtMostAHundredAreMadeUpFor) {
  const DueFires due = DecideDue(Cron::Parse("* * * * *").value(), absl::UTCTimeZone(), At(1, 0, 0),
                                 At(1, 4, 9), MissedPolicy::kAll, kEver);
  ASSERT_EQ(due.fires.size(), kMaxMadeUpFor);
  EXPECT_EQ(due.fires.back(), At(1, 4, 9));
  ASSERT_EQ(due.left_out.size(), 1u);
  EXPECT_EQ(due.left_out[0].fires, 150);
  EXPECT_FALSE(due.left_out[0].more);
  EXPECT_EQ(due.left_out[0].last, At(1, 2, 29));
}

TEST(DueFiresTest, AnAbsenceOfTenYearsIsDecidedQuickly) {
  const absl::Time now = At(1, 0, 0) + absl::Hours(24 * 3652);
  const DueFires due = DecideDue(Cron::Parse("* * * * *").value(), absl::UTCTimeZone(), At(1, 0, 0),
                                 now, MissedPolicy::kLast, kEver);
  EXPECT_EQ(due.fires, std::vector<absl::Time>{now});
  ASSERT_EQ(due.left_out.size(), 1u);
  EXPECT_TRUE(due.left_out[0].more);
  EXPECT_EQ(due.next, now + absl::Minutes(1));
  // Rare fires are found however far back they are.
  EXPECT_EQ(
      Decide("0 0 1 1 *", At(1, 0, 0), At(1, 0, 0) + absl::Hours(24 * 300), MissedPolicy::kLast),
      "fires 01T00:00; next 01T00:00");
}

TEST(DueFiresTest, AStoredTimeThatIsNoneAnyMoreFiresNothing) {
  EXPECT_EQ(Decide("0 2 * * *", At(3, 1, 0), At(3, 1, 30), MissedPolicy::kLast), "next 03T02:00");
}

}  // namespace
}  // namespace ll
