#include "llctl/cli_case.h"

namespace ll {
namespace {

using ::testing::HasSubstr;

TEST_F(CliTest, AScheduleIsMadeOfItsFlagsAndTheFile) {
  LL_ASSERT_OK(
      WriteFileAtomic(folder_.path() + "/nightly.yaml", "model: tiny\ncontext_length: 512\n"));
  const Outcome run = Run({"schedule",
                           "create",
                           "nightly",
                           "--cron",
                           "0 2 * * *",
                           "--tz",
                           "Europe/Berlin",
                           "-f",
                           folder_.path() + "/nightly.yaml",
                           "--set",
                           "seed=7",
                           "--missed",
                           "all",
                           "--overlap",
                           "queue",
                           "--start-within",
                           "60m",
                           "--history",
                           "9",
                           "--tolerance-loss",
                           "0.05",
                           "-o",
                           "json"});
  EXPECT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(coordinator_.schedules.made.size(), 1u);
  const v1::CreateScheduleRequest& request = coordinator_.schedules.made[0];
  EXPECT_FALSE(request.replace());
  const v1::Schedule& schedule = request.schedule();
  EXPECT_EQ(schedule.name(), "nightly");
  EXPECT_EQ(schedule.cron(), "0 2 * * *");
  EXPECT_EQ(schedule.time_zone(), "Europe/Berlin");
  EXPECT_EQ(schedule.missed(), "all");
  EXPECT_EQ(schedule.overlap(), "queue");
  EXPECT_EQ(schedule.start_within(), 3600);
  EXPECT_EQ(schedule.history_limit(), 9);
  EXPECT_EQ(schedule.tolerances().loss(), 0.05);
  EXPECT_FALSE(schedule.tolerances().has_memory());
  EXPECT_EQ(schedule.spec().model(), "tiny");
  EXPECT_EQ(schedule.spec().seed(), 7);
  EXPECT_EQ(nlohmann::json::parse(run.out)["name"], "nightly");
  EXPECT_EQ(Run({"schedule", "create", "nightly"}).code, kExitUsage);
}

TEST_F(CliTest, SchedulesAreShownWithTheirRunsAndVerdicts) {
  const Outcome show = Run({"schedule", "show", "nightly"});
  EXPECT_EQ(show.code, 0) << show.err;
  EXPECT_THAT(show.out, HasSubstr("0 2 * * * in Europe/Berlin"));
  EXPECT_THAT(show.out, HasSubstr("regressed"));
  EXPECT_THAT(show.out, HasSubstr("final loss 2.5 is 25 % above 2"));
  EXPECT_THAT(show.out, HasSubstr("2026-03-29T01:00:00Z and 2 before, from 2026-03-27T01:00:00Z"));
  const Outcome list = Run({"schedule", "list"});
  EXPECT_THAT(list.out, HasSubstr("nightly"));
  EXPECT_EQ(Run({"schedule", "list", "-o", "name"}).out, "nightly\n");
  EXPECT_TRUE(nlohmann::json::parse(Run({"schedule", "list", "-o", "json"}).out).is_array());
  const auto json = nlohmann::json::parse(Run({"schedule", "show", "nightly", "-o", "json"}).out);
  EXPECT_EQ(json["runs"][0]["verdict"], "REGRESSED");
  EXPECT_EQ(json["runs"][0]["diverging_step"], 120);
}

TEST_F(CliTest, ASchedulesControls) {
  EXPECT_EQ(Run({"schedule", "pause", "nightly"}).code, 0);
  EXPECT_EQ(Run({"schedule", "resume", "nightly"}).code, 0);
  coordinator_.job.set_job_id("job-000000000001");
  EXPECT_EQ(Run({"schedule", "run", "nightly", "-o", "name"}).out, "job-000000000001\n");
  const Outcome gone = Run({"schedule", "delete", "nightly"});
  EXPECT_EQ(gone.code, 0);
  EXPECT_EQ(gone.out, "");
  EXPECT_THAT(gone.err, HasSubstr("jobs of its runs go on"));
  EXPECT_EQ(coordinator_.controls, (std::vector<std::string>{"pause nightly", "resume nightly",
                                                             "run nightly", "delete nightly"}));
  coordinator_.failure = FieldStatus(absl::StatusCode::kNotFound, "schedule", "there is none");
  EXPECT_EQ(Run({"schedule", "pause", "gone"}).code, kExitNotFound);
}

}  // namespace
}  // namespace ll
