#include "coordinator/api/live_forecast.h"

#include "base/status_matchers.h"
#include "coordinator/api/convert.h"

namespace ll {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(1'000'000);

absl::Time ToTime(const google::protobuf::Timestamp& time) {
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

class LiveForecastTest : public ::testing::Test {
 protected:
  LiveForecastTest() {
    job_.state = JobState::kRunning;
    job_.epoch = 1;
    job_.spec.gpus = 4;
    job_.run_time = job_.forecast_done = absl::Seconds(3600);
    forecast_.set_bytes_per_rank(1000);
    forecast_.set_duration_seconds(1800);
    forecast_.set_duration_low_seconds(1200);
    forecast_.set_duration_high_seconds(2400);
    forecast_.set_price_per_gpu_hour(2);
    forecast_.set_currency("EUR");
    forecast_.set_power_watts(500);
    forecast_.mutable_plan()->set_step_seconds(8);
  }

  // `count` steps of so many seconds each, the newest told now.
  void Steps(int64_t count, double seconds, int64_t max_steps) {
    for (int64_t i = 1; i <= count; ++i) {
      const absl::Time time = kNow - absl::Seconds(seconds * static_cast<double>(count - i));
      measured_.pace.Add(1, i, seconds, time);
      measured_.newest = StepFacts{
          .epoch = 1, .step = i, .max_steps = max_steps, .peak_bytes = 1040, .time = time};
    }
  }

  Job job_;
  Measured measured_;
  v1::Forecast forecast_;
};

TEST_F(LiveForecastTest, MeasuredStepsReviseTheEnd) {
  Steps(20, 10, 120);
  ReviseForecast(job_, measured_, kNow, forecast_);
  EXPECT_DOUBLE_EQ(forecast_.measured_step_seconds(), 10);
  EXPECT_NEAR(forecast_.step_error_ratio(), 0.25, 1e-9);
  EXPECT_NEAR(forecast_.memory_error_ratio(), 0.04, 1e-9);
  // 100 steps of 10 s are left, give or take 2 %.
  EXPECT_EQ(ToTime(forecast_.finish_low()), kNow + absl::Seconds(980));
  EXPECT_EQ(ToTime(forecast_.finish_high()), kNow + absl::Seconds(1020));
  EXPECT_NEAR(forecast_.revised_duration_seconds(), 4600, 1e-6);
  EXPECT_NEAR(forecast_.revised_cost(), 4600.0 / 3600 * 4 * 2, 1e-6);
  EXPECT_NEAR(forecast_.actual_gpu_hours(), 4, 1e-9);
  EXPECT_NEAR(forecast_.actual_cost(), 8, 1e-9);
  EXPECT_NEAR(forecast_.actual_energy_joules(), 4 * 3600 * 500.0, 1e-3);
  EXPECT_EQ(forecast_.duration_seconds(), 1800) << "admission's forecast stays";
  EXPECT_FALSE(forecast_.has_duration_error_ratio());
}

TEST_F(LiveForecastTest, AnEndIsNeverInThePast) {
  Steps(20, 10, 20);
  ReviseForecast(job_, measured_, kNow + absl::Minutes(5), forecast_);
  EXPECT_EQ(ToTime(forecast_.finish_low()), kNow + absl::Minutes(5));
}

TEST_F(LiveForecastTest, AtTheEndTheWholeIsCompared) {
  Steps(20, 10, 20);
  job_.state = JobState::kSucceeded;
  ReviseForecast(job_, measured_, kNow, forecast_);
  EXPECT_NEAR(forecast_.duration_error_ratio(), 1, 1e-9);
  EXPECT_FALSE(forecast_.has_finish_low());
}

TEST_F(LiveForecastTest, AnElasticTrainingIsCountedByItsWork) {
  job_.spec.max_gpus = 8;
  job_.run_time = absl::Seconds(1800);       // with 8 ranks
  job_.forecast_done = absl::Seconds(3600);  // of 4
  Steps(2, 10, 120);
  ReviseForecast(job_, measured_, kNow, forecast_);
  EXPECT_NEAR(forecast_.actual_gpu_hours(), 4, 1e-9);
}

TEST_F(LiveForecastTest, AJobThatWaitsHasAStartAndAnEnd) {
  job_.state = JobState::kQueued;
  job_.epoch = 0;
  ReviseForecast(job_, measured_, kNow, forecast_);
  EXPECT_FALSE(forecast_.has_start_low()) << "it cannot be told";
  measured_.wait = {absl::Seconds(100), absl::Seconds(300)};
  ReviseForecast(job_, measured_, kNow, forecast_);
  EXPECT_EQ(ToTime(forecast_.start_low()), kNow + absl::Seconds(100));
  EXPECT_EQ(ToTime(forecast_.start_high()), kNow + absl::Seconds(300));
  EXPECT_EQ(ToTime(forecast_.finish_low()), kNow + absl::Seconds(1300));
  EXPECT_EQ(ToTime(forecast_.finish_high()), kNow + absl::Seconds(2700));
  EXPECT_EQ(forecast_.actual_gpu_hours(), 0);
}

TEST_F(LiveForecastTest, NothingIsInventedWithoutMeasurements) {
  forecast_ = v1::Forecast();
  ReviseForecast(job_, measured_, kNow, forecast_);
  EXPECT_EQ(forecast_.ByteSizeLong(), 0u);
  Steps(3, 10, 0);
  ReviseForecast(job_, measured_, kNow, forecast_);
  EXPECT_FALSE(forecast_.has_step_error_ratio());
  EXPECT_FALSE(forecast_.has_memory_error_ratio());
  EXPECT_FALSE(forecast_.has_finish_low());
  EXPECT_EQ(forecast_.actual_cost(), 0);
}

}  // namespace
}  // namespace ll
