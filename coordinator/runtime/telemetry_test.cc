#include "coordinator/runtime/telemetry.h"

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "base/file.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "coordinator/runtime/telemetry_remover.h"
#include "gmock/gmock.h"

namespace ll {
namespace {

std::string StepLine(int64_t step, double loss, int64_t tokens = 10) {
  return absl::StrCat(R"({"event":"step","time":"2026-01-02T03:04:05Z","rank":0,"step":)", step,
                      R"(,"loss":)", loss, R"(,"tokens":)", tokens,
                      R"(,"step_seconds":0.5,"forward_seconds":0.2,"mfu":null})", "\n");
}

class TelemetryTest : public ::testing::Test {
 protected:
  TelemetryTest() { Reopen(); }
  void Reopen(int64_t cap = 64 << 20) {
    telemetry_ = std::make_unique<Telemetry>(
        TelemetryOptions{.dir = dir_.path(), .cap_bytes_per_job = cap, .min_free_bytes = 0});
  }
  TelemetryKey Events(int64_t epoch = 1) { return {job_, epoch, 0, TelemetryStream::kEvents}; }
  TelemetryKey Log(int64_t epoch = 1) { return {job_, epoch, 0, TelemetryStream::kLog}; }

  const TempDir dir_;
  const JobId job_{"job-0123456789ab"};
  std::unique_ptr<Telemetry> telemetry_;
};

TEST_F(TelemetryTest, DuplicatesAndOverlapsChangeNothing) {
  EXPECT_EQ(telemetry_->Append(Log(), 0, "hello ").value(), 6);
  EXPECT_EQ(telemetry_->Append(Log(), 0, "hello ").value(), 6);
  EXPECT_EQ(telemetry_->Append(Log(), 3, "lo world").value(), 11);
  EXPECT_EQ(telemetry_->Read(Log(), 0, 100)->data, "hello world");
}

TEST_F(TelemetryTest, AGapIsNotTakenAndSaysWhereToGoOn) {
  EXPECT_EQ(telemetry_->Append(Log(), 0, "abc").value(), 3);
  EXPECT_EQ(telemetry_->Append(Log(), 10, "xyz").value(), 3);
  EXPECT_EQ(telemetry_->Size(Log()), 3);
}

TEST_F(TelemetryTest, SurvivesARestart) {
  ASSERT_TRUE(telemetry_->Append(Events(), 0, StepLine(1, 2.5) + StepLine(2, 2.4)).ok());
  const int64_t size = telemetry_->Size(Events());
  Reopen();
  EXPECT_EQ(telemetry_->Size(Events()), size);
  ASSERT_TRUE(telemetry_->Newest(job_).has_value());
  EXPECT_EQ(telemetry_->Newest(job_)->step, 2);
  EXPECT_EQ(telemetry_->Newest(job_)->tokens, 20);
  ASSERT_TRUE(telemetry_->Append(Events(), size, StepLine(3, 2.3)).ok());
  EXPECT_EQ(telemetry_->Newest(job_)->tokens, 30);
}

TEST_F(TelemetryTest, LateWordsOfARemovedJobMakeNoNewFolder) {
  ASSERT_TRUE(telemetry_->Append(Events(), 0, StepLine(1, 2.5)).ok());
  telemetry_->Remove(job_);
  // Taken as far as the agent is concerned, which would keep them for ever otherwise.
  EXPECT_EQ(telemetry_->Append(Log(), 100, "abc").value(), 103);
  EXPECT_FALSE(FileExists(absl::StrCat(dir_.path(), "/", job_.value())));
  EXPECT_FALSE(telemetry_->Newest(job_).has_value());
}

TEST_F(TelemetryTest, SaysOfWhichJobsTheFilesMustBeRead) {
  ASSERT_TRUE(telemetry_->Append(Events(), 0, StepLine(1, 2.5)).ok());
  EXPECT_TRUE(telemetry_->Unread({job_}).empty());
  Reopen();
  EXPECT_EQ(telemetry_->Unread({job_}).size(), 1u);
  EXPECT_TRUE(telemetry_->Newest(job_).has_value());
  EXPECT_TRUE(telemetry_->Unread({job_}).empty());
}

TEST_F(TelemetryTest, AResumedAttemptReplacesTheStepsAfterItsCheckpoint) {
  ASSERT_TRUE(
      telemetry_->Append(Events(1), 0, StepLine(1, 3) + StepLine(2, 2) + StepLine(3, 1)).ok());
  ASSERT_TRUE(telemetry_->Append(Events(2), 0, StepLine(2, 20)).ok());
  const auto steps = telemetry_->Steps(job_);
  ASSERT_EQ(steps.size(), 2u);
  EXPECT_EQ(steps[0].epoch, 1);
  EXPECT_EQ(steps[1].step, 2);
  EXPECT_EQ(steps[1].loss, 20);
  EXPECT_EQ(telemetry_->Newest(job_)->step, 2);
  EXPECT_EQ(telemetry_->Newest(job_)->tokens, 20);
}

TEST_F(TelemetryTest, BrokenLinesAreSkipped) {
  const std::string bytes = "not json\n[1]\n{\"event\":\"step\"}\n\n" + StepLine(1, 0.5);
  ASSERT_TRUE(telemetry_->Append(Events(), 0, bytes).ok());
  const auto steps = telemetry_->Steps(job_);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].loss, 0.5);
  EXPECT_FALSE(steps[0].mfu.has_value());
  ASSERT_EQ(steps[0].phases.size(), 1u);
  EXPECT_EQ(steps[0].phases[0].first, "forward");
}

