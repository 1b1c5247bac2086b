#include "worker/agent/rank_process.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "worker/agent/process_marker.h"
#include "worker/agent/spool.h"

namespace ll {
namespace {

class RankProcessTest : public testing::Test {
 protected:
  void SetUp() override { mark_ = RandomHex(SystemRandom(), 16); }
  void TearDown() override { KillMarked(mark_, 1000); }

  // The agent's own arguments come last, so the script sees them as $1 …; it ignores them.
  std::unique_ptr<RankProcess> Start(const std::string& script) {
    RankCommand command;
    command.argv = {"/bin/sh", "-c", script, "rank"};
    command.working_directory = dir_;
    command.log_path = dir_ + "/log";
    command.mark = mark_ + "/job/1/0/";
    auto process = RankProcess::Start(command);
    EXPECT_THAT(process, IsOk());
    return *std::move(process);
  }

  std::optional<ExitStatus> WaitForEnd(RankProcess& process,
                                       absl::Duration timeout = absl::Seconds(10)) {
    const absl::Time deadline = absl::Now() + timeout;
    std::optional<ExitStatus> exit;
    while (!(exit = process.Poll()) && absl::Now() < deadline) {
      Read(process);
      process.Tick(absl::Now() - absl::UnixEpoch());
      absl::SleepFor(absl::Milliseconds(2));
    }
    Read(process);
    return exit;
  }
  void Read(RankProcess& process) {
    process.ReadEvents([&](absl::string_view line) { lines_.push_back(std::string(line)); },
                       [&](int64_t length) { overlong_.push_back(length); });
  }
  absl::Duration Now() { return absl::Now() - absl::UnixEpoch(); }
  pid_t PidFrom(const std::string& name) {
    const absl::Time deadline = absl::Now() + absl::Seconds(5);
    int pid = 0;
    while (absl::Now() < deadline) {
      const auto text = ReadFile(dir_ + "/" + name);
      if (text.ok() && absl::SimpleAtoi(*text, &pid)) return pid;
      absl::SleepFor(absl::Milliseconds(2));
    }
    return 0;
  }
  static bool Gone(pid_t pid) {
    const absl::Time deadline = absl::Now() + absl::Seconds(5);
    while (absl::Now() < deadline) {
      if (kill(pid, 0) != 0) return true;
      const auto stat = ReadFile(absl::StrCat("/proc/", pid, "/stat"));
      if (!stat.ok() || stat->find(") Z ") != std::string::npos)
        return true;  // only its parent's wait is missing
      absl::SleepFor(absl::Milliseconds(5));
    }
    return false;
  }

  const TempDir made_;
  const std::string& dir_ = made_.path();
  std::string mark_;
  std::vector<std::string> lines_;
  std::vector<int64_t> overlong_;
};

TEST_F(RankProcessTest, EventsLogControlAndExitCode) {
  auto process = Start(
      "echo out; echo err >&2; echo one >&3; read line <&4; echo \"$line\" >&3; printf half >&3; "
      "exit 7");
  process->SendControlLine("hello");
  const auto exit = WaitForEnd(*process);
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->exit_code, 7);
  EXPECT_EQ(exit->signal, 0);
  EXPECT_EQ(lines_, (std::vector<std::string>{"one", "hello"}));  // a half line is no event
  EXPECT_EQ(*ReadFile(dir_ + "/log"), "out\nerr\n");
}

TEST_F(RankProcessTest, OverlongLineIsDroppedAndTheNextIsRead) {
  auto process = Start("head -c 3000000 /dev/zero | tr '\\0' x >&3; echo >&3; echo after >&3");
  ASSERT_TRUE(WaitForEnd(*process).has_value());
  EXPECT_EQ(overlong_, (std::vector<int64_t>{3'000'000}));
  EXPECT_EQ(lines_, (std::vector<std::string>{"after"}));
}

TEST_F(RankProcessTest, IsAdoptedInTheMiddleOfALine) {
  // What the first object did not get to; it stays, as a program that was replaced does nothing.
  static std::unique_ptr<RankProcess>& first = *new std::unique_ptr<RankProcess>;
  first = Start("printf ha >&3; read line <&4; printf 'lf %s\n' \"$line\" >&3; exit 7");
  const absl::Time deadline = absl::Now() + absl::Seconds(5);
  while (first->Handover().half_line.empty() && absl::Now() < deadline) Read(*first);
  auto process = RankProcess::Adopt(first->Handover());
  LL_ASSERT_OK(process);
  EXPECT_EQ((*process)->pid(), first->pid());
  (*process)->SendControlLine("told");
  const auto exit = WaitForEnd(**process);
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->exit_code, 7);
  EXPECT_EQ(lines_, std::vector<std::string>{"half told"});
  // Its end was seen and its number may be another's: nobody is adopted by it again.
  EXPECT_THAT(RankProcess::Adopt(first->Handover()),
              StatusIs(absl::StatusCode::kNotFound, "no child"));
}

