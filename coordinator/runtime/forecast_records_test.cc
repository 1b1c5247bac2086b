#include "coordinator/runtime/forecast_records.h"

#include <google/protobuf/struct.pb.h>

#include "absl/strings/str_cat.h"
#include "base/fake_clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "proto/job.pb.h"

namespace ll {
namespace {

class ForecastRecordsTest : public ::testing::Test {
 protected:
  ForecastRecordsTest() {
    telemetry_ = std::make_unique<Telemetry>(
        TelemetryOptions{.dir = absl::StrCat(dir_.path(), "/telemetry"), .min_free_bytes = 0});
    EXPECT_TRUE(MakeDirs(absl::StrCat(dir_.path(), "/telemetry")).ok());
    Open();
  }

  void Open() {
    records_ = std::make_unique<ForecastRecords>(
        absl::StrCat(dir_.path(), "/forecasts.jsonl"), *telemetry_, clock_,
        [this](const ForecastRecord& record) { told_.push_back(record); });
    LL_ASSERT_OK(records_->Load());
  }

  // A training of 100 s and 1,000 bytes by its forecast that has taken 150 s.
  Job Ended(const std::string& id, int64_t steps_down = 0) {
    Job job;
    job.id = JobId(id);
    job.sequence = next_++;
    job.state = JobState::kSucceeded;
    job.epoch = 1;
    job.spec.kind = "train";
    job.spec.gpus = 2;
    job.submitted = job.started = clock_.Now();
    job.finished = clock_.Now();
    job.run_time = job.forecast_done = absl::Seconds(150);
    v1::Forecast forecast;
    forecast.set_bytes_per_rank(1100);
    forecast.set_available_bytes_per_slot(1300);
    forecast.set_duration_seconds(100);
    forecast.mutable_plan()->set_device("H100");
    forecast.mutable_plan()->mutable_memory()->set_correction(100);
    v1::JobSpec resolved;
    resolved.set_model("/models/7b");
    resolved.set_method("longlora");
    auto payload = std::make_shared<JobPayload>();
    payload->forecast = forecast.SerializeAsString();
    payload->resolved_spec = resolved.SerializeAsString();
    job.payload = std::move(payload);
    google::protobuf::Struct result;
    (*result.mutable_fields())["memory_steps_down"].set_number_value(
        static_cast<double>(steps_down));
    job.result = result.SerializeAsString();
    return job;
  }

  void Steps(const std::string& id, int64_t step, int64_t peak) {
    const TelemetryKey key{JobId(id), 1, 0, TelemetryStream::kEvents};
    const std::string line =
        absl::StrCat(R"({"event":"step","step":)", step,
                     R"(,"max_steps":10,"step_seconds":1,"peak_bytes":)", peak, "}\n");
    LL_ASSERT_OK(telemetry_->Append(key, telemetry_->Size(key), line));
  }

  Scheduler With(const std::vector<Job>& jobs) {
    StoredState stored;
    stored.jobs = jobs;
    auto scheduler = Scheduler::Recover(stored, {}, {clock_.Steady(), clock_.Now()});
    EXPECT_TRUE(scheduler.ok()) << scheduler.status();
    return *std::move(scheduler);
  }

