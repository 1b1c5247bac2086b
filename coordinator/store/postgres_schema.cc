#include "coordinator/store/postgres_schema.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace ll {
namespace {

// Text that others wrote is bytea: PostgreSQL's text refuses what is not UTF-8. Bodies are this
// program's own JSON (codec.h).
constexpr Migration kMigrations[] = {
    {1, "all of the coordinator's records", R"sql(
      CREATE TABLE jobs (
        job_id   BYTEA PRIMARY KEY,
        sequence BIGINT NOT NULL UNIQUE,
        state    BIGINT NOT NULL,
        body     TEXT NOT NULL,
        result   BYTEA NOT NULL
      );
      CREATE TABLE submissions (
        job_id        BYTEA PRIMARY KEY,
        spec          BYTEA NOT NULL,
        resolved_spec BYTEA NOT NULL,
        forecast      BYTEA NOT NULL
      );
      CREATE TABLE transitions (
        job_id  BYTEA NOT NULL,
        number  BIGINT NOT NULL,
        time_ns BIGINT NOT NULL,
        state   BIGINT NOT NULL,
        epoch   BIGINT NOT NULL,
        reason  BYTEA NOT NULL,
        PRIMARY KEY (job_id, number)
      );
      CREATE TABLE requests (
        user_name   BYTEA NOT NULL,
        request_id  BYTEA NOT NULL,
        body_sha256 BYTEA NOT NULL,
        job_id      BYTEA NOT NULL,
        time_ns     BIGINT NOT NULL,
        PRIMARY KEY (user_name, request_id)
      );
      CREATE TABLE workers (name BYTEA PRIMARY KEY, body TEXT NOT NULL);
      CREATE TABLE models (
        name BYTEA PRIMARY KEY, path BYTEA NOT NULL, verified BIGINT NOT NULL,
        config_json BYTEA NOT NULL
      );
      CREATE TABLE data (name BYTEA PRIMARY KEY, path BYTEA NOT NULL, is_default BIGINT NOT NULL);
      CREATE TABLE queues (name BYTEA PRIMARY KEY, body TEXT NOT NULL);
      CREATE TABLE schedules (
        name BYTEA PRIMARY KEY, body TEXT NOT NULL, spec BYTEA NOT NULL,
        resolved_spec BYTEA NOT NULL, forecast BYTEA NOT NULL
      );
      CREATE TABLE schedule_runs (
        schedule BYTEA NOT NULL, number BIGINT NOT NULL, body TEXT NOT NULL,
        PRIMARY KEY (schedule, number)
      );
    )sql"},
};

// Coordinators that start at the same moment make it once.
constexpr char kPrepare[] = R"sql(
  BEGIN;
  SELECT pg_advisory_xact_lock(1280068162);
  CREATE SCHEMA IF NOT EXISTS ll;
  CREATE TABLE IF NOT EXISTS ll.meta (key TEXT PRIMARY KEY, value BIGINT NOT NULL);
  INSERT INTO ll.meta VALUES ('schema', 0) ON CONFLICT DO NOTHING;
  CREATE TABLE IF NOT EXISTS ll.leader (
    one     BOOLEAN PRIMARY KEY DEFAULT true CHECK (one),
    holder  TEXT NOT NULL,
    address TEXT NOT NULL,
    term    BIGINT NOT NULL,
    expires TIMESTAMPTZ NOT NULL
  );
  INSERT INTO ll.leader VALUES (true, '', '', 0, '-infinity') ON CONFLICT DO NOTHING;
  CREATE OR REPLACE FUNCTION ll.check_leader(wanted_holder TEXT, wanted_term BIGINT) RETURNS void
  LANGUAGE plpgsql AS $$
  BEGIN
    PERFORM 1 FROM ll.leader WHERE holder = wanted_holder AND term = wanted_term FOR SHARE;
    IF NOT FOUND THEN
      RAISE EXCEPTION 'another coordinator leads' USING ERRCODE = 'LL001';
    END IF;
  END $$;
  COMMIT)sql";

}  // namespace

absl::Span<const Migration> PostgresMigrations() { return kMigrations; }

absl::Status PreparePostgres(PgConnection& connection) {
  LL_ASSIGN_OR_RETURN(
      const PgRows there,
      connection.Query(
          "SELECT (to_regprocedure('ll.check_leader(text,bigint)') IS NOT NULL)::int::int8",
          PgParams(), kPgPatience));
  if (there.Int(0, 0) != 0) return absl::OkStatus();
  return connection.Execute(kPrepare, kPgPatience);
}

absl::Status MigratePostgres(PgConnection& connection, absl::Span<const Migration> migrations,
                             const std::string& holder) {
  LL_ASSIGN_OR_RETURN(
      const PgRows found,
      connection.Query("SELECT value FROM meta WHERE key = 'schema'", PgParams(), kPgPatience));
  const int64_t version = found.size() == 1 ? found.Int(0, 0) : 0;
  const int newest = migrations.empty() ? 0 : migrations.back().version;
  if (version > newest) {
    return absl::FailedPreconditionError(absl::StrCat("the database has schema version ", version,
                                                      ", this program knows up to ", newest,
                                                      ": start the newer version again"));
  }
  for (const Migration& step : migrations) {
    if (step.version <= version) continue;
    const absl::Status status = connection.Execute(
        absl::StrCat("BEGIN;SELECT check_leader('", holder, "', (SELECT term FROM leader));",
                     step.sql, ";UPDATE meta SET value = ", step.version,
                     " WHERE key = 'schema';COMMIT"),
        kPgPatience);
    if (!status.ok()) {
      (void)connection.Execute("ROLLBACK", kPgPatience);
      return absl::Status(status.code(),
                          absl::StrCat("schema version ", step.version, " (", step.what,
                                       "): ", std::string(status.message())));
    }
  }
  return absl::OkStatus();
}

}  // namespace ll