TEST_F(TelemetryTest, TheCapPunchesOutTheOldestBytesAndKeepsOffsets) {
  Reopen(/*cap=*/256 << 10);
  std::string chunk(32 << 10, 'x');
  int64_t offset = 0;
  for (int i = 0; i < 32; ++i) {  // 1 MiB in all
    chunk[0] = static_cast<char>('A' + i);
    offset = telemetry_->Append(Log(), offset, chunk).value();
  }
  EXPECT_EQ(offset, 1 << 20);
  EXPECT_EQ(telemetry_->Size(Log()), 1 << 20);
  struct stat st;
  ASSERT_EQ(stat(absl::StrCat(dir_.path(), "/job-0123456789ab/e0001/rank-00.log").c_str(), &st), 0);
  EXPECT_LE(st.st_blocks * 512, 300 << 10);
  const auto first = telemetry_->Read(Log(), 0, 10);
  EXPECT_GT(first->offset, 0);
  EXPECT_FALSE(first->data.empty());
  const auto last = telemetry_->Read(Log(), (1 << 20) - (32 << 10), 1);
  EXPECT_EQ(last->data, std::string(1, 'A' + 31));
}

TEST_F(TelemetryTest, NamesThatAreNotJobsNeverBecomePaths) {
  for (const char* id :
       {"../../etc", "job-../x", "job-", "", "job-0123456789ab/..", "JOB-0123456789ab"}) {
    const TelemetryKey key{JobId(id), 1, 0, TelemetryStream::kLog};
    EXPECT_FALSE(telemetry_->Append(key, 0, "x").ok()) << id;
  }
  EXPECT_FALSE(telemetry_->Append({job_, 0, 0, TelemetryStream::kLog}, 0, "x").ok());
  EXPECT_FALSE(telemetry_->Append({job_, 1, -1, TelemetryStream::kLog}, 0, "x").ok());
  EXPECT_FALSE(telemetry_->Append({job_, 1, 4096, TelemetryStream::kLog}, 0, "x").ok());
  EXPECT_TRUE(ListDir(dir_.path())->empty());
}

TEST_F(TelemetryTest, RefusesWhenTheDiskIsNearlyFull) {
  Telemetry strict({.dir = dir_.path(), .min_free_bytes = int64_t{1} << 60});
  EXPECT_THAT(strict.Append(Log(), 0, "x"),
              StatusIs(absl::StatusCode::kResourceExhausted, "nearly full"));
}

