#include "coordinator/store/backup.h"

#include <atomic>
#include <thread>

#include "absl/time/clock.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "coordinator/core/scheduler.h"
#include "coordinator/store/mem_store.h"
#include "coordinator/store/postgres_for_test.h"
#include "coordinator/store/postgres_store.h"
#include "coordinator/store/sqlite_store.h"
#include "coordinator/store/store_testing.h"

namespace ll {
namespace {

using absl::StatusCode;
const absl::Time kThen = absl::FromUnixSeconds(1'700'000'000);

class BackupTest : public testing::Test {
 protected:
  const TempDir dir_;
};

// SQLite → file → PostgreSQL → file → SQLite: nothing is lost on the way.
TEST_F(BackupTest, CarriesEverythingFromOneStoreToTheOther) {
  const uint64_t seed = SystemRandom().Next() % 1'000'000;
  std::printf("seed %d\n", static_cast<int>(seed));
  SeededRandom random(seed);
  std::vector<std::string> expected;
  {
    LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(dir_.path() + "/a"));
    LL_ASSERT_OK(store->RaiseTerm(41));
    for (int i = 0; i < 200; ++i) LL_ASSERT_OK(store->Commit(RandomRecords(random)));
    LL_ASSERT_OK_AND_ASSIGN(const StoredState state, store->LoadAll());
    EXPECT_FALSE(IsEmpty(state));
    expected = Lines(state);
  }
  LL_ASSERT_OK_AND_ASSIGN(const StoreSnapshot first, ReadSqlite(dir_.path() + "/a"));
  EXPECT_EQ(first.term, 42);
  LL_ASSERT_OK_AND_ASSIGN(const Backup read, DecodeBackup(EncodeBackup({first, kThen, "sqlite"})));
  EXPECT_EQ(read.created, kThen);
  EXPECT_EQ(Lines(read.snapshot.state), expected);

  PostgresForTest& server = PostgresForTest::Get();
  server.Wipe();
  const PostgresOptions options{.uri = server.uri(), .holder = "h"};
  LL_ASSERT_OK(MakePostgresLease(options, absl::Hours(1))->Ask("a:1").status());
  LL_ASSERT_OK_AND_ASSIGN(auto postgres, OpenPostgresStore(options));
  LL_ASSERT_OK(postgres->RaiseTerm(read.snapshot.term).status());
  LL_ASSERT_OK(postgres->Replace(RecordsOf(read.snapshot.state), kThen));
  LL_ASSERT_OK_AND_ASSIGN(const StoreSnapshot second, ReadPostgres(server.uri()));
  EXPECT_EQ(second.term, 43);
  EXPECT_EQ(Lines(second.state), expected);
  LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(dir_.path() + "/b"));
  LL_ASSERT_OK(store->Replace(RecordsOf(second.state), kThen));
  LL_ASSERT_OK_AND_ASSIGN(const StoredState last, store->LoadAll());
  EXPECT_EQ(Lines(last), expected);
}

// A backup taken while the coordinator commits holds whole transactions only, and all that were
// acknowledged before it began.
TEST_F(BackupTest, IsOfOneMomentWhileTheStoreIsWritten) {
  LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(dir_.path()));
  std::atomic<int> committed = 0;
  std::atomic<bool> stop = false;
  std::thread writer([&] {
    for (int i = 1; !stop; ++i) {
      if (!store->Commit(SubmissionRecords(i)).ok()) return;
      committed = i;
    }
  });
  for (int round = 0; round < 5; ++round) {
    const absl::Time deadline = absl::Now() + absl::Seconds(10);
    while (committed < 20 * (round + 1) && absl::Now() < deadline)
      absl::SleepFor(absl::Milliseconds(1));
    const int before = committed;
    const auto taken = ReadSqlite(dir_.path());
    const int after = committed + 1;
    LL_EXPECT_OK(taken);
    if (!taken.ok()) break;
    const int jobs = static_cast<int>(taken->state.jobs.size());
    EXPECT_GE(jobs, before);
    EXPECT_LE(jobs, after);
    EXPECT_EQ(taken->state.requests.size(), taken->state.jobs.size());
    for (const Job& job : taken->state.jobs) EXPECT_EQ(job.history.size(), 1u);
  }
  stop = true;
  writer.join();
  EXPECT_GE(committed, 100);
}

