// What PostgreSQL adds: several coordinators, and a server that comes and goes.
#include "coordinator/store/postgres_store.h"

#include "base/fake_clock.h"
#include "base/field_error.h"
#include "base/leader_error.h"
#include "base/status_matchers.h"
#include "coordinator/store/leadership.h"
#include "coordinator/store/postgres_for_test.h"
#include "coordinator/store/postgres_schema.h"
#include "coordinator/store/store_testing.h"

namespace ll {
namespace {

using absl::StatusCode;

class PostgresStoreTest : public testing::Test {
 protected:
  PostgresStoreTest() { server_.Wipe(); }
  PostgresOptions OptionsOf(const std::string& holder) {
    return {.uri = server_.uri(), .holder = holder};
  }
  // Holds the lease as `holder` until it is given up.
  void Lead(const std::string& holder, absl::Duration length = absl::Hours(1)) {
    LL_ASSERT_OK_AND_ASSIGN(const LeaseAnswer answer,
                            MakePostgresLease(OptionsOf(holder), length)->Ask(holder + ":1"));
    ASSERT_TRUE(answer.mine) << answer.address;
  }
  std::unique_ptr<Store> Open(const std::string& holder) {
    auto store = OpenPostgresStore(OptionsOf(holder));
    EXPECT_THAT(store, IsOk());
    EXPECT_THAT((*store)->RaiseTerm(), IsOk());
    return *std::move(store);
  }
  size_t Jobs() {
    auto read = ReadPostgres(server_.uri());
    EXPECT_THAT(read, IsOk());
    return read->state.jobs.size();
  }