TEST_F(RankProcessTest, StopIsPoliteThenKills) {
  auto polite = Start("trap 'exit 10' TERM; echo up >&3; while :; do sleep 0.01; done");
  while (lines_.empty()) Read(*polite);
  polite->Stop(Now(), absl::Seconds(30));
  EXPECT_EQ(WaitForEnd(*polite)->exit_code, 10);

  lines_.clear();
  auto deaf = Start("trap '' TERM; echo up >&3; while :; do sleep 0.01; done");
  while (lines_.empty()) Read(*deaf);
  deaf->Stop(Now(), absl::Milliseconds(200));
  const auto exit = WaitForEnd(*deaf);
  ASSERT_TRUE(exit.has_value());
  EXPECT_EQ(exit->signal, SIGKILL);
}

TEST_F(RankProcessTest, KillTakesTheWholeTreeAlsoWhatLeftTheGroup) {
  auto process =
      Start("setsid sh -c 'echo $$ > away; sleep 100' & sh -c 'echo $$ > near; sleep 100' & wait");
  const pid_t away = PidFrom("away"), near = PidFrom("near");
  ASSERT_GT(away, 0);
  ASSERT_GT(near, 0);
  process->Kill();
  EXPECT_EQ(WaitForEnd(*process)->signal, SIGKILL);
  EXPECT_TRUE(Gone(away));
  EXPECT_TRUE(Gone(near));
}

TEST_F(RankProcessTest, NothingIsLeftAfterAGoodEnd) {
  auto process = Start(
      "setsid sh -c 'echo $$ > away; exec sleep 100' & while [ ! -s away ]; do sleep 0.01; done; "
      "exit 0");
  EXPECT_EQ(WaitForEnd(*process)->exit_code, 0);
  EXPECT_TRUE(Gone(PidFrom("away")));
}

TEST_F(RankProcessTest, StraysOfAKilledAgentAreFoundByTheirMark) {
  // An agent that dies at once takes its direct child along; a grandchild stays and is what the
  // next agent must find.
  const pid_t agent = fork();
  if (agent == 0) {
    auto process = Start("setsid sh -c 'echo $$ > away; exec sleep 100' & wait");
    PidFrom("away");
    raise(SIGKILL);
  }
  waitpid(agent, nullptr, 0);
  const pid_t away = PidFrom("away");
  ASSERT_GT(away, 0);
  EXPECT_EQ(kill(away, 0), 0);
  EXPECT_EQ(KillMarked(RandomHex(SystemRandom(), 16), 100), 0);  // another agent's mark
  EXPECT_EQ(kill(away, 0), 0);
  EXPECT_GE(KillMarked(mark_ + "/", 5000), 1);
  EXPECT_TRUE(Gone(away));
}

TEST_F(RankProcessTest, ProgramThatCannotBeRun) {
  RankCommand command;
  command.argv = {dir_ + "/none"};
  command.log_path = dir_ + "/log";
  command.mark = mark_;
  EXPECT_THAT(RankProcess::Start(command), StatusIs(absl::StatusCode::kNotFound, "cannot execute"));
}

}  // namespace
}  // namespace ll
