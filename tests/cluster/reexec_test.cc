// `ll-worker reexec`: an agent goes on as another program while its ranks train. The "other
// program" is a script that stands where the agent was started from and executes the real one.
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "tests/cluster/cluster.h"

namespace ll {
namespace {

class ReexecTest : public testing::Test {
 protected:
  void SetUp() override {
    Install(R"(exec -a "$0" REAL "$@")");
    WorkerConfig worker;
    worker.program = Program();
    cluster_.StartCoordinator();
    cluster_.StartWorker(worker);
    cluster_.AwaitWorkers(1);
  }
  std::string Program() const { return cluster_.dir() + "/ll-worker"; }
  // Puts a program in the agent's place, as a package does: REAL is the agent.
  void Install(const std::string& script) {
    const std::string next = Program() + ".new";
    std::ofstream(next) << (absl::StartsWith(script, "#!") ? "" : "#!/bin/bash\n")
                        << absl::StrReplaceAll(script, {{"REAL", cluster_.WorkerBinary()}}) << "\n";
    ASSERT_EQ(chmod(next.c_str(), 0755), 0);
    ASSERT_EQ(rename(next.c_str(), Program().c_str()), 0);
  }
  // What the command says; its exit status is checked.
  std::string Reexec(int expected) {
    const std::string log = cluster_.dir() + "/reexec.log";
    std::filesystem::remove(log);
    auto process = cluster_.Run(
        {cluster_.WorkerBinary(), "reexec", "--work-dir", cluster_.WorkDir("w1")}, log);
    EXPECT_THAT(process, IsOk());
    const auto exit = process->Wait(kPatience);
    const std::string said = ReadFile(log).value_or("");
    EXPECT_TRUE(exit.has_value() && exit->exit_code == expected) << said;
    return said;
  }
  std::string AgentsProgram() const {
    std::error_code ignored;
    return std::filesystem::read_symlink(absl::StrCat("/proc/", cluster_.worker_pid("w1"), "/exe"),
                                         ignored)
        .filename()
        .string();
  }
  int64_t OpenDescriptors() const {
    const std::string folder = absl::StrCat("/proc/", cluster_.worker_pid("w1"), "/fd");
    return std::distance(std::filesystem::directory_iterator(folder), {});
  }
  static bool Within(absl::Duration time, const std::function<bool()>& done) {
    const absl::Time deadline = absl::Now() + time;
    while (!done()) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(2));
    }
    return true;
  }

  Cluster cluster_;
};

TEST_F(ReexecTest, NoRankIsTouchedAndNothingIsLost) {
  constexpr int64_t kSteps = 120;
  const auto job = cluster_.Submit(cluster_.TrainSpec(2, kSteps));
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 5);
  const std::vector<pid_t> ranks = cluster_.TrainerPids(*job);
  EXPECT_EQ(ranks.size(), 2u);
  int64_t descriptors = 0;
  for (int i = 1; i <= 3; ++i) {
    const absl::Time began = absl::Now();
    EXPECT_THAT(Reexec(0), testing::HasSubstr(absl::StrCat("the ", i, ". time")));
    const absl::Time done = absl::Now();
    // Contact again, with the ranks that were there.
    const int64_t step = cluster_.Get(*job)->progress().step();
    cluster_.AwaitStep(*job, step + 2);
    std::cout << "executed after " << absl::FormatDuration(done - began)
              << ", steps seen again after " << absl::FormatDuration(absl::Now() - done)
              << std::endl;
    EXPECT_EQ(cluster_.TrainerPids(*job), ranks);
    if (i == 1) descriptors = OpenDescriptors();
    EXPECT_LE(OpenDescriptors(), descriptors + 2);
  }
  const v1::Job ended = cluster_.AwaitEnd(*job);
  EXPECT_EQ(ended.epoch(), 1);
  EXPECT_EQ(ended.retries(), 0);
  int64_t computed = 0;
  const LossesByStep losses = cluster_.LossesOnDisk(*job, &computed);
  EXPECT_EQ(static_cast<int64_t>(losses.size()), kSteps);
  EXPECT_EQ(computed, kSteps);  // no event twice
  EXPECT_EQ(cluster_.WatchSteps(*job, kPatience), losses);
  const std::string log = cluster_.WorkDir("w1") + "/jobs/" + *job + "/e0001/rank-00.log";
  EXPECT_TRUE(
      Within(kPatience, [&] { return cluster_.Log(*job, 0) == ReadFile(log).value_or("none"); }));
}

