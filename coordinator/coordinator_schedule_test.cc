#include <atomic>

#include "coordinator/coordinator_case.h"

namespace ll {
namespace {

using ::testing::HasSubstr;

// Each run is judged by what its telemetry told, against the last good one, also after a restart.
TEST_F(CoordinatorTest, AScheduledRunGetsItsVerdict) {
  Start();
  auto schedules = v1::Schedules::NewStub(under_test_.Channel());
  v1::CreateScheduleRequest create;
  create.mutable_schedule()->set_name("nightly");
  create.mutable_schedule()->set_cron("0 0 1 1 *");
  *create.mutable_schedule()->mutable_spec() = Request().spec();
  std::unique_ptr<ScriptedAgent> agent;
  const auto connect = [&] {
    agent = Agent("w1", 1);
    agent->SayHello();
    agent->TakeWelcome();
  };
  connect();  // first: admission looks at what the workers have
  LL_ASSERT_OK(CallOnce<v1::Schedule>(*schedules, &v1::Schedules::Stub::Create, create));
  const auto run = [&](int number, double last_loss) {
    v1::RunScheduleRequest request;
    request.set_name("nightly");
    request.set_request_id(absl::StrCat("r", number));
    const auto job = CallOnce<v1::Job>(*schedules, &v1::Schedules::Stub::Run, request);
    LL_EXPECT_OK(job);
    const v1::StartGang gang = agent->TakeStart();
    EXPECT_EQ(gang.spec().labels().at("schedule"), "nightly");
    agent->ReportTraining(gang);
    std::string lines;
    for (int step : {1, 2}) {
      absl::StrAppend(&lines, R"({"event":"step","step":)", step, R"(,"loss":)",
                      step == 1 ? 4.0 : last_loss, "}\n");
    }
    agent->SendTelemetry(gang, v1::Telemetry::EVENTS, 0, lines + "{\"event\":\"done\"}\n");
    agent->TakeTelemetryAck();
    agent->ReportExit(gang, 0);
    agent->Take([](const auto& m) { return m.has_release(); }, "release");
    v1::GetScheduleRequest get;
    get.set_name("nightly");
    const absl::Time until = absl::Now() + kTestPatience;
    while (absl::Now() < until) {
      const auto shown = CallOnce<v1::Schedule>(*schedules, &v1::Schedules::Stub::Get, get);
      if (shown.ok() && shown->runs(0).number() == number &&
          shown->runs(0).verdict() != v1::ScheduleRun::PENDING)
        return shown->runs(0);
      absl::SleepFor(absl::Milliseconds(20));
    }
    ADD_FAILURE() << "run " << number << " was not judged";
    return v1::ScheduleRun();
  };
  EXPECT_EQ(run(1, 2.0).verdict(), v1::ScheduleRun::BASELINE);
  agent.reset();
  Restart();
  connect();
  schedules = v1::Schedules::NewStub(under_test_.Channel());
  const v1::ScheduleRun worse = run(2, 3.0);
  EXPECT_EQ(worse.verdict(), v1::ScheduleRun::REGRESSED);
  EXPECT_EQ(worse.final_loss(), 3.0);
  EXPECT_EQ(worse.diverging_step(), 2);
  EXPECT_THAT(worse.verdict_reason(), HasSubstr("final loss 3 is 50 % above 2"));
  EXPECT_EQ(run(3, 2.01).verdict(), v1::ScheduleRun::SAME);
}

// A run of a schedule with stages is the whole graph, its jobs named by their own ids.
TEST_F(CoordinatorTest, AScheduleOfATrainingInStages) {
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  auto schedules = v1::Schedules::NewStub(under_test_.Channel());
  v1::CreateScheduleRequest create;
  create.mutable_schedule()->set_name("nightly");
  create.mutable_schedule()->set_cron("0 0 1 1 *");
  v1::JobSpec& spec = *create.mutable_schedule()->mutable_spec();
  spec = Request().spec();
  spec.clear_name();
  spec.set_max_steps(4);
  for (const int64_t length : {spec.context_length() / 2, spec.context_length()})
    spec.add_stages(length);
  LL_ASSERT_OK(CallOnce<v1::Schedule>(*schedules, &v1::Schedules::Stub::Create, create));
  Restart();
  schedules = v1::Schedules::NewStub(under_test_.Channel());
  v1::RunScheduleRequest request;
  request.set_name("nightly");
  request.set_request_id("r");
  const auto last = CallOnce<v1::Job>(*schedules, &v1::Schedules::Stub::Run, request);
  LL_ASSERT_OK(last);
  EXPECT_EQ(last->spec().name(), "nightly-merge");
  EXPECT_EQ(last->spec().labels().at("schedule"), "nightly");
  EXPECT_EQ(last->spec().labels().at("graph"), "nightly");
  v1::GetScheduleRequest get;
  get.set_name("nightly");
  const auto shown = CallOnce<v1::Schedule>(*schedules, &v1::Schedules::Stub::Get, get);
  LL_ASSERT_OK(shown);
  EXPECT_EQ(shown->spec().stages_size(), 2) << "as the user wrote it";
  ASSERT_EQ(shown->runs_size(), 1);
  EXPECT_EQ(shown->runs(0).job_id(), last->job_id());
  ASSERT_EQ(shown->runs(0).before_job_ids_size(), 2);
  EXPECT_EQ(last->spec().job(), shown->runs(0).before_job_ids(1));
  EXPECT_THAT(last->spec().after(), testing::Contains(shown->runs(0).before_job_ids(1)));
}

// Real time, its wall clock as far ahead as the test sets it.
struct AheadClock : Clock {
  absl::Time Now() override { return RealClock().Now() + absl::Hours(hours.load()); }
  absl::Duration Steady() override { return RealClock().Steady(); }
  void Sleep(absl::Duration d) override { RealClock().Sleep(d); }
  std::atomic<int> hours = 0;
};

TEST_F(CoordinatorTest, ADeadlineOfAScheduledJobCountsFromItsRun) {
  static auto& clock = *new AheadClock;
  under_test_.clock = &clock;
  Start();
  auto agent = Agent("w1", 1);
  agent->SayHello();
  agent->TakeWelcome();
  auto schedules = v1::Schedules::NewStub(under_test_.Channel());
  v1::CreateScheduleRequest create;
  create.mutable_schedule()->set_name("nightly");
  create.mutable_schedule()->set_cron("0 0 1 1 *");
  *create.mutable_schedule()->mutable_spec() = Request().spec();
  create.mutable_schedule()->mutable_spec()->set_deadline(3600);
  LL_ASSERT_OK(CallOnce<v1::Schedule>(*schedules, &v1::Schedules::Stub::Create, create));
  clock.hours += 2;  // the schedule's making does not count
  v1::RunScheduleRequest run;
  run.set_name("nightly");
  run.set_request_id("r1");
  LL_ASSERT_OK_AND_ASSIGN(const v1::Job job,
                          CallOnce<v1::Job>(*schedules, &v1::Schedules::Stub::Run, run));
  const v1::StartGang gang = agent->TakeStart();  // not ended before it began
  agent->ReportTraining(gang);
  clock.hours += 2;
  agent->Take([](const auto& m) { return m.has_stop(); }, "stop");
  agent->ReportExit(gang, 10);
  AwaitState(job.job_id(), v1::FAILED);
  LL_ASSERT_OK_AND_ASSIGN(const v1::Job ended, Get(job.job_id()));
  EXPECT_THAT(ended.reason(), HasSubstr("its deadline"));
}

}  // namespace
}  // namespace ll
