// Commands that follow a job: watch, logs, eval, merge.
#include <signal.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "absl/strings/str_join.h"
#include "absl/synchronization/notification.h"
#include "llctl/cli_case.h"
#include "llctl/interrupt.h"

namespace ll {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// ---- watch, logs, eval

TEST_F(CliTest, WatchPrintsLinesAndEndsWithTheJobsOutcome) {
  coordinator_.watches = {{JobMessage(v1::RUNNING, "trains"), StepMessage(1), StepMessage(2),
                           JobMessage(v1::SUCCEEDED, "all ranks ended well")}};
  const Outcome run = Run({"watch", "job-000000000001"});
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("job-000000000001 RUNNING: trains\n"));
  EXPECT_THAT(run.out, HasSubstr("step 1/4  loss 3.2500  1,234 tokens/s  ETA 6"));
  EXPECT_THAT(run.out, HasSubstr("SUCCEEDED: all ranks ended well\n"));
}

TEST_F(CliTest, WatchExitCodesFollowTheJob) {
  coordinator_.watches = {{JobMessage(v1::FAILED, "loss became NaN")}};
  EXPECT_EQ(Run({"watch", "job-000000000001"}).code, kExitJobFailed);
  coordinator_.watches = {{JobMessage(v1::CANCELLED)}};
  EXPECT_EQ(Run({"submit", "--model", "7b", "--watch"}).code, kExitCancelled);
  coordinator_.failure = absl::NotFoundError("no job x");
  EXPECT_EQ(Run({"watch", "x"}).code, kExitNotFound);
}

TEST_F(CliTest, WatchSurvivesABrokenStreamAndRepeatsNothing) {
  coordinator_.watch_end = grpc::Status(grpc::UNAVAILABLE, "stopping");
  coordinator_.watches = {
      {JobMessage(v1::RUNNING, "trains"), StepMessage(1), StepMessage(2)},
      {JobMessage(v1::RUNNING, "trains"), StepMessage(3), JobMessage(v1::SUCCEEDED)}};
  coordinator_.watches[0].back().set_resume_token("behind 2");
  const Outcome run = Run({"watch", "job-000000000001"});
  EXPECT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(coordinator_.watch_requests.size(), 2u);
  EXPECT_EQ(coordinator_.watch_requests[1].from_step(), 3);
  EXPECT_EQ(coordinator_.watch_requests[0].resume_token(), "");
  EXPECT_EQ(coordinator_.watch_requests[1].resume_token(), "behind 2");
  EXPECT_THAT(run.err, HasSubstr("trying again"));
  EXPECT_THAT(run.err, HasSubstr("is back"));
  // An unchanged state is told once.
  EXPECT_EQ(run.out.find("RUNNING"), run.out.rfind("RUNNING"));
}

// Of a job that has ended the state is the last message: one that is cut before it goes on too.
TEST_F(CliTest, WatchOfAnEndedJobSurvivesACutBeforeItsState) {
  coordinator_.watch_end = grpc::Status(grpc::UNAVAILABLE, "stopping");
  coordinator_.watches = {{StepMessage(1), StepMessage(2)},
                          {StepMessage(3), JobMessage(v1::SUCCEEDED)}};
  const Outcome run = Run({"watch", "job-000000000001"});
  EXPECT_EQ(run.code, 0) << run.err;
  ASSERT_EQ(coordinator_.watch_requests.size(), 2u);
  EXPECT_EQ(coordinator_.watch_requests[1].from_step(), 3);
}

TEST_F(CliTest, WatchAsJsonIsOneObjectALine) {
  v1::WatchResponse event;
  (*event.mutable_event()->mutable_fields())["event"].set_string_value("checkpoint");
  (*event.mutable_event()->mutable_fields())["step"].set_number_value(2);
  coordinator_.watches = {
      {JobMessage(v1::RUNNING), StepMessage(1), event, JobMessage(v1::SUCCEEDED)}};
  std::istringstream lines(Run({"watch", "job-000000000001", "-o", "json"}).out);
  std::vector<nlohmann::json> objects;
  for (std::string line; std::getline(lines, line);) objects.push_back(nlohmann::json::parse(line));
  ASSERT_EQ(objects.size(), 4u);
  EXPECT_EQ(objects[0]["job"]["state"], "RUNNING");
  EXPECT_EQ(objects[1]["step"]["loss"], 3.25);
  EXPECT_EQ(objects[2]["event"]["step"], 2);
  EXPECT_TRUE(objects[2]["event"]["step"].is_number_integer());
  EXPECT_EQ(objects[3]["job"]["state"], "SUCCEEDED");
}

