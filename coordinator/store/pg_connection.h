// One connection to PostgreSQL through libpq, with Status, ownership and deadlines: nothing here
// waits for ever, whatever the network or the server does.
//
// Values travel in PostgreSQL's binary formats: bigint and bytea or text. Messages name the server
// and the database, never the connection string.
#pragma once

#include <libpq-fe.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"

namespace ll {

// The SQLSTATE with which the database's own function refuses who does not lead (postgres_lease.h).
inline constexpr char kNotLeaderSqlState[] = "LL001";

// Whether libpq understands the URI and it holds no password, which every user of the host could
// read in the process list. Errors (field "store") never repeat it.
absl::Status CheckPostgresUri(const std::string& uri);

// The values of $1, $2, … of one statement.
class PgParams {
 public:
  PgParams() = default;
  template <typename... Args>
  explicit PgParams(const Args&... args) {
    (Add(args), ...);
  }
  void Add(int64_t value);
  void Add(int value) { Add(static_cast<int64_t>(value)); }
  void Add(bool value) { Add(static_cast<int64_t>(value)); }
  void Add(absl::Time value) { Add(absl::ToUnixNanos(value)); }
  void Add(absl::string_view bytes) { values_.emplace_back(bytes); }
  void Add(const std::string& bytes) { values_.push_back(bytes); }
  void Add(const char* bytes) { values_.emplace_back(bytes); }
  const std::vector<std::string>& values() const { return values_; }

 private:
  std::vector<std::string> values_;
};

struct PgStatement {
  int prepared = 0;  // number of PgConnection::Prepare
  PgParams params;
};

// The rows of an answer.
class PgRows {
 public:
  explicit PgRows(PGresult* result) : result_(result) {}
  int size() const { return PQntuples(result_.get()); }
  int64_t Int(int row, int column) const;
  std::string Bytes(int row, int column) const;
  absl::Time TimeNs(int row, int column) const { return absl::FromUnixNanos(Int(row, column)); }
  // "COMMIT", "UPDATE 1", …
  std::string tag() const { return PQcmdStatus(result_.get()); }

 private:
  struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
  };
  std::unique_ptr<PGresult, Clear> result_;
};

// Not thread-safe. After Unavailable or DeadlineExceeded the connection may be of no more use.
class PgConnection {
 public:
  // Connects within `patience` (resolving a name is the system's and may take longer).
  // `application` is what pg_stat_activity shows.
  static absl::StatusOr<std::unique_ptr<PgConnection>> Open(const std::string& uri,
                                                            const std::string& application,
                                                            absl::Duration patience);

  // Statements without values, separated by semicolons; one transaction unless they say otherwise.
  absl::Status Execute(const std::string& sql, absl::Duration patience);
  absl::StatusOr<PgRows> Query(const char* sql, const PgParams& params, absl::Duration patience);

  // Prepares statements 0, 1, ….
  absl::Status Prepare(absl::Span<const char* const> sql, absl::Duration patience);
  // BEGIN, the statements and COMMIT, sent in one go. OK: committed.
  // `undone`: the error is certain to have undone all of it and the connection is good.
  absl::Status Transaction(absl::Span<const PgStatement> statements, absl::Duration patience,
                           bool* undone);

  // "15.18".
  std::string server_version() const;
  // "HOST/DATABASE", for people.
  std::string place() const;

 private:
  struct Close {
    void operator()(PGconn* connection) const { PQfinish(connection); }
  };
  explicit PgConnection(PGconn* connection) : connection_(connection) {}
  // Waits until the socket has something (or takes something, where output waits).
  absl::Status Wait(absl::Duration deadline);
  // Takes results until `end` is seen; the first error of them wins.
  absl::StatusOr<PgRows> Collect(bool pipeline, absl::Duration deadline);
  absl::Status ConnectionError(absl::string_view what) const;

  std::unique_ptr<PGconn, Close> connection_;
};

}  // namespace ll