  const TempDir dir_;
  FakeClock clock_;
  int64_t next_ = 1;
  std::unique_ptr<Telemetry> telemetry_;
  std::vector<ForecastRecord> told_;
  std::unique_ptr<ForecastRecords> records_;
};

TEST_F(ForecastRecordsTest, WaitsForTheLastStepAndWritesOneLineAJob) {
  const std::string id = "job-0123456789ab";
  const Scheduler scheduler = With({Ended(id)});
  Steps(id, 9, 1200);
  records_->OnChanged(scheduler, {JobId(id)});
  records_->OnTick(scheduler);
  EXPECT_TRUE(told_.empty()) << "the last step has not arrived";
  Steps(id, 10, 1250);
  records_->OnChanged(scheduler, {JobId(id)});
  records_->OnTick(scheduler);
  records_->OnTick(scheduler);
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_EQ(told_[0].device, "H100");
  EXPECT_EQ(told_[0].forecast_bytes, 1000) << "without the correction";
  EXPECT_EQ(told_[0].peak_bytes, 1250);
  EXPECT_NEAR(*told_[0].DurationError(), 0.5, 1e-9);
  EXPECT_NEAR(*told_[0].MemoryError(), 0.25, 1e-9);
  Open();  // they outlive a restart
  ASSERT_EQ(records_->Records().size(), 1u);
  EXPECT_EQ(records_->Records()[0].job_id, id);
  EXPECT_EQ(records_->Records()[0].peak_bytes, 1250);
}

TEST_F(ForecastRecordsTest, IsWrittenWithoutTelemetryAfterAWhile) {
  const std::string id = "job-0123456789ab";
  const Scheduler scheduler = With({Ended(id)});
  records_->OnChanged(scheduler, {JobId(id)});
  clock_.Advance(ForecastRecords::kSettle);
  records_->OnTick(scheduler);
  ASSERT_EQ(told_.size(), 1u);
  EXPECT_FALSE(told_[0].MemoryError().has_value());
  EXPECT_TRUE(told_[0].DurationError().has_value());
}

TEST_F(ForecastRecordsTest, OtherEndsAreNoRecords) {
  Job failed = Ended("job-0123456789ab"), merge = Ended("job-0123456789ac"),
      unplanned = Ended("job-0123456789ad");
  failed.state = JobState::kFailed;
  merge.spec.kind = "merge";
  auto payload = std::make_shared<JobPayload>(*unplanned.payload);
  payload->forecast = "";
  unplanned.payload = payload;
  const Scheduler scheduler = With({failed, merge, unplanned});
  records_->OnChanged(scheduler, {failed.id, merge.id, unplanned.id});
  clock_.Advance(ForecastRecords::kSettle);
  records_->OnTick(scheduler);
  EXPECT_TRUE(told_.empty());
}

TEST_F(ForecastRecordsTest, WhatWasTakenBeyondTheForecastCountsNextTime) {
  EXPECT_EQ(records_->MemoryFactor("H100", "/models/7b", "longlora"), 1);
  const auto end = [this](const std::string& id, int64_t peak, int64_t steps_down) {
    const Scheduler scheduler = With({Ended(id, steps_down)});
    Steps(id, 10, peak);
    records_->OnChanged(scheduler, {JobId(id)});
    records_->OnTick(scheduler);
  };
  end("job-0123456789ab", 900, 0);
  EXPECT_EQ(records_->MemoryFactor("H100", "/models/7b", "longlora"), 1) << "never below";
  end("job-0123456789ac", 1080, 0);
  EXPECT_NEAR(records_->MemoryFactor("H100", "/models/7b", "longlora"), 1.08, 1e-9);
  EXPECT_EQ(records_->MemoryFactor("H200", "/models/7b", "longlora"), 1);
  EXPECT_EQ(records_->MemoryFactor("H100", "/models/7b", "full"), 1);
  // Out of memory in a slot of 1,300 bytes: it needed more than those.
  end("job-0123456789ad", 700, 1);
  EXPECT_NEAR(records_->MemoryFactor("H100", "/models/7b", "longlora"), 1.3, 1e-9);
  end("job-0123456789ae", 9000, 0);
  EXPECT_EQ(records_->MemoryFactor("H100", "/models/7b", "longlora"),
            ForecastRecords::kLargestFactor);
}

TEST_F(ForecastRecordsTest, DamagedLinesAreLeftOut) {
  ForecastRecord record;
  record.job_id = "job-1";
  record.device = "H100";
  const std::string good = ForecastRecordToJson(record);
  LL_ASSERT_OK_AND_ASSIGN(const ForecastRecord same, ParseForecastRecord(good));
  EXPECT_EQ(ForecastRecordToJson(same), good);
  LL_ASSERT_OK(WriteFileAtomic(absl::StrCat(dir_.path(), "/forecasts.jsonl"),
                               absl::StrCat(good, "\n{\"job_id\":1}\n", good.substr(0, 20), "\n"),
                               0644));
  Open();
  EXPECT_EQ(records_->Records().size(), 1u);
  for (const char* bad : {"[]", "{}", R"({"job_id":"x"})"})
    EXPECT_FALSE(ParseForecastRecord(bad).ok()) << bad;
}

TEST_F(ForecastRecordsTest, TheFileIsCutAtAStart) {
  std::string text;
  for (size_t i = 0; i <= 2 * ForecastRecords::kMostRecords; ++i) {
    ForecastRecord record;
    record.job_id = absl::StrCat("job-", i);
    absl::StrAppend(&text, ForecastRecordToJson(record), "\n");
  }
  const std::string path = absl::StrCat(dir_.path(), "/forecasts.jsonl");
  LL_ASSERT_OK(WriteFileAtomic(path, text, 0644));
  Open();
  Open();
  LL_ASSERT_OK_AND_ASSIGN(const std::string left, ReadFile(path));
  EXPECT_LT(left.size(), text.size() * 6 / 10);
  ASSERT_EQ(records_->Records().size(), ForecastRecords::kMostRecords);
  EXPECT_EQ(records_->Records().back().job_id,
            absl::StrCat("job-", 2 * ForecastRecords::kMostRecords));
}

}  // namespace
}  // namespace ll