// gRPC's are there as soon as something was asked for before the watch.
TEST(InterruptTest, CtrlCMayComeToAThreadThatWasThereBefore) {
  absl::Notification done;
  std::thread earlier([&] { done.WaitForNotification(); });
  sigset_t set, before;
  sigemptyset(&set);
  sigaddset(&set, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set, &before);  // so that it comes to the other
  {
    Interrupt interrupt;
    interrupt.Arm();
    kill(getpid(), SIGINT);
    EXPECT_TRUE(interrupt.SleepFor(absl::Seconds(20)));
    EXPECT_TRUE(interrupt.raised());
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  done.Notify();
  earlier.join();
}

TEST_F(CliTest, CtrlCDetaches) {
  coordinator_.watches = {{JobMessage(v1::RUNNING)}, {}};
  coordinator_.on_watch = [this] { interrupt_.Raise(); };
  const Outcome run = Run({"watch", "job-000000000001"});
  EXPECT_EQ(run.code, kExitDetached);
  EXPECT_THAT(run.err, HasSubstr("the job goes on"));
  EXPECT_TRUE(coordinator_.controls.empty()) << "detaching must not cancel";
}

TEST_F(CliTest, LivePictureOnATerminal) {
  v1::WatchResponse event;
  auto& fields = *event.mutable_event()->mutable_fields();
  fields["event"].set_string_value("checkpoint");
  fields["bytes"].set_number_value(197'009);
  fields["manifest_sha256"].set_string_value("bf19a3488c76");
  fields["path"].set_string_value("/jobs/c");
  fields["rank"].set_number_value(0);
  fields["seconds"].set_number_value(0.54);
  fields["step"].set_number_value(100);
  coordinator_.watches = {{JobMessage(v1::RUNNING), StepMessage(1), StepMessage(2), event,
                           JobMessage(v1::SUCCEEDED, "all ranks ended well")}};
  const Outcome run = Run({"watch", "job-000000000001"}, /*terminal=*/true);
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, HasSubstr("step 2/4  ETA 4"));
  EXPECT_THAT(run.out, HasSubstr("[####################....................]  50 %"));
  EXPECT_THAT(run.out, HasSubstr("checkpoint: step 100, 197 kB, 0.5s, /jobs/c"));
  EXPECT_THAT(run.out, HasSubstr("SUCCEEDED"));
  variables_["NO_COLOR"] = "1";
  variables_["LANG"] = "C.UTF-8";
  coordinator_.watches = {
      {JobMessage(v1::RUNNING), StepMessage(1), StepMessage(2), JobMessage(v1::SUCCEEDED)}};
  const std::string plain = Run({"watch", "job-000000000001"}, /*terminal=*/true).out;
  EXPECT_THAT(plain, HasSubstr("████"));
  EXPECT_EQ(plain.find("\033[36m"), std::string::npos);
}

TEST_F(CliTest, ThousandsOfStepsAreDrawnTogether) {
  std::vector<v1::WatchResponse> messages = {JobMessage(v1::RUNNING)};
  for (int i = 1; i <= 5000; ++i) messages.push_back(StepMessage(i));
  messages.push_back(JobMessage(v1::SUCCEEDED));
  coordinator_.watches = {messages};
  const std::string out = Run({"watch", "job-000000000001"}, /*terminal=*/true).out;
  EXPECT_LT(out.size(), 60'000u) << "a slow link must not carry a picture a step";
}

TEST_F(CliTest, LogsAreWrittenAsTheyAre) {
  coordinator_.log_chunks = {"one\n", "two \xff\n"};
  const Outcome run = Run({"logs", "job-000000000001", "--rank", "1", "--tail", "100"});
  EXPECT_EQ(run.code, 0);
  EXPECT_EQ(run.out, "one\ntwo \xff\n");
  EXPECT_EQ(coordinator_.logs_requests[0].rank(), 1);
  EXPECT_EQ(coordinator_.logs_requests[0].offset(), -100);
}

TEST_F(CliTest, ALogThatIsNotThereIsExplained) {
  coordinator_.job.set_epoch(1);
  coordinator_.job.mutable_resolved_spec()->set_gpus(2);
  Outcome run = Run({"logs", "job-000000000001", "--rank", "5"});
  EXPECT_EQ(run.code, kExitNotFound);
  EXPECT_THAT(run.err, HasSubstr("rank: expected below the job's 2, found 5"));
  run = Run({"logs", "job-000000000001", "--epoch", "9"});
  EXPECT_EQ(run.code, kExitNotFound);
  EXPECT_THAT(run.err, HasSubstr("epoch: expected at most the newest attempt, 1, found 9"));
  run = Run({"logs", "job-000000000001"});
  EXPECT_EQ(run.code, 0);
  EXPECT_THAT(run.err, HasSubstr("rank 0 has logged nothing"));
}

TEST_F(CliTest, ATerminalDoesNotObeyALog) {
  // The last two are one control character, in two pieces.
  coordinator_.log_chunks = {"a\033]0;t\007\n\033[2Jb\xC2",
                             "\x9b"
                             "2Jc\xC2"};
  EXPECT_EQ(Run({"logs", "job-000000000001"}, /*terminal=*/true).out, "a?]0;t?\n?[2Jb?2Jc\xC2");
  EXPECT_EQ(Run({"logs", "job-000000000001"}).out, absl::StrJoin(coordinator_.log_chunks, ""));
}

TEST_F(CliTest, FollowedLogsGoOnAtTheirOffset) {
  coordinator_.log_chunks = {"abc"};
  coordinator_.failure = absl::UnavailableError("stopping");
  std::thread heal([this] {
    while (true) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      std::lock_guard lock(coordinator_.mutex);
      if (coordinator_.logs_requests.empty()) continue;
      coordinator_.failure = absl::OkStatus();
      coordinator_.log_chunks = {"def"};
      return;
    }
  });
  const Outcome run = Run({"logs", "-f", "job-000000000001"});
  heal.join();
  EXPECT_EQ(run.code, 0) << run.err;
  EXPECT_EQ(run.out, "abcdef");
  EXPECT_EQ(coordinator_.logs_requests.back().offset(), 3);
}

TEST_F(CliTest, EvalSubmitsWaitsAndPrintsTheResult) {
  v1::WatchResponse done = JobMessage(v1::SUCCEEDED);
  (*done.mutable_job()->mutable_result()->mutable_fields())["perplexity"].set_number_value(8.125);
  (*done.mutable_job()->mutable_result()->mutable_fields())["tokens"].set_number_value(4096);
  coordinator_.watches = {{done}};
  const Outcome run =
      Run({"eval", "perplexity", "--job", "job-000000000001", "--seq-len", "1024", "-o", "json"});
  EXPECT_EQ(run.code, 0) << run.err;
  const v1::JobSpec& spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.kind(), "eval");
  EXPECT_EQ(spec.job(), "job-000000000001");
  EXPECT_FALSE(spec.has_model()) << "the coordinator takes the job's";
  EXPECT_EQ(spec.eval_seq_len(), 1024);
  const auto json = nlohmann::json::parse(run.out);
  EXPECT_EQ(json["perplexity"], 8.125);
  EXPECT_EQ(json["tokens"], 4096);
  EXPECT_EQ(json["job_id"], "job-000000000001");
}