TEST_F(ReexecTest, ARankThatEndsMeanwhileIsNotForgotten) {
  // A shell would wait for children that it does not know.
  Install(R"(#!/usr/bin/python3 -IS
import os, sys, time
if sys.argv[1] != "reexec-check":
    time.sleep(1)
os.execv("REAL", sys.argv))");
  v1::JobSpec spec = cluster_.TrainSpec(1, 30);
  (*spec.mutable_labels())["fake.step_ms"] = "5";
  (*spec.mutable_labels())["fake.load_ms"] = "300";
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  std::vector<pid_t> ranks;
  ASSERT_TRUE(Within(kPatience, [&] { return (ranks = cluster_.TrainerPids(*job)).size() == 1; }));
  ASSERT_EQ(kill(ranks[0], SIGSTOP), 0);
  std::thread command([&] { Reexec(0); });
  // The agent's process is the script now, and nobody reads.
  EXPECT_TRUE(Within(kPatience, [&] { return AgentsProgram() != "ll-worker"; }));
  EXPECT_EQ(kill(ranks[0], SIGCONT), 0);
  EXPECT_TRUE(Within(kPatience, [&] { return cluster_.TrainerPids(*job).empty(); }));
  EXPECT_NE(AgentsProgram(), "ll-worker") << "the rank took too long: nothing was tested";
  command.join();
  const v1::Job ended = cluster_.AwaitEnd(*job);
  EXPECT_EQ(ended.epoch(), 1);
  EXPECT_EQ(ended.result().fields().at("steps").number_value(), 30);
  EXPECT_EQ(cluster_.LossesOnDisk(*job).size(), 30u);
}

TEST_F(ReexecTest, AProgramThatCannotGoOnIsRefusedAndTheAgentStays) {
  v1::JobSpec spec = cluster_.TrainSpec(1, 10);
  (*spec.mutable_labels())["fake.until_stopped"] = "1";
  const auto job = cluster_.Submit(spec);
  LL_ASSERT_OK(job);
  cluster_.AwaitStep(*job, 5);
  const std::vector<pid_t> ranks = cluster_.TrainerPids(*job);
  const struct {
    const char *script, *words;
  } bad[] = {
      {"exit 0", "does not say which states it reads"},
      {"kill -SEGV $$", "signal 11"},
      {R"(echo '{"program":"ll-worker","version":"9","state_formats":[2,3]}')",
       "reads states of format 2, 3 and this agent writes 1"},
      {R"(exec -a "$0" REAL "${@/#w1/w9}")", "name: expected w1"},
      {R"(exec -a "$0" REAL "${@/#2/1}" --gpus all)", "gpus"},
      {R"([ "$1" = reexec-check ] && touch -m "$0"; exec -a "$0" REAL "$@")", "was replaced"},
  };
  for (const auto& program : bad) {
    Install(program.script);
    const std::string said = Reexec(1);
    EXPECT_THAT(said, testing::HasSubstr("goes on as it is"));
    EXPECT_THAT(said, testing::HasSubstr(program.words));
    EXPECT_EQ(AgentsProgram(), "ll-worker");
  }
  std::filesystem::remove(Program());
  EXPECT_THAT(Reexec(1), testing::HasSubstr("cannot look at"));
  cluster_.AwaitStep(*job, cluster_.Get(*job)->progress().step() + 2);
  EXPECT_EQ(cluster_.TrainerPids(*job), ranks);
  // The next good one is taken.
  Install(R"(exec -a "$0" REAL "$@")");
  Reexec(0);
  EXPECT_EQ(cluster_.TrainerPids(*job), ranks);
  LL_EXPECT_OK(cluster_.Cancel(*job));
  cluster_.AwaitState(*job, v1::CANCELLED);
  EXPECT_TRUE(Within(kPatience, [&] { return cluster_.TrainerPids(*job).empty(); }));
}

TEST_F(ReexecTest, WithoutAnAgentThereIsNothingToAsk) {
  cluster_.KillWorker("w1");
  EXPECT_THAT(Reexec(1), testing::HasSubstr("no agent runs in"));
}

}  // namespace
}  // namespace ll