  PostgresForTest& server_ = PostgresForTest::Get();
};

TEST_F(PostgresStoreTest, OneHoldsTheLeaseUntilItEndsOrIsGivenUp) {
  const auto a = MakePostgresLease(OptionsOf("a"), absl::Minutes(5));
  const auto b = MakePostgresLease(OptionsOf("b"), absl::Minutes(5));
  EXPECT_TRUE(a->Ask("a:1")->mine);
  EXPECT_TRUE(a->Ask("a:1")->mine) << "renewed";
  LL_ASSERT_OK_AND_ASSIGN(const LeaseAnswer other, b->Ask("b:1"));
  EXPECT_FALSE(other.mine);
  EXPECT_EQ(other.address, "a:1");
  EXPECT_GT(other.ends_in, absl::Minutes(4));
  EXPECT_LE(other.ends_in, absl::Minutes(5));
  server_.Do("UPDATE ll.leader SET expires = expires - interval '5 minutes'");  // they have passed
  EXPECT_TRUE(b->Ask("b:1")->mine);
  EXPECT_FALSE(a->Ask("a:1")->mine);
  b->Release();
  EXPECT_TRUE(a->Ask("a:1")->mine);
}

// The holder is written over behind the store's back: nothing but the look inside the transaction
// can notice.
TEST_F(PostgresStoreTest, EveryTransactionChecksWhoLeads) {
  Lead("a");
  auto store = Open("a");
  LL_ASSERT_OK(store->Commit(SubmissionRecords(1)));
  server_.Do("UPDATE ll.leader SET holder = 'b'");
  const absl::Status fenced = store->Commit(SubmissionRecords(2));
  EXPECT_THAT(fenced, StatusIs(StatusCode::kUnavailable, "no coordinator leads"));
  EXPECT_FALSE(ErrorLeader(fenced).empty());
  server_.Do("UPDATE ll.leader SET holder = 'a'");
  EXPECT_FALSE(store->Commit(SubmissionRecords(3)).ok()) << "it has been told once";
  EXPECT_FALSE(store->LoadAll().ok());
  EXPECT_EQ(Jobs(), 1u);
}

TEST_F(PostgresStoreTest, AHigherTermRefusesTheLowerOnesWrites) {
  Lead("a");
  auto store = Open("a");
  LL_ASSERT_OK(store->Commit(SubmissionRecords(1)));
  server_.Do("UPDATE ll.leader SET term = term + 1");
  EXPECT_THAT(store->Commit(SubmissionRecords(2)), StatusIs(StatusCode::kUnavailable, ""));
  EXPECT_EQ(Jobs(), 1u);
}

TEST_F(PostgresStoreTest, WhoDoesNotLeadNeitherMigratesNorRaisesTheTerm) {
  Lead("a");
  LL_ASSERT_OK(OpenPostgresStore(OptionsOf("a")).status());
  const auto other = OpenPostgresStore(OptionsOf("b"));
  if (other.ok()) {
    EXPECT_FALSE((*other)->RaiseTerm().ok());
  }
  server_.Wipe();
  Lead("a");
  EXPECT_FALSE(OpenPostgresStore(OptionsOf("b")).ok());
  EXPECT_FALSE(server_.Connect()->Execute("SELECT 1 FROM ll.jobs", absl::Seconds(5)).ok());
}

// A leader was stopped in the middle of a transaction: its server process still holds rows. Whoever
// takes over does not wait for it, and nothing of it appears later.
TEST_F(PostgresStoreTest, ATransactionLeftUnderWayIsEnded) {
  Lead("a");
  auto store = Open("a");
  LL_ASSERT_OK(store->Commit(SubmissionRecords(1)));
  auto stuck = PgConnection::Open(server_.uri(), "ll-coordinator store", absl::Seconds(5));
  LL_ASSERT_OK(stuck);
  LL_ASSERT_OK((*stuck)->Execute(
      "BEGIN; UPDATE jobs SET state = 99; SELECT check_leader('a', (SELECT term FROM leader))",
      absl::Seconds(5)));
  auto b = OpenPostgresStore(OptionsOf("a"));  // the holder opens anew, as after a take-over
  LL_ASSERT_OK(b);
  LL_ASSERT_OK((*b)->RaiseTerm().status());
  EXPECT_FALSE((*stuck)->Execute("COMMIT", absl::Seconds(5)).ok());
  LL_ASSERT_OK((*b)->Commit(SubmissionRecords(2)));
  LL_ASSERT_OK_AND_ASSIGN(const StoredState state, (*b)->LoadAll());
  ASSERT_EQ(state.jobs.size(), 2u);
  EXPECT_NE(static_cast<int>(state.jobs[0].state), 99);
}

// After an error nobody knows what is in; opened again the store tells.
TEST_F(PostgresStoreTest, AServerThatDiesPoisonsTheStoreUntilItIsOpenedAgain) {
  Lead("a");
  auto store = Open("a");
  LL_ASSERT_OK(store->Commit(SubmissionRecords(1)));
  server_.Kill();
  EXPECT_THAT(store->Commit(SubmissionRecords(2)),
              StatusIs(StatusCode::kUnavailable, "PostgreSQL"));
  EXPECT_THAT(OpenPostgresStore(OptionsOf("a")), StatusIs(StatusCode::kUnavailable, "PostgreSQL"));
  const auto lease = MakePostgresLease(OptionsOf("a"), absl::Seconds(1));
  EXPECT_THAT(lease->Ask("a:1"), StatusIs(StatusCode::kUnavailable, "PostgreSQL"));
  server_.Start();
  EXPECT_FALSE(store->Commit(SubmissionRecords(3)).ok());
  EXPECT_TRUE(lease->Ask("a:1")->mine);
  store = Open("a");
  LL_EXPECT_OK(store->Commit(SubmissionRecords(4)));
  EXPECT_EQ(Jobs(), 2u);
}

TEST_F(PostgresStoreTest, AFailedStatementUndoesItsWholeTransaction) {
  Lead("a");
  auto store = Open("a");
  std::vector<Record> records = SubmissionRecords(1);
  Job clash = std::get<PutJob>(SubmissionRecords(2).back()).job;
  clash.sequence = 1;  // taken
  records.push_back(PutJob{clash});
  EXPECT_THAT(store->Commit(records), StatusIs(StatusCode::kInternal, "23505"));
  EXPECT_FALSE(store->Commit(SubmissionRecords(3)).ok()) << "a store that failed must not go on";
  EXPECT_EQ(Jobs(), 0u);
}

// A batch larger than all of the socket's buffers, in both directions.
TEST_F(PostgresStoreTest, ALargeTransactionDoesNotBlock) {
  Lead("a");
  auto store = Open("a");
  std::vector<Record> records;
  for (int i = 1; i <= 2000; ++i) {
    for (Record& record : SubmissionRecords(i, 2000)) records.push_back(std::move(record));
  }
  LL_ASSERT_OK(store->Commit(records));
  EXPECT_EQ(Jobs(), 2000u);
}

TEST_F(PostgresStoreTest, EveryEarlierVersionReachesTheNewestSchemaAndANewerOneIsRefused) {
  Lead("a");
  LL_ASSERT_OK(OpenPostgresStore(OptionsOf("a")).status());
  server_.Do("UPDATE ll.meta SET value = 999");
  EXPECT_THAT(OpenPostgresStore(OptionsOf("a")),
              StatusIs(StatusCode::kFailedPrecondition, "start the newer version"));
  const auto schema = [this] {
    auto rows = server_.Connect()->Query(
        "SELECT string_agg(table_name || '.' || column_name || ' ' || data_type, ';' ORDER BY "
        "table_name, ordinal_position) FROM information_schema.columns WHERE table_schema = 'll'",
        PgParams(), absl::Seconds(5));
    EXPECT_THAT(rows, IsOk());
    return rows->Bytes(0, 0);
  };
  const std::string newest = schema();
  for (size_t from = 0; from <= PostgresMigrations().size(); ++from) {
    server_.Wipe();
    Lead("a");
    auto db = server_.Connect();
    LL_ASSERT_OK(MigratePostgres(*db, PostgresMigrations().subspan(0, from), "a"));
    LL_ASSERT_OK(MigratePostgres(*db, PostgresMigrations(), "a"));
    EXPECT_EQ(schema(), newest) << "from version " << from;
  }
  const Migration broken = {1000, "broken", "CREATE TABLE u (a INT); CREATE TABLE jobs (a INT)"};
  EXPECT_THAT(MigratePostgres(*server_.Connect(), {&broken, 1}, "a"),
              StatusIs(StatusCode::kInternal, "schema version 1000 (broken)"));
  EXPECT_FALSE(server_.Connect()->Execute("SELECT 1 FROM ll.u", absl::Seconds(5)).ok());
}

TEST(PostgresUri, HoldsNoPasswordAndIsNotRepeated) {
  LL_EXPECT_OK(CheckPostgresUri("postgresql://ll@db/ll?passfile=/etc/ll/pgpass"));
  LL_EXPECT_OK(CheckPostgresUri("postgresql://db1,db2/ll?service=ll"));
  for (const char* uri :
       {"postgresql://ll:hunter2@db/ll", "postgresql://db/ll?password=hunter2",
        "postgresql://db/ll?sslpassword=hunter2", "postgresql://ll:hunter2@db/%zz"}) {
    const absl::Status refused = CheckPostgresUri(uri);
    EXPECT_THAT(refused, StatusIs(StatusCode::kInvalidArgument, "store"));
    EXPECT_EQ(ErrorField(refused), "store");
    EXPECT_EQ(refused.message().find("hunter2"), std::string::npos) << refused;
  }
}

}  // namespace
}  // namespace ll
