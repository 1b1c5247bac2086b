#include "worker/trainer/progress.h"

#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_split.h"
#include "base/fake_clock.h"
#include "gtest/gtest.h"
#include "model/plan/time_plan.h"

namespace ll {
namespace {

using nlohmann::json;

Training SmallTraining() {
  Training training;
  training.spec.max_seq_length = 64;
  training.spec.attention = "s2";
  training.spec.logging_steps = 2;
  training.spec.max_steps = 5;
  training.attention.group_tokens = 16;
  training.full_attention_from = 4;
  training.config.hidden_size = 64;
  training.config.num_hidden_layers = 2;
  training.config.num_attention_heads = 4;
  training.config.num_key_value_heads = 2;
  training.config.head_dim = 16;
  training.base_parameters = 1000;
  return training;
}

StepReport TwoRows() {
  StepReport report;
  report.tokens = 128;
  report.step_seconds = 0.5;
  report.compute_seconds = {1.0, 1.0};
  report.compute_tokens = {64.0, 64.0};
  return report;
}

TEST(ModelFlopsUtilization, CountsWhatTrainsAndTheAttentionOfTheStep) {
  Training training = SmallTraining();
  const StepReport report = TwoRows();
  const auto of = [&](int64_t step) {
    return ModelFlopsUtilization(training, report, step, 2, 1e6).get<double>();
  };
  const auto expected = [&](double per_weight, const char* attention) {
    const double row = CausalAttentionFlops(training.config, 64, attention, 16);
    return (per_weight * 1000 * 128 + 3.5 * 2 * row) / (0.5 * 2 * 1e6);
  };
  EXPECT_DOUBLE_EQ(of(4), expected(4, "s2"));  // the last one of S²-Attn
  EXPECT_DOUBLE_EQ(of(5), expected(4, "full"));
  training.options.train_all = true;
  EXPECT_DOUBLE_EQ(of(4), expected(6, "s2"));
  EXPECT_TRUE(ModelFlopsUtilization(training, report, 4, 2, 0).is_null());
}

// What two steps, three steps … of a rank tell.
class ProgressTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(pipe(fds_), 0); }
  void TearDown() override {
    close(fds_[0]);
    close(fds_[1]);
  }

  std::vector<json> Told() {
    char buffer[65536];
    const ssize_t n = read(fds_[0], buffer, sizeof buffer);
    std::vector<json> events;
    for (const auto& line : absl::StrSplit(std::string(buffer, n), '\n', absl::SkipEmpty()))
      events.push_back(json::parse(line));
    return events;
  }
  void Steps(Progress& progress, int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      state_.step += 1;
      state_.tokens_consumed += 128;
      progress.Step(TwoRows(), state_);
    }
  }

  int fds_[2];
  FakeClock clock_;
  Training training_ = SmallTraining();
  TrainerState state_;
};

TEST_F(ProgressTest, Rank0TellsEachLoggingStepAndTheLastOne) {
  EventSink events(clock_, 0, fds_[1]);
  Progress progress(training_, events, {0, {"a"}, 0});
  progress.WaitedForCheckpoint(0.25);
  Steps(progress, 5);
  const std::vector<json> told = Told();
  ASSERT_EQ(told.size(), 3u);
  EXPECT_EQ(told[0]["step"], 2);
  EXPECT_EQ(told[0]["tokens_total"], 256);
  EXPECT_EQ(told[0]["tokens_per_second"], 256.0);
  EXPECT_EQ(told[0]["checkpoint_seconds"], 0.25);
  EXPECT_FALSE(told[0].contains("straggler_score"));  // one rank
  EXPECT_EQ(told[1]["step"], 4);
  EXPECT_EQ(told[1]["checkpoint_seconds"], 0.0);  // told before
  EXPECT_EQ(told[2]["step"], 5);                  // the last one
}

TEST_F(ProgressTest, OtherRanksTellTheirTimesAlone) {
  EventSink events(clock_, 1, fds_[1]);
  Progress progress(training_, events, {1, {"a", "b"}, 0});
  progress.WaitedForCheckpoint(0.25);
  Steps(progress, 5);
  const std::vector<json> told = Told();
  ASSERT_EQ(told.size(), 1u);  // within five seconds
  EXPECT_EQ(told[0]["event"], "times");
  EXPECT_EQ(told[0]["checkpoint_seconds"], 0.25);
  EXPECT_EQ(told[0]["straggler_score"], 1.0);
}

TEST_F(ProgressTest, AStragglerIsNamedByItsHost) {
  EventSink events(clock_, 0, fds_[1]);
  training_.spec.logging_steps = 1000;
  training_.spec.max_steps = 1000;
  Progress progress(training_, events, {0, {"a", "b", "c"}, 0});
  StepReport slow = TwoRows();
  slow.compute_seconds = {1.0, 3.0, 1.0};
  slow.compute_tokens = {64.0, 64.0, 64.0};
  for (int i = 0; i < 30; ++i) {
    state_.step += 1;
    progress.Step(slow, state_);
  }
  const std::vector<json> told = Told();
  ASSERT_EQ(told.size(), 2u);  // this rank's times, and the news
  EXPECT_EQ(told[1]["event"], "straggler");
  EXPECT_EQ(told[1]["straggler"], 1);
  EXPECT_EQ(told[1]["host"], "b");
  EXPECT_EQ(told[1]["slow"], true);
}

TEST_F(ProgressTest, TheResultCountsWhatThisProcessDid) {
  EventSink events(clock_, 0, fds_[1]);
  training_.spec.logging_steps = 1000;
  training_.spec.max_steps = 1000;
  state_.step = 3;
  state_.tokens_consumed = 384;
  Progress progress(training_, events, {0, {"a"}, 0});
  Steps(progress, 2);
  progress.Done(state_, {3, "/out/checkpoints/step-000005", "early stopping"});
  const json result = Told().back()["result"];
  EXPECT_EQ(result["steps"], 5);
  EXPECT_EQ(result["first_step"], 3);
  EXPECT_EQ(result["tokens"], 640);
  EXPECT_EQ(result["tokens_per_second"], 256.0);
  EXPECT_EQ(result["checkpoint"], "/out/checkpoints/step-000005");
  EXPECT_EQ(result["stop_reason"], "early stopping");
  EXPECT_FALSE(result.contains("memory_steps_down"));
}

}  // namespace
}  // namespace ll
