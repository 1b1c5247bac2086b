#include "coordinator/store/sqlite_store.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "base/field_error.h"
#include "base/file.h"
#include "base/ids.h"
#include "base/status_matchers.h"
#include "base/temp_dir.h"
#include "coordinator/store/codec.h"
#include "coordinator/store/migrations.h"
#include "coordinator/store/sqlite_util.h"
#include "coordinator/store/store_testing.h"

namespace ll {
namespace {

using absl::StatusCode;

class SqliteStoreTest : public testing::Test {
 protected:
  const TempDir dir_;
};

TEST_F(SqliteStoreTest, ASecondCoordinatorIsRefusedUntilTheFirstIsGone) {
  LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(dir_.path()));
  const auto second = OpenSqliteStore(dir_.path());
  EXPECT_THAT(second, StatusIs(StatusCode::kUnavailable, "another coordinator is running on"));
  EXPECT_EQ(ErrorField(second.status()), "data-dir");
  store.reset();
  LL_EXPECT_OK(OpenSqliteStore(dir_.path()));
}

TEST_F(SqliteStoreTest, AFailedRecordUndoesItsWholeTransaction) {
  LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(dir_.path()));
  std::vector<Record> records = SubmissionRecords(1);
  Job clash = std::get<PutJob>(SubmissionRecords(2).back()).job;
  clash.sequence = 1;  // taken
  records.push_back(PutJob{clash});
  EXPECT_FALSE(store->Commit(records).ok());
  EXPECT_FALSE(store->Commit(SubmissionRecords(3)).ok()) << "a store that failed must not go on";
  store.reset();
  LL_ASSERT_OK_AND_ASSIGN(store, OpenSqliteStore(dir_.path()));
  LL_ASSERT_OK_AND_ASSIGN(const StoredState state, store->LoadAll());
  EXPECT_TRUE(state.jobs.empty());
}

// A child commits and reports each success; the parent kills it at a random moment. What was
// reported is there, in full, and at most one transaction more.
TEST_F(SqliteStoreTest, KillNineLosesNothingAcknowledged) {
  const uint64_t seed = 20;
  std::printf("seed %d\n", static_cast<int>(seed));
  SeededRandom random(seed);
  int committed = 0;
  for (int round = 0; round < 8; ++round) {
    int pipe_fds[2];
    ASSERT_EQ(pipe(pipe_fds), 0);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto store = OpenSqliteStore(dir_.path());
      if (!store.ok()) _exit(1);
      for (int i = committed + 1;; ++i) {
        if (!(*store)->Commit(SubmissionRecords(i)).ok()) _exit(2);
        if (write(pipe_fds[1], &i, sizeof i) != sizeof i) _exit(3);
      }
    }
    close(pipe_fds[1]);
    int acked = committed, next = 0;
    const int until = committed + 1 + static_cast<int>(random.Below(60));
    while (acked < until && read(pipe_fds[0], &next, sizeof next) == sizeof next) acked = next;
    ASSERT_GE(acked, until) << "the child died by itself";
    kill(child, SIGKILL);
    while (read(pipe_fds[0], &next, sizeof next) == sizeof next) acked = next;
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    close(pipe_fds[0]);

    LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(dir_.path()));
    LL_ASSERT_OK_AND_ASSIGN(const StoredState state, store->LoadAll());
    committed = static_cast<int>(state.jobs.size());
    EXPECT_GE(committed, acked);
    EXPECT_LE(committed, acked + 1);
    EXPECT_EQ(state.requests.size(), state.jobs.size());
    for (const Job& job : state.jobs) {
      EXPECT_LE(job.sequence, committed);
      EXPECT_EQ(job.history.size(), 1u);
    }
  }
}

// The limit on file sizes stands for a full disk: writes fail beyond it, and work again when space
// returns.
TEST_F(SqliteStoreTest, AFullDiskRefusesAndRecovers) {
  LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(dir_.path()));
  LL_ASSERT_OK(store->Commit(SubmissionRecords(1)));
  signal(SIGXFSZ, SIG_IGN);
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit small = before;
  small.rlim_cur = 256 << 10;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const absl::Status full = store->Commit(SubmissionRecords(2, 2 << 20));
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_THAT(full, StatusIs(StatusCode::kResourceExhausted, ""));
  LL_EXPECT_OK(store->Commit(SubmissionRecords(3)));
  LL_ASSERT_OK_AND_ASSIGN(const StoredState state, store->LoadAll());
  ASSERT_EQ(state.jobs.size(), 2u);
  EXPECT_EQ(state.jobs[1].id, JobId("job-3"));
}

