#include "worker/trainer/guard/loss_guard.h"

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <random>

#include "base/status_matchers.h"

namespace ll {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

GuardPolicy Policy(GuardAction on_nan, GuardAction on_spike, double sigma = 6) {
  return {on_nan, on_spike, sigma};
}

const GuardPolicy kSkipping = Policy(GuardAction::kSkip, GuardAction::kSkip);

// A stream of losses judged one after the other.
class Losses {
 public:
  explicit Losses(const GuardPolicy& policy) : policy_(policy) {}
  GuardVerdict Step(double loss, double norm = 1) {
    return JudgeStep(policy_, step_++, loss, norm, state);
  }
  GuardState state;

 private:
  const GuardPolicy policy_;
  int64_t step_ = 0;
};

class LossGuardTest : public testing::Test {
 protected:
  LossGuardTest() { std::cout << "seed " << seed_ << std::endl; }
  double Normal() { return normal_(random_); }
  double Uniform(double low, double high) {
    return std::uniform_real_distribution<double>(low, high)(random_);
  }

  const unsigned seed_ = std::random_device()();
  std::mt19937 random_{seed_};
  std::normal_distribution<double> normal_;
};

TEST_F(LossGuardTest, PolicyOfASpec) {
  JobSpec spec;
  spec.on_nan = "rollback";
  spec.on_loss_spike = "skip";
  spec.loss_spike_sigma = 4.5;
  const GuardPolicy policy = GuardPolicyOf(spec);
  EXPECT_EQ(policy.on_nan, GuardAction::kRollback);
  EXPECT_EQ(policy.on_loss_spike, GuardAction::kSkip);
  EXPECT_EQ(policy.sigma, 4.5);
}

TEST_F(LossGuardTest, NeverFiresInTheFirstSteps) {
  for (int trial = 0; trial < 200; ++trial) {
    Losses run(Policy(GuardAction::kStop, GuardAction::kStop, 1));
    for (size_t i = 0; i < kLossWarmup; ++i) {
      EXPECT_EQ(run.Step(std::exp(Uniform(-5, 20))).action, GuardAction::kGoOn) << "step " << i;
    }
    EXPECT_EQ(run.state.losses.size(), kLossWarmup);
    EXPECT_EQ(run.Step(1e30).action, GuardAction::kStop);
  }
}

TEST_F(LossGuardTest, NoiseDriftAndFallDoNotFire) {
  for (int trial = 0; trial < 100; ++trial) {
    const double level = Uniform(1, 10), noise = level * std::exp(Uniform(-8, -2)),
                 slope = Uniform(-1, 1) * noise;
    Losses run(kSkipping);
    for (int i = 0; i < 300; ++i) {
      const double tame = std::max(-3.5, std::min(3.5, Normal()));
      const GuardVerdict verdict = run.Step(level + i * slope + noise * tame);
      ASSERT_EQ(verdict.action, GuardAction::kGoOn) << verdict.reason;
    }
  }
}

TEST_F(LossGuardTest, ASteadyRiseNeverFiresFromTwoDeviationsOn) {
  Losses run(Policy(GuardAction::kStop, GuardAction::kStop, 2));
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(run.Step(3 + 0.5 * i).action, GuardAction::kGoOn) << "step " << i;
  }
}

TEST_F(LossGuardTest, ASpikeFiresAndLeavesTheHistoryAsItWas) {
  for (int trial = 0; trial < 200; ++trial) {
    const double level = Uniform(1, 10), noise = level * Uniform(0.001, 0.05);
    Losses run(kSkipping);
    const int healthy = 20 + static_cast<int>(random_() % 200);
    for (int i = 0; i < healthy; ++i) run.Step(level + noise * std::clamp(Normal(), -3., 3.));
    const GuardState before = run.state;
    const GuardVerdict verdict = run.Step(level * 1.1 + 12 * noise);
    ASSERT_EQ(verdict.action, GuardAction::kSkip);
    EXPECT_EQ(verdict.kind, GuardKind::kLossSpike);
    EXPECT_NE(verdict.reason.find("deviations above the mean"), std::string::npos);
    EXPECT_EQ(run.state.losses, before.losses);
    EXPECT_EQ(run.state.skipped_steps, before.skipped_steps + 1);
    EXPECT_EQ(run.Step(level).action, GuardAction::kGoOn);
    EXPECT_EQ(run.state.in_a_row, 0);
  }
}

