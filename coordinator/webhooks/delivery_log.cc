#include "coordinator/webhooks/delivery_log.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "base/status_macros.h"
#include "coordinator/store/pg_connection.h"
#include "coordinator/store/sqlite_util.h"

namespace ll {
namespace {

constexpr absl::Duration kLogPatience = absl::Seconds(5);
constexpr char kLogApplication[] = "ll-coordinator webhooks";

constexpr char kSqliteTables[] = R"sql(
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = FULL;
  CREATE TABLE IF NOT EXISTS endpoints (
    name TEXT PRIMARY KEY, since_ns INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS done (
    endpoint TEXT NOT NULL, job TEXT NOT NULL, done INTEGER NOT NULL,
    PRIMARY KEY (endpoint, job)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS dead (
    endpoint TEXT NOT NULL, job TEXT NOT NULL, number INTEGER NOT NULL, time_ns INTEGER NOT NULL,
    why TEXT NOT NULL, PRIMARY KEY (endpoint, job, number)) WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS kept (
    endpoint TEXT NOT NULL, job TEXT NOT NULL, number INTEGER NOT NULL, time_ns INTEGER NOT NULL,
    body TEXT NOT NULL, PRIMARY KEY (endpoint, job, number)) WITHOUT ROWID;
)sql";

class SqliteLog : public DeliveryLog {
 public:
  explicit SqliteLog(std::string path) : path_(std::move(path)) {}

  absl::StatusOr<DeliveryState> Load() override {
    absl::MutexLock lock(&mu_);
    DeliveryState out;
    LL_RETURN_IF_ERROR(Rows("SELECT name, since_ns FROM endpoints", [&](const Statement& row) {
      out.since[row.Bytes(0)] = row.TimeNs(1);
    }));
    LL_RETURN_IF_ERROR(Rows("SELECT endpoint, job, done FROM done", [&](const Statement& row) {
      out.done[{row.Bytes(0), row.Bytes(1)}] = row.Int(2);
    }));
    LL_RETURN_IF_ERROR(Rows(
        "SELECT endpoint, job, number, time_ns, body FROM kept ORDER BY endpoint, job, number",
        [&](const Statement& row) {
          out.kept.push_back({row.Bytes(0), row.Bytes(1), row.Int(2), row.TimeNs(3), row.Bytes(4)});
        }));
    return out;
  }
  absl::Status Begin(const std::string& endpoint, absl::Time since) override {
    return Run("INSERT OR IGNORE INTO endpoints VALUES (?1, ?2)", endpoint, since);
  }
  absl::Status Done(const std::string& endpoint, const std::string& job, int64_t done) override {
    LL_RETURN_IF_ERROR(
        Run("INSERT INTO done VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET done = max(done, ?3)",
            endpoint, job, done));
    return Run("DELETE FROM kept WHERE endpoint = ?1 AND job = ?2 AND number < ?3", endpoint, job,
               done);
  }
  absl::Status Bury(const DeadWebhook& dead) override {
    LL_RETURN_IF_ERROR(Run("INSERT OR REPLACE INTO dead VALUES (?1, ?2, ?3, ?4, ?5)", dead.endpoint,
                           dead.job, dead.number, dead.time, dead.why));
    return Run(
        "DELETE FROM dead WHERE (endpoint, job, number) IN (SELECT endpoint, job, number FROM dead "
        "ORDER BY time_ns DESC LIMIT -1 OFFSET ?1)",
        kMostDead);
  }
  absl::Status Keep(const std::vector<KeptWebhook>& kept) override {
    return ForEach("INSERT OR REPLACE INTO kept VALUES (?1, ?2, ?3, ?4, ?5)", kept,
                   [](Statement& put, const KeptWebhook& k) {
                     return put.Run(k.endpoint, k.job, k.number, k.time, k.body);
                   });
  }
  absl::Status Forget(const std::string& endpoint, const std::vector<std::string>& jobs) override {
    return ForEach("DELETE FROM done WHERE endpoint = ?1 AND job = ?2", jobs,
                   [&endpoint](Statement& forget, const std::string& job) {
                     return forget.Run(endpoint, job);
                   });
  }
  absl::StatusOr<std::vector<DeadWebhook>> Dead() override {
    absl::MutexLock lock(&mu_);
    std::vector<DeadWebhook> out;
    LL_RETURN_IF_ERROR(
        Rows("SELECT endpoint, job, number, time_ns, why FROM dead ORDER BY time_ns DESC",
             [&](const Statement& row) {
               out.push_back({row.Bytes(0), row.Bytes(1), row.Int(2), row.TimeNs(3), row.Bytes(4)});
             }));
    return out;
  }

 private:
  template <typename... Args>
  absl::Status Run(absl::string_view sql, const Args&... args) {
    absl::MutexLock lock(&mu_);
    LL_RETURN_IF_ERROR(Open());
    LL_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db_.get(), sql));
    return statement.Run(args...);
  }
  // In one transaction: each of its own would be a sync of the disk.
  template <typename T, typename F>
  absl::Status ForEach(absl::string_view sql, const std::vector<T>& items, F run) {
    absl::MutexLock lock(&mu_);
    LL_RETURN_IF_ERROR(Open());
    LL_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db_.get(), sql));
    LL_RETURN_IF_ERROR(Execute(db_.get(), "BEGIN IMMEDIATE"));
    absl::Status status;
    for (auto item = items.begin(); item != items.end() && status.ok(); ++item)
      status = run(statement, *item);
    if (status.ok()) status = Execute(db_.get(), "COMMIT");
    if (!status.ok()) Execute(db_.get(), "ROLLBACK").IgnoreError();
    return status;
  }
  template <typename F>
  absl::Status Rows(absl::string_view sql, F row) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    LL_RETURN_IF_ERROR(Open());
    LL_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db_.get(), sql));
    while (true) {
      LL_ASSIGN_OR_RETURN(const bool more, statement.Next());
      if (!more) return absl::OkStatus();
      row(statement);
    }
  }

  absl::Status Open() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (db_ != nullptr) return absl::OkStatus();
    sqlite3* raw = nullptr;
    const int opened =
        sqlite3_open_v2(path_.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
    Db db(raw);
    absl::Status status = opened == SQLITE_OK ? Execute(raw, kSqliteTables) : DbStatus(raw, "open");
    if (!status.ok())
      return absl::Status(status.code(), absl::StrCat(path_, ": ", std::string(status.message())));
    sqlite3_busy_timeout(raw, 5000);
    db_ = std::move(db);
    return absl::OkStatus();
  }

  const std::string path_;
  absl::Mutex mu_;
  Db db_ ABSL_GUARDED_BY(mu_);
};