TEST_F(SqliteStoreTest, RefusesOtherProgramsFilesDamageAndTheFuture) {
  const std::string path = dir_.path() + "/ll.db";
  LL_ASSERT_OK(WriteFileAtomic(path, std::string(5000, 'x')));
  EXPECT_THAT(OpenSqliteStore(dir_.path()), StatusIs(StatusCode::kDataLoss, path));
  LL_ASSERT_OK(RemoveTree(path));
  const auto run = [&path](const std::string& sql) {
    sqlite3* raw = nullptr;
    ASSERT_EQ(sqlite3_open(path.c_str(), &raw), SQLITE_OK);
    Db db(raw);
    LL_ASSERT_OK(Execute(raw, sql));
  };
  run("CREATE TABLE somebody_elses (x)");
  EXPECT_THAT(OpenSqliteStore(dir_.path()),
              StatusIs(StatusCode::kFailedPrecondition, "another program"));
  LL_ASSERT_OK(RemoveTree(path));
  LL_EXPECT_OK(OpenSqliteStore(dir_.path()));
  run("PRAGMA user_version = 999");
  EXPECT_THAT(OpenSqliteStore(dir_.path()),
              StatusIs(StatusCode::kFailedPrecondition, "start the newer version"));
}

TEST_F(SqliteStoreTest, TheFolderIsMadePrivate) {
  const std::string inner = dir_.path() + "/a/b";
  LL_ASSERT_OK(OpenSqliteStore(inner));
  struct stat info;
  ASSERT_EQ(stat(inner.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST(NetworkFileSystem, IsToldByItsMagicNumber) {
  EXPECT_TRUE(IsNetworkFileSystem(0x6969));       // NFS
  EXPECT_TRUE(IsNetworkFileSystem(0xff534d42));   // CIFS
  EXPECT_FALSE(IsNetworkFileSystem(0xef53));      // ext4
  EXPECT_FALSE(IsNetworkFileSystem(0x01021994));  // tmpfs
  EXPECT_FALSE(IsNetworkFileSystem(0x58465342));  // XFS
}

// ---- migrations

class MigrationTest : public testing::Test {
 protected:
  MigrationTest() {
    sqlite3* raw = nullptr;
    if (sqlite3_open(":memory:", &raw) != SQLITE_OK) std::abort();
    db_.reset(raw);
  }
  Db db_;
};

// From every earlier version (also the empty file) the newest is reached, and it is the same
// schema.
TEST_F(MigrationTest, EveryEarlierVersionReachesTheNewestSchema) {
  const auto schema = [](sqlite3* db) {
    return QueryText(
        db, "SELECT group_concat(sql, ';') FROM (SELECT sql FROM sqlite_master ORDER BY name)");
  };
  LL_ASSERT_OK(Migrate(db_.get(), AllMigrations()));
  LL_ASSERT_OK_AND_ASSIGN(const std::string newest, schema(db_.get()));
  for (size_t from = 0; from <= AllMigrations().size(); ++from) {
    sqlite3* raw = nullptr;
    ASSERT_EQ(sqlite3_open(":memory:", &raw), SQLITE_OK);
    Db db(raw);
    LL_ASSERT_OK(Migrate(raw, AllMigrations().subspan(0, from)));
    LL_ASSERT_OK(Migrate(raw, AllMigrations()));
    LL_ASSERT_OK_AND_ASSIGN(const std::string reached, schema(raw));
    EXPECT_EQ(reached, newest) << "from version " << from;
  }
}

// A store as the programs before schema 4 left it: rows by the jobs' ids.
class StoreOfSchema3 : public SqliteStoreTest {
 protected:
  void SetUp() override { Run(""); }
  void Run(const std::string& sql) {
    sqlite3* raw = nullptr;
    ASSERT_EQ(sqlite3_open((dir_.path() + "/ll.db").c_str(), &raw), SQLITE_OK);
    const Db db(raw);
    LL_ASSERT_OK_AND_ASSIGN(const int64_t version, QueryInt(raw, "PRAGMA user_version"));
    if (version == 0) {
      LL_ASSERT_OK(Migrate(raw, AllMigrations().subspan(0, 3)));
    }
    LL_ASSERT_OK(Execute(raw, sql));
  }
  // Job number `sequence` with two transitions and a request.
  void PutJobOf(int sequence, const char* id) {
    Job job;
    job.id = JobId(id);
    job.sequence = sequence;
    job.transitions = 2;
    Run(absl::StrCat("INSERT INTO jobs VALUES ('", id, "', ", sequence, ", 2, '", EncodeJob(job),
                     "', x'00ff');INSERT INTO submissions VALUES ('", id, "', x'fe", sequence,
                     "', 'resolved', '');INSERT INTO transitions VALUES ('", id,
                     "', 1, 2000, 2, 1, 'starts'), ('", id,
                     "', 0, 1000, 1, 0, 'submitted');INSERT INTO requests VALUES ('ann', 'r-", id,
                     "', 'hash', '", id, "', ", sequence, ");"));
  }
  int64_t Version() {
    sqlite3* raw = nullptr;
    EXPECT_EQ(sqlite3_open((dir_.path() + "/ll.db").c_str(), &raw), SQLITE_OK);
    const Db db(raw);
    return *QueryInt(raw, "PRAGMA user_version");
  }
};

TEST_F(StoreOfSchema3, OpensWithItsRowsInOrderAndGoesOn) {
  PutJobOf(12, "job-aa");  // against the order of their ids
  PutJobOf(10, "job-zz");
  PutJobOf(11, "job-mm");
  Run("INSERT INTO requests VALUES ('ann', 'gone', 'hash', 'job-deleted', 12)");
  const auto check = [](const StoredState& state) {
    ASSERT_EQ(state.jobs.size(), 3u);
    const std::vector<std::string> ids = {"job-zz", "job-mm", "job-aa"};
    for (size_t i = 0; i < ids.size(); ++i) {
      const Job& job = state.jobs[i];
      EXPECT_EQ(job.id.value(), ids[i]);
      EXPECT_EQ(job.sequence, 10 + static_cast<int64_t>(i));
      EXPECT_EQ(job.result, std::string("\0\xff", 2));
      EXPECT_EQ(job.payload->spec, absl::StrCat("\xfe", std::string(1, static_cast<char>(16 + i))));
      EXPECT_EQ(job.payload->resolved_spec, "resolved");
      ASSERT_EQ(job.history.size(), 2u);
      EXPECT_EQ(job.history[0].reason, "submitted");
      EXPECT_EQ(job.history[1].reason, "starts");
      EXPECT_EQ(job.history[1].epoch, 1);
    }
  };
  LL_ASSERT_OK_AND_ASSIGN(const StoreSnapshot copy, ReadSqlite(dir_.path()));  // as a backup does
  check(copy.state);
  EXPECT_EQ(Version(), 3) << "a backup changed the store";
  LL_ASSERT_OK_AND_ASSIGN(auto store, OpenSqliteStore(dir_.path()));
  EXPECT_EQ(Version(), AllMigrations().back().version);
  LL_ASSERT_OK_AND_ASSIGN(StoredState state, store->LoadAll());
  check(state);
  EXPECT_EQ(state.requests.size(), 4u);
  LL_ASSERT_OK(store->Commit(
      {DeleteJob{JobId("job-mm"), 11}, DeleteRequest{"ann", "gone", absl::FromUnixNanos(12)}}));
  LL_ASSERT_OK(store->Commit(SubmissionRecords(13)));
  LL_ASSERT_OK_AND_ASSIGN(state, store->LoadAll());
  ASSERT_EQ(state.jobs.size(), 3u);
  EXPECT_EQ(state.jobs[1].id, JobId("job-aa"));
  EXPECT_EQ(state.jobs[2].id, JobId("job-13"));
  EXPECT_EQ(state.requests.size(), 4u);
}

// What contradicts itself is not made to look whole.
TEST_F(StoreOfSchema3, IsRefusedAndLeftAloneWhereATransitionHasNoJob) {
  PutJobOf(10, "job-aa");
  Run("INSERT INTO transitions VALUES ('job-lost', 0, 1, 1, 0, 'submitted')");
  EXPECT_THAT(OpenSqliteStore(dir_.path()), StatusIs(StatusCode::kInternal, "schema version 4"));
  EXPECT_EQ(Version(), 3);
}

TEST_F(MigrationTest, AStepKeepsTheRowsAndAFailedOneChangesNothing) {
  const Migration first = {1, "one", "CREATE TABLE t (a); INSERT INTO t VALUES (42);"};
  const Migration second = {2, "two", "ALTER TABLE t ADD COLUMN b DEFAULT 7;"};
  const Migration broken = {3, "three", "CREATE TABLE u (a); CREATE TABLE t (clash);"};
  const std::vector<Migration> one = {first}, two = {first, second},
                               three = {first, second, broken};
  LL_ASSERT_OK(Migrate(db_.get(), one));
  LL_ASSERT_OK(Migrate(db_.get(), two));
  LL_ASSERT_OK_AND_ASSIGN(const int64_t sum, QueryInt(db_.get(), "SELECT a + b FROM t"));
  EXPECT_EQ(sum, 49);
  EXPECT_THAT(Migrate(db_.get(), three),
              StatusIs(StatusCode::kInternal, "schema version 3 (three)"));
  LL_ASSERT_OK_AND_ASSIGN(const int64_t version, QueryInt(db_.get(), "PRAGMA user_version"));
  EXPECT_EQ(version, 2);
  LL_ASSERT_OK_AND_ASSIGN(
      const int64_t left_over,
      QueryInt(db_.get(), "SELECT count(*) FROM sqlite_master WHERE name = 'u'"));
  EXPECT_EQ(left_over, 0);
  EXPECT_THAT(Migrate(db_.get(), one), StatusIs(StatusCode::kFailedPrecondition, "newer version"));
}

}  // namespace
}  // namespace ll
