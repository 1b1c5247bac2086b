#include "coordinator/core/lease.h"

#include "gtest/gtest.h"

namespace ll {
namespace {

TEST(SchedulerTime, MovesWithTicksAndNeverBack) {
  SchedulerTime time(absl::Seconds(30));
  time.Start(absl::Seconds(1000));
  EXPECT_EQ(time.Tick(absl::Seconds(1001)).elapsed, absl::Seconds(1));
  EXPECT_EQ(time.Tick(absl::Seconds(990)).elapsed, absl::ZeroDuration());
  EXPECT_EQ(time.Tick(absl::Seconds(1002)).elapsed, absl::Seconds(1));
  EXPECT_EQ(time.now(), absl::Seconds(2));
}

TEST(SchedulerTime, ASlowTickCountsLittleAndAPauseIsNoticed) {
  SchedulerTime time(absl::Seconds(30));
  time.Start(absl::ZeroDuration());
  SchedulerTime::Advance slow = time.Tick(absl::Seconds(8));
  EXPECT_EQ(slow.elapsed, SchedulerTime::kMaxTickStep);
  EXPECT_FALSE(slow.paused);
  SchedulerTime::Advance pause = time.Tick(absl::Seconds(68));
  EXPECT_EQ(pause.elapsed, SchedulerTime::kMaxTickStep);
  EXPECT_TRUE(pause.paused);
}

TEST(SchedulerTime, TheLeaseEndsAfterItsLength) {
  SchedulerTime time(absl::Seconds(30));
  EXPECT_FALSE(time.LeaseExpired(absl::Seconds(30)));
  EXPECT_TRUE(time.LeaseExpired(absl::Seconds(31)));
}

TEST(Majority, HalfIsNotMoreThanHalf) {
  EXPECT_FALSE(MajoritySilent(1, 2));
  EXPECT_TRUE(MajoritySilent(2, 3));
  EXPECT_TRUE(MajoritySilent(1, 1));
  EXPECT_FALSE(MajoritySilent(0, 0));
}

}  // namespace
}  // namespace ll
