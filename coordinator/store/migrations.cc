#include "coordinator/store/migrations.h"

#include <sqlite3.h>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/store/sqlite_util.h"

namespace ll {
namespace {

// Rows hold what queries need as columns and the rest as one JSON document (codec.h).
constexpr Migration kMigrations[] = {
    {1, "jobs, requests, workers, registries", R"sql(
      CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
      INSERT INTO meta VALUES ('term', 0);
      CREATE TABLE jobs (
        job_id   TEXT PRIMARY KEY,
        sequence INTEGER NOT NULL UNIQUE,
        state    INTEGER NOT NULL,
        body     TEXT NOT NULL,
        result   BLOB NOT NULL
      );
      CREATE TABLE submissions (
        job_id        TEXT PRIMARY KEY,
        spec          BLOB NOT NULL,
        resolved_spec BLOB NOT NULL,
        forecast      BLOB NOT NULL
      );
      CREATE TABLE transitions (
        job_id  TEXT NOT NULL,
        number  INTEGER NOT NULL,
        time_ns INTEGER NOT NULL,
        state   INTEGER NOT NULL,
        epoch   INTEGER NOT NULL,
        reason  TEXT NOT NULL,
        PRIMARY KEY (job_id, number)
      ) WITHOUT ROWID;
      CREATE TABLE requests (
        user        TEXT NOT NULL,
        request_id  TEXT NOT NULL,
        body_sha256 TEXT NOT NULL,
        job_id      TEXT NOT NULL,
        time_ns     INTEGER NOT NULL,
        PRIMARY KEY (user, request_id)
      ) WITHOUT ROWID;
      CREATE TABLE workers (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
      CREATE TABLE models (
        name        TEXT PRIMARY KEY,
        path        TEXT NOT NULL,
        verified    INTEGER NOT NULL,
        config_json TEXT NOT NULL
      ) WITHOUT ROWID;
      CREATE TABLE data (
        name TEXT PRIMARY KEY, path TEXT NOT NULL, is_default INTEGER NOT NULL
      ) WITHOUT ROWID;
    )sql"},
    {2, "queues", R"sql(
      CREATE TABLE queues (name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
    )sql"},
    {3, "schedules", R"sql(
      CREATE TABLE schedules (
        name          TEXT PRIMARY KEY,
        body          TEXT NOT NULL,
        spec          BLOB NOT NULL,
        resolved_spec BLOB NOT NULL,
        forecast      BLOB NOT NULL
      );
      CREATE TABLE schedule_runs (
        schedule TEXT NOT NULL,
        number   INTEGER NOT NULL,
        body     TEXT NOT NULL,
        PRIMARY KEY (schedule, number)
      ) WITHOUT ROWID;
    )sql"},
    // Rows of new jobs and requests stand at the end of their tables, so that a transaction with
    // several of them writes few pages; a random id would put each into a page of its own.
    {4, "jobs by sequence number, requests by time", R"sql(
      ALTER TABLE jobs RENAME TO jobs_3;
      ALTER TABLE submissions RENAME TO submissions_3;
      ALTER TABLE transitions RENAME TO transitions_3;
      ALTER TABLE requests RENAME TO requests_3;
      CREATE TABLE jobs (
        sequence INTEGER PRIMARY KEY,
        job_id   TEXT NOT NULL,
        state    INTEGER NOT NULL,
        body     TEXT NOT NULL,
        result   BLOB NOT NULL
      );
      CREATE TABLE submissions (
        sequence      INTEGER PRIMARY KEY,
        spec          BLOB NOT NULL,
        resolved_spec BLOB NOT NULL,
        forecast      BLOB NOT NULL
      );
      CREATE TABLE transitions (
        sequence INTEGER NOT NULL,
        number   INTEGER NOT NULL,
        time_ns  INTEGER NOT NULL,
        state    INTEGER NOT NULL,
        epoch    INTEGER NOT NULL,
        reason   TEXT NOT NULL,
        PRIMARY KEY (sequence, number)
      ) WITHOUT ROWID;
      CREATE TABLE requests (
        time_ns     INTEGER NOT NULL,
        user        TEXT NOT NULL,
        request_id  TEXT NOT NULL,
        body_sha256 TEXT NOT NULL,
        job_id      TEXT NOT NULL,
        PRIMARY KEY (time_ns, user, request_id)
      ) WITHOUT ROWID;
      INSERT INTO jobs SELECT sequence, job_id, state, body, result FROM jobs_3 ORDER BY sequence;
      INSERT INTO submissions
        SELECT sequence, spec, resolved_spec, forecast
        FROM jobs_3 JOIN submissions_3 USING (job_id) ORDER BY sequence;
      -- Outer: that of no job has no number, which undoes all and so shows, as at each load.
      INSERT INTO transitions
        SELECT j.sequence, t.number, t.time_ns, t.state, t.epoch, t.reason
        FROM transitions_3 t LEFT JOIN jobs_3 j USING (job_id);
      INSERT INTO requests SELECT time_ns, user, request_id, body_sha256, job_id FROM requests_3;
      DROP TABLE jobs_3;
      DROP TABLE submissions_3;
      DROP TABLE transitions_3;
      DROP TABLE requests_3;
    )sql"},
};

}  // namespace

absl::Span<const Migration> AllMigrations() { return kMigrations; }

absl::Status Migrate(sqlite3* db, absl::Span<const Migration> migrations) {
  LL_ASSIGN_OR_RETURN(const int64_t application_id, QueryInt(db, "PRAGMA application_id"));
  LL_ASSIGN_OR_RETURN(const int64_t version, QueryInt(db, "PRAGMA user_version"));
  LL_ASSIGN_OR_RETURN(const int64_t tables, QueryInt(db, "SELECT count(*) FROM sqlite_master"));
  const bool fresh = application_id == 0 && version == 0 && tables == 0;
  if (!fresh && application_id != kApplicationId) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the database belongs to another program (application id ", application_id, ")"));
  }
  const int newest = migrations.empty() ? 0 : migrations.back().version;
  if (version > newest) {
    return absl::FailedPreconditionError(absl::StrCat("the database has schema version ", version,
                                                      ", this program knows up to ", newest,
                                                      ": start the newer version again"));
  }
  for (const Migration& step : migrations) {
    if (step.version <= version) continue;
    const absl::Status status = Execute(
        db, absl::StrCat("BEGIN IMMEDIATE;", step.sql, ";PRAGMA application_id=", kApplicationId,
                         ";PRAGMA user_version=", step.version, ";COMMIT;"));
    if (!status.ok()) {
      (void)Execute(db, "ROLLBACK");
      return absl::Status(status.code(),
                          absl::StrCat("schema version ", step.version, " (", step.what,
                                       "): ", std::string(status.message())));
    }
  }
  return absl::OkStatus();
}

}  // namespace ll
