#include "coordinator/store/sqlite_util.h"

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace ll {

absl::Status DbStatus(sqlite3* db, absl::string_view what) {
  const int code = sqlite3_errcode(db);
  const int error = sqlite3_system_errno(db);
  const std::string message = absl::StrCat(std::string(what), ": ", sqlite3_errmsg(db));
  const bool no_space =
      code == SQLITE_IOERR && (error == ENOSPC || error == EDQUOT || error == EFBIG);
  if (code == SQLITE_FULL || no_space) return absl::ResourceExhaustedError(message);
  if (code == SQLITE_CORRUPT || code == SQLITE_NOTADB) return absl::DataLossError(message);
  return absl::InternalError(message);
}

absl::Status Execute(sqlite3* db, const std::string& sql) {
  if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) == SQLITE_OK)
    return absl::OkStatus();
  return DbStatus(db, "database");
}

absl::StatusOr<std::string> QueryText(sqlite3* db, const std::string& sql) {
  LL_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db, sql));
  LL_ASSIGN_OR_RETURN(const bool row, statement.Next());
  if (!row) return absl::NotFoundError(absl::StrCat("no row: ", sql));
  return statement.Bytes(0);
}

absl::StatusOr<int64_t> QueryInt(sqlite3* db, const std::string& sql) {
  LL_ASSIGN_OR_RETURN(Statement statement, Statement::Prepare(db, sql));
  LL_ASSIGN_OR_RETURN(const bool row, statement.Next());
  if (!row) return absl::NotFoundError(absl::StrCat("no row: ", sql));
  return statement.Int(0);
}

absl::StatusOr<Statement> Statement::Prepare(sqlite3* db, absl::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db, sql.data(), static_cast<int>(sql.size()), &statement, nullptr) !=
      SQLITE_OK) {
    return DbStatus(db, "database");
  }
  return Statement(statement);
}

void Statement::Bind(int index, const std::string& value) {
  sqlite3_bind_text(statement_.get(), index, value.data(), static_cast<int>(value.size()),
                    SQLITE_STATIC);
}

void Statement::Bind(int index, Blob value) {
  // A null pointer would bind NULL, not an empty blob.
  const char* data = value.bytes.empty() ? "" : value.bytes.data();
  sqlite3_bind_blob(statement_.get(), index, data, static_cast<int>(value.bytes.size()),
                    SQLITE_STATIC);
}

absl::Status Statement::Finish() {
  const int code = sqlite3_step(statement_.get());
  sqlite3* db = sqlite3_db_handle(statement_.get());
  const absl::Status status =
      code == SQLITE_DONE || code == SQLITE_ROW ? absl::OkStatus() : DbStatus(db, "database");
  sqlite3_reset(statement_.get());
  sqlite3_clear_bindings(statement_.get());
  return status;
}

absl::StatusOr<bool> Statement::Next() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return DbStatus(sqlite3_db_handle(statement_.get()), "database");
}

std::string Statement::Bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  return data == nullptr ? std::string() : std::string(static_cast<const char*>(data), size);
}

}  // namespace ll
