// What every store keeps, asked of each: memory, SQLite, PostgreSQL.

#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/status_macros.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "coordinator/store/codec.h"
#include "coordinator/store/mem_store.h"
#include "coordinator/store/postgres_for_test.h"
#include "coordinator/store/postgres_store.h"
#include "coordinator/store/sqlite_store.h"
#include "coordinator/store/store_testing.h"

namespace ll {
namespace {

// What lasts while stores on it are opened and closed.
class Place {
 public:
  virtual ~Place() = default;
  virtual absl::StatusOr<std::unique_ptr<Store>> Open() = 0;
};

class MemPlace : public Place {
  class Opened : public Store {
   public:
    explicit Opened(MemStore& store) : store_(store) {}
    absl::Status Commit(absl::Span<const Record> records) override {
      return store_.Commit(records);
    }
    absl::StatusOr<StoredState> LoadAll() override { return store_.LoadAll(); }
    absl::StatusOr<int64_t> RaiseTerm(int64_t above) override { return store_.RaiseTerm(above); }
    absl::Status Replace(absl::Span<const Record> records, absl::Time restored) override {
      return store_.Replace(records, restored);
    }
    std::string Description() const override { return store_.Description(); }

   private:
    MemStore& store_;
  };

 public:
  absl::StatusOr<std::unique_ptr<Store>> Open() override {
    return std::make_unique<Opened>(store_);
  }

 private:
  MemStore store_;
};

class SqlitePlace : public Place {
 public:
  absl::StatusOr<std::unique_ptr<Store>> Open() override { return OpenSqliteStore(dir_.path()); }