TEST_F(TelemetryTest, TellsOfWhatNoJobOwns) {
  const JobId other("job-ba9876543210");
  ASSERT_TRUE(telemetry_->Append(Log(), 0, "x").ok());
  ASSERT_TRUE(telemetry_->Append({other, 1, 0, TelemetryStream::kLog}, 0, "x").ok());
  EXPECT_EQ(telemetry_->Others([&](const JobId& job) { return job == job_; }),
            std::vector<JobId>{other});
}

// Jobs that go together, by thousands, must not hold up who tells of it.
TEST_F(TelemetryTest, TheRemoverHoldsUpNobody) {
  std::vector<JobId> jobs;
  for (int i = 0; i < 600; ++i) {
    jobs.emplace_back(absl::StrFormat("job-%012x", i));
    for (int rank = 0; rank < 3; ++rank) {
      ASSERT_TRUE(telemetry_->Append({jobs.back(), 1, rank, TelemetryStream::kLog}, 0, "x").ok());
    }
  }
  TelemetryRemover remover(*telemetry_);
  // The quickest of some turns: in any one this thread may have to wait for a processor.
  absl::Duration removing = absl::InfiniteDuration(), telling = removing;
  auto turn = [next = jobs.begin()](absl::Duration& quickest, const auto& remove) mutable {
    const absl::Time began = absl::Now();
    for (const auto end = next + 60; next != end; ++next) remove(*next);
    quickest = std::min(quickest, absl::Now() - began);
  };
  for (int i = 0; i < 5; ++i) turn(removing, [&](const JobId& job) { telemetry_->Remove(job); });
  for (int i = 0; i < 5; ++i) turn(telling, [&](const JobId& job) { remover.OnDeleted(job); });
  EXPECT_LT(telling, removing / 4);
  for (int i = 0; i < 1000 && !ListDir(dir_.path())->empty(); ++i)
    absl::SleepFor(absl::Milliseconds(10));
  EXPECT_TRUE(ListDir(dir_.path())->empty());
}

// A session that has been there for a year: what it was given lately counts, not what sorts last.
TEST(RecentKeys, TheFirstAddedGoesFirst) {
  RecentKeys keys(3);
  for (const char* key : {"z", "y", "x", "a"}) keys.Add(key);
  keys.Add("a");
  EXPECT_FALSE(keys.Holds("z"));
  for (const char* key : {"y", "x", "a"}) EXPECT_TRUE(keys.Holds(key)) << key;
}

std::string GuardLine(int64_t step, const std::string& action) {
  return absl::StrCat(R"({"event":"guard","rank":0,"kind":"loss_spike","action":")", action,
                      R"(","step":)", step, R"(,"message":"guarded step )", step, "\"}\n");
}
std::string StragglerLine(int rank, bool slow) {
  return absl::StrCat(R"({"event":"straggler","rank":0,"straggler":)", rank, R"(,"slow":)",
                      slow ? "true" : "false", R"(,"message":"rank )", rank, " is slow\"}\n");
}

TEST_F(TelemetryTest, ARollbackWithinAnAttemptGoesBack) {
  ASSERT_TRUE(
      telemetry_->Append(Events(), 0, StepLine(1, 3) + StepLine(2, 2) + StepLine(3, 1)).ok());
  const auto append = [&](const std::string& line) {
    ASSERT_TRUE(telemetry_->Append(Events(), telemetry_->Size(Events()), line).ok());
  };
  append(GuardLine(4, "rollback"));
  append(StepLine(2, 20));
  EXPECT_EQ(telemetry_->Newest(job_)->step, 2);
  EXPECT_EQ(telemetry_->Newest(job_)->tokens, 20);
  append(StepLine(3, 10));
  EXPECT_EQ(telemetry_->Newest(job_)->tokens, 30);
  ASSERT_EQ(telemetry_->Steps(job_).size(), 3u);
  EXPECT_EQ(telemetry_->Steps(job_)[1].loss, 20);
}

