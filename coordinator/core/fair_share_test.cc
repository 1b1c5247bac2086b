#include "coordinator/core/fair_share.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace ll {
namespace {

CoreSpec Spec(const std::string& queue, int gpus) {
  CoreSpec spec;
  spec.queue = queue;
  spec.gpus = gpus;
  return spec;
}

QueueRecord Record(const std::string& name, double weight = 1) {
  QueueRecord record;
  record.name = name;
  record.weight = weight;
  return record;
}

TEST(FairShare, WhatIsHeldCountsByItsDominantKind) {
  FairShare fair(absl::ZeroDuration());
  fair.SetCapacity({{"cpu", 100}, {"H100", 8}});
  Queue& a = fair.Declare(Record("a"));
  Queue& b = fair.Declare(Record("b"));
  fair.OnStart(Spec("a", 20), "cpu", 20);  // a fifth of the cpu slots
  fair.OnStart(Spec("b", 2), "H100", 2);   // a quarter of the H100
  EXPECT_LT(fair.Share(a), fair.Share(b));
  EXPECT_DOUBLE_EQ(fair.Share(b), 0.125);
  fair.OnStart(Spec("a", 10), "cpu", 10);
  EXPECT_GT(fair.Share(a), fair.Share(b));
  fair.OnEnd(Spec("a", 20), "cpu", 20);
  fair.OnEnd(Spec("a", 10), "cpu", 10);
  EXPECT_EQ(fair.Share(a), 0);
}

TEST(FairShare, WeightDividesTheShare) {
  FairShare fair(absl::ZeroDuration());
  fair.SetCapacity({{"cpu", 10}});
  Queue& a = fair.Declare(Record("a", 2));
  Queue& b = fair.Declare(Record("b", 1));
  fair.OnStart(Spec("a", 4), "cpu", 4);
  fair.OnStart(Spec("b", 2), "cpu", 2);
  EXPECT_DOUBLE_EQ(fair.Share(a), fair.Share(b));
}

TEST(FairShare, WhatWasUsedFadesByHalfInAHalfLife) {
  FairShare fair(absl::Hours(1));
  fair.SetCapacity({{"cpu", 10}});
  Queue& a = fair.Declare(Record("a"));
  fair.OnStart(Spec("a", 5), "cpu", 5);
  // In small steps or in one, the integral is the same.
  for (int i = 0; i < 3600; ++i) fair.Advance(absl::Seconds(1));
  const double after_an_hour = a.record.used["cpu"];
  EXPECT_NEAR(after_an_hour, 5 * 3600 * 0.5 / std::log(2.0), 1e-6 * after_an_hour);
  fair.OnEnd(Spec("a", 5), "cpu", 5);
  fair.Advance(absl::Hours(1));
  EXPECT_NEAR(a.record.used["cpu"], after_an_hour / 2, 1e-9 * after_an_hour);
  // Long held: used counts as much as held.
  fair.OnStart(Spec("a", 5), "cpu", 5);
  fair.Advance(absl::Hours(1000));
  EXPECT_NEAR(fair.Share(a), 0.5, 1e-9);
}

TEST(FairShare, LittleUseIsForgotten) {
  FairShare fair(absl::Minutes(1));
  Queue& a = fair.Declare(Record("a"));
  fair.OnStart(Spec("a", 1), "cpu", 1);
  fair.Advance(absl::Seconds(30));
  fair.OnEnd(Spec("a", 1), "cpu", 1);
  fair.Advance(absl::Hours(1));
  EXPECT_TRUE(a.record.used.empty());
}

TEST(FairShare, DeclaringAgainKeepsWhatWasUsedAndHeld) {
  FairShare fair(absl::Hours(1));
  fair.OnStart(Spec("", 3), "cpu", 3);
  fair.Advance(absl::Minutes(1));
  const Queue& queue = fair.Declare(Record(kDefaultQueue, 7));
  EXPECT_EQ(queue.gpus, 3);
  EXPECT_GT(queue.record.used.at("cpu"), 0);
  EXPECT_EQ(queue.record.weight, 7);
}

TEST(CheckLimits, TellsOwnFromBorrowedFromTooMuch) {
  using Kind = LimitAnswer::Kind;
  Queue queue;
  queue.record = Record("a");
  EXPECT_EQ(CheckLimits(queue, 1000).kind, Kind::kOwn);  // no limits
  queue.record.quota_gpus = 4;
  queue.record.max_gpus = 6;
  queue.record.max_jobs = 2;
  queue.gpus = 3;
  queue.jobs = 1;
  EXPECT_EQ(CheckLimits(queue, 1).kind, Kind::kOwn);
  EXPECT_EQ(CheckLimits(queue, 2).kind, Kind::kBorrows);
  EXPECT_EQ(CheckLimits(queue, 4).kind, Kind::kWait);
  EXPECT_EQ(CheckLimits(queue, 4, -3, -1).kind, Kind::kOwn);
  EXPECT_EQ(CheckLimits(queue, 7).kind, Kind::kNever);
  EXPECT_EQ(CheckLimits(queue, 4).reason, "needs 4 GPUs; queue a holds 3 of its 6");
  queue.jobs = 2;
  EXPECT_EQ(CheckLimits(queue, 1).kind, Kind::kWait);
  queue.record.max_jobs = 0;
  EXPECT_EQ(CheckLimits(queue, 1).kind, Kind::kNever);
}

TEST(RoomWithoutBorrowing, IsWhatTheSmallerLimitLeaves) {
  Queue queue;
  queue.record = Record("a");
  queue.gpus = 3;
  EXPECT_EQ(RoomWithoutBorrowing(queue, 0), std::numeric_limits<int>::max());
  queue.record.max_gpus = 8;
  EXPECT_EQ(RoomWithoutBorrowing(queue, 1), 4);
  queue.record.quota_gpus = 4;
  EXPECT_EQ(RoomWithoutBorrowing(queue, 0), 1);
  EXPECT_EQ(RoomWithoutBorrowing(queue, 2), -1);  // borrows already
}

}  // namespace
}  // namespace ll
