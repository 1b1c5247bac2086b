#include "coordinator/store/pg_connection.h"

#include <endian.h>
#include <poll.h>

#include <algorithm>
#include <cstring>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/clock.h"
#include "base/field_error.h"
#include "base/status_macros.h"

namespace ll {
namespace {

constexpr int kBinary = 1;

std::string StatementName(int number) { return absl::StrCat("s", number); }

// libpq's messages have several lines.
std::string Line(absl::string_view text) {
  return absl::StrReplaceAll(absl::StripAsciiWhitespace(text), {{"\n", " "}, {"\t", ""}});
}

absl::StatusCode CodeOf(absl::string_view sql_state) {
  if (sql_state == "53100") return absl::StatusCode::kResourceExhausted;  // disk full
  if (sql_state == kNotLeaderSqlState) return absl::StatusCode::kAborted;
  if (sql_state == "42501" || absl::StartsWith(sql_state, "28"))
    return absl::StatusCode::kPermissionDenied;
  if (sql_state == "3D000" || sql_state == "3F000") return absl::StatusCode::kNotFound;
  // Connections, resources, operator's intervention, locks, a server that only reads: it passes.
  for (const char* passing : {"08", "53", "57", "55", "40", "25006"}) {
    if (absl::StartsWith(sql_state, passing)) return absl::StatusCode::kUnavailable;
  }
  return absl::StatusCode::kInternal;
}

absl::Status ResultError(const PGresult* result) {
  const char* state = PQresultErrorField(result, PG_DIAG_SQLSTATE);
  const char* message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
  if (state == nullptr)  // libpq's own: the connection is gone
    return absl::UnavailableError(absl::StrCat("PostgreSQL: ", Line(PQresultErrorMessage(result))));
  return absl::Status(CodeOf(state), absl::StrCat("PostgreSQL: ", message == nullptr ? "" : message,
                                                  " (SQLSTATE ", state, ")"));
}

struct Arrays {
  explicit Arrays(const PgParams& params) {
    for (const std::string& value : params.values()) {
      values.push_back(value.data());
      lengths.push_back(static_cast<int>(value.size()));
    }
    formats.assign(values.size(), kBinary);
  }
  std::vector<const char*> values;
  std::vector<int> lengths, formats;
};

absl::Duration Deadline(absl::Duration patience) { return RealClock().Steady() + patience; }

}  // namespace

absl::Status CheckPostgresUri(const std::string& uri) {
  char* why = nullptr;
  PQconninfoOption* options = PQconninfoParse(uri.c_str(), &why);
  absl::Cleanup free_them = [&] {
    PQconninfoFree(options);
    PQfreemem(why);
  };
  const std::string hint =
      "as postgresql://USER@HOST:PORT/DATABASE?passfile=FILE, or with a service file";
  if (options == nullptr) {
    return FieldStatus(absl::StatusCode::kInvalidArgument, "store",
                       "expected sqlite or a connection string that libpq understands", hint);
  }
  for (const PQconninfoOption* o = options; o->keyword != nullptr; ++o) {
    const std::string keyword = o->keyword;
    if ((keyword == "password" || keyword == "sslpassword") && o->val != nullptr) {
      return FieldStatus(absl::StatusCode::kInvalidArgument, "store",
                         absl::StrCat("the connection string holds a ", keyword,
                                      ", which everybody on the host can read"),
                         "put it into a passfile (0600) and name that: ?passfile=FILE, PGPASSFILE");
    }
  }
  return absl::OkStatus();
}

void PgParams::Add(int64_t value) {
  const uint64_t big = htobe64(static_cast<uint64_t>(value));
  values_.emplace_back(reinterpret_cast<const char*>(&big), sizeof big);
}

int64_t PgRows::Int(int row, int column) const {
  uint64_t big = 0;
  if (PQgetlength(result_.get(), row, column) != sizeof big) return 0;
  std::memcpy(&big, PQgetvalue(result_.get(), row, column), sizeof big);
  return static_cast<int64_t>(be64toh(big));
}

std::string PgRows::Bytes(int row, int column) const {
  return std::string(PQgetvalue(result_.get(), row, column),
                     static_cast<size_t>(PQgetlength(result_.get(), row, column)));
}

absl::Status PgConnection::ConnectionError(absl::string_view what) const {
  return absl::UnavailableError(
      absl::StrCat("PostgreSQL: ", what, ": ", Line(PQerrorMessage(connection_.get()))));
}

absl::Status PgConnection::Wait(absl::Duration deadline) {
  const int unsent = PQflush(connection_.get());
  if (unsent < 0) return ConnectionError("cannot send");
  pollfd fd{PQsocket(connection_.get()), static_cast<short>(POLLIN | (unsent > 0 ? POLLOUT : 0)),
            0};
  const absl::Duration left = deadline - RealClock().Steady();
  if (left <= absl::ZeroDuration())
    return absl::UnavailableError("PostgreSQL: no answer within the time that it is given");
  const int ready = poll(&fd, 1, static_cast<int>(absl::ToInt64Milliseconds(left) + 1));
  if (ready < 0 && errno != EINTR) return ConnectionError("poll");
  if (ready > 0 && (fd.revents & ~POLLOUT) != 0 && PQconsumeInput(connection_.get()) == 0)
    return ConnectionError("the connection is lost");
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<PgConnection>> PgConnection::Open(const std::string& uri,
                                                                 const std::string& application,
                                                                 absl::Duration patience) {
  const absl::Duration deadline = Deadline(patience);
  // What stands before the URI is only a default; what follows it always holds.
  const char* keywords[] = {"target_session_attrs", "keepalives_idle",  "keepalives_interval",
                            "keepalives_count",     "tcp_user_timeout", "dbname",
                            "application_name",     "client_encoding",  nullptr};
  const char* values[] = {"read-write",        "5",    "2",    "3", "5000", uri.c_str(),
                          application.c_str(), "UTF8", nullptr};
  std::unique_ptr<PgConnection> out(
      new PgConnection(PQconnectStartParams(keywords, values, /*expand_dbname=*/1)));
  PGconn* raw = out->connection_.get();
  if (raw == nullptr) return absl::ResourceExhaustedError("out of memory");
  PostgresPollingStatusType state = PGRES_POLLING_WRITING;
  while (state != PGRES_POLLING_OK) {
    if (PQstatus(raw) == CONNECTION_BAD || state == PGRES_POLLING_FAILED)
      return out->ConnectionError("cannot connect");
    const absl::Duration left = deadline - RealClock().Steady();
    if (left <= absl::ZeroDuration())
      return absl::UnavailableError("PostgreSQL: cannot connect: no answer in time");
    pollfd fd{PQsocket(raw), static_cast<short>(state == PGRES_POLLING_WRITING ? POLLOUT : POLLIN),
              0};
    if (poll(&fd, 1, static_cast<int>(absl::ToInt64Milliseconds(left) + 1)) > 0)
      state = PQconnectPoll(raw);
  }
  PQsetnonblocking(raw, 1);
  // Errors only: notices would go to stderr.
  PQsetNoticeProcessor(
      raw, [](void*, const char*) {}, nullptr);
  LL_RETURN_IF_ERROR(
      out->Execute("SET synchronous_commit = on; SET search_path = ll; SET lock_timeout = '2s'; "
                   "SET statement_timeout = '10s'; SET idle_in_transaction_session_timeout = '10s'",
                   std::max(deadline - RealClock().Steady(), absl::Milliseconds(50))));
  return out;
}

absl::StatusOr<PgRows> PgConnection::Collect(bool pipeline, absl::Duration deadline) {
  PGconn* raw = connection_.get();
  absl::Status error;
  PgRows rows(nullptr);
  int ends = 0;
  while (true) {
    while (PQisBusy(raw) != 0) LL_RETURN_IF_ERROR(Wait(deadline));
    PGresult* result = PQgetResult(raw);
    if (result == nullptr) {
      if (!pipeline) break;
      // One stands between any two statements.
      if (PQstatus(raw) == CONNECTION_BAD || ++ends > 2)
        return ConnectionError("the connection is lost");
      continue;
    }
    ends = 0;
    PgRows taken(result);
    switch (PQresultStatus(result)) {
      case PGRES_COMMAND_OK:
      case PGRES_TUPLES_OK:
        rows = std::move(taken);
        break;
      case PGRES_PIPELINE_SYNC:
        if (!error.ok()) return error;
        return rows;
      case PGRES_PIPELINE_ABORTED:
        break;
      default:
        if (error.ok()) error = ResultError(result);
    }
  }
  if (PQstatus(raw) == CONNECTION_BAD && error.ok())
    return ConnectionError("the connection is lost");
  if (!error.ok()) return error;
  return rows;
}

absl::Status PgConnection::Execute(const std::string& sql, absl::Duration patience) {
  if (PQsendQuery(connection_.get(), sql.c_str()) == 0) return ConnectionError("cannot send");
  return Collect(/*pipeline=*/false, Deadline(patience)).status();
}

absl::StatusOr<PgRows> PgConnection::Query(const char* sql, const PgParams& params,
                                           absl::Duration patience) {
  const Arrays a(params);
  if (PQsendQueryParams(connection_.get(), sql, static_cast<int>(a.values.size()), nullptr,
                        a.values.data(), a.lengths.data(), a.formats.data(), kBinary) == 0) {
    return ConnectionError("cannot send");
  }
  return Collect(/*pipeline=*/false, Deadline(patience));
}

absl::Status PgConnection::Prepare(absl::Span<const char* const> sql, absl::Duration patience) {
  for (size_t i = 0; i < sql.size(); ++i) {
    const std::string name = StatementName(static_cast<int>(i));
    if (PQsendPrepare(connection_.get(), name.c_str(), sql[i], 0, nullptr) == 0)
      return ConnectionError("cannot send");
    LL_RETURN_IF_ERROR(Collect(/*pipeline=*/false, Deadline(patience)).status());
  }
  return absl::OkStatus();
}

absl::Status PgConnection::Transaction(absl::Span<const PgStatement> statements,
                                       absl::Duration patience, bool* undone) {
  *undone = false;
  PGconn* raw = connection_.get();
  const absl::Duration deadline = Deadline(patience);
  const auto send = [raw](const char* sql) {
    return PQsendQueryParams(raw, sql, 0, nullptr, nullptr, nullptr, nullptr, kBinary) != 0;
  };
  bool sent = PQenterPipelineMode(raw) != 0 && send("BEGIN");
  for (const PgStatement& statement : statements) {
    const Arrays a(statement.params);
    sent = sent && PQsendQueryPrepared(raw, StatementName(statement.prepared).c_str(),
                                       static_cast<int>(a.values.size()), a.values.data(),
                                       a.lengths.data(), a.formats.data(), kBinary) != 0;
  }
  sent = sent && send("COMMIT") && PQpipelineSync(raw) != 0;
  if (!sent) return ConnectionError("cannot send");
  const absl::StatusOr<PgRows> last = Collect(/*pipeline=*/true, deadline);
  if (PQexitPipelineMode(raw) == 0 && last.ok()) return ConnectionError("the connection is lost");
  // A server may answer COMMIT of a failed transaction with ROLLBACK.
  if (last.ok())
    return last->tag() == "COMMIT" ? absl::OkStatus()
                                   : absl::InternalError("PostgreSQL: not committed");
  if (PQstatus(raw) != CONNECTION_OK) return last.status();
  switch (PQtransactionStatus(raw)) {
    case PQTRANS_IDLE:  // COMMIT itself failed
      break;
    case PQTRANS_INERROR:  // one of the statements did, so COMMIT was never run
      *undone = Execute("ROLLBACK", patience).ok();
      break;
    default:
      break;
  }
  return last.status();
}

std::string PgConnection::server_version() const {
  const char* version = PQparameterStatus(connection_.get(), "server_version");
  const std::string text = version == nullptr ? "" : version;
  return text.substr(0, text.find(' '));
}

std::string PgConnection::place() const {
  return absl::StrCat(PQhost(connection_.get()), "/", PQdb(connection_.get()));
}

}  // namespace ll