TEST_F(TelemetryTest, NotesOutliveARestartAndStragglersOfAnOlderAttemptDoNot) {
  EXPECT_EQ(telemetry_->Notes(job_), "");
  ASSERT_TRUE(telemetry_
                  ->Append(Events(), 0,
                           GuardLine(4, "skip") + GuardLine(9, "skip") + StragglerLine(2, true) +
                               StragglerLine(1, true) + StragglerLine(1, false))
                  .ok());
  EXPECT_EQ(telemetry_->Notes(job_), "guarded step 9; rank 2 is slow");
  Reopen();
  EXPECT_EQ(telemetry_->Notes(job_), "guarded step 9; rank 2 is slow");
  ASSERT_TRUE(telemetry_->Append(Events(2), 0, StepLine(1, 1)).ok());
  EXPECT_EQ(telemetry_->Notes(job_), "guarded step 9");
}

TEST_F(TelemetryTest, ANoteOfLessMemoryStays) {
  const std::string policy =
      R"({"event":"policy","rank":0,"field":"recompute","message":"recompute went from none"})";
  ASSERT_TRUE(telemetry_->Append(Events(), 0, policy + "\n" + GuardLine(4, "skip")).ok());
  EXPECT_EQ(telemetry_->Notes(job_), "guarded step 4; recompute went from none");
  ASSERT_TRUE(telemetry_->Append(Events(2), 0, StepLine(1, 1)).ok());
  Reopen();
  EXPECT_EQ(telemetry_->Notes(job_), "guarded step 4; recompute went from none");
}

TEST_F(TelemetryTest, ALossThatIsNoNumberIsOne) {
  const std::string line = R"({"event":"step","step":4,"loss":null,"grad_norm":null})";
  ASSERT_TRUE(telemetry_->Append(Events(), 0, line + "\n").ok());
  EXPECT_TRUE(std::isnan(telemetry_->Newest(job_)->loss));
  EXPECT_TRUE(std::isnan(telemetry_->Newest(job_)->grad_norm));
}

TEST_F(TelemetryTest, TellsWhatIsNew) {
  TelemetryNews got;
  telemetry_->AddListener([&](const JobId&, const TelemetryNews& news) { got = news; });
  const std::string eval = R"({"event":"eval","perplexity":12.5})";
  ASSERT_TRUE(telemetry_->Append(Events(), 0, StepLine(1, 1) + eval + "\n").ok());
  EXPECT_EQ(got.steps.size(), 1u);
  EXPECT_TRUE(got.guards.empty());
  EXPECT_EQ(got.eval_perplexity, 12.5);
  EXPECT_FALSE(got.eval_effective_context_length.has_value());
  const std::string done = R"({"event":"done","result":{"effective_context_length":4096}})";
  const int64_t end = telemetry_->Size(Events());
  ASSERT_TRUE(telemetry_->Append(Events(), end, done + "\n").ok());
  EXPECT_EQ(got.eval_effective_context_length, 4096);
  EXPECT_FALSE(got.eval_perplexity.has_value());
}