TEST_F(CliTest, PasskeyPrintsItsGridAndWritesTheHeatMap) {
  const std::string result = R"({"result": {"task": "passkey", "accuracy": 0.75, "grid": [
      {"length": 1024, "depth": 0, "accuracy": 1}, {"length": 1024, "depth": 1, "accuracy": 1},
      {"length": 2048, "depth": 0, "accuracy": 0}, {"length": 2048, "depth": 1, "accuracy": 1}]}})";
  v1::WatchResponse done = JobMessage(v1::SUCCEEDED);
  v1::Job parsed;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(result, &parsed).ok());
  *done.mutable_job()->mutable_result() = parsed.result();
  coordinator_.watches = {{done}};
  const std::string plot = folder_.path() + "/map.svg";
  const Outcome run = Run({"eval", "passkey", "--model", "tiny", "--lengths", "1024,2048",
                           "--depths", "2", "--num-tests", "3", "--plot", plot});
  EXPECT_EQ(run.code, 0) << run.err;
  const v1::JobSpec& spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.eval_task(), "passkey");
  EXPECT_THAT(spec.passkey_lengths(), ElementsAre(1024, 2048));
  EXPECT_EQ(spec.passkey_depths(), 2);
  EXPECT_EQ(spec.eval_num_tests(), 3);
  EXPECT_THAT(run.out, HasSubstr("0.75"));
  EXPECT_THAT(run.out, ::testing::ContainsRegex("DEPTH +1024 +2048\n"));
  EXPECT_THAT(run.out, ::testing::ContainsRegex("0% +1.00 +0.00\n"));
  LL_ASSERT_OK_AND_ASSIGN(const std::string svg, ReadFile(plot));
  EXPECT_THAT(svg, StartsWith("<svg"));
}

