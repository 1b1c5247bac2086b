#include "coordinator/core/verdict.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace ll {
namespace {

using testing::HasSubstr;

RunMeasures Measured(double loss) {
  RunMeasures run;
  run.final_loss = loss;
  run.perplexity = 10;
  run.tokens_per_second = 1000;
  run.peak_bytes = 8'000'000'000;
  return run;
}

Judgement Compare(const RunMeasures& run, const RunMeasures& reference) {
  return Judge(run, &reference, 7, Tolerances());
}

TEST(VerdictTest, TheFirstRunIsTheBaseline) {
  EXPECT_EQ(Judge(Measured(2), nullptr, 0, {}).result, RunResult::kBaseline);
  RunMeasures broken = Measured(std::nan(""));
  EXPECT_EQ(Judge(broken, nullptr, 0, {}).result, RunResult::kRegressed);
  EXPECT_EQ(Judge({}, nullptr, 0, {}).result, RunResult::kUnknown);
}

TEST(VerdictTest, ToleranceIsInclusiveAndEachMeasureHasItsDirection) {
  EXPECT_EQ(Compare(Measured(2.0), Measured(2.0)).result, RunResult::kSame);
  EXPECT_EQ(Compare(Measured(2.019), Measured(2.0)).result, RunResult::kSame);
  EXPECT_EQ(Compare(Measured(2.021), Measured(2.0)).result, RunResult::kRegressed);
  EXPECT_EQ(Compare(Measured(1.97), Measured(2.0)).result, RunResult::kBetter);

  const auto with = [](auto change) {
    RunMeasures run = Measured(2);
    change(run);
    return Compare(run, Measured(2)).result;
  };
  EXPECT_EQ(with([](RunMeasures& r) { r.perplexity = 10.19; }), RunResult::kSame);
  EXPECT_EQ(with([](RunMeasures& r) { r.perplexity = 10.21; }), RunResult::kRegressed);
  EXPECT_EQ(with([](RunMeasures& r) { r.tokens_per_second = 901; }), RunResult::kSame);
  EXPECT_EQ(with([](RunMeasures& r) { r.tokens_per_second = 899; }), RunResult::kRegressed);
  EXPECT_EQ(with([](RunMeasures& r) { r.tokens_per_second = 1101; }), RunResult::kBetter);
  EXPECT_EQ(with([](RunMeasures& r) { r.peak_bytes = 8'799'000'000; }), RunResult::kSame);
  EXPECT_EQ(with([](RunMeasures& r) { r.peak_bytes = 8'801'000'000; }), RunResult::kRegressed);
}

TEST(VerdictTest, OneWorseMeasureOutweighsBetterOnes) {
  RunMeasures run = Measured(1.5);
  run.tokens_per_second = 500;
  const Judgement judgement = Compare(run, Measured(2));
  EXPECT_EQ(judgement.result, RunResult::kRegressed);
  EXPECT_EQ(judgement.reason,
            "speed (tokens/s) 500 is 50 % below 1000 (tolerance 10 %) (compared with run 7)");
}

TEST(VerdictTest, WhatIsNotFiniteIsWorse) {
  EXPECT_EQ(Compare(Measured(std::nan("")), Measured(2)).result, RunResult::kRegressed);
  EXPECT_EQ(Compare(Measured(std::numeric_limits<double>::infinity()), Measured(2)).result,
            RunResult::kRegressed);
  EXPECT_EQ(Compare(Measured(2), Measured(std::nan(""))).result, RunResult::kBetter);
}

TEST(VerdictTest, MissingMeasuresAreNotCompared) {
  RunMeasures evaluation;
  evaluation.perplexity = 10.1;
  EXPECT_EQ(Compare(evaluation, Measured(2)).result, RunResult::kSame);
  RunMeasures training;
  training.final_loss = 2;
  EXPECT_EQ(Compare(training, evaluation).result, RunResult::kUnknown);
}

TEST(VerdictTest, NamesTheFirstDivergingStep) {
  RunMeasures reference = Measured(2), run = Measured(2.2);
  for (int64_t step = 10; step <= 100; step += 10) {
    reference.curve.push_back({step, 4 - 0.02 * static_cast<double>(step)});
    run.curve.push_back({step, reference.curve.back().loss * (step >= 60 ? 1.1 : 1.005)});
  }
  const Judgement judgement = Compare(run, reference);
  EXPECT_EQ(judgement.diverging_step, 60);
  EXPECT_THAT(judgement.reason, HasSubstr("the loss curves differ from step 60 on"));
  // On other steps: the reference is read between its points.
  for (CurvePoint& point : run.curve) {
    point.step -= 5;
    point.loss = 4 - 0.02 * static_cast<double>(point.step);
  }
  EXPECT_EQ(Compare(run, reference).diverging_step, std::nullopt);
  run.curve[7].loss = std::nan("");
  EXPECT_EQ(Compare(run, reference).diverging_step, 75);
}

TEST(VerdictTest, AThinnedCurveKeepsItsEnds) {
  std::vector<CurvePoint> points;
  for (int64_t step = 1; step <= 1000; ++step) points.push_back({step, 1.0});
  const std::vector<CurvePoint> thin = ThinCurve(points);
  ASSERT_EQ(thin.size(), kMaxCurvePoints);
  EXPECT_EQ(thin.front().step, 1);
  EXPECT_EQ(thin.back().step, 1000);
  for (size_t i = 1; i < thin.size(); ++i) EXPECT_GT(thin[i].step, thin[i - 1].step);
  points.resize(kMaxCurvePoints);
  EXPECT_EQ(ThinCurve(points), points);
}

}  // namespace
}  // namespace ll
