#include "coordinator/runtime/run_judge.h"

#include <google/protobuf/struct.pb.h>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"

namespace ll {
namespace {

class MeasuresTest : public ::testing::Test {
 protected:
  MeasuresTest() {
    telemetry_ =
        std::make_unique<Telemetry>(TelemetryOptions{.dir = dir_.path(), .min_free_bytes = 0});
  }

  void Events(int64_t epoch, const std::string& lines) {
    const TelemetryKey key{job_, epoch, 0, TelemetryStream::kEvents};
    LL_ASSERT_OK(telemetry_->Append(key, telemetry_->Size(key), lines));
  }
  static std::string Step(int64_t step, double loss) {
    return absl::StrCat(R"({"event":"step","step":)", step, R"(,"loss":)", loss, "}\n");
  }
  static std::string Result(const std::map<std::string, double>& numbers) {
    google::protobuf::Struct result;
    for (const auto& [key, value] : numbers)
      (*result.mutable_fields())[key].set_number_value(value);
    return result.SerializeAsString();
  }

  const JobId job_{"job-0123456789ab"};
  const TempDir dir_;
  std::unique_ptr<Telemetry> telemetry_;
};

TEST_F(MeasuresTest, ComeFromTheResultTheCurveAndTheNewestEvaluation) {
  Events(1, Step(1, 4) + Step(2, 3.5) + Step(3, 9));
  Events(2, Step(3, 3) + "{\"event\":\"eval\",\"perplexity\":12.5}\n");
  bool settled = true;
  const std::string result =
      Result({{"loss", 2.75}, {"tokens_per_second", 900}, {"peak_bytes", 5e9}});
  EXPECT_EQ(MeasuresOf(result, *telemetry_, job_, &settled).perplexity, 12.5);
  EXPECT_FALSE(settled) << "the end has not arrived";
  Events(2, "{\"event\":\"done\",\"result\":{\"loss\":2.75}}\n");
  const RunMeasures measures = MeasuresOf(result, *telemetry_, job_, &settled);
  EXPECT_TRUE(settled);
  EXPECT_EQ(measures.final_loss, 2.75);
  EXPECT_EQ(measures.tokens_per_second, 900);
  EXPECT_EQ(measures.peak_bytes, 5'000'000'000);
  EXPECT_EQ(measures.curve, (std::vector<CurvePoint>{{1, 4}, {2, 3.5}, {3, 3}}));
}

TEST_F(MeasuresTest, WithoutAResultTheLastStepSpeaks) {
  Events(1, Step(1, 4) + Step(2, 3.5));
  bool settled = true;
  const RunMeasures measures = MeasuresOf("", *telemetry_, job_, &settled);
  EXPECT_FALSE(settled);
  EXPECT_EQ(measures.final_loss, 3.5);
  EXPECT_EQ(MeasuresOf("\xff not a message", *telemetry_, JobId("job-ffffffffffff"), &settled),
            RunMeasures());
}

TEST_F(MeasuresTest, OfAnEvaluationJob) {
  Events(1, "{\"event\":\"done\",\"result\":{\"perplexity\":7.5}}\n");
  bool settled = false;
  const RunMeasures measures =
      MeasuresOf(Result({{"perplexity", 7.5}}), *telemetry_, job_, &settled);
  EXPECT_TRUE(settled);
  EXPECT_EQ(measures.perplexity, 7.5);
  EXPECT_EQ(measures.final_loss, std::nullopt);
}

// The loss and speed are the last stage's, the perplexity that of the last evaluation with one.
TEST_F(MeasuresTest, OfATrainingInStages) {
  const JobId second("job-aaaaaaaaaaaa"), passkey("job-bbbbbbbbbbbb"),
      perplexity("job-cccccccccccc"), merge("job-dddddddddddd");
  const auto events = [this](const JobId& job, const std::string& lines) {
    LL_ASSERT_OK(telemetry_->Append({job, 1, 0, TelemetryStream::kEvents}, 0, lines));
  };
  const std::string done = "{\"event\":\"done\"}\n";
  Events(1, Step(1, 9) + done);
  for (const JobId& job : {passkey, perplexity}) events(job, done);
  const std::vector<JudgedJob> jobs = {{job_, "train", Result({{"loss", 9}})},
                                       {second, "train", Result({{"loss", 2}})},
                                       {perplexity, "eval", Result({{"perplexity", 8}})},
                                       {passkey, "eval", Result({{"accuracy", 1}})},
                                       {merge, "merge", Result({{"loss", 77}})}};
  bool settled = true;
  MeasuresOfRun(jobs, *telemetry_, &settled);
  EXPECT_FALSE(settled) << "the second stage's end has not arrived";
  events(second, Step(1, 3) + Step(2, 2) + done);
  const RunMeasures measures = MeasuresOfRun(jobs, *telemetry_, &settled);
  EXPECT_TRUE(settled);
  EXPECT_EQ(measures.final_loss, 2);
  EXPECT_EQ(measures.perplexity, 8);
  EXPECT_EQ(measures.curve, (std::vector<CurvePoint>{{1, 3}, {2, 2}}));
  EXPECT_EQ(MeasuresOfRun({}, *telemetry_, &settled), RunMeasures());
  EXPECT_TRUE(settled);
}

}  // namespace
}  // namespace ll