TEST_F(BackupTest, EveryChangeAndEveryCutIsNoticed) {
  MemStore store;
  LL_ASSERT_OK(store.Commit(SubmissionRecords(1, 10)));
  LL_ASSERT_OK_AND_ASSIGN(StoredState state, store.LoadAll());
  const std::string text = EncodeBackup({{std::move(state), 3}, kThen, "memory"});
  LL_EXPECT_OK(DecodeBackup(text));
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(DecodeBackup(text.substr(0, size)).ok()) << size;
  for (size_t i = 0; i < text.size(); ++i) {
    std::string changed = text;
    changed[i] ^= 1;
    const auto read = DecodeBackup(changed);
    // Of the last line only the hash counts.
    if (i < text.rfind("{\"lines\"")) {
      EXPECT_FALSE(read.ok()) << i;
    }
  }
  EXPECT_THAT(DecodeBackup(text + text), StatusIs(StatusCode::kDataLoss, "backup"));
  EXPECT_THAT(ReadSqlite(dir_.path() + "/nothing"), StatusIs(StatusCode::kNotFound, "no store"));
}

// Attempts end uncharged and the next ones are above all that may have been given out.
TEST_F(BackupTest, WhatIsRestoredBeginsAnewAboveEverythingStored) {
  MemStore store;
  const StepTime time{absl::ZeroDuration(), kThen};
  LL_ASSERT_OK_AND_ASSIGN(Scheduler scheduler,
                          Scheduler::Recover(StoredState(), SchedulerOptions(), time));
  AgentHelloEvent hello;
  hello.worker = WorkerId("w1");
  hello.incarnation = "i1";
  hello.session = 1;
  hello.slots = {{0, "cpu", 0}, {1, "cpu", 0}, {2, "cpu", 0}};
  LL_ASSERT_OK(store.Commit(scheduler.Step(hello, time).records));
  for (const char* id : {"job-a", "job-b", "job-c", "job-d"}) {
    SubmitEvent submit;
    submit.job = JobId(id);
    submit.user = "ann";
    submit.body_sha256 = "b";
    submit.payload = std::make_shared<JobPayload>();
    LL_ASSERT_OK(store.Commit(scheduler.Step(submit, time).records));
  }
  PauseEvent pause;
  pause.job = JobId("job-b");
  LL_ASSERT_OK(store.Commit(scheduler.Step(pause, time).records));
  CancelEvent cancel;
  cancel.job = JobId("job-c");
  LL_ASSERT_OK(store.Commit(scheduler.Step(cancel, time).records));

  Backup backup;
  LL_ASSERT_OK_AND_ASSIGN(backup.snapshot.state, store.LoadAll());
  backup.created = kThen;
  LL_ASSERT_OK_AND_ASSIGN(StoredState restored, Restored(backup, kThen + absl::Hours(1)));
  std::map<std::string, Job> jobs;
  for (const Job& job : restored.jobs) jobs[job.id.value()] = job;
  EXPECT_EQ(jobs["job-a"].state, JobState::kQueued);
  EXPECT_EQ(jobs["job-a"].retries, 0);
  EXPECT_NE(jobs["job-a"].reason.find("backup of 2023-11-14"), std::string::npos)
      << jobs["job-a"].reason;
  EXPECT_EQ(jobs["job-b"].state, JobState::kPaused) << jobs["job-b"].reason;
  EXPECT_EQ(jobs["job-c"].state, JobState::kCancelled) << jobs["job-c"].reason;
  EXPECT_EQ(jobs["job-d"].state, JobState::kQueued) << "it had no slot";
  for (const auto& [id, job] : jobs) {
    if (!IsTerminal(job.state)) {
      EXPECT_GE(job.epoch_floor, job.epoch + 100) << id;
    }
  }
  // The coordinator goes on from it, and an agent's word lifts the floor.
  LL_ASSERT_OK_AND_ASSIGN(Scheduler next,
                          Scheduler::Recover(std::move(restored), SchedulerOptions(), time));
  next.CheckInvariants();
  hello.gangs.push_back({JobId("job-a"), 500, {}});
  (void)next.Step(hello, time);
  EXPECT_EQ(next.Find(JobId("job-a"))->epoch_floor, 500);
  const StepTime later{absl::Minutes(5), kThen + absl::Minutes(5)};
  (void)next.Step(AgentHeardEvent{hello.worker, 1}, later);
  (void)next.Step(TickEvent{}, later);
  (void)next.Step(AgentHeardEvent{hello.worker, 1}, later);
  (void)next.Step(TickEvent{}, StepTime{absl::Minutes(5) + absl::Seconds(2), later.wall});
  EXPECT_EQ(next.Find(JobId("job-a"))->epoch, 501) << next.Find(JobId("job-a"))->reason;
  next.CheckInvariants();
}

}  // namespace
}  // namespace ll
