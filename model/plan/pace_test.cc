#include "model/plan/pace.h"

#include "base/status_matchers.h"
#include "model/plan/prices.h"

namespace ll {
namespace {

absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(1000 + seconds); }

TEST(StepPaceTest, NothingIsKnownBeforeAStep) {
  const StepPace pace;
  EXPECT_EQ(pace.steps(), 0u);
  EXPECT_EQ(pace.median_seconds(), 0);
  EXPECT_EQ(pace.TimeFor(10).second, absl::InfiniteDuration());
}

TEST(StepPaceTest, OneSlowStepMovesNothing) {
  StepPace pace;
  double now = 0;
  for (int64_t step = 1; step <= 20; ++step) {
    const double took = step == 1 ? 60 : 2;
    pace.Add(1, step, took, At(now += took));
  }
  EXPECT_DOUBLE_EQ(pace.median_seconds(), 2);
  EXPECT_DOUBLE_EQ(pace.wall_seconds(), 2);  // from the first step's end on
  const auto [low, high] = pace.TimeFor(100);
  EXPECT_NEAR(absl::ToDoubleSeconds(low), 196, 1e-6);
  EXPECT_NEAR(absl::ToDoubleSeconds(high), 204, 1e-6);
}

TEST(StepPaceTest, WhatLiesBetweenStepsCountsForTheLateEnd) {
  StepPace pace;
  // Every fifth step is followed by an evaluation of 5 s: 2 s a step become 3.
  double now = 0;
  for (int64_t step = 1; step <= 41; ++step) {
    pace.Add(1, step, 2, At(now += 2));
    if (step % 5 == 0) now += 5;
  }
  EXPECT_DOUBLE_EQ(pace.wall_seconds(), 3);
  const auto [low, high] = pace.TimeFor(10);
  EXPECT_NEAR(absl::ToDoubleSeconds(low), 20 * 0.98, 1e-6);
  EXPECT_NEAR(absl::ToDoubleSeconds(high), 30 * 1.02, 1e-6);
}

TEST(StepPaceTest, TheIntervalNarrowsWithStepsAndWidensWithNoise) {
  StepPace quiet, noisy;
  double few = 0;
  for (int64_t step = 1; step <= 64; ++step) {
    quiet.Add(1, step, 1, At(static_cast<double>(step)));
    noisy.Add(1, step, step % 2 == 0 ? 0.8 : 1.2, At(static_cast<double>(step)));
    if (step == 8) few = noisy.relative_error();
  }
  EXPECT_LT(quiet.relative_error(), noisy.relative_error());
  EXPECT_LT(noisy.relative_error(), few);
}

TEST(StepPaceTest, AnotherAttemptOrARollbackBeginsAnew) {
  StepPace pace;
  pace.Add(1, 1, 5, At(5));
  pace.Add(1, 2, 5, At(10));
  pace.Add(2, 2, 1, At(100));
  EXPECT_EQ(pace.steps(), 1u);
  EXPECT_DOUBLE_EQ(pace.median_seconds(), 1);
  pace.Add(2, 3, 1, At(101));
  pace.Add(2, 3, 3, At(104));
  EXPECT_EQ(pace.steps(), 1u);
  EXPECT_DOUBLE_EQ(pace.median_seconds(), 3);
}

TEST(StepPaceTest, LoggingEveryFewStepsGivesTheSameWallTime) {
  StepPace pace;
  for (int64_t step = 10; step <= 100; step += 10)
    pace.Add(1, step, 2, At(2.0 * static_cast<double>(step)));
  EXPECT_DOUBLE_EQ(pace.wall_seconds(), 2);
}

TEST(PricesTest, YamlAndJson) {
  LL_ASSERT_OK_AND_ASSIGN(
      const Prices yaml,
      ParsePrices("H100: {per_hour: 2.99, watts: 650}\ncpu:\n  watts: 90\n", "EUR"));
  EXPECT_EQ(yaml.currency, "EUR");
  EXPECT_DOUBLE_EQ(yaml.Of("H100"), 2.99);
  EXPECT_DOUBLE_EQ(yaml.WattsOf("H100", 700), 650);
  EXPECT_DOUBLE_EQ(yaml.Of("cpu"), 0);
  EXPECT_DOUBLE_EQ(yaml.WattsOf("cpu", 0), 90);
  EXPECT_DOUBLE_EQ(yaml.WattsOf("A100-80", 400), 400);
  LL_ASSERT_OK_AND_ASSIGN(const Prices json, ParsePrices(R"({"H100": {"per_hour": 3}})", ""));
  EXPECT_EQ(json.currency, "USD");
  EXPECT_DOUBLE_EQ(json.Of("H100"), 3);
  LL_ASSERT_OK_AND_ASSIGN(const Prices none, ParsePrices("", ""));
  EXPECT_TRUE(none.per_gpu_hour.empty());
}

TEST(PricesTest, ErrorsNameTheKindAndTheKey) {
  const std::pair<const char*, const char*> kCases[] = {{"H100: 3", "H100"},
                                                        {"H100: {per_hour: much}", "H100.per_hour"},
                                                        {"H100: {per_hour: -1}", "H100.per_hour"},
                                                        {"H100: {hourly: 1}", "H100.hourly"},
                                                        {"- 3", "prices"},
                                                        {"H100: {per_hour: [1]}", "H100.per_hour"},
                                                        {"{", "line"}};
  for (const auto& [text, named] : kCases) {
    const auto prices = ParsePrices(text, "");
    EXPECT_EQ(prices.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(prices.status().message(), testing::HasSubstr(named)) << text;
  }
}

}  // namespace
}  // namespace ll