constexpr char kPostgresTables[] = R"sql(
  BEGIN;
  SELECT pg_advisory_xact_lock(1280068163);
  CREATE TABLE IF NOT EXISTS ll.webhook_endpoints (name TEXT PRIMARY KEY, since_ns BIGINT NOT NULL);
  CREATE TABLE IF NOT EXISTS ll.webhook_done (
    endpoint TEXT NOT NULL, job TEXT NOT NULL, done BIGINT NOT NULL, PRIMARY KEY (endpoint, job));
  CREATE TABLE IF NOT EXISTS ll.webhook_dead (
    endpoint TEXT NOT NULL, job TEXT NOT NULL, number BIGINT NOT NULL, time_ns BIGINT NOT NULL,
    why BYTEA NOT NULL, PRIMARY KEY (endpoint, job, number));
  CREATE TABLE IF NOT EXISTS ll.webhook_kept (
    endpoint TEXT NOT NULL, job TEXT NOT NULL, number BIGINT NOT NULL, time_ns BIGINT NOT NULL,
    body BYTEA NOT NULL, PRIMARY KEY (endpoint, job, number));
  COMMIT)sql";

class PostgresLog : public DeliveryLog {
 public:
  explicit PostgresLog(std::string uri) : uri_(std::move(uri)) {}

