// The PostgreSQL schema as numbered steps, and the row that says who leads.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "coordinator/store/migrations.h"
#include "coordinator/store/pg_connection.h"

namespace ll {

inline constexpr absl::Duration kPgPatience = absl::Seconds(5);

// As AllMigrations, for PostgreSQL; numbers of their own.
absl::Span<const Migration> PostgresMigrations();

// Makes the schema with the leader's row where they are missing. Any coordinator may.
absl::Status PreparePostgres(PgConnection& connection);

// Brings the schema up to date, each step in a transaction of its own that also checks that
// `holder` leads. FailedPrecondition: a newer version's.
absl::Status MigratePostgres(PgConnection& connection, absl::Span<const Migration> migrations,
                             const std::string& holder);

}  // namespace ll
