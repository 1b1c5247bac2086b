#include "coordinator/api/turns.h"

#include <vector>

#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

struct Log {
  absl::Mutex mu;
  std::vector<int> turns ABSL_GUARDED_BY(mu);

  std::vector<int> Await(size_t count) {
    absl::MutexLock lock(&mu);
    const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) { return turns.size() >= count; };
    mu.AwaitWithTimeout(absl::Condition(&there), absl::Seconds(20));
    return turns;
  }
};

struct Taker : TurnTaker {
  Taker(Log& log, int name) : log(log), name(name) {}
  void OnTurn() override {
    absl::MutexLock lock(&log.mu);
    log.turns.push_back(name);
  }
  Log& log;
  const int name;
};

TEST(Turns, AreGivenInOrderAndPassOverWhoIsGone) {
  Log log;
  Turns turns(1e6, 1);
  std::vector<std::shared_ptr<Taker>> takers;
  for (int i = 0; i < 4; ++i) takers.push_back(std::make_shared<Taker>(log, i));
  auto gone = std::make_shared<Taker>(log, 9);
  const std::weak_ptr<Taker> left = gone;
  gone.reset();
  turns.Await(takers[2]);
  turns.Await(left);
  turns.Await(takers[0]);
  turns.Await(takers[0]);
  turns.Await(takers[3]);
  EXPECT_THAT(log.Await(4), testing::ElementsAre(2, 0, 0, 3));
}

TEST(Turns, ComeAtTheirPaceWhenWhatWasSavedIsUsed) {
  Log log;
  Turns turns(50, 3);
  const auto taker = std::make_shared<Taker>(log, 1);
  const absl::Time began = absl::Now();
  for (int i = 0; i < 8; ++i) turns.Await(taker);
  EXPECT_EQ(log.Await(8).size(), 8u);
  // Three at once, five at 20 ms each.
  EXPECT_GE(absl::Now() - began, absl::Milliseconds(95));
}

TEST(Turns, EndWhileSomebodyWaits) {
  Log log;
  const auto taker = std::make_shared<Taker>(log, 1);
  {
    Turns turns(1e-3, 0.5);  // a turn in a quarter of an hour
    turns.Await(taker);
  }
  EXPECT_TRUE(log.turns.empty());
}

TEST(Turns, APieceOfALogCountsForManyEvents) {
  EXPECT_EQ(Turns::CostOf(200), 1);
  EXPECT_EQ(Turns::CostOf(64 << 10), 17);
}

}  // namespace
}  // namespace ll
