// The database's schema as numbered steps. Version n is what the first n steps make of an empty
// file; a step, once released, is never edited: a change is a new step.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"

struct sqlite3;

namespace ll {

struct Migration {
  int version;       // 1, 2, …
  const char* what;  // for the log
  const char* sql;
};

// All steps of this program.
absl::Span<const Migration> AllMigrations();

// Marks the file as this program's (SQLite's application_id): "LLJB".
inline constexpr int kApplicationId = 0x4c4c4a42;

// Brings `db` to the last version of `migrations`, each step in a transaction of its own together
// with its number. FailedPrecondition: the file belongs to another program or to a newer version of
// this one.
absl::Status Migrate(sqlite3* db, absl::Span<const Migration> migrations);

}  // namespace ll
