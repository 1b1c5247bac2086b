#include "llctl/doctor.h"

#include <limits>

#include "llctl/cli_case.h"

namespace ll {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<v1::StepRecord> Steps(const std::vector<double>& losses) {
  std::vector<v1::StepRecord> steps;
  for (const double loss : losses) {
    v1::StepRecord& step = steps.emplace_back();
    step.set_step(static_cast<int64_t>(steps.size()));
    step.set_epoch(2);
    step.set_loss(loss);
  }
  return steps;
}

TEST(DoctorTest, FindsTheFirstBadStep) {
  EXPECT_FALSE(FirstBadStep({}).has_value());
  EXPECT_FALSE(FirstBadStep(Steps({9, 5, 3, 2.5, 2.4, 2.3, 2.3, 2.2, 2.2, 2.1})).has_value());
  const auto nan = FirstBadStep(Steps({3, 2, std::numeric_limits<double>::quiet_NaN(), 99}));
  ASSERT_TRUE(nan.has_value());
  EXPECT_EQ(nan->step, 3);
  EXPECT_EQ(nan->epoch, 2);
  EXPECT_EQ(nan->what, "loss is nan");
  std::vector<double> losses;
  for (int i = 0; i < 60; ++i) losses.push_back(i % 2 == 0 ? 2.0 : 2.1);
  EXPECT_FALSE(FirstBadStep(Steps(losses)).has_value());
  losses[55] = 9;
  const auto spike = FirstBadStep(Steps(losses));
  ASSERT_TRUE(spike.has_value());
  EXPECT_EQ(spike->step, 56);
  EXPECT_EQ(spike->what, "loss 9, 2.05 ± 0.051 over the 50 steps before");
  // A quiet curve's smallest rise is many deviations, and no fault.
  losses.assign(60, 2.0);
  losses[55] = 2.1;
  EXPECT_FALSE(FirstBadStep(Steps(losses)).has_value());
}

TEST(DoctorTest, TellsWhatChanged) {
  v1::JobSpec before, now;
  before.set_model("7b");
  before.set_learning_rate(2e-5);
  before.set_name("a");
  now.set_model("7b");
  now.set_learning_rate(5e-4);
  now.set_seed(3);
  now.set_name("b");
  EXPECT_THAT(SpecChanges(before, now),
              ElementsAre("learning_rate: 2e-05 -> 0.0005", "seed: not given -> 3"));
  EXPECT_TRUE(SpecChanges(now, now).empty());
}

TEST(DoctorTest, ASeriesIsAScheduleOrAName) {
  const auto spec = [](const std::string& name, const std::string& schedule,
                       const std::string& stage) {
    v1::JobSpec spec;
    if (!name.empty()) spec.set_name(name);
    if (!schedule.empty()) (*spec.mutable_labels())["schedule"] = schedule;
    if (!stage.empty()) (*spec.mutable_labels())["stage"] = stage;
    return spec;
  };
  EXPECT_TRUE(IsOfTheSameSeries(spec("a", "n", "8192"), spec("b", "n", "8192")));
  EXPECT_FALSE(IsOfTheSameSeries(spec("a", "n", "8192"), spec("a", "n", "merge")));
  EXPECT_FALSE(IsOfTheSameSeries(spec("a", "n", ""), spec("a", "", "")));
  EXPECT_TRUE(IsOfTheSameSeries(spec("a", "", ""), spec("a", "", "")));
  EXPECT_FALSE(IsOfTheSameSeries(spec("a", "", ""), spec("", "", "")));
  EXPECT_TRUE(IsOfTheSameSeries(spec("", "", ""), spec("", "", "")));
}

TEST_F(CliTest, DoctorTellsAFailure) {
  v1::Job& job = coordinator_.job;
  job.set_state(v1::FAILED);
  job.set_failure_class(v1::NOT_A_NUMBER);
  job.set_epoch(2);
  job.mutable_spec()->set_name("long");
  job.mutable_resolved_spec()->set_learning_rate(0.1);
  job.mutable_submitted()->set_seconds(1000);
  for (const v1::StepRecord& step : Steps({3, 2, std::numeric_limits<double>::infinity()}))
    *job.add_steps() = step;
  v1::Transition* transition = job.add_history();
  transition->set_state(v1::FAILED);
  transition->set_epoch(2);
  transition->set_reason("rank 0 on w1: loss is inf at step 3");
  v1::Job good = job;
  good.set_job_id("job-000000000001");  // the fake answers Get with `job` alone
  good.set_state(v1::SUCCEEDED);
  v1::Job other = good;
  other.set_job_id("job-000000000002");
  other.mutable_spec()->set_name("short");
  coordinator_.jobs = {other, good};
  const Outcome run = Run({"doctor", "job-000000000001"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("NOT_A_NUMBER"));
  EXPECT_THAT(run.out, HasSubstr("3, attempt 2: loss is inf"));
  EXPECT_THAT(run.out, HasSubstr("rank 0 on w1: loss is inf at step 3"));
  EXPECT_THAT(run.out, HasSubstr("step 200, /jobs/job-1/e0002/checkpoints/step-000200"));
  EXPECT_THAT(run.out, HasSubstr("none to compare with"));
  EXPECT_THAT(run.out, HasSubstr("lower learning_rate"));
  const auto json = nlohmann::json::parse(Run({"-o", "json", "doctor", "job-000000000001"}).out);
  EXPECT_EQ(json["first_bad_step"]["step"], 3);
  EXPECT_EQ(json["last_checkpoint"]["step"], 200);
  EXPECT_EQ(json["failure_class"], "NOT_A_NUMBER");
  EXPECT_EQ(Run({"doctor", "job-none"}).code, kExitNotFound);
}

TEST_F(CliTest, DoctorNamesAStepThatAGuardCaught) {
  v1::Job& job = coordinator_.job;
  job.set_state(v1::FAILED);
  job.set_failure_class(v1::NOT_A_NUMBER);
  for (const v1::StepRecord& step : Steps({3, 2, 2})) *job.add_steps() = step;
  EXPECT_THAT(Run({"doctor", "job-000000000001"}).out,
              HasSubstr("4, attempt 2: loss or gradient was no number"));
  EXPECT_THAT(Advice(job, /*has_checkpoint=*/false), Not(HasSubstr("checkpoint")));
  job.set_failure_class(v1::INFRASTRUCTURE);
  EXPECT_THAT(Run({"doctor", "job-000000000001"}).out, HasSubstr("first bad step   none"));
}

}  // namespace
}  // namespace ll
