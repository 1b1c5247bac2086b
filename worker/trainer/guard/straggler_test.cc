#include "worker/trainer/guard/straggler.h"

#include <iostream>
#include <random>

#include "base/status_matchers.h"

namespace ll {
namespace {

class StragglerTest : public testing::Test {
 protected:
  StragglerTest() { std::cout << "seed " << seed_ << std::endl; }
  double Noise() { return std::uniform_real_distribution<double>(0.9, 1.1)(random_); }
  // `slow` (or -1) takes `factor` times as long; rank r has r % 2 + 1 rows.
  std::vector<StragglerNews> Step(StragglerWatch& watch, int ranks, int slow, double factor) {
    std::vector<double> seconds, work;
    for (int r = 0; r < ranks; ++r) {
      work.push_back(r % 2 + 1);
      seconds.push_back(0.1 * work.back() * Noise() * (r == slow ? factor : 1));
    }
    return watch.Step(seconds, work);
  }

  const unsigned seed_ = std::random_device()();
  std::mt19937 random_{seed_};
};

TEST_F(StragglerTest, EvenRanksAreNone) {
  for (const int ranks : {2, 3, 8}) {
    StragglerWatch watch(ranks);
    for (int i = 0; i < 500; ++i) EXPECT_TRUE(Step(watch, ranks, -1, 1).empty());
  }
}

TEST_F(StragglerTest, ASlowRankIsNamedOnceAndItsRecoveryToo) {
  for (const int ranks : {2, 3, 5, 8}) {
    const int slow = static_cast<int>(random_() % static_cast<unsigned>(ranks));
    StragglerWatch watch(ranks);
    for (int i = 0; i < 50; ++i) Step(watch, ranks, -1, 1);
    std::vector<StragglerNews> all;
    int named_after = 0;
    for (int i = 1; i <= 60; ++i) {
      for (const StragglerNews& news : Step(watch, ranks, slow, 2)) {
        all.push_back(news);
        named_after = i;
      }
    }
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].rank, slow);
    EXPECT_TRUE(all[0].slow);
    EXPECT_GT(all[0].score, kStragglerScore);
    EXPECT_EQ(watch.slowest(), slow);
    EXPECT_GE(named_after, kStragglerSteps);
    EXPECT_LE(named_after, 2 * kStragglerSteps);
    EXPECT_NEAR(watch.score(slow), 2, 0.3);
    all.clear();
    for (int i = 0; i < 60; ++i) {
      for (const StragglerNews& news : Step(watch, ranks, -1, 1)) all.push_back(news);
    }
    ASSERT_EQ(all.size(), 1u);
    EXPECT_EQ(all[0].rank, slow);
    EXPECT_FALSE(all[0].slow);
  }
}

TEST_F(StragglerTest, OneLongStepIsNone) {
  StragglerWatch watch(4);
  for (int i = 0; i < 100; ++i)
    EXPECT_TRUE(Step(watch, 4, 2, i % 50 == 49 ? 4.0 : 1.0).empty()) << i;
}

TEST_F(StragglerTest, TheNewestStepCountsAnEighthAndOneGoodOneClearsNobody) {
  StragglerWatch watch(2);
  const auto step = [&](double pace) { return watch.Step({0.1, 0.1 * pace}, {1, 1}); };
  for (int i = 1; i < kStragglerSteps; ++i) EXPECT_TRUE(step(1.31).empty());
  EXPECT_EQ(step(1.31).size(), 1u);
  EXPECT_TRUE(step(1).empty());
  EXPECT_NEAR(watch.score(1), 1.31 - 0.31 / 8, 1e-9);
  for (int i = 2; i < kStragglerSteps; ++i) EXPECT_TRUE(step(1).empty());
  EXPECT_EQ(step(1).size(), 1u);
}

TEST_F(StragglerTest, RanksWithoutWorkAreLeftOut) {
  StragglerWatch watch(3);
  for (int i = 0; i < 50; ++i) EXPECT_TRUE(watch.Step({0.1, 0.1, 0.0}, {1, 1, 0}).empty());
  EXPECT_EQ(watch.score(2), 1);
  EXPECT_TRUE(watch.Step({0.1, 0.0, 0.0}, {1, 0, 0}).empty());
}

}  // namespace
}  // namespace ll
