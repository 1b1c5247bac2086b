// Whole pages of the commands that show a job or a cluster, as people and programs get them.
#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "llctl/cli_case.h"
#include "llctl/describe_text.h"
#include "llctl/top_text.h"
#include "llctl/watch_frame.h"

namespace ll {
namespace {
using ::testing::Contains;
using ::testing::Each;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

constexpr int64_t kNow = 1'700'000'600;

// LL_UPDATE_GOLDEN=1 rewrites the file.
void ExpectGolden(const std::string& name, const std::string& text) {
  const std::string path = "tests/cli/golden/" + name;
  if (std::getenv("LL_UPDATE_GOLDEN") != nullptr) {
    LL_ASSERT_OK(WriteFileAtomic(path, text));
  }
  LL_ASSERT_OK_AND_ASSIGN(const std::string golden, ReadFile(path));
  EXPECT_EQ(text, golden) << path << " (LL_UPDATE_GOLDEN=1 rewrites it)";
}

std::string Joined(const std::vector<std::string>& lines) {
  std::string out;
  for (const std::string& line : lines) out += line + "\n";
  return out;
}

void AddTransition(v1::Job& job, int64_t seconds, v1::JobState state, int64_t epoch,
                   const std::string& reason) {
  v1::Transition* t = job.add_history();
  t->mutable_time()->set_seconds(1'700'000'000 + seconds);
  t->set_state(state);
  t->set_epoch(epoch);
  t->set_reason(reason);
}

v1::Job RunningJob() {
  v1::Job job;
  job.set_job_id("job-000000000001");
  job.mutable_spec()->set_name("long \033[31mred");
  job.mutable_spec()->set_model("7b");
  job.mutable_resolved_spec()->set_kind("train");
  job.mutable_resolved_spec()->set_model("7b");
  job.mutable_resolved_spec()->set_queue("default");
  job.mutable_resolved_spec()->set_gpus(2);
  job.mutable_resolved_spec()->set_max_steps(100);
  (*job.mutable_resolved_spec()->mutable_labels())["team"] = "nlp";
  job.set_user("ann");
  job.set_state(v1::RUNNING);
  job.set_reason("trains");
  job.set_epoch(2);
  job.set_retries(1);
  job.add_workers("w1");
  job.add_workers("w2");
  job.mutable_submitted()->set_seconds(1'700'000'000);
  job.mutable_started()->set_seconds(1'700'000'060);
  v1::Progress* progress = job.mutable_progress();
  progress->set_step(40);
  progress->set_max_steps(100);
  progress->set_loss(2.3456);
  progress->set_grad_norm(0.9);
  progress->set_learning_rate(2e-5);
  progress->set_tokens_per_second(1234);
  progress->set_step_seconds(4);
  progress->set_tokens(327'680);
  progress->set_peak_bytes(60'000'000'000);
  progress->set_mfu(0.41);
  progress->mutable_time()->set_seconds(1'700'000'590);
  (*progress->mutable_phases()->mutable_fields())["forward"].set_number_value(1);
  (*progress->mutable_phases()->mutable_fields())["backward"].set_number_value(3);
  v1::Forecast* forecast = job.mutable_forecast();
  forecast->set_bytes_per_rank(58'000'000'000);
  forecast->set_available_bytes_per_slot(80'000'000'000);
  forecast->set_tokens_per_second(1300);
  forecast->set_duration_seconds(380);
  forecast->set_explanation("fits with 22 GB to spare");
  forecast->mutable_plan()->set_gpus(2);
  forecast->mutable_plan()->set_data_parallel(2);
  forecast->mutable_plan()->set_device("A100-80");
  forecast->mutable_plan()->set_recompute("full");
  forecast->mutable_plan()->set_step_seconds(3.8);
  forecast->set_measured_step_seconds(4);
  forecast->set_step_error_ratio(0.053);
  forecast->set_memory_error_ratio(0.034);
  forecast->set_actual_seconds(530);
  AddTransition(job, 0, v1::QUEUED, 0, "waits for 2 slots");
  AddTransition(job, 60, v1::STARTING, 1, "2 slots on w1, w2");
  AddTransition(job, 70, v1::RUNNING, 1, "every rank trains");
  AddTransition(job, 300, v1::RETRYING, 1, "rank 1 on w2: signal 9");
  AddTransition(job, 310, v1::STARTING, 2, "2 slots on w1, w2");
  AddTransition(job, 320, v1::RUNNING, 2, "every rank trains");
  for (int i = 1; i <= 40; ++i) {
    v1::StepRecord* step = job.add_steps();
    step->set_step(i);
    step->set_epoch(i <= 20 ? 1 : 2);
    step->set_loss(2 + 4.0 / i);
    step->set_tokens_per_second(1200 + i);
  }
  return job;
}

DescribedJob Described() {
  DescribedJob described;
  described.job = RunningJob();
  described.why = "it trains on 2 slots";
  v1::CheckpointRecord& checkpoint = described.checkpoints.emplace_back();
  checkpoint.set_step(20);
  checkpoint.set_epoch(1);
  checkpoint.mutable_written()->set_seconds(1'700'000'280);
  checkpoint.set_size_bytes(12'000'000);
  checkpoint.set_loss(2.2);
  checkpoint.set_kept("newest");
  checkpoint.set_path("/jobs/job-000000000001/e0001/checkpoints/step-000020");
  google::protobuf::Struct& event = described.evaluations.emplace_back();
  (*event.mutable_fields())["event"].set_string_value("eval");
  (*event.mutable_fields())["step"].set_number_value(20);
  (*event.mutable_fields())["perplexity"].set_number_value(9.5);
  return described;
}

TopSnapshot Snapshot() {
  TopSnapshot snapshot{.coordinator = "127.0.0.1:7070", .time = absl::FromUnixSeconds(kNow)};
  snapshot.jobs.push_back(RunningJob());
  v1::Job waiting;
  waiting.set_job_id("job-000000000002");
  waiting.set_state(v1::QUEUED);
  snapshot.jobs.push_back(waiting);
  for (int w = 1; w <= 2; ++w) {
    v1::Worker& worker = snapshot.workers.emplace_back();
    worker.set_worker("w" + std::to_string(w));
    worker.set_connected(w == 1);
    worker.mutable_last_seen()->set_seconds(kNow - 130);
    v1::Slot* slot = worker.add_slots();
    slot->set_kind("A100-80");
    slot->set_memory_bytes(80'000'000'000);
    v1::SlotUse* use = worker.add_uses();
    use->set_job_id("job-000000000001");
    use->set_rank(w - 1);
  }
  v1::SlotLoad* load = snapshot.workers[0].add_loads();
  load->set_utilization(0.97);
  load->set_memory_used_bytes(61'000'000'000);
  load->set_power_watts(388);
  v1::Slot* idle = snapshot.workers[0].add_slots();
  idle->set_index(1);
  idle->set_kind("A100-80");
  idle->set_memory_bytes(80'000'000'000);
  return snapshot;
}

// ---- top

TEST(TopTest, GoldenJobsAndSlots) {
  ExpectGolden("top.txt", Joined(TopLines(Snapshot(), 0, 0, /*color=*/false)));
}

TEST(TopTest, FitsTheTerminal) {
  TopSnapshot snapshot = Snapshot();
  snapshot.trouble = "not fresh";
  const auto lines = TopLines(snapshot, 60, 7, false);
  EXPECT_THAT(lines, SizeIs(7));
  EXPECT_THAT(lines.back(), StartsWith("… "));
  EXPECT_THAT(lines, Contains("not fresh"));
  EXPECT_THAT(lines, Each(Not(HasSubstr("\033"))));
}

TEST(TopTest, AnEmptyClusterSaysSo) {
  const auto lines = TopLines({.coordinator = "c", .time = absl::FromUnixSeconds(0)}, 0, 0, false);
  EXPECT_THAT(lines, Contains("no job holds slots"));
  EXPECT_THAT(lines, Contains(HasSubstr("no workers")));
}

TEST_F(CliTest, TopOnceAndAsJson) {
  coordinator_.jobs = {RunningJob()};
  const Outcome table = Run({"top"});
  EXPECT_EQ(table.code, 0) << table.err;
  EXPECT_THAT(table.out, HasSubstr("job-000000000001"));
  EXPECT_THAT(table.out, Not(HasSubstr("\033")));
  const auto json = nlohmann::json::parse(Run({"top", "-o", "json"}).out);
  EXPECT_EQ(json["jobs"][0]["progress"]["phases"]["backward"], 3);
  EXPECT_EQ(json["workers"][0]["worker"], "w1");
  EXPECT_FALSE(json["time"].get<std::string>().empty());
  for (const auto& list : coordinator_.lists)
    EXPECT_THAT(list.states(), Not(Contains(v1::SUCCEEDED))) << "ended jobs are not asked for";
  coordinator_.failure = absl::UnavailableError("stopping");
  EXPECT_EQ(Run({"top", "--once"}).code, kExitUnavailable);
  EXPECT_EQ(Run({"top", "--interval", "0"}).code, kExitUsage);
}

TEST_F(CliTest, LiveTopEndsWithCtrlCAndSurvivesAnOutage) {
  coordinator_.jobs = {RunningJob()};
  bool away = false;
  on_output_ = [&](const std::string& shown) {
    if (!away && absl::StrContains(shown, "KIND")) {
      away = true;
      coordinator_.Stop();
    }
    if (absl::StrContains(shown, "not fresh: ")) interrupt_.Raise();
  };
  const Outcome run = Run({"top", "--interval", "0.2"}, /*terminal=*/true);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("not fresh: "));
  EXPECT_EQ(run.out.find("KIND"), run.out.rfind("KIND")) << "a line that stays is sent once";
}

// ---- describe

TEST(DescribeTest, GoldenPage) {
  ExpectGolden("describe.txt",
               DescribeText(Described(), absl::FromUnixSeconds(kNow), 0, /*color=*/false));
}

TEST(DescribeTest, GoldenJson) {
  ExpectGolden("describe.json",
               DescribeJson(Described(), absl::FromUnixSeconds(kNow)).dump(2) + "\n");
}

TEST(DescribeTest, AttemptsEndWhereTheirSlotsAreFree) {
  const auto attempts = AttemptsOf(RunningJob());
  ASSERT_EQ(attempts.size(), 2u);
  EXPECT_EQ(attempts[0].ended_as, "RETRYING");
  EXPECT_EQ(attempts[0].reason, "rank 1 on w2: signal 9");
  EXPECT_EQ(attempts[0].ended - attempts[0].started, absl::Seconds(240));
  EXPECT_EQ(attempts[0].last_step, 20);
  EXPECT_EQ(attempts[1].ended_as, "");
  EXPECT_EQ(attempts[1].first_step, 21);
}

std::string StatusOf(const DescribedJob& described, const std::string& type) {
  for (const Condition& c : ConditionsOf(described, absl::FromUnixSeconds(kNow)))
    if (c.type == type) return c.status;
  return "";
}

TEST(DescribeTest, ConditionsFollowTheJob) {
  DescribedJob described = Described();
  EXPECT_EQ(StatusOf(described, "Progressing"), "True");
  described.job.mutable_progress()->mutable_time()->set_seconds(kNow - 3600);
  EXPECT_EQ(StatusOf(described, "Progressing"), "False");
  described.job.set_headless(true);
  EXPECT_EQ(StatusOf(described, "InContact"), "False");
  described.job.mutable_progress()->set_peak_bytes(90'000'000'000);
  EXPECT_EQ(StatusOf(described, "FitsMemory"), "False");
  described.checkpoints.clear();
  EXPECT_EQ(StatusOf(described, "Checkpointed"), "False");
  described.job.set_state(v1::FAILED);
  EXPECT_EQ(StatusOf(described, "Complete"), "False");
  EXPECT_EQ(StatusOf(described, "Scheduled"), "False");
}

TEST_F(CliTest, DescribeAsksForItAll) {
  coordinator_.job = RunningJob();
  v1::WatchResponse event, step;
  (*event.mutable_event()->mutable_fields())["event"].set_string_value("eval");
  (*event.mutable_event()->mutable_fields())["perplexity"].set_number_value(8.125);
  *step.mutable_step() = coordinator_.job.steps(39);
  coordinator_.watches = {{event, step}};
  const Outcome run = Run({"describe", "job-000000000001"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("8.125"));
  EXPECT_THAT(run.out, HasSubstr("it waits for 2 slots"));
  EXPECT_THAT(run.out, HasSubstr("s3://bucket/job-1/e0001/step-000100"));
  EXPECT_THAT(run.out, Not(HasSubstr("\033"))) << "a job's name does not paint the terminal";
  coordinator_.watches.clear();
  const auto json = nlohmann::json::parse(Run({"describe", "job-000000000001", "-o", "json"}).out);
  EXPECT_EQ(json["attempts"][0]["ended_as"], "RETRYING");
  EXPECT_EQ(Run({"describe", "job-000000000001", "-o", "name"}).out, "job-000000000001\n");
  const Outcome none = Run({"describe", "job-none", "-o", "json"});
  EXPECT_EQ(none.code, kExitNotFound);
  EXPECT_EQ(nlohmann::json::parse(none.err)["code"], "NOT_FOUND");
}

// ---- watch

WatchFrame FrameOf(const v1::Job& job) {
  WatchFrame frame;
  frame.TakeJob(job);
  for (v1::StepRecord step : job.steps()) {
    step.set_step_seconds(4);
    frame.TakeStep(step);
  }
  return frame;
}

TEST(WatchFrameTest, GoldenUtf8AndAscii) {
  const WatchFrame frame = FrameOf(RunningJob());
  ExpectGolden("watch_utf8.txt", Joined(frame.Lines({80, 24}, true, false)));
  ExpectGolden("watch_ascii.txt", Joined(frame.Lines({60, 16}, false, false)));
  for (const std::string& line : frame.Lines({60, 16}, false, false))
    for (const char c : line) ASSERT_TRUE(c >= 0x20 && c < 0x7F) << line;
}

TEST(WatchFrameTest, ASmallTerminalHasNoChartAndColourIsWishedFor) {
  const WatchFrame frame = FrameOf(RunningJob());
  EXPECT_THAT(frame.Lines({80, 7}, true, false), SizeIs(3));
  EXPECT_THAT(frame.Lines({80, 24}, true, true)[0], HasSubstr("\033[36mRUNNING"));
  EXPECT_THAT(frame.Lines({80, 24}, true, false), Each(Not(HasSubstr("\033"))));
}

TEST(WatchFrameTest, ANewAttemptGoesBackAndLongJobsStaySmall) {
  WatchFrame frame = FrameOf(RunningJob());
  v1::StepRecord step;
  step.set_step(10);
  step.set_loss(7);
  frame.TakeStep(step);
  EXPECT_THAT(Joined(frame.Lines({80, 24}, false, false)), HasSubstr("step 10/100"));
  for (int i = 11; i < 100'000; ++i) {
    step.set_step(i);
    step.set_loss(i == 50'000 ? 500 : 2);
    frame.TakeStep(step);
  }
  EXPECT_THAT(Joined(frame.Lines({80, 24}, false, false)), HasSubstr("      500 |"))
      << "the spike is still there";
}

v1::Job NamedJob(const std::string& id, const std::string& name, v1::JobState state) {
  v1::Job job;
  job.set_job_id(id);
  job.mutable_spec()->set_name(name);
  job.set_state(state);
  return job;
}

TEST_F(CliTest, AJobIsFoundByItsName) {
  coordinator_.jobs = {NamedJob("job-000000000001", "books", v1::RUNNING),
                       NamedJob("job-00000000000a", "books", v1::FAILED),
                       NamedJob("job-00000000000b", "once", v1::SUCCEEDED)};
  coordinator_.page_size = 2;
  coordinator_.job = coordinator_.jobs[0];
  // Of several with one name the one that has not ended.
  for (const char* command : {"get", "describe", "why", "checkpoints", "watch", "logs"}) {
    if (std::string(command) == "watch") coordinator_.watches = {{JobMessage(v1::SUCCEEDED)}};
    const Outcome run = Run({command, "books", "-o", "name"});
    EXPECT_EQ(run.code, 0) << command << ": " << run.err;
  }
  EXPECT_EQ(Run({"get", "books", "-o", "name"}).out, "job-000000000001\n");
  EXPECT_EQ(coordinator_.watch_requests.back().job_id(), "job-000000000001");
  EXPECT_EQ(coordinator_.logs_requests.back().job_id(), "job-000000000001");
  EXPECT_EQ(Run({"cancel", "books", "once"}).code, 0);
  ASSERT_EQ(coordinator_.controls.size(), 2u);
  EXPECT_EQ(coordinator_.controls[0], "cancel job-000000000001 ");
  EXPECT_EQ(coordinator_.controls[1], "cancel job-00000000000b ");
  // One that is not there keeps the others from nothing.
  coordinator_.controls.clear();
  const Outcome some = Run({"cancel", "twice", "once", "never"});
  EXPECT_EQ(some.code, kExitNotFound);
  EXPECT_THAT(some.err, HasSubstr("'twice'"));
  EXPECT_THAT(some.err, HasSubstr("'never'"));
  EXPECT_EQ(coordinator_.controls.size(), 1u);
  EXPECT_EQ(Run({"merge", "once"}).code, 0);
  EXPECT_EQ(coordinator_.submits.back().spec().job(), "job-00000000000b");
}

TEST_F(CliTest, ANameOfSeveralJobsIsRefusedWithTheirIds) {
  coordinator_.jobs = {NamedJob("job-000000000001", "books", v1::RUNNING),
                       NamedJob("job-00000000000a", "books", v1::QUEUED),
                       NamedJob("job-00000000000b", "books", v1::FAILED)};
  Outcome run = Run({"cancel", "books"});
  EXPECT_EQ(run.code, kExitUsage);
  EXPECT_THAT(run.err, HasSubstr("3 jobs named 'books'"));
  EXPECT_THAT(run.err,
              HasSubstr("give the id: job-000000000001 (RUNNING), job-00000000000a (QUEUED)"));
  EXPECT_THAT(run.err, Not(HasSubstr("job-00000000000b")));
  EXPECT_TRUE(coordinator_.controls.empty());
  run = Run({"get", "book"});
  EXPECT_EQ(run.code, kExitNotFound);
  EXPECT_THAT(run.err, HasSubstr("no job has the id or the name 'book'"));
  // An id is not looked up.
  coordinator_.lists.clear();
  coordinator_.job.set_job_id("job-000000000001");
  EXPECT_EQ(Run({"get", "job-000000000001"}).code, 0);
  EXPECT_TRUE(coordinator_.lists.empty());
}

TEST_F(CliTest, WrongValuesAreAnsweredInWords) {
  EXPECT_THAT(Run({"list", "--limit", "0"}).err,
              HasSubstr("--limit: expected a number above 0, found 0; see"));
  EXPECT_THAT(Run({"top", "--interval", "0.1"}).err,
              HasSubstr("expected a number from 0.2 to 3600, found 0.1"));
  EXPECT_THAT(Run({"logs", "job-000000000001", "--rank", "-1"}).err,
              HasSubstr("expected a number of at least 0, found -1"));
  EXPECT_THAT(Run({"queues"}).err, HasSubstr("expected a command: list, set"));
}

TEST_F(CliTest, AContextSaysWhereTheCoordinatorIsAndWhoAsks) {
  variables_.erase("LLCTL_COORDINATOR");
  variables_["XDG_CONFIG_HOME"] = folder_.path();
  EXPECT_THAT(Run({"config", "get-contexts"}).err, HasSubstr("no contexts"));
  const std::string token = Write("secret", "the-token\n");
  std::filesystem::permissions(
      token, std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_EQ(Run({"config", "set-context", "lab", "--coordinator", coordinator_.address(),
                 "--token-file", token})
                .code,
            0);
  EXPECT_EQ(Run({"config", "set-context", "away", "--coordinator", "127.0.0.1:1"}).code, 0);
  EXPECT_EQ(Run({"config", "get-contexts", "-o", "name"}).out, "away\nlab\n");
  const std::string file = folder_.path() + "/ll/config.yaml";
  EXPECT_EQ(std::filesystem::status(file).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
  EXPECT_THAT(*ReadFile(file), Not(HasSubstr("the-token")));

  EXPECT_EQ(Run({"config", "use-context", "lab"}).code, 0);
  EXPECT_EQ(Run({"merge", "job-00000000000b"}).code, 0);
  EXPECT_EQ(coordinator_.authorization, "Bearer the-token");
  EXPECT_EQ(nlohmann::json::parse(Run({"config", "get-contexts", "-o", "json"}).out)[1]["current"],
            true);
  EXPECT_EQ(Run({"--context", "away", "--timeout", "2", "list"}).code, kExitUnavailable);
  variables_["LLCTL_CONTEXT"] = "away";
  EXPECT_EQ(Run({"--timeout", "2", "list"}).code, kExitUnavailable);
  EXPECT_EQ(Run({"--context", "lab", "list"}).code, 0);
  EXPECT_EQ(Run({"--context", "nowhere", "list"}).code, kExitNotFound);
  EXPECT_EQ(Run({"config", "use-context", "nowhere"}).code, kExitNotFound);
  EXPECT_EQ(Run({"config", "set-context", "a/b"}).code, kExitUsage);
}

// Reasons are other users' words: what a terminal would obey, and rows that are none, stay out.
TEST_F(CliTest, TextsOfOthersDoNotReachTheTerminalAsCommands) {
  coordinator_.job.set_reason("x\033]0;t\007\033[2J\u009b2J\njob-00000000dead  fake row");
  coordinator_.jobs = {coordinator_.job};
  for (const bool terminal : {false, true}) {
    for (const char* command : {"list", "get", "describe", "cancel"}) {
      std::vector<std::string> arguments = {command};
      if (std::string(command) != "list") arguments.push_back("job-000000000001");
      const Outcome run = Run(arguments, terminal);
      EXPECT_THAT(run.out, HasSubstr("x?]0;t??[2J")) << command;
      for (const char* bad : {"\033]", "\007", "\033[2J", "\u009b", "\njob-00000000dead"})
        EXPECT_THAT(run.out, Not(HasSubstr(bad))) << command;
    }
  }
  EXPECT_THAT(Run({"get", "job-000000000001"}, /*terminal=*/true).out, HasSubstr("\033[1m"));
}

}  // namespace
}  // namespace ll
