#include "coordinator/runtime/metrics.h"

#include <prometheus/text_serializer.h>

#include "absl/strings/str_cat.h"
#include "base/fake_clock.h"
#include "base/status_matchers.h"

namespace ll {
namespace {
using ::testing::HasSubstr;
using ::testing::Not;

class MetricsTest : public ::testing::Test {
 protected:
  std::string Text() {
    return prometheus::TextSerializer().Serialize(metrics_.registry()->Collect());
  }
  Scheduler Empty() {
    auto scheduler = Scheduler::Recover({}, {}, {clock_.Steady(), clock_.Now()});
    EXPECT_TRUE(scheduler.ok());
    return *std::move(scheduler);
  }
  FakeClock clock_;
  Metrics metrics_{clock_};
};

TEST_F(MetricsTest, AJobsSeriesStayFiveMinutesAfterItsEnd) {
  StepFacts step;
  step.step = 7;
  step.loss = 1.25;
  step.tokens = 1024;
  metrics_.OnNews(JobId("job-1"), {.steps = {step, step}});
  EXPECT_THAT(Text(), HasSubstr("ll_train_loss{job_id=\"job-1\"} 1.25"));
  EXPECT_THAT(Text(), HasSubstr("ll_train_tokens_total{job_id=\"job-1\"} 2048"));
  EXPECT_THAT(Text(), Not(HasSubstr("ll_train_mfu_ratio{")));  // not told: not invented

  Scheduler scheduler = Empty();  // does not know the job: it is over
  metrics_.OnTick(scheduler);
  clock_.Advance(absl::Minutes(4));
  metrics_.OnTick(scheduler);
  EXPECT_THAT(Text(), HasSubstr("job-1"));
  clock_.Advance(absl::Minutes(1));
  metrics_.OnTick(scheduler);
  EXPECT_THAT(Text(), Not(HasSubstr("job-1")));
}

TEST_F(MetricsTest, AGuardOfWhateverNameAddsNoSeriesOfItsOwn) {
  for (int i = 0; i < 1000; ++i) {
    const std::string made_up = absl::StrCat("kind-", i);
    metrics_.OnNews(JobId("job-1"), {.guards = {{made_up, made_up, ""}}});
  }
  metrics_.OnNews(JobId("job-1"), {.guards = {{"loss_spike", "rollback", ""}}});
  EXPECT_THAT(Text(), Not(HasSubstr("kind-")));
  EXPECT_THAT(Text(), HasSubstr("action=\"other\",job_id=\"job-1\",kind=\"other\"} 1000"));
  EXPECT_THAT(Text(), HasSubstr("action=\"rollback\",job_id=\"job-1\",kind=\"loss_spike\"} 1"));
}

// A coordinator that starts after a run has failed: the alert on the last good one's age must not
// end by that.
TEST_F(MetricsTest, TheLastGoodRunIsShownAlsoWhereALaterOneFailed) {
  StoredState stored;
  ScheduleRecord& record = stored.schedules.emplace_back();
  record.name = "nightly";
  record.cron = "@daily";
  record.time_zone = "UTC";
  record.paused = true;
  record.payload = std::make_shared<JobPayload>();
  record.runs = 2;
  record.reference = 1;
  for (int64_t number : {1, 2}) {
    ScheduleRun run;
    run.number = number;
    run.job = JobId(absl::StrCat("job-", number));
    run.judgement = {number == 1 ? RunResult::kSame : RunResult::kFailed, "", std::nullopt,
                     absl::FromUnixSeconds(1000 * number)};
    stored.schedule_runs.emplace_back("nightly", std::move(run));
  }
  auto scheduler = Scheduler::Recover(std::move(stored), {}, {clock_.Steady(), clock_.Now()});
  LL_ASSERT_OK(scheduler);
  metrics_.OnTick(*scheduler);
  EXPECT_THAT(Text(), HasSubstr("ll_schedule_last_verdict{schedule=\"nightly\"} 0"));
  EXPECT_THAT(Text(),
              HasSubstr("ll_schedule_last_success_time_seconds{schedule=\"nightly\"} 1000"));
}

TEST_F(MetricsTest, EvaluationsAndCallsAreCounted) {
  metrics_.OnNews(JobId("job-1"), {.eval_perplexity = 9.5});
  metrics_.OnRpc("/ll.v1.Jobs/Get", "NOT_FOUND", absl::Milliseconds(2));
  EXPECT_THAT(Text(), HasSubstr("ll_eval_perplexity{job_id=\"job-1\"} 9.5"));
  EXPECT_THAT(Text(), HasSubstr("code=\"NOT_FOUND\""));
  EXPECT_THAT(Text(), Not(HasSubstr("ll_eval_effective_context_length{")));
  metrics_.OnNews(JobId("job-1"), {.eval_effective_context_length = 8192});
  EXPECT_THAT(Text(), HasSubstr("ll_eval_effective_context_length{job_id=\"job-1\"} 8192"));
}

TEST_F(MetricsTest, ForecastErrorsOfTheTrainingThatEndedLast) {
  EXPECT_THAT(Text(), Not(HasSubstr("ll_forecast_error_ratio{")));
  metrics_.OnForecast(std::nullopt, 0.25);
  EXPECT_THAT(Text(), HasSubstr("ll_forecast_error_ratio{kind=\"memory\"} 0.25"));
  EXPECT_THAT(Text(), Not(HasSubstr("kind=\"duration\"")));
  metrics_.OnForecast(-0.5, std::nullopt);
  EXPECT_THAT(Text(), HasSubstr("ll_forecast_error_ratio{kind=\"duration\"} -0.5"));
  EXPECT_THAT(Text(), HasSubstr("ll_forecast_error_ratio{kind=\"memory\"} 0.25"));
  // Nothing ends any more: what is told of it does not stand for ever.
  Scheduler scheduler = Empty();
  clock_.Advance(absl::Minutes(119));
  metrics_.OnForecast(-0.4, std::nullopt);
  clock_.Advance(absl::Minutes(1));
  metrics_.OnTick(scheduler);
  EXPECT_THAT(Text(), HasSubstr("ll_forecast_error_ratio{kind=\"duration\"} -0.4"));
  EXPECT_THAT(Text(), Not(HasSubstr("kind=\"memory\"")));
  clock_.Advance(absl::Minutes(119));
  metrics_.OnTick(scheduler);
  EXPECT_THAT(Text(), Not(HasSubstr("ll_forecast_error_ratio{")));
}

TEST_F(MetricsTest, GuardedStepsAndStragglersOfAJob) {
  StepFacts step;
  metrics_.OnNews(JobId("job-1"), {.steps = {step}});
  EXPECT_THAT(Text(), Not(HasSubstr("ll_train_straggler_score{")));  // one rank has none
  step.straggler_score = 1.5;
  metrics_.OnNews(JobId("job-1"),
                  {.steps = {step}, .guards = {{"nan", "skip", ""}, {"loss_spike", "warn", ""}}});
  metrics_.OnNews(JobId("job-1"), {.guards = {{"nan", "skip", ""}}});
  EXPECT_THAT(Text(), HasSubstr("ll_train_straggler_score{job_id=\"job-1\"} 1.5"));
  EXPECT_THAT(Text(), HasSubstr("action=\"skip\",job_id=\"job-1\",kind=\"nan\"} 2"));
  EXPECT_THAT(Text(), HasSubstr("action=\"warn\",job_id=\"job-1\",kind=\"loss_spike\"} 1"));
  metrics_.OnDeleted(JobId("job-1"));
  EXPECT_THAT(Text(), Not(HasSubstr("job-1")));
}

TEST_F(MetricsTest, ASchedulesNewestVerdict) {
  StoredState stored;
  ScheduleRecord record;
  record.name = "nightly";
  record.cron = "@daily";
  record.time_zone = "UTC";
  record.payload = std::make_shared<JobPayload>();
  stored.schedules = {record};
  const auto add = [&stored](int64_t number, RunResult result, double loss, int64_t judged) {
    ScheduleRun run;
    run.number = number;
    run.reason = "left out";
    run.judgement.result = result;
    run.judgement.time = absl::FromUnixSeconds(judged);
    if (loss > 0) run.measures.final_loss = loss;
    stored.schedule_runs.push_back({"nightly", run});
  };
  const auto tick = [&] {
    metrics_.OnTick(Scheduler::Recover(stored, {}, {clock_.Steady(), clock_.Now()}).value());
    return Text();
  };
  add(1, RunResult::kPending, 0, 0);
  EXPECT_THAT(tick(), Not(HasSubstr("ll_schedule_last_verdict{")));
  add(2, RunResult::kBetter, 2.5, 1000);
  EXPECT_THAT(tick(), HasSubstr("ll_schedule_last_verdict{schedule=\"nightly\"} 2"));
  EXPECT_THAT(Text(), HasSubstr("ll_schedule_last_final_loss{schedule=\"nightly\"} 2.5"));
  EXPECT_THAT(Text(),
              HasSubstr("ll_schedule_last_success_time_seconds{schedule=\"nightly\"} 1000"));
  EXPECT_THAT(Text(), Not(HasSubstr("ll_schedule_last_perplexity{")));  // not told: not invented
  add(3, RunResult::kRegressed, 3.5, 2000);
  add(4, RunResult::kUnknown, 0, 3000);  // a cancelled run says nothing
  EXPECT_THAT(tick(), HasSubstr("ll_schedule_last_verdict{schedule=\"nightly\"} 0"));
  EXPECT_THAT(Text(), HasSubstr("ll_schedule_last_final_loss{schedule=\"nightly\"} 3.5"));
  EXPECT_THAT(Text(),
              HasSubstr("ll_schedule_last_success_time_seconds{schedule=\"nightly\"} 1000"));
  stored.schedules.clear();
  EXPECT_THAT(tick(), Not(HasSubstr("nightly")));
}

TEST_F(MetricsTest, EveryStateHasASeries) {
  metrics_.OnTick(Empty());
  for (JobState state : kAllJobStates) {
    EXPECT_THAT(Text(), HasSubstr("ll_jobs{state=\"" + std::string(JobStateName(state)) + "\"} 0"));
  }
}

}  // namespace
}  // namespace ll