TEST_F(LossGuardTest, ALossThatHardlyMovesMayMoveByAFewPercent) {
  Losses run(kSkipping);
  for (int i = 0; i < 64; ++i) run.Step(2);
  EXPECT_EQ(run.Step(2.11).action, GuardAction::kGoOn);  // 6 deviations of 1 %: 2.12
  EXPECT_EQ(run.Step(2.5).action, GuardAction::kSkip);
}

TEST_F(LossGuardTest, AnotherLevelIsTakenForOneAfterEightInARow) {
  for (const GuardAction action : {GuardAction::kWarn, GuardAction::kSkip}) {
    Losses run(Policy(GuardAction::kStop, action));
    for (int i = 0; i < 30; ++i) run.Step(2 + 0.01 * (i % 3));
    for (int i = 1; i < kMostSpikes; ++i) EXPECT_EQ(run.Step(4).action, action);
    const GuardVerdict last = run.Step(4);
    EXPECT_EQ(last.action, GuardAction::kWarn);
    EXPECT_NE(last.reason.find("new level"), std::string::npos) << last.reason;
    for (int i = 0; i < 100; ++i) EXPECT_EQ(run.Step(4).action, GuardAction::kGoOn);
    EXPECT_EQ(run.state.skipped_steps, action == GuardAction::kSkip ? kMostSpikes - 1 : 0);
  }
}

TEST_F(LossGuardTest, NotANumberIsSeenFromTheFirstStepOnAndInTheNormToo) {
  Losses run(kSkipping);
  EXPECT_EQ(run.Step(kNan).kind, GuardKind::kNan);
  const GuardVerdict verdict = run.Step(2, std::numeric_limits<double>::infinity());
  EXPECT_EQ(verdict.action, GuardAction::kSkip);
  EXPECT_EQ(verdict.reason, "grad_norm became inf at step 2");
  EXPECT_TRUE(run.state.losses.empty());
  EXPECT_EQ(run.state.skipped_steps, 2);
}

TEST_F(LossGuardTest, EightInARowThatAreNoNumbersEndTheTraining) {
  Losses run(kSkipping);
  for (int i = 1; i < kMostNans; ++i) EXPECT_EQ(run.Step(kNan).action, GuardAction::kSkip);
  run.Step(2);
  for (int i = 1; i < kMostNans; ++i) EXPECT_EQ(run.Step(kNan).action, GuardAction::kSkip);
  const GuardVerdict last = run.Step(kNan);
  EXPECT_EQ(last.action, GuardAction::kStop);
  EXPECT_NE(last.reason.find("in a row"), std::string::npos);
}

TEST_F(LossGuardTest, StopAndRollbackLeaveTheStateAlone) {
  for (const GuardAction action : {GuardAction::kRollback, GuardAction::kStop}) {
    Losses run(Policy(action, action));
    for (int i = 0; i < 25; ++i) run.Step(2);
    const GuardState before = run.state;
    EXPECT_EQ(run.Step(kNan).action, action);
    EXPECT_EQ(run.Step(9).action, action);
    EXPECT_EQ(run.state, before);
  }
}

// The state is all there is: judged from a copy of it, a run goes on alike.
TEST_F(LossGuardTest, AResumedRunJudgesAlike) {
  Losses run(kSkipping);
  for (int i = 0; i < 100; ++i) run.Step(2 + 0.1 * Normal());
  Losses resumed(kSkipping);
  resumed.state = run.state;
  for (int i = 0; i < 300; ++i) {
    const double loss = random_() % 10 == 0 ? (random_() % 2 == 0 ? kNan : 20) : 2 + 0.1 * Normal();
    EXPECT_EQ(run.Step(loss).action, resumed.Step(loss).action);
    ASSERT_EQ(run.state, resumed.state);
  }
}

}  // namespace
}  // namespace ll