  absl::StatusOr<DeliveryState> Load() override {
    DeliveryState out;
    LL_ASSIGN_OR_RETURN(const PgRows since,
                        Query("SELECT name, since_ns FROM ll.webhook_endpoints"));
    for (int i = 0; i < since.size(); ++i) out.since[since.Bytes(i, 0)] = since.TimeNs(i, 1);
    LL_ASSIGN_OR_RETURN(const PgRows done,
                        Query("SELECT endpoint, job, done FROM ll.webhook_done"));
    for (int i = 0; i < done.size(); ++i)
      out.done[{done.Bytes(i, 0), done.Bytes(i, 1)}] = done.Int(i, 2);
    LL_ASSIGN_OR_RETURN(const PgRows kept,
                        Query("SELECT endpoint, job, number, time_ns, body FROM ll.webhook_kept "
                              "ORDER BY endpoint, job, number"));
    for (int i = 0; i < kept.size(); ++i) {
      out.kept.push_back({kept.Bytes(i, 0), kept.Bytes(i, 1), kept.Int(i, 2), kept.TimeNs(i, 3),
                          kept.Bytes(i, 4)});
    }
    return out;
  }
  absl::Status Begin(const std::string& endpoint, absl::Time since) override {
    return Query("INSERT INTO ll.webhook_endpoints VALUES ($1, $2) ON CONFLICT DO NOTHING",
                 endpoint, since)
        .status();
  }
  absl::Status Done(const std::string& endpoint, const std::string& job, int64_t done) override {
    LL_RETURN_IF_ERROR(
        Query("INSERT INTO ll.webhook_done VALUES ($1, $2, $3) ON CONFLICT (endpoint, job) DO "
              "UPDATE SET done = greatest(webhook_done.done, $3)",
              endpoint, job, done)
            .status());
    return Query("DELETE FROM ll.webhook_kept WHERE endpoint = $1 AND job = $2 AND number < $3",
                 endpoint, job, done)
        .status();
  }
  absl::Status Bury(const DeadWebhook& dead) override {
    LL_RETURN_IF_ERROR(Query("INSERT INTO ll.webhook_dead VALUES ($1, $2, $3, $4, $5) ON CONFLICT "
                             "(endpoint, job, number) DO UPDATE SET time_ns = $4, why = $5",
                             dead.endpoint, dead.job, dead.number, dead.time, dead.why)
                           .status());
    return Query(
               "DELETE FROM ll.webhook_dead WHERE (endpoint, job, number) IN (SELECT endpoint, "
               "job, number FROM ll.webhook_dead ORDER BY time_ns DESC OFFSET $1)",
               kMostDead)
        .status();
  }
  absl::Status Keep(const std::vector<KeptWebhook>& kept) override {
    absl::MutexLock lock(&mu_);
    LL_RETURN_IF_ERROR(QueryLocked("BEGIN").status());
    for (const KeptWebhook& k : kept) {
      // An error closes the connection, which undoes what came before.
      LL_RETURN_IF_ERROR(QueryLocked("INSERT INTO ll.webhook_kept VALUES ($1, $2, $3, $4, $5) ON "
                                     "CONFLICT (endpoint, job, number) DO NOTHING",
                                     k.endpoint, k.job, k.number, k.time, k.body)
                             .status());
    }
    return QueryLocked("COMMIT").status();
  }
  absl::Status Forget(const std::string& endpoint, const std::vector<std::string>& jobs) override {
    return Query(
               "DELETE FROM ll.webhook_done WHERE endpoint = $1 AND job = "
               "ANY(string_to_array($2, ','))",
               endpoint, absl::StrJoin(jobs, ","))
        .status();
  }
  absl::StatusOr<std::vector<DeadWebhook>> Dead() override {
    std::vector<DeadWebhook> out;
    LL_ASSIGN_OR_RETURN(const PgRows rows, Query("SELECT endpoint, job, number, time_ns, why FROM "
                                                 "ll.webhook_dead ORDER BY time_ns DESC"));
    for (int i = 0; i < rows.size(); ++i) {
      out.push_back({rows.Bytes(i, 0), rows.Bytes(i, 1), rows.Int(i, 2), rows.TimeNs(i, 3),
                     rows.Bytes(i, 4)});
    }
    return out;
  }

 private:
  template <typename... Args>
  absl::StatusOr<PgRows> Query(const char* sql, const Args&... args) {
    absl::MutexLock lock(&mu_);
    return QueryLocked(sql, args...);
  }
  template <typename... Args>
  absl::StatusOr<PgRows> QueryLocked(const char* sql, const Args&... args)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (connection_ == nullptr) {
      LL_ASSIGN_OR_RETURN(auto connection, PgConnection::Open(uri_, kLogApplication, kLogPatience));
      LL_RETURN_IF_ERROR(connection->Execute(kPostgresTables, kLogPatience));
      connection_ = std::move(connection);
    }
    auto rows = connection_->Query(sql, PgParams(args...), kLogPatience);
    if (!rows.ok()) connection_.reset();
    return rows;
  }

  const std::string uri_;
  absl::Mutex mu_;
  std::unique_ptr<PgConnection> connection_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

std::unique_ptr<DeliveryLog> MakeSqliteDeliveryLog(const std::string& path) {
  return std::make_unique<SqliteLog>(path);
}

std::unique_ptr<DeliveryLog> MakePostgresDeliveryLog(const std::string& uri) {
  return std::make_unique<PostgresLog>(uri);
}

}  // namespace ll
