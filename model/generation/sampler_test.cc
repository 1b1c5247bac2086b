#include "model/generation/sampler.h"

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

using testing::ElementsAre;
using testing::FloatEq;

constexpr float kNever = -std::numeric_limits<float>::infinity();

// Four tokens with probabilities 0.5, 0.1, 0.3, 0.1.
std::vector<float> Logits() {
  return {std::log(0.5f), std::log(0.1f), std::log(0.3f), std::log(0.1f)};
}

std::vector<float> Processed(const SamplingOptions& options, std::vector<int32_t> context = {}) {
  std::vector<float> logits = Logits();
  ProcessLogits(options, context, absl::MakeSpan(logits));
  return logits;
}

TEST(ProcessLogits, GreedyLeavesTheLogits) {
  EXPECT_EQ(Processed({.top_k = 1, .top_p = 0.1}), Logits());
}

TEST(ProcessLogits, TopKKeepsTies) {
  EXPECT_THAT(Processed({.temperature = 1, .top_k = 2}),
              ElementsAre(Logits()[0], kNever, Logits()[2], kNever));
  EXPECT_EQ(Processed({.temperature = 1, .top_k = 3}), Logits());
  EXPECT_EQ(Processed({.temperature = 1, .top_k = 100}), Logits());
}

TEST(ProcessLogits, TopPKeepsTheFewestThatReachTheMass) {
  EXPECT_THAT(Processed({.temperature = 1, .top_p = 0.45}),
              ElementsAre(Logits()[0], kNever, kNever, kNever));
  EXPECT_THAT(Processed({.temperature = 1, .top_p = 0.6}),
              ElementsAre(Logits()[0], kNever, Logits()[2], kNever));
  EXPECT_THAT(Processed({.temperature = 1, .top_p = 1e-9}),
              ElementsAre(Logits()[0], kNever, kNever, kNever));
}

TEST(ProcessLogits, TopPSortsNoMoreThanItMustAndStillAll) {
  // A thousand equal tokens and a likely one: half the mass needs hundreds of them.
  std::vector<float> logits(1001, 0.0f);
  logits[700] = std::log(1000.0f);  // half of the mass
  ProcessLogits({.temperature = 1, .top_p = 0.75}, {}, absl::MakeSpan(logits));
  EXPECT_EQ(std::count(logits.begin(), logits.end(), 0.0f), 500);
  EXPECT_NE(logits[700], kNever);
}

TEST(ProcessLogits, TemperatureComesBeforeTopP) {
  // At temperature 0.5 probabilities are squared: 25 of 36 for the first.
  EXPECT_THAT(Processed({.temperature = 0.5, .top_p = 0.69}),
              ElementsAre(FloatEq(2 * Logits()[0]), kNever, kNever, kNever));
}

TEST(ProcessLogits, NextToNoTemperatureLeavesTheLikeliest) {
  for (const float level : {-5.0f, 0.0f, 5.0f}) {
    std::vector<float> logits = {level + 1, level + 3, level + 2};
    const SamplingOptions options{.temperature = 1e-40, .top_p = 0.9};
    ProcessLogits(options, {}, absl::MakeSpan(logits));
    EXPECT_EQ(DrawToken(options, 0, logits), 1) << level;
  }
}

TEST(ProcessLogits, RepetitionCountsATokenOnceAndWorksOnBothSigns) {
  std::vector<float> logits = {3.0f, -3.0f, 1.0f};
  ProcessLogits({.repetition_penalty = 1.5}, {0, 1, 0, 0}, absl::MakeSpan(logits));
  EXPECT_THAT(logits, ElementsAre(2.0f, -4.5f, 1.0f));
}

TEST(DrawToken, FollowsTheDistribution) {
  const SamplingOptions options{.temperature = 1, .seed = 17};
  const std::vector<float> logits = Logits();
  std::map<int32_t, int> counts;
  constexpr int kDraws = 40000;
  for (int i = 0; i < kDraws; ++i) ++counts[DrawToken(options, i, logits)];
  const double expected[] = {0.5, 0.1, 0.3, 0.1};
  for (int32_t id = 0; id < 4; ++id) {
    const double sigma = std::sqrt(expected[id] * (1 - expected[id]) / kDraws);
    EXPECT_NEAR(counts[id] / static_cast<double>(kDraws), expected[id], 4 * sigma) << id;
  }
}

TEST(DrawToken, DependsOnSeedAndDrawAlone) {
  const std::vector<float> logits = Logits();
  const auto draws = [&](uint64_t seed) {
    std::vector<int32_t> out;
    for (int i = 0; i < 64; ++i)
      out.push_back(DrawToken({.temperature = 1, .seed = seed}, i, logits));
    return out;
  };
  EXPECT_EQ(draws(1), draws(1));
  EXPECT_NE(draws(1), draws(2));
}

TEST(DrawToken, NeverDrawsWhatWasExcluded) {
  std::vector<float> logits = Logits();
  ProcessLogits({.temperature = 1, .top_k = 2}, {}, absl::MakeSpan(logits));
  for (int i = 0; i < 2000; ++i) {
    const int32_t id = DrawToken({.temperature = 1, .seed = 3}, i, logits);
    EXPECT_TRUE(id == 0 || id == 2) << id;
  }
}

TEST(DrawToken, GreedyTakesTheFirstOfEquals) {
  EXPECT_EQ(DrawToken({}, 0, std::vector<float>{1, 5, 5, 2}), 1);
}

TEST(DrawToken, RefusesWhatIsNotANumber) {
  EXPECT_EQ(DrawToken({}, 0, std::vector<float>{1, NAN, 5}), -1);
  EXPECT_EQ(DrawToken({.temperature = 1}, 0, std::vector<float>{kNever, kNever}), -1);
}

TEST(CheckSampling, NamesTheOption) {
  EXPECT_TRUE(CheckSampling({.temperature = 0.6, .top_k = 50, .top_p = 0.9}).ok());
  for (const auto& [options, field] : std::vector<std::pair<SamplingOptions, std::string>>{
           {{.temperature = -1}, "temperature"},
           {{.temperature = NAN}, "temperature"},
           {{.top_k = -1}, "top_k"},
           {{.top_p = 0}, "top_p"},
           {{.top_p = 1.1}, "top_p"},
           {{.repetition_penalty = 0}, "repetition_penalty"}}) {
    EXPECT_THAT(std::string(CheckSampling(options).message()), testing::HasSubstr(field));
  }
}

}  // namespace
}  // namespace ll