 private:
  const TempDir dir_;
};

class PostgresPlace : public Place {
 public:
  PostgresPlace() { PostgresForTest::Get().Wipe(); }
  absl::StatusOr<std::unique_ptr<Store>> Open() override {
    const PostgresOptions options{.uri = PostgresForTest::Get().uri(), .holder = "h"};
    LL_RETURN_IF_ERROR(MakePostgresLease(options, absl::Hours(1))->Ask("a:1").status());
    return OpenPostgresStore(options);
  }
};

template <typename P>
std::unique_ptr<Place> Make() {
  return std::make_unique<P>();
}

struct Kind {
  const char* name;
  std::unique_ptr<Place> (*make)();
};

class StoreConformanceTest : public testing::TestWithParam<Kind> {
 protected:
  void SetUp() override { place_ = GetParam().make(); }
  // As the driver does it.
  std::unique_ptr<Store> Open() {
    auto store = place_->Open();
    EXPECT_THAT(store, IsOk());
    const auto term = (*store)->RaiseTerm();
    EXPECT_THAT(term, IsOk());
    return *std::move(store);
  }
  std::unique_ptr<Place> place_;
};

TEST_P(StoreConformanceTest, WhatWasCommittedIsThereAfterOpeningAgain) {
  {
    auto store = Open();
    LL_ASSERT_OK(store->Commit(SubmissionRecords(1)));
    LL_ASSERT_OK(store->Commit(SubmissionRecords(2)));
    Worker worker;
    worker.name = WorkerId("w1");
    LL_ASSERT_OK(store->Commit(
        {PutWorker{worker}, PutModel{{"7b", "/m", true, "{}"}}, PutData{{"d", "/d", true}}}));
    LL_ASSERT_OK(store->Commit(
        {DeleteJob{JobId("job-2"), 2}, DeleteRequest{"ann", "r2", absl::FromUnixSeconds(2)}}));
  }
  LL_ASSERT_OK_AND_ASSIGN(const StoredState state, Open()->LoadAll());
  ASSERT_EQ(state.jobs.size(), 1u);
  const Job& job = state.jobs[0];
  EXPECT_EQ(job.id, JobId("job-1"));
  EXPECT_EQ(job.result, std::string("\0\xff", 2));
  EXPECT_EQ(job.payload->spec, std::string(100, '\xfe'));
  EXPECT_EQ(job.payload->resolved_spec, std::string("re\0solved", 9));
  ASSERT_EQ(job.history.size(), 1u);
  EXPECT_EQ(job.history[0].reason, "submitted");
  EXPECT_EQ(job.history[0].time, absl::FromUnixSeconds(1));
  ASSERT_EQ(state.requests.size(), 1u);
  EXPECT_EQ(state.requests[0].job, JobId("job-1"));
  EXPECT_EQ(state.workers.size(), 1u);
  ASSERT_EQ(state.models.size(), 1u);
  EXPECT_TRUE(state.models[0].verified);
  ASSERT_EQ(state.data.size(), 1u);
  EXPECT_TRUE(state.data[0].is_default);
}

TEST_P(StoreConformanceTest, SchedulesAndTheirRunsAreThereAfterOpeningAgain) {
  ScheduleRecord record;
  record.payload = std::make_shared<JobPayload>(JobPayload{std::string("a\0b", 3), "r", "f"});
  const auto run = [](int64_t number) {
    ScheduleRun run;
    run.number = number;
    return run;
  };
  {
    auto store = Open();
    for (const char* name : {"nightly", "weekly"}) {
      record.name = name;
      LL_ASSERT_OK(store->Commit(
          {PutSchedule{record}, PutScheduleRun{name, run(1)}, PutScheduleRun{name, run(2)}}));
    }
    record.runs = 2;
    LL_ASSERT_OK(store->Commit(
        {DeleteScheduleRun{"weekly", 1}, PutSchedule{record}, DeleteSchedule{"nightly"}}));
  }
  LL_ASSERT_OK_AND_ASSIGN(const StoredState state, Open()->LoadAll());
  ASSERT_EQ(state.schedules.size(), 1u);
  EXPECT_EQ(state.schedules[0].name, "weekly");
  EXPECT_EQ(state.schedules[0].runs, 2);
  EXPECT_EQ(state.schedules[0].payload->spec, std::string("a\0b", 3));
  ASSERT_EQ(state.schedule_runs.size(), 1u);
  EXPECT_EQ(state.schedule_runs[0].first, "weekly");
  EXPECT_EQ(state.schedule_runs[0].second.number, 2);
}

TEST_P(StoreConformanceTest, TheTermRisesWithEveryOpeningAndAboveWhatIsAsked) {
  for (int64_t term = 1; term <= 3; ++term) {
    LL_ASSERT_OK_AND_ASSIGN(auto store, place_->Open());
    LL_ASSERT_OK_AND_ASSIGN(const int64_t raised, store->RaiseTerm());
    EXPECT_EQ(raised, term);
  }
  LL_ASSERT_OK_AND_ASSIGN(auto store, place_->Open());
  LL_ASSERT_OK_AND_ASSIGN(const int64_t above, store->RaiseTerm(100));
  EXPECT_EQ(above, 101);
  LL_ASSERT_OK_AND_ASSIGN(const int64_t next, store->RaiseTerm(7));
  EXPECT_EQ(next, 102);
  LL_EXPECT_OK(store->Commit(SubmissionRecords(1)));
}

// Text of others: a trainer's message that is not UTF-8, a NUL in a request id.
TEST_P(StoreConformanceTest, BytesComeBackAsTheyWere) {
  std::vector<Record> records = SubmissionRecords(1);
  const std::string bytes("\0\xc3(\xff'\"\\x41", 10);
  std::get<PutTransition>(records[2]).transition.reason = bytes;
  std::get<PutRequest>(records[1]).request.request_id = bytes;
  {
    auto store = Open();
    LL_ASSERT_OK(store->Commit(records));
    LL_ASSERT_OK(store->Commit({PutModel{{"m", bytes, false, bytes}}}));
  }
  LL_ASSERT_OK_AND_ASSIGN(const StoredState state, Open()->LoadAll());
  EXPECT_EQ(state.jobs.at(0).history.at(0).reason, bytes);
  EXPECT_EQ(state.requests.at(0).request_id, bytes);
  EXPECT_EQ(state.models.at(0).path, bytes);
}

// Of a job that changes its state for ever the newest kMaxHistory stay, not those that no reader
// asks for.
TEST_P(StoreConformanceTest, OldTransitionsGo) {
  constexpr int64_t kChanges = static_cast<int64_t>(kMaxHistory) + 100;
  std::vector<Record> records = SubmissionRecords(1);
  PutTransition put = std::get<PutTransition>(records[2]);
  auto store = Open();
  for (put.index = 0; put.index < kChanges; ++put.index) {
    put.transition.epoch = put.index;
    records.push_back(put);
  }
  // A reader takes the newest that the job has; this one says that it has them all.
  std::get<PutJob>(records[3]).job.transitions = static_cast<int64_t>(kMaxHistory);
  LL_ASSERT_OK(store->Commit(records));
  LL_ASSERT_OK_AND_ASSIGN(const StoredState state, store->LoadAll());
  ASSERT_EQ(state.jobs.at(0).history.size(), kMaxHistory);
  EXPECT_EQ(state.jobs[0].history.front().epoch, 100);
}

// Transactions of random records; each store ends with what memory holds. A record applied twice
// changes nothing.
TEST_P(StoreConformanceTest, HoldsWhatMemoryHolds) {
  const uint64_t seed = SystemRandom().Next() % 1'000'000;
  std::printf("seed %d\n", static_cast<int>(seed));
  SeededRandom random(seed);
  MemStore expected;
  auto store = Open();
  for (int i = 0; i < 150; ++i) {
    std::vector<Record> records;
    const int count = 1 + static_cast<int>(random.Below(6));
    for (int k = 0; k < count; ++k) {
      std::vector<Record> more = RandomRecords(random);
      std::move(more.begin(), more.end(), std::back_inserter(records));
    }
    LL_ASSERT_OK(expected.Commit(records));
    LL_ASSERT_OK(store->Commit(records));
    if (i % 10 == 0) {
      LL_ASSERT_OK(store->Commit(records));
    }
    if (i % 40 == 39) {
      store.reset();
      store = Open();
    }
  }
  LL_ASSERT_OK_AND_ASSIGN(const StoredState want, expected.LoadAll());
  LL_ASSERT_OK_AND_ASSIGN(const StoredState got, store->LoadAll());
  EXPECT_EQ(Lines(got), Lines(want));
  EXPECT_GT(want.jobs.size(), 3u);
}

TEST_P(StoreConformanceTest, IsReplacedAsAWhole) {
  {
    auto store = Open();
    for (int i = 1; i <= 3; ++i) LL_ASSERT_OK(store->Commit(SubmissionRecords(i)));
    LL_ASSERT_OK(store->Commit({PutModel{{"old", "/m", true, "{}"}}}));
    LL_ASSERT_OK_AND_ASSIGN(const StoredState before, store->LoadAll());
    EXPECT_EQ(before.restored, absl::InfinitePast());
    LL_ASSERT_OK(store->Replace(SubmissionRecords(7), absl::FromUnixSeconds(99)));
    LL_ASSERT_OK(store->Commit(SubmissionRecords(8)));
  }
  LL_ASSERT_OK_AND_ASSIGN(const StoredState state, Open()->LoadAll());
  EXPECT_EQ(state.restored, absl::FromUnixSeconds(99));
  ASSERT_EQ(state.jobs.size(), 2u);
  EXPECT_EQ(state.requests.size(), 2u);
  EXPECT_TRUE(state.models.empty());
}

INSTANTIATE_TEST_SUITE_P(Stores, StoreConformanceTest,
                         testing::Values(Kind{"memory", Make<MemPlace>},
                                         Kind{"sqlite", Make<SqlitePlace>},
                                         Kind{"postgresql", Make<PostgresPlace>}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace ll