TEST_F(CliTest, TopicsSendsItsFlags) {
  coordinator_.watches = {{JobMessage(v1::SUCCEEDED)}};
  EXPECT_EQ(
      Run({"eval", "topics", "--model", "tiny", "--lengths", "3000", "--prompt", "plain"}).code, 0);
  const v1::JobSpec& spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.eval_task(), "topics");
  EXPECT_THAT(spec.topic_lengths(), ElementsAre(3000));
  EXPECT_EQ(spec.topic_prompt(), "plain");
}

TEST_F(CliTest, MergeSubmitsAndWithWatchPrintsTheFolder) {
  const Outcome submitted = Run({"merge", "job-000000000001", "--out", "book-8k", "--onto", "nf4",
                                 "--dtype", "bf16", "--verify", "book"});
  EXPECT_EQ(submitted.code, 0) << submitted.err;
  EXPECT_EQ(submitted.out, "job-000000000001 QUEUED: waits for 2 slots\n");
  const v1::JobSpec spec = coordinator_.submits[0].spec();
  EXPECT_EQ(spec.kind(), "merge");
  EXPECT_EQ(spec.job(), "job-000000000001");
  EXPECT_EQ(spec.merge_out(), "book-8k");
  EXPECT_EQ(spec.merge_onto(), "nf4");
  EXPECT_EQ(spec.merge_dtype(), "bf16");
  EXPECT_EQ(spec.eval_data(), "book");

  v1::WatchResponse done = JobMessage(v1::SUCCEEDED);
  (*done.mutable_job()->mutable_result()->mutable_fields())["out"].set_string_value("/jobs/x/m");
  coordinator_.watches = {{done}};
  const Outcome watched = Run({"merge", "--adapter", "/a", "--watch", "-o", "json"});
  EXPECT_EQ(watched.code, 0) << watched.err;
  EXPECT_EQ(coordinator_.submits[1].spec().adapter(), "/a");
  EXPECT_EQ(nlohmann::json::parse(watched.out)["out"], "/jobs/x/m");

  coordinator_.watches = {{JobMessage(v1::FAILED, "--onto: expected nf4")}};
  EXPECT_EQ(Run({"merge", "job-000000000001", "--watch"}).code, kExitJobFailed);
  EXPECT_EQ(Run({"merge", "--out", "x"}).code, kExitUsage);
}

TEST_F(CliTest, AFailedEvaluationIsExitOne) {
  coordinator_.watches = {{JobMessage(v1::FAILED, "data: no such file")}};
  const Outcome run = Run({"eval", "perplexity", "--model", "tiny"});
  EXPECT_EQ(run.code, kExitJobFailed);
  EXPECT_EQ(run.out, "");
  EXPECT_THAT(run.err, HasSubstr("no such file"));
}

}  // namespace
}  // namespace ll
