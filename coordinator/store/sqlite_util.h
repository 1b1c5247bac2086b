// The few pieces of SQLite's C interface that the store needs, with Status and ownership.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace ll {

struct CloseDb {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
using Db = std::unique_ptr<sqlite3, CloseDb>;

// The newest error of `db` as a Status: ResourceExhausted for a full disk or quota, DataLoss for a
// damaged file, Internal otherwise.
absl::Status DbStatus(sqlite3* db, absl::string_view what);

// Runs statements that give no rows.
absl::Status Execute(sqlite3* db, const std::string& sql);
// First column of the first row.
absl::StatusOr<int64_t> QueryInt(sqlite3* db, const std::string& sql);
absl::StatusOr<std::string> QueryText(sqlite3* db, const std::string& sql);

// A prepared statement. Text and blobs given to Bind must live until Run or the last Row. Not
// thread-safe.
class Statement {
 public:
  static absl::StatusOr<Statement> Prepare(sqlite3* db, absl::string_view sql);

  // Binds the values to ?1, ?2, …, executes, and is ready for the next use.
  template <typename... Args>
  absl::Status Run(const Args&... args) {
    int index = 0;
    (Bind(++index, args), ...);
    return Finish();
  }
  // True: a row is there. False: no more rows.
  absl::StatusOr<bool> Next();
  int64_t Int(int column) const { return sqlite3_column_int64(statement_.get(), column); }
  std::string Bytes(int column) const;
  absl::Time TimeNs(int column) const { return absl::FromUnixNanos(Int(column)); }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* s) const { sqlite3_finalize(s); }
  };
  struct Blob {
    absl::string_view bytes;
  };
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}
  void Bind(int index, int64_t value) { sqlite3_bind_int64(statement_.get(), index, value); }
  void Bind(int index, int value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, bool value) { Bind(index, static_cast<int64_t>(value)); }
  void Bind(int index, absl::Time value) { Bind(index, absl::ToUnixNanos(value)); }
  void Bind(int index, const std::string& value);
  void Bind(int index, Blob value);
  absl::Status Finish();

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;

 public:
  static Blob AsBlob(const std::string& bytes) { return Blob{bytes}; }
};

}  // namespace ll
