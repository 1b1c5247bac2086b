// The store that several coordinators share: a PostgreSQL database, schema `ll`. The one that holds
// the lease (leadership.h) writes.
//
// Every transaction ends with a look at the row ll.leader, locked against change: it commits only
// while this coordinator is the holder and the term is the one this store raised. Whoever takes
// over first ends what an earlier opener has under way, then raises the term: after that nothing of
// an earlier one can be committed any more.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "coordinator/store/lease.h"
#include "coordinator/store/store.h"

namespace ll {

struct PostgresOptions {
  std::string uri;     // of libpq, without password (CheckPostgresUri)
  std::string holder;  // this process's name in the lease; random
  // As Store::Check; null: always OK.
  std::function<absl::Status()> check;
};

// Makes the schema or brings it up to date, as the lease's holder. Errors: Unavailable (no server,
// or another coordinator leads: Aborted), FailedPrecondition (the schema is of a newer version),
// PermissionDenied.
absl::StatusOr<std::unique_ptr<Store>> OpenPostgresStore(const PostgresOptions& options);

// The lease in that database; connects with the first question. `length` as LeaseOptions's.
std::unique_ptr<LeaseTable> MakePostgresLease(const PostgresOptions& options,
                                              absl::Duration length);

// Everything at one moment, beside a coordinator that goes on writing.
absl::StatusOr<StoreSnapshot> ReadPostgres(const std::string& uri);

}  // namespace ll