// An agent may send what it likes, but only its own job suffers.
TEST_F(TelemetryTest, AnEventThatNestsWithoutEndIsSkipped) {
  const std::string deep =
      absl::StrCat(R"({"event":"checkpoint","step":1,"removed_steps":)", std::string(500'000, '['),
                   std::string(500'000, ']'), "}\n");
  ASSERT_TRUE(telemetry_->Append(Events(), 0, deep + StepLine(1, 2.5)).ok());
  EXPECT_THAT(telemetry_->Checkpoints(job_), ::testing::IsEmpty());
  EXPECT_EQ(telemetry_->Newest(job_)->step, 1);
}

TEST_F(TelemetryTest, StepsThatGoToAndFroAreCountedOnce) {
  std::string lines;
  for (int i = 0; i < 3000; ++i)
    absl::StrAppend(&lines, StepLine(1, 2.5), StepLine(2, 2.4), StepLine(3, 2.3));
  const absl::Time began = absl::Now();
  ASSERT_TRUE(telemetry_->Append(Events(), 0, lines).ok());
  EXPECT_EQ(telemetry_->Newest(job_)->tokens, 30);
  EXPECT_LT(absl::Now() - began, absl::Seconds(10)) << "the file was read again at every step";
}

// With logging_steps not every step is told.
TEST_F(TelemetryTest, StepsThatAreLeftOutDoNotMakeItReadAllAgain) {
  ASSERT_TRUE(telemetry_->Append(Events(), 0, StepLine(10, 3) + StepLine(20, 2)).ok());
  const int64_t size = telemetry_->Size(Events());
  std::fstream file(absl::StrCat(dir_.path(), "/", job_.value(), "/e0001/rank-00.events.jsonl"));
  file << std::string(static_cast<size_t>(size), '\n');  // what a second reading would miss
  file.close();
  ASSERT_TRUE(telemetry_->Append(Events(), size, StepLine(30, 1)).ok());
  EXPECT_EQ(telemetry_->Newest(job_)->step, 30);
  EXPECT_EQ(telemetry_->Newest(job_)->tokens, 30);
}

// They are added up over all jobs.
TEST(StepEventTest, NumbersThatNoStepCanHaveAreLeftOut) {
  const auto step = [](const std::string& fields) {
    return ParseStep(*ParseEvent(absl::StrCat(R"({"event":"step","step":)", fields, "}")), 1);
  };
  EXPECT_FALSE(step("-1").has_value());
  EXPECT_FALSE(step("9223372036854775807").has_value());
  EXPECT_FALSE(step("18446744073709551615").has_value());
  const auto odd = step(R"(1,"tokens":9223372036854775807,"step_seconds":1e300,"time":1e300)");
  ASSERT_TRUE(odd.has_value());
  EXPECT_EQ(odd->tokens, 0);
  EXPECT_EQ(odd->step_seconds, 0);
  EXPECT_EQ(step(R"(1,"step_seconds":-5)")->step_seconds, 0);
  EXPECT_EQ(step(R"(1,"tokens":7,"step_seconds":0.5)")->tokens, 7);
}

// They stand in every answer about the job, lists of all jobs among them.
TEST(StepEventTest, PhasesAreFewAndTheirNamesShort) {
  std::string line = R"({"event":"step","step":1,"data_seconds":0.5)";
  for (int i = 0; i < 10'000; ++i) absl::StrAppend(&line, ",\"x", i, "_seconds\":1");
  absl::StrAppend(&line, R"(,"phases":{"forward":2,")", std::string(100'000, 'y'), "\":1");
  for (int i = 0; i < 10'000; ++i) absl::StrAppend(&line, ",\"z", i, "\":1");
  const auto step = ParseStep(*ParseEvent(line + "}}"), 1);
  ASSERT_TRUE(step.has_value());
  size_t bytes = 0;
  for (const auto& [name, seconds] : step->phases) bytes += name.size();
  EXPECT_LE(step->phases.size(), 64u);
  EXPECT_LE(bytes, 5000u);
  EXPECT_THAT(step->phases, ::testing::Contains(std::pair<std::string, double>("data", 0.5)));
}

TEST_F(TelemetryTest, NotesAreShortAndFewWhateverIsTold) {
  std::string lines;
  for (int i = 0; i < 10'000; ++i) {
    absl::StrAppend(&lines, R"({"event":"straggler","slow":true,"straggler":)", i,
                    R"(,"message":")", std::string(100, 'x'), "\"}\n");
  }
  absl::StrAppend(&lines, R"({"event":"guard","message":")", std::string(100'000, 'y'), "\"}\n");
  ASSERT_TRUE(telemetry_->Append(Events(), 0, lines).ok());
  EXPECT_LT(telemetry_->Notes(job_).size(), 10'000u);
  EXPECT_THAT(telemetry_->Notes(job_), ::testing::HasSubstr("xxx"));
}

}  // namespace
}  // namespace ll
